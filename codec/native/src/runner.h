// Runs a model's networks on parts of a picture: by the core, or by the caller's runner.
#pragma once

#include "model.h"

namespace pocketlic {

// As `run` of network.h; whatever runs them.
bool run(const plic_model& model, NetworkIndex index, Workspace& workspace, int32_t height, int32_t width,
         const View* inputs, const Region* wanted, const View* outputs);

// Runs a network, all of whose outputs have one grid, on a region of them, part by part, into `outputs`, which
// cover it. False without memory.
bool run_parts(const plic_model& model, NetworkIndex index, Workspace& workspace, int32_t height, int32_t width,
               const View* inputs, const Region& region, const View* outputs);

// The side, in latents, of what networks compute at a time: less where a caller's runner has tiles of a fixed size.
inline int32_t part_of(const plic_model& model) { return model.runner_tile > 0 ? 16 : 128; }

}  // namespace pocketlic

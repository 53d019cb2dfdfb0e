#include "parameters.h"

namespace pocketlic {

Region Parameters::around(const Region& region) const {
    Region regions[kMaxTensors];
    plan(picture_.model.networks[kContext], picture_.lh, picture_.lw, &region, regions);
    Region all = region;
    all.join(regions[0]);
    all.join(regions[1]);
    return all;
}

bool Parameters::hyper(const Region& region) {
    const plic_model& model = picture_.model;
    const Network& network = model.networks[kHyperSynthesis];
    const int32_t channels = network.tensors[network.outputs[0]].spec.channels;
    if (!view(features_, region, channels, features) || !view(means_, region, model.latents, means) ||
        !view(log2_steps_, region, model.latents, log2_steps))
        return false;
    const View z = {picture_.z.data(), {0, 0, picture_.zh, picture_.zw}, model.hypers};
    const View made[3] = {features, means, log2_steps};
    return run_parts(model, kHyperSynthesis, workspace_, picture_.zh, picture_.zw, &z, region, made);
}

bool Parameters::run_context(const Region& region) {
    if (!view(context_means_, region, picture_.model.latents, context_means)) return false;
    const View inputs[2] = {features, anchors};
    return run_parts(picture_.model, kContext, workspace_, picture_.lh, picture_.lw, inputs, region, &context_means);
}

}  // namespace pocketlic

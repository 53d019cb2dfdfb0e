// From symbols to a file.
#pragma once

#include "table_indices.h"

namespace pocketlic {

// The file of a picture's z and of these symbols of y and details. T: int16_t or int32_t; those of y are within the
// coder's range. The file is malloc'ed, and no part of the picture's memory.
template <typename T>
plic_status write_file(Picture& picture, const T* y, const T* details, uint8_t** file, size_t* file_size,
                       plic_error* error);

}  // namespace pocketlic

#pragma once

#include <cstdint>

#include "resrt/engine.h"

namespace resrt::tensorrt {

// TensorRTOptions::workspace is in these.
inline constexpr int64_t kMebibyte = 1 << 20;

// Throw InputError, or PrecisionError where the precision is at fault, for options that this
// flavour of TensorRT does not have and for values out of range.
void check_options(const BuildOptions& options);
void check_options(const LoadOptions& options);

}  // namespace resrt::tensorrt

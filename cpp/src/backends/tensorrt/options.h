#pragma once

#include <cstdint>

#include "resrt/engine.h"

namespace resrt::tensorrt {

// The unit of TensorRTOptions::workspace.
inline constexpr int64_t kMebibyte = 1 << 20;

// Throw InputError for options that this flavour of TensorRT does not support and for values out of
// range, or PrecisionError if the reason is the precision.
void check_options(const BuildOptions& options);
void check_options(const LoadOptions& options);

}  // namespace resrt::tensorrt

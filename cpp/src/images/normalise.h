#pragma once

#include <array>

#include "resrt/images.h"

namespace resrt {

// Returns the normalised value of each of the 256 pixel values, in the source's order of
// operations.
std::array<float, 256> normalised(float mean, float std, Pipeline pipeline);

}  // namespace resrt

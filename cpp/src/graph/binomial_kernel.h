#pragma once

#include <array>

namespace resrt {

// The weights of BlurPool2d, [1 2 1] / 4 along both axes, row by row.
inline constexpr std::array<float, 9> kBinomialKernel = {0.0625F, 0.125F,  0.0625F, 0.125F, 0.25F,
                                                         0.125F,  0.0625F, 0.125F,  0.0625F};

}  // namespace resrt

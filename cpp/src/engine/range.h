#pragma once

#include <bit>
#include <cstdint>
#include <limits>

#include "resrt/engine.h"

namespace resrt {

// Returns the smallest magnitude that becomes infinite in a precision. int8 and fp8 have ranges of
// their own, and saturate.
inline float overflow_of(Precision precision) {
  // Halfway between the largest value and the next one that an exponent without end would give.
  constexpr float fp16 = 65520.0F;
  constexpr uint32_t bf16 = 0x7F7F8000U;
  if (precision == Precision::fp16) return fp16;
  if (precision == Precision::bf16) return std::bit_cast<float>(bf16);
  return std::numeric_limits<float>::infinity();
}

// Returns whether all magnitudes are below a positive limit; NaN is not. Without their signs,
// floats are in the order of their bits, so that adding what the limit's bits lack to 2^31 carries
// into the sign bit. This loop over integers is one that compilers vectorise.
inline bool all_below(const float* values, int64_t count, float limit) {
  constexpr uint32_t sign = 0x80000000U;
  const uint32_t lack = sign - std::bit_cast<uint32_t>(limit);
  uint32_t carried = 0;
  for (int64_t i = 0; i < count; ++i) {
    carried |= (std::bit_cast<uint32_t>(values[i]) & ~sign) + lack;
  }
  return (carried & sign) == 0;
}

}  // namespace resrt

#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace resrt {

// The number of intervals that counts tell apart: all values with the same sign, exponent and first
// seven bits of the mantissa are in one. Interval i has the values whose 16 upper bits are i, so
// that it is less than a hundredth wide, of any values, and counts of different images add up.
inline constexpr size_t kValueIntervals = size_t{1} << 16U;

// Adds the number of the values in each interval to `counts`, which has kValueIntervals elements.
void count_values(std::span<const float> values, std::span<uint64_t> counts);

}  // namespace resrt

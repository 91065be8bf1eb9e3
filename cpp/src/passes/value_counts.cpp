#include "passes/value_counts.h"

#include <bit>

namespace resrt {

void count_values(std::span<const float> values, std::span<uint64_t> counts) {
  for (const float value : values) ++counts[std::bit_cast<uint32_t>(value) >> 16U];
}

}  // namespace resrt

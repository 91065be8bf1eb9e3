#pragma once

#include <cstddef>
#include <vector>

namespace resrt {

// Returns a percentile by nearest rank: the smallest value that at least `percent` % of the values
// do not exceed. `sorted` has at least one value, `percent` is from 1 to 100. Python's Timing uses
// the same definition.
inline double percentile(const std::vector<double>& sorted, size_t percent) {
  const size_t rank = (percent * sorted.size() + 99) / 100;  // from 1, rounded up
  return sorted[rank - 1];
}

}  // namespace resrt

#pragma once

#include <cstddef>
#include <vector>

namespace resrt {

// The least of the values that `percent` in a hundred of them do not exceed: by nearest rank, so it
// is one of the values. They are sorted and at least one; the percent is from 1 to 100. Python's
// resrt.timing has the same.
inline double percentile(const std::vector<double>& sorted, size_t percent) {
  const size_t rank = (percent * sorted.size() + 99) / 100;  // from 1, rounded up
  return sorted[rank - 1];
}

}  // namespace resrt

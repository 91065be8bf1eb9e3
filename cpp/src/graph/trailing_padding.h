#pragma once

#include <algorithm>

#include "resrt/graph.h"

namespace resrt {

// Returns the padding that a pooling with `positions` windows needs at the end of an axis of
// `size`: its own padding or, if the last window extends further (ceil_mode), as much as that
// window needs. The additional padding never counts in the average, because ceil_mode excludes
// count_include_pad. Lowerings pass it to their library because rounding modes of libraries differ
// from PyTorch's, which Graph follows.
inline int trailing_padding(const AvgPool2d& pool, int size, int positions) {
  const int reach = (positions - 1) * pool.stride + pool.kernel;
  return std::max(pool.padding, reach - size - pool.padding);
}

}  // namespace resrt

#pragma once

#include <algorithm>

#include "resrt/graph.h"

namespace resrt {

// The padding at the end of an axis of `size`, on which a pooling has that many positions: its own
// padding or, where the last window reaches further (ceil_mode), as much as that one needs. Never
// averaged over, since ceil_mode excludes count_include_pad. Lowerings give it explicitly: the
// rounding modes of inference libraries differ from PyTorch's, which Graph follows.
inline int trailing_padding(const AvgPool2d& pool, int size, int positions) {
  const int reach = (positions - 1) * pool.stride + pool.kernel;
  return std::max(pool.padding, reach - size - pool.padding);
}

}  // namespace resrt

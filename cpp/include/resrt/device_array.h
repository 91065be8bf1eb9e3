#pragma once

#include <cstdint>

#include "resrt/export.h"

namespace resrt {

// A CUstream or cudaStream_t as a number. 0 and 1 are the default stream.
using StreamHandle = uintptr_t;

// Floats in a GPU's memory that are computed in the order of a stream, so they may not be there
// yet. Destroying the object frees the memory once the GPU has completed all of its work.
class RESRT_API DeviceArray {
 public:
  virtual ~DeviceArray();
  virtual float* data() const = 0;
  // Makes work that is submitted to `stream` from now on wait until the floats are there.
  virtual void make_wait(StreamHandle stream) const = 0;
};

}  // namespace resrt

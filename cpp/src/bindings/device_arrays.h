#pragma once

#include <cstdint>
#include <memory>

#include <pybind11/pybind11.h>

#include "resrt/device_array.h"

namespace resrt {

inline constexpr StreamHandle kDefaultStream = 1;

// The result of `infer_on_device` in Python.
struct LogitsOnDevice {
  std::shared_ptr<const DeviceArray> array;
  int64_t batch;
  int64_t classes;
  int device;
  StreamHandle stream;  // the stream in whose order they are computed
};

// Returns logits that keep a reference to their batch, which the GPU reads after the call.
std::shared_ptr<const DeviceArray> keep_batch(std::unique_ptr<DeviceArray> logits,
                                              pybind11::object batch);

}  // namespace resrt

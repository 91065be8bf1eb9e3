#pragma once

#include <cstdint>
#include <memory>

#include <pybind11/pybind11.h>

#include "resrt/device_array.h"

namespace resrt {

inline constexpr StreamHandle kDefaultStream = 1;

// What `infer_on_device` gives to Python.
struct LogitsOnDevice {
  std::shared_ptr<const DeviceArray> array;
  int64_t batch;
  int64_t classes;
  int device;
  StreamHandle stream;  // in whose order they are computed
};

// Logits that keep the batch that they are computed of, which the GPU reads after the call.
std::shared_ptr<const DeviceArray> keep_batch(std::unique_ptr<DeviceArray> logits,
                                              pybind11::object batch);

}  // namespace resrt

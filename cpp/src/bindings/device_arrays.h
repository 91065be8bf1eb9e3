#pragma once

#include <cstdint>
#include <memory>

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

}  // namespace resrt

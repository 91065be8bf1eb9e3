#pragma once

#include <NvInferRuntime.h>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>

namespace resrt::tensorrt {

// Passes TensorRT's messages to resrt's log, and keeps the last errors for exception messages.
// TensorRT supports one logger per process.
class Logger : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override;

  // errors_since() returns the errors logged since mark() in one line, as the reason why a call
  // failed. Other threads' errors may be among them.
  uint64_t mark() const;
  std::string errors_since(uint64_t mark) const;

 private:
  mutable std::mutex mutex_;
  std::deque<std::string> errors_;  // the last ones
  uint64_t count_ = 0;              // of all errors
};

}  // namespace resrt::tensorrt

#pragma once

#include <NvInferRuntime.h>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>

namespace resrt::tensorrt {

// Takes TensorRT's messages: hands them to resrt's log, and keeps the last errors for the
// exceptions that tell of them. TensorRT knows one logger per process.
class Logger : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override;

  // A point in time, and the errors logged since then in one line: what a call that has just failed
  // has to say. Other threads' errors may be among them.
  uint64_t mark() const;
  std::string errors_since(uint64_t mark) const;

 private:
  mutable std::mutex mutex_;
  std::deque<std::string> errors_;  // the last ones
  uint64_t count_ = 0;              // of all errors
};

}  // namespace resrt::tensorrt

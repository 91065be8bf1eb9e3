#pragma once

#include <NvInfer.h>
#include <memory>
#include <string>

namespace resrt::tensorrt {

// TensorRT's library. It is opened at run time, so that the backend can be loaded and report an
// error if it is not installed.
class Library {
 public:
  // Throws BackendError if the library is not installed or does not match the headers.
  Library();

  // "10.16.0"
  const std::string& version() const { return version_; }

  // Return null if the library fails; it then has reported the reason to the logger.
  std::unique_ptr<nvinfer1::IBuilder> create_builder(nvinfer1::ILogger& logger) const;
  std::unique_ptr<nvinfer1::IRuntime> create_runtime(nvinfer1::ILogger& logger) const;

 private:
  template <class Interface>
  std::unique_ptr<Interface> create(const char* symbol, nvinfer1::ILogger& logger) const;

  void* handle_;  // never closed, because the library's threads may still run
  std::string version_;
};

}  // namespace resrt::tensorrt

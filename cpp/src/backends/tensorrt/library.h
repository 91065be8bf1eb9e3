#pragma once

#include <NvInfer.h>
#include <memory>
#include <string>

namespace resrt::tensorrt {

// TensorRT's library, opened at run time, so that this one is loaded and asked where it is not
// installed.
class Library {
 public:
  // Throws BackendError where there is none, or one that these headers do not fit.
  Library();

  // "10.16.0"
  const std::string& version() const { return version_; }

  // Null where the library fails; the logger then has been told why.
  std::unique_ptr<nvinfer1::IBuilder> create_builder(nvinfer1::ILogger& logger) const;
  std::unique_ptr<nvinfer1::IRuntime> create_runtime(nvinfer1::ILogger& logger) const;

 private:
  template <class Interface>
  std::unique_ptr<Interface> create(const char* symbol, nvinfer1::ILogger& logger) const;

  void* handle_;  // never closed: the library's own threads may outlive any use of it
  std::string version_;
};

}  // namespace resrt::tensorrt

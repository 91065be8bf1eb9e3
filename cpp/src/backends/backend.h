#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "resrt/engine.h"
#include "resrt/error.h"

namespace resrt {

// A network compiled by a backend: bytes that only the same version of the same backend can read.
struct Plan {
  std::string bytes;
};

// Images and space for their logits in a GPU's memory, read and written in the order of a stream.
struct DeviceBatch {
  const float* images;
  int batch;
  float* logits;
  StreamHandle stream;
};

// Logits in a GPU's memory.
class DeviceLogits : public DeviceArray {
 public:
  // Records that the logits are complete when the work submitted to `stream` so far is.
  virtual void mark_end(StreamHandle stream) = 0;
};

// Additional operations of an executable on a GPU.
class DeviceAccess {
 public:
  virtual ~DeviceAccess() = default;
  virtual int device() const = 0;
  virtual int device_of(const void* pointer) const = 0;
  virtual std::unique_ptr<DeviceLogits> allocate(size_t floats) const = 0;
};

// Runs one inference at a time.
class Context {
 public:
  virtual ~Context() = default;
  // `batch` is one of the executable's batch sizes.
  virtual void infer(const float* images, int batch, float* logits) = 0;
  // The same in a GPU's memory; may return before it is complete. Only called if the executable has
  // device_access.
  virtual void infer_on_device(const DeviceBatch&) {
    throw BackendError("this backend cannot read GPU memory");
  }
};

// A loaded plan. create_context may be called from any thread.
class Executable {
 public:
  virtual ~Executable() = default;
  // The supported batch sizes in descending order, from max_batch to 1. Other batches are split
  // into these sizes.
  virtual std::vector<int> batch_sizes() const = 0;
  // The batch sizes to run once when the engine is loaded, so that later inferences are fast.
  virtual std::vector<int> warm_sizes() const { return batch_sizes(); }
  // Called when all contexts have run these sizes.
  virtual void warmed_up() {}
  // How many contexts can usefully run at once; more would wait for each other.
  virtual int concurrency() const = 0;
  virtual std::unique_ptr<Context> create_context() = 0;
  virtual const DeviceAccess* device_access() const { return nullptr; }
};

// The interface to an inference library; nothing else of the library is visible outside its
// backend. Each backend is a separate shared library that exports resrt_create_backend:
// libresrt_<name>.so, or one per major version of the inference library.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string version() const = 0;
  // Throw InputError for options that this backend does not support and for values out of range, or
  // PrecisionError if the reason is the precision.
  virtual void check(const BuildOptions& options) const = 0;
  virtual void check(const LoadOptions& options) const = 0;
  // The precisions that the device supports natively, the fastest first.
  virtual std::vector<Precision> precisions(int device) const = 0;
  // Why the backend can build plans here but not run them, if that is the case.
  virtual std::optional<std::string> why_build_only() const { return std::nullopt; }
  // `info` has the precision (resolved, never automatic), input shape and max_batch. `device` is
  // the GPU that the plan will run on. The options have been checked.
  virtual Plan build(const Graph& graph, const Weights& weights, const EngineInfo& info,
                     const BuildOptions& options, int device) = 0;
  virtual std::unique_ptr<Executable> load(const Plan& plan, const EngineInfo& info,
                                           const LoadOptions& options) = 0;
};

using CreateBackend = Backend* (*)();
inline constexpr const char* kCreateBackend = "resrt_create_backend";

}  // namespace resrt

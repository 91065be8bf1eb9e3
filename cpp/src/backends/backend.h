#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "bytes.h"
#include "resrt/engine.h"
#include "resrt/error.h"

namespace resrt {

// A network in the form that a backend loads. An executable may keep reading the bytes.
struct Plan {
  Bytes bytes;
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
  // `batch` is a size that the executable's next_part returned, `outputs` has the memory for each
  // of the engine's outputs.
  virtual void infer(const float* images, int batch, float* const* outputs) = 0;
  // The same, but an inference that takes longer than the limit is stopped after the step that it
  // is at. Returns whether it is complete. Only called by a backend on its own contexts.
  virtual bool infer_within(std::chrono::duration<double>, const float*, int, float* const*) {
    throw BackendError("this backend cannot stop an inference");
  }
  // Like infer, but in a GPU's memory; may return before it is complete. Only called if the
  // executable has device_access.
  virtual void infer_on_device(const DeviceBatch&) {
    throw BackendError("this backend cannot read GPU memory");
  }
  // The time of each step of an inference of this size, the mean over those since the previous
  // call, of which there is at least one. Only called if LoadOptions::profile was set.
  virtual std::vector<StepTime> profile(int) {
    throw BackendError("this backend does not count the time of each layer");
  }
};

// A loaded plan. create_context may be called from any thread.
class Executable {
 public:
  virtual ~Executable() = default;
  // How many of the `left` images of a batch, at least one, the next inference takes.
  virtual int next_part(int64_t left) const = 0;
  // The batch sizes to run once when the engine is loaded, unless the user names others, so that
  // later inferences are fast.
  virtual std::vector<int> warm_sizes() const = 0;
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
  // Whether plans also load in other versions of the library than the one that built them.
  virtual bool has_portable_plans() const { return false; }
  // Throw InputError for options that this backend does not support and for values out of range, or
  // PrecisionError if the reason is the precision.
  virtual void check(const BuildOptions& options) const = 0;
  virtual void check(const LoadOptions& options) const = 0;
  // The precisions that the device supports natively, the fastest first.
  virtual std::vector<Precision> precisions(int device) const = 0;
  // Why the backend can build plans here but not run them, if that is the case.
  virtual std::optional<std::string> why_build_only() const { return std::nullopt; }
  // `info` has the precision (resolved, never automatic), input shape and max_batch; the backend
  // adds the kernels that it has chosen. `device` is the GPU that the plan will run on. The options
  // have been checked.
  virtual Plan build(const Graph& graph, const Weights& weights, EngineInfo& info,
                     const BuildOptions& options, int device) = 0;
  virtual std::unique_ptr<Executable> load(const Plan& plan, const EngineInfo& info,
                                           const LoadOptions& options) = 0;
};

using CreateBackend = Backend* (*)();
inline constexpr const char* kCreateBackend = "resrt_create_backend";

}  // namespace resrt

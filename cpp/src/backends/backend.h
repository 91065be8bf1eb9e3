#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "resrt/engine.h"
#include "resrt/error.h"

namespace resrt {

// What a backend makes of a network: bytes that only the same backend, in the same version, reads.
struct Plan {
  std::string bytes;
};

// Images and room for their logits in a GPU's memory, to be read and written in a stream's order.
struct DeviceBatch {
  const float* images;
  int batch;
  float* logits;
  StreamHandle stream;
};

// Logits in a GPU's memory.
class DeviceLogits : public DeviceArray {
 public:
  // Everything in `stream` so far is what they take to compute.
  virtual void mark_end(StreamHandle stream) = 0;
};

// What an executable on a GPU can do besides.
class DeviceAccess {
 public:
  virtual ~DeviceAccess() = default;
  virtual int device() const = 0;
  virtual int device_of(const void* pointer) const = 0;
  virtual std::unique_ptr<DeviceLogits> allocate(size_t floats) const = 0;
};

// One execution at a time.
class Context {
 public:
  virtual ~Context() = default;
  // `batch` is one of the executable's batch sizes.
  virtual void infer(const float* images, int batch, float* logits) = 0;
  // The same in a GPU's memory; returns before it has ended. Only where the executable has
  // device_access.
  virtual void infer_on_device(const DeviceBatch&) {
    throw BackendError("this backend does not read a GPU's memory");
  }
};

// A loaded plan. create_context may be called from any thread.
class Executable {
 public:
  virtual ~Executable() = default;
  // The batch sizes that it runs, in descending order, from max_batch to 1: any batch is put
  // together from these.
  virtual std::vector<int> batch_sizes() const = 0;
  // Those to run once when the engine is loaded, so that they are as fast as ever from then on.
  virtual std::vector<int> warm_sizes() const { return batch_sizes(); }
  // Told once all contexts have run these.
  virtual void warmed_up() {}
  // How many contexts run at once; more would wait for each other.
  virtual int concurrency() const = 0;
  virtual std::unique_ptr<Context> create_context() = 0;
  virtual const DeviceAccess* device_access() const { return nullptr; }
};

// An inference library, behind which nothing of it shows. Each backend is a shared library of its
// own, libresrt_<name>.so or one per version of the inference library, that exports
// resrt_create_backend.
class Backend {
 public:
  virtual ~Backend() = default;
  virtual std::string version() const = 0;
  // Throw InputError, or PrecisionError where the precision is at fault, for options that this
  // backend does not have and for values out of range.
  virtual void check(const BuildOptions& options) const = 0;
  virtual void check(const LoadOptions& options) const = 0;
  // What the device computes natively, the fastest first.
  virtual std::vector<Precision> precisions(int device) const = 0;
  // Why it builds plans here but cannot run them, where that is so.
  virtual std::optional<std::string> why_build_only() const { return std::nullopt; }
  // `info` names precision (resolved, never automatic), input and max_batch; `device` is where the
  // plan will run.
  virtual Plan build(const Graph& graph, const Weights& weights, const EngineInfo& info,
                     const BuildOptions& options, int device) = 0;
  virtual std::unique_ptr<Executable> load(const Plan& plan, const EngineInfo& info,
                                           const LoadOptions& options) = 0;
};

using CreateBackend = Backend* (*)();
inline constexpr const char* kCreateBackend = "resrt_create_backend";

}  // namespace resrt

#include "backends/backend.h"

#include <limits>
#include <vector>

#include "backends/tensorrt/build.h"
#include "backends/tensorrt/cuda.h"
#include "backends/tensorrt/executable.h"
#include "backends/tensorrt/flavour.h"
#include "backends/tensorrt/library.h"
#include "backends/tensorrt/logger.h"
#include "backends/tensorrt/options.h"
#include "resrt/error.h"
#include "resrt/export.h"
#include "text.h"

namespace resrt::tensorrt {
namespace {

// Stands for the compute capability of GPUs that are not present.
constexpr int kAnyGpu = std::numeric_limits<int>::max();

class TensorRT : public Backend {
 public:
  TensorRT() {
    // TensorRT times kernels on the GPU during a build, so it cannot be used without one.
    if (!kRtx) Driver::get();
  }

  std::string version() const override { return library_.version(); }

  void check(const BuildOptions& options) const override { check_options(options); }
  void check(const LoadOptions& options) const override { check_options(options); }

  std::optional<std::string> why_build_only() const override { return why_no_gpu(); }

  std::vector<Precision> precisions(int device) const override {
    // Engines that are only built here may be for any GPU.
    const int capability = why_no_gpu() ? kAnyGpu : Device(device).compute_capability();
    std::vector<Precision> found = {Precision::fp16};
    if (capability >= 80) {
      found.insert(found.end(), {Precision::bf16, Precision::tf32});
    }
    found.insert(found.end(), {Precision::fp32, Precision::int8});
    if (capability >= 89) found.push_back(Precision::fp8);
    return found;
  }

  Plan build(const Graph& graph, const Weights& weights, EngineInfo& info,
             const BuildOptions& options, int device) override {
    if (info.outputs != std::vector<EngineOutput>{{kLogits, {info.classes}}}) {
      throw InputError(concat("backend '", info.backend,
                              "' has no other output than the logits; select no outputs, or build "
                              "with backend 'openvino'"));
    }
    if (why_no_gpu()) return tensorrt::build(library_, logger_, graph, weights, info, options);
    const Device::Current current{Device(device)};
    return tensorrt::build(library_, logger_, graph, weights, info, options);
  }

  std::unique_ptr<Executable> load(const Plan& plan, const EngineInfo& info,
                                   const LoadOptions& options) override {
    return tensorrt::load(library_, logger_, plan, info, options);
  }

 private:
  Library library_;
  Logger logger_;
};

}  // namespace
}  // namespace resrt::tensorrt

extern "C" RESRT_API resrt::Backend* resrt_create_backend() {
  return new resrt::tensorrt::TensorRT();
}

#include "backends/tensorrt/options.h"

#include <algorithm>
#include <array>
#include <limits>

#include "backends/tensorrt/flavour.h"
#include "backends/tensorrt/lower.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt::tensorrt {
namespace {

constexpr int kHighestOptimizationLevel = 5;
constexpr int64_t kMostWorkspace = std::numeric_limits<int64_t>::max() / kMebibyte;

void require(bool holds, const std::string& message) {
  if (!holds) throw InputError(message);
}

// Checks the options that every flavour has.
void check_common(const TensorRTOptions& options, int max_batch) {
  parse_lowering(options.lowering);
  require(options.workspace >= 0 && options.workspace <= kMostWorkspace,
          concat("workspace must be from 0 to ", kMostWorkspace, " MiB, not ", options.workspace));
  require(
      options.optimization_level >= 0 && options.optimization_level <= kHighestOptimizationLevel,
      concat("optimization_level must be from 0 to ", kHighestOptimizationLevel, ", not ",
             options.optimization_level));
  require(options.optimum_batch >= 0 && options.optimum_batch <= max_batch,
          concat("optimum_batch must be from 1 to max_batch (", max_batch, "), not ",
                 options.optimum_batch));
}

#if defined(TRT_MAJOR_RTX)
constexpr std::array kTargets = {75, 80, 86, 89, 120, 121};
constexpr int kFirstWithBf16 = 80;
constexpr int kFirstWithFp8 = 89;

void check_flavour(const TensorRTOptions& options, Precision precision) {
  require(options.timing_cache.empty(),
          "TensorRT for RTX does not time kernels during a build; leave out timing_cache");
  require(options.hardware_compatibility == HardwareCompatibility::none,
          "TensorRT for RTX does not support hardware_compatibility; use compute_capabilities");
  require(!options.split_attention_plugin,
          "TensorRT for RTX does not support plugins; leave out split_attention_plugin");
  require(!options.version_compatible,
          "engines of TensorRT for RTX run only with the version that built them; leave out "
          "version_compatible");
  for (const int target : options.compute_capabilities) {
    require(std::find(kTargets.begin(), kTargets.end(), target) != kTargets.end(),
            concat("TensorRT for RTX does not support compute capability ", target,
                   "; choose from ", join(kTargets)));
    if (precision == Precision::bf16 && target < kFirstWithBf16) {
      throw PrecisionError(concat("GPUs of compute capability ", target,
                                  " do not support bf16; choose fp16 or fp32, or compute "
                                  "capabilities of at least ",
                                  kFirstWithBf16));
    }
    if (precision == Precision::fp8 && target < kFirstWithFp8) {
      throw PrecisionError(concat("GPUs of compute capability ", target,
                                  " do not support fp8; choose int8 or fp16, or compute "
                                  "capabilities of at least ",
                                  kFirstWithFp8));
    }
  }
}
#else
void check_flavour(const TensorRTOptions& options, Precision) {
  require(options.compute_capabilities.empty(),
          "TensorRT builds for the GPU that it runs on; leave out compute_capabilities, or use "
          "backend 'tensorrt_rtx'");
}
#endif

}  // namespace

void check_options(const BuildOptions& options) {
  require(
      !options.tuning_seconds,
      concat("backend '", kBackend, "' always measures its kernels; leave out the time to tune"));
  if (!options.tensorrt) return;
  check_common(*options.tensorrt, options.max_batch);
  check_flavour(*options.tensorrt, options.precision);
}

void check_options(const LoadOptions& options) {
  require(options.batch_sizes.empty(),
          concat("backend '", kBackend, "' runs every batch size; leave out batch_sizes"));
  require(!options.pin_threads,
          concat("backend '", kBackend, "' does not run on the CPU; leave out pin_threads"));
  require(!options.profile, concat("backend '", kBackend,
                                   "' does not count the time of each layer; leave out profile"));
  require(options.threads == 0,
          concat("backend '", kBackend, "' runs on a GPU; leave out threads, which are a CPU's"));
  require(kRtx || !options.tensorrt || options.tensorrt->runtime_cache.empty(),
          concat("backend '", kBackend,
                 "' does not compile kernels when it loads an engine; leave out runtime_cache"));
}

}  // namespace resrt::tensorrt

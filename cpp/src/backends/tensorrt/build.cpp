#include "backends/tensorrt/build.h"

#include <atomic>
#include <filesystem>
#include <map>
#include <mutex>
#include <string_view>

#include "backends/tensorrt/flavour.h"
#include "backends/tensorrt/lower.h"
#include "backends/tensorrt/options.h"
#include "engine/library_folders.h"
#include "file_io.h"
#include "passes/passes.h"
#include "passes/quantise.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt::tensorrt {
namespace {

// Passes TensorRT's steps to the caller's function, which may stop the build.
class Monitor : public nvinfer1::IProgressMonitor {
 public:
  explicit Monitor(const Progress& progress) : progress_(progress) {}

  bool cancelled() const { return cancelled_; }

  void phaseStart(const char* phase, const char*, int32_t steps) noexcept override {
    const std::lock_guard lock(mutex_);
    steps_[phase] = steps;
    report(phase, 0);
  }
  bool stepComplete(const char* phase, int32_t step) noexcept override {
    const std::lock_guard lock(mutex_);
    report(phase, step + 1);
    return !cancelled_;
  }
  void phaseFinish(const char* phase) noexcept override {
    const std::lock_guard lock(mutex_);
    report(phase, steps_[phase]);
    steps_.erase(phase);
  }

 private:
  void report(const char* phase, int done) {
    if (!cancelled_ && !progress_({phase, done, steps_[phase]})) cancelled_ = true;
  }

  const Progress& progress_;
  std::mutex mutex_;  // TensorRT calls from several threads
  std::map<std::string, int> steps_;
  std::atomic<bool> cancelled_ = false;
};

#if !defined(TRT_MAJOR_RTX)
nvinfer1::HardwareCompatibilityLevel to_level(HardwareCompatibility compatibility) {
  switch (compatibility) {
    case HardwareCompatibility::ampere_plus:
      return nvinfer1::HardwareCompatibilityLevel::kAMPERE_PLUS;
    case HardwareCompatibility::same_compute_capability:
      return nvinfer1::HardwareCompatibilityLevel::kSAME_COMPUTE_CAPABILITY;
    case HardwareCompatibility::none: break;
  }
  return nvinfer1::HardwareCompatibilityLevel::kNONE;
}
#endif

// Every network is strongly typed. TensorRT 10 requires a flag for that.
nvinfer1::NetworkDefinitionCreationFlags network_flags() {
#if NV_TENSORRT_MAJOR == 10
  return 1U << static_cast<uint32_t>(nvinfer1::NetworkDefinitionCreationFlag::kSTRONGLY_TYPED);
#else
  return 0;
#endif
}

nvinfer1::Dims batch_of(int64_t batch, const Shape& image) {
  return {4, {batch, image.channels, image.height, image.width}};
}

// A single build with its builder and related objects.
class Build {
 public:
  Build(const Library& library, Logger& logger, const EngineInfo& info, const BuildOptions& options)
      : logger_(logger),
        mark_(logger.mark()),
        info_(info),
        progress_(options.progress),
        monitor_(options.progress),
        options_(options.tensorrt.value_or(TensorRTOptions())),
        calibration_(options.calibration) {
    builder_ = taken(library.create_builder(logger), "start");
    network_ = taken(
        std::unique_ptr<nvinfer1::INetworkDefinition>(builder_->createNetworkV2(network_flags())),
        "create a network");
    config_ = taken(std::unique_ptr<nvinfer1::IBuilderConfig>(builder_->createBuilderConfig()),
                    "create a configuration");
  }

  Plan run(const Graph& graph, const Weights& weights) {
    Constants constants;
    Network network = fold_batch_norm({graph, weights});
    check_range(network, info_.precision);
    if (calibration_) {
      // TensorRT fuses a convolution with an addition, and rounds only the sum.
      network.graph = quantise(network.graph, *calibration_, {.round_branches = false});
    }
    network.graph = fuse_add_relu(network.graph);
    lower(network, info_.precision, *network_, constants, logger_, split_attention(),
          parse_lowering(options_.lowering));
    configure();
    add_profile();
    if (progress_) config_->setProgressMonitor(&monitor_);
    read_timing_cache();
    mark_ = logger_.mark();
    const std::unique_ptr<nvinfer1::IHostMemory> plan(
        builder_->buildSerializedNetwork(*network_, *config_));
    if (monitor_.cancelled()) throw BackendError("the build was stopped by the caller");
    if (plan == nullptr) fail(concat("build ", graph.name()));
    write_timing_cache();
    return {Bytes(std::string_view(static_cast<const char*>(plan->data()), plan->size()))};
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw BackendError(concat(kProduct, " could not ", what, ": ", logger_.errors_since(mark_)));
  }

  template <class Pointer>
  Pointer taken(Pointer pointer, const char* what) const {
    if (pointer == nullptr) fail(what);
    return pointer;
  }

  void configure() {
    // TensorRT's inspector then shows the names of layers.
    config_->setProfilingVerbosity(nvinfer1::ProfilingVerbosity::kDETAILED);
    config_->setBuilderOptimizationLevel(options_.optimization_level);
    if (options_.workspace > 0) {
      config_->setMemoryPoolLimit(nvinfer1::MemoryPoolType::kWORKSPACE,
                                  static_cast<size_t>(options_.workspace * kMebibyte));
    }
    if (options_.version_compatible) {
      config_->setFlag(nvinfer1::BuilderFlag::kVERSION_COMPATIBLE);
    }
    // tf32 is not a tensor type, so it is the only precision that is set in the builder.
    if (info_.precision == Precision::tf32) {
      config_->setFlag(nvinfer1::BuilderFlag::kTF32);
    } else {
      config_->clearFlag(nvinfer1::BuilderFlag::kTF32);
    }
#if defined(TRT_MAJOR_RTX)
    const std::vector<int>& targets = options_.compute_capabilities;
    config_->setNbComputeCapabilities(static_cast<int32_t>(targets.size()));
    for (size_t i = 0; i < targets.size(); ++i) {
      config_->setComputeCapability(static_cast<nvinfer1::ComputeCapability>(targets[i]),
                                    static_cast<int32_t>(i));
    }
#else
    config_->setHardwareCompatibilityLevel(to_level(options_.hardware_compatibility));
#endif
  }

  void add_profile() {
    const int optimum = options_.optimum_batch > 0 ? options_.optimum_batch : info_.max_batch;
    nvinfer1::IOptimizationProfile* profile = builder_->createOptimizationProfile();
    const auto set = [&](nvinfer1::OptProfileSelector which, int batch) {
      return profile->setDimensions(kImages, which, batch_of(batch, info_.input));
    };
    if (profile == nullptr || !set(nvinfer1::OptProfileSelector::kMIN, 1) ||
        !set(nvinfer1::OptProfileSelector::kOPT, optimum) ||
        !set(nvinfer1::OptProfileSelector::kMAX, info_.max_batch) ||
        config_->addOptimizationProfile(profile) < 0) {
      fail(concat("build for batches of 1 to ", info_.max_batch));
    }
  }

#if defined(TRT_MAJOR_RTX)
  nvinfer1::IPluginCreatorV3One* split_attention() { return nullptr; }
  void read_timing_cache() {}
  void write_timing_cache() {}
#else
  // Opens the library of resrt's plugin, if it is requested, and includes it in the engine.
  nvinfer1::IPluginCreatorV3One* split_attention() {
    if (!options_.split_attention_plugin) return nullptr;
    const std::string path =
        backend_folder() / concat("libresrt_split_attention_", NV_TENSORRT_MAJOR, ".so");
    if (!std::filesystem::exists(path)) {
      throw BackendError(concat("the split-attention plugin is not part of this installation: ",
                                path, " is missing; build resrt with nvcc"));
    }
    nvinfer1::IPluginRegistry& registry = builder_->getPluginRegistry();
    const auto find = [&] { return registry.getCreator("SplitAttention", "1", "resrt"); };
    // The program may have registered it already, and TensorRT does not register a plugin twice.
    nvinfer1::IPluginCreatorInterface* creator = find();
    if (creator == nullptr && registry.loadLibrary(path.c_str()) != nullptr) creator = find();
    if (creator == nullptr) fail(concat("open the plugin ", path));
    const char* paths[] = {path.c_str()};
    config_->setPluginsToSerialize(paths, 1);
    return static_cast<nvinfer1::IPluginCreatorV3One*>(creator);
  }

  void read_timing_cache() {
    if (options_.timing_cache.empty()) return;
    std::string bytes;
    if (std::filesystem::exists(options_.timing_cache)) bytes = read_file(options_.timing_cache);
    cache_.reset(config_->createTimingCache(bytes.data(), bytes.size()));
    if (cache_ == nullptr || !config_->setTimingCache(*cache_, false)) {
      fail(concat("use the timing cache '", options_.timing_cache,
                  "', which may be from another GPU or version; use another file"));
    }
  }

  void write_timing_cache() {
    if (cache_ == nullptr) return;
    const std::unique_ptr<nvinfer1::IHostMemory> bytes(cache_->serialize());
    if (bytes == nullptr) fail("write its timing cache");
    write_file_atomically(
        options_.timing_cache,
        {std::string_view(static_cast<const char*>(bytes->data()), bytes->size())});
  }
#endif

  Logger& logger_;
  uint64_t mark_;
  const EngineInfo& info_;
  const Progress& progress_;
  Monitor monitor_;
  TensorRTOptions options_;
  std::optional<Calibration> calibration_;
  // Each of these depends on the ones before it.
#if !defined(TRT_MAJOR_RTX)
  std::unique_ptr<nvinfer1::ITimingCache> cache_;
#endif
  std::unique_ptr<nvinfer1::IBuilder> builder_;
  std::unique_ptr<nvinfer1::INetworkDefinition> network_;
  std::unique_ptr<nvinfer1::IBuilderConfig> config_;
};

}  // namespace

Plan build(const Library& library, Logger& logger, const Graph& graph, const Weights& weights,
           const EngineInfo& info, const BuildOptions& options) {
  return Build(library, logger, info, options).run(graph, weights);
}

}  // namespace resrt::tensorrt

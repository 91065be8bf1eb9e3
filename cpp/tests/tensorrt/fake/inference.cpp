#include "inference.h"

#include <NvInfer.h>
#include <atomic>
#include <cstring>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "driver.h"
#include "unimplemented.h"

namespace resrt::fake {
namespace {

constexpr const char* kMagic = "fake";

std::atomic<int> compiled_sizes = 0;
std::atomic<int> created_contexts = 0;

void check(CUresult result) {
  if (result == CUDA_SUCCESS) return;
  const char* text = nullptr;
  cuGetErrorString(result, &text);
  throw std::runtime_error(std::string("Cuda Driver (") + (text != nullptr ? text : "?") + ")");
}

// Runs an implementation behind a noexcept interface; exceptions are logged.
template <class Act>
auto guarded(ILogger& logger, Act act) noexcept -> decltype(act()) {
  try {
    return act();
  } catch (const std::exception& error) {
    logger.log(ILogger::Severity::kERROR, error.what());
    return {};
  }
}

// GPU memory of TensorRT's objects. The same GPU must be current when they are destroyed.
class DeviceMemory {
 public:
  explicit DeviceMemory(size_t floats) { check(cuMemAlloc(&address_, floats * sizeof(float))); }
  ~DeviceMemory() { cuMemFree(address_); }
  DeviceMemory(const DeviceMemory&) = delete;
  DeviceMemory& operator=(const DeviceMemory&) = delete;
  CUdeviceptr address() const { return address_; }

 private:
  CUdeviceptr address_ = 0;
};

float* floats_at(const void* address, size_t count) {
  return static_cast<float*>(at(reinterpret_cast<CUdeviceptr>(address), count * sizeof(float)));
}

// One inference, with the settings at the time when it was enqueued.
struct Inference {
  Sizes sizes;
  size_t batch = 0;
  const void* images = nullptr;
  void* logits = nullptr;
  void* scratch = nullptr;
  const void* biases = nullptr;
  std::weak_ptr<const int> context;  // expires with the context

  bool is_ready() const {
    return batch > 0 && images != nullptr && logits != nullptr && scratch != nullptr;
  }

  // Adds the sums over the pixels from `begin` to `end` to `from` and writes the result to `to`.
  void add(size_t begin, size_t end, const float* from, float* to) const {
    const float* pixels = floats_at(images, batch * sizes.image);
    if (context.expired()) report_fault("a context was destroyed before its inference ended");
    if (pixels == nullptr || from == nullptr || to == nullptr) return;
    for (size_t i = 0; i < batch * sizes.classes; ++i) {
      to[i] = from[i];
      for (size_t pixel = begin; pixel < end; ++pixel) {
        to[i] += pixels[i / sizes.classes * sizes.image + pixel] * weight(pixel, i % sizes.classes);
      }
    }
  }

  // begin() writes the first half of the sums to the scratch memory, and end() completes them.
  void begin() const {
    const float* bias = floats_at(biases, sizes.classes);
    float* sums = floats_at(scratch, batch * sizes.classes);
    if (bias == nullptr || sums == nullptr) return;
    for (size_t image = 0; image < batch; ++image) {
      std::memcpy(sums + image * sizes.classes, bias, sizes.classes * sizeof(float));
    }
    add(0, sizes.image / 2, sums, sums);
  }
  void end() const {
    add(sizes.image / 2, sizes.image, floats_at(scratch, batch * sizes.classes),
        floats_at(logits, batch * sizes.classes));
  }
};

#if defined(TRT_MAJOR_RTX)
class HostMemory final : public IHostMemory, public UnimplementedHostMemory {
 public:
  explicit HostMemory(std::string bytes) : bytes_(std::move(bytes)) { mImpl = this; }
  void* data() const noexcept override { return const_cast<char*>(bytes_.data()); }
  size_t size() const noexcept override { return bytes_.size(); }

 private:
  std::string bytes_;
};

// The batch sizes for which kernels were compiled, instead of the kernels.
class RuntimeCache final : public IRuntimeCache, public UnimplementedRuntimeCache {
 public:
  RuntimeCache() { mImpl = this; }
  IHostMemory* serialize() const noexcept override {
    std::ostringstream text;
    text << kMagic;
    for (const size_t batch : batches_) text << ' ' << batch;
    return new HostMemory(text.str());
  }
  bool deserialize(const void* bytes, size_t size) noexcept override {
    std::istringstream text(std::string(static_cast<const char*>(bytes), size));
    std::string magic;
    if (!(text >> magic) || magic != kMagic) return false;
    for (size_t batch = 0; text >> batch;) batches_.insert(batch);
    return true;
  }
  void compile(size_t batch) {
    if (batches_.insert(batch).second) ++compiled_sizes;
  }

 private:
  std::set<size_t> batches_;
};
#endif

class ExecutionContext final : public IExecutionContext, public UnimplementedExecutionContext {
 public:
  ExecutionContext(ILogger& logger, const Sizes& sizes, CUdeviceptr biases)
      : logger_(logger), state_(1) {
    mImpl = this;
    inference_.sizes = sizes;
    inference_.biases = reinterpret_cast<const void*>(biases);
    inference_.context = alive_;
  }

#if defined(TRT_MAJOR_RTX)
  void configure(RuntimeCache* kernels, bool captures) {
    kernels_ = kernels;
    captures_ = captures;
  }
#endif
  void setDeviceMemoryV2(void* memory, int64_t bytes) noexcept override {
    const Sizes& sizes = inference_.sizes;
    const auto needed = static_cast<int64_t>(sizes.max_batch * sizes.classes * sizeof(float));
    inference_.scratch = bytes >= needed ? memory : nullptr;
  }
  bool setInputShape(const char* name, const Dims& shape) noexcept override {
    const auto batch = static_cast<size_t>(shape.d[0]);
    const auto image = static_cast<size_t>(shape.d[1] * shape.d[2] * shape.d[3]);
    if (is(name, "images") && shape.nbDims == 4 && image == inference_.sizes.image && batch >= 1 &&
        batch <= inference_.sizes.max_batch) {
      inference_.batch = batch;
      return true;
    }
    logger_.log(ILogger::Severity::kERROR, "the shape is not in the profile");
    return false;
  }
  bool setTensorAddress(const char* name, void* address) noexcept override {
    if (is(name, "logits")) {
      inference_.logits = address;
      return is_aligned(address);
    }
    return setInputTensorAddress(name, address);
  }
  bool setInputTensorAddress(const char* name, const void* address) noexcept override {
    if (is(name, "images")) inference_.images = address;
    return is(name, "images") && is_aligned(address);
  }

  bool enqueueV3(cudaStream_t stream) noexcept override {
    return guarded(logger_, [&] {
      if (!inference_.is_ready()) throw std::runtime_error("an address or a shape is not set");
      // The first inference allocates memory, which is not allowed during capture.
      if (!workspace_) {
        workspace_.emplace(inference_.sizes.classes);
#if defined(TRT_MAJOR_RTX)
        if (kernels_ != nullptr) kernels_->compile(inference_.batch);
#endif
      }
#if defined(TRT_MAJOR_RTX)
      // The first run is not captured, the second is, and the third launches the graph.
      if (++runs_ > 2 && captures_) count_graph_launch();
#endif
      check(submit(stream, [inference = inference_] { inference.begin(); }));
      check(submit(stream, [inference = inference_] { inference.end(); }));
      return true;
    });
  }

 private:
  static bool is(const char* name, const char* wanted) { return std::strcmp(name, wanted) == 0; }
  bool is_aligned(const void* address) const {
    if (reinterpret_cast<uintptr_t>(address) % 256 == 0) return true;
    logger_.log(ILogger::Severity::kERROR, "the address is not a multiple of 256 bytes");
    return false;
  }

  ILogger& logger_;
#if defined(TRT_MAJOR_RTX)
  RuntimeCache* kernels_ = nullptr;
  bool captures_ = false;
  int runs_ = 0;
#endif
  DeviceMemory state_;
  std::optional<DeviceMemory> workspace_;
  std::shared_ptr<const int> alive_ = std::make_shared<const int>();
  Inference inference_;
};

class RuntimeConfig final : public IRuntimeConfig, public UnimplementedRuntimeConfig {
 public:
  RuntimeConfig() { mImpl = this; }
  void setExecutionContextAllocationStrategy(
      ExecutionContextAllocationStrategy strategy) noexcept override {
    strategy_ = strategy;
  }
  ExecutionContextAllocationStrategy getExecutionContextAllocationStrategy()
      const noexcept override {
    return strategy_;
  }
#if defined(TRT_MAJOR_RTX)
  bool setCudaGraphStrategy(CudaGraphStrategy strategy) noexcept override {
    captures_ = strategy == CudaGraphStrategy::kWHOLE_GRAPH_CAPTURE;
    return true;
  }
  bool captures() const { return captures_; }
  void setDynamicShapesKernelSpecializationStrategy(
      DynamicShapesKernelSpecializationStrategy) noexcept override {}
  IRuntimeCache* createRuntimeCache() const noexcept override { return new RuntimeCache(); }
  bool setRuntimeCache(const IRuntimeCache& cache) noexcept override {
    cache_ = const_cast<IRuntimeCache*>(&cache);
    return true;
  }
  IRuntimeCache* getRuntimeCache() const noexcept override { return cache_; }
#endif

 private:
#if defined(TRT_MAJOR_RTX)
  IRuntimeCache* cache_ = nullptr;
  bool captures_ = false;
#endif
  ExecutionContextAllocationStrategy strategy_ = ExecutionContextAllocationStrategy::kSTATIC;
};

class Engine final : public ICudaEngine, public UnimplementedCudaEngine {
 public:
  Engine(ILogger& logger, const Sizes& sizes)
      : logger_(logger), sizes_(sizes), biases_(sizes.classes) {
    mImpl = this;
    auto* values = static_cast<float*>(at(biases_.address(), sizes.classes * sizeof(float)));
    for (size_t label = 0; label < sizes.classes; ++label) values[label] = bias(label);
  }

  int64_t getDeviceMemorySizeV2() const noexcept override {
    return static_cast<int64_t>(sizes_.max_batch * sizes_.classes * sizeof(float));
  }
  IExecutionContext* createExecutionContext(
      ExecutionContextAllocationStrategy strategy) noexcept override {
    return guarded(logger_, [&]() -> IExecutionContext* {
      if (strategy != ExecutionContextAllocationStrategy::kUSER_MANAGED) {
        throw std::runtime_error("the fake has no scratch memory of its own");
      }
      ++created_contexts;
      return new ExecutionContext(logger_, sizes_, biases_.address());
    });
  }
  IExecutionContext* createExecutionContextWithRuntimeConfig(
      IRuntimeConfig* config) noexcept override {
    IExecutionContext* made =
        createExecutionContext(config->getExecutionContextAllocationStrategy());
#if defined(TRT_MAJOR_RTX)
    if (made != nullptr) {
      static_cast<ExecutionContext*>(made)->configure(
          static_cast<RuntimeCache*>(config->getRuntimeCache()),
          static_cast<RuntimeConfig*>(config)->captures());
    }
#endif
    return made;
  }
  IRuntimeConfig* createRuntimeConfig() noexcept override { return new RuntimeConfig(); }

 private:
  ILogger& logger_;
  Sizes sizes_;
  DeviceMemory biases_;
};

class Runtime final : public IRuntime, public UnimplementedRuntime {
 public:
  explicit Runtime(ILogger& logger) : logger_(logger), state_(1) { mImpl = this; }

  void setEngineHostCodeAllowed(bool) noexcept override {}
  ICudaEngine* deserializeCudaEngine(const void* plan, size_t size) noexcept override {
    return guarded(logger_, [&]() -> ICudaEngine* {
      std::istringstream text(std::string(static_cast<const char*>(plan), size));
      std::string magic;
      Sizes sizes;
      text >> magic >> sizes.image >> sizes.classes >> sizes.max_batch;
      if (!text || magic != kMagic) {
        throw std::runtime_error("the plan was generated on an incompatible device");
      }
      return new Engine(logger_, sizes);
    });
  }

 private:
  ILogger& logger_;
  DeviceMemory state_;
};

}  // namespace

int compiled() {
  return compiled_sizes;
}
int contexts() {
  return created_contexts;
}

std::string make_plan(const Sizes& sizes) {
  std::ostringstream plan;
  plan << kMagic << ' ' << sizes.image << ' ' << sizes.classes << ' ' << sizes.max_batch;
  return plan.str();
}

}  // namespace resrt::fake

int32_t getInferLibVersion() noexcept {
  return NV_TENSORRT_VERSION;
}

void* createInferRuntime_INTERNAL(void* logger, int32_t) noexcept {
  using namespace resrt::fake;
  auto& log = *static_cast<ILogger*>(logger);
  return guarded(log, [&]() -> nvinfer1::IRuntime* { return new Runtime(log); });
}

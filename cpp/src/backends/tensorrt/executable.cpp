#include "backends/tensorrt/executable.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <new>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backends/tensorrt/cuda.h"
#include "backends/tensorrt/flavour.h"
#include "backends/tensorrt/lower.h"
#include "file_io.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt::tensorrt {
namespace {

// While one inference computes, the images of the other are copied.
constexpr int kConcurrentInferences = 2;

CUstream to_stream(StreamHandle handle) {
  return reinterpret_cast<CUstream>(handle);
}

// In a default stream, legacy or per-thread, TensorRT synchronises the whole GPU.
bool is_default_stream(StreamHandle handle) {
  return handle <= reinterpret_cast<StreamHandle>(CU_STREAM_PER_THREAD);
}

// TensorRT requires aligned tensors. The parts of a split batch may be unaligned.
bool is_aligned(const void* address) {
  constexpr uintptr_t alignment = 256;
  return reinterpret_cast<uintptr_t>(address) % alignment == 0;
}

// Enqueues an inference on a stream. If that fails half-way, waits for the part that was enqueued:
// it must end before its context is destroyed or its memory is reused.
template <class Enqueue>
void enqueue_whole(CUstream stream, Enqueue enqueue) {
  try {
    enqueue();
  } catch (...) {
    Driver::get().stream_synchronize(stream);
    throw;
  }
}

// Logits in memory of their own, and an event that is recorded when they are complete.
class Logits : public DeviceLogits {
 public:
  Logits(const Device& device, size_t floats) : device_(device) {
    const Device::Current current(device_);
    DeviceMemory memory = allocate_on_device(floats * sizeof(float));
    end_ = create_event();
    memory_ = std::move(memory);
  }
  // Work that reads the logits may still be running in any stream.
  ~Logits() override {
    const Device::Current current(device_, std::nothrow);
    Driver::get().context_synchronize();
    memory_ = {};
    end_ = {};
  }

  float* data() const override { return reinterpret_cast<float*>(memory_.get()); }
  void mark_end(StreamHandle stream) override {
    const Device::Current current(device_);
    check(Driver::get().event_record(end_.get(), to_stream(stream)), "record an event");
  }
  void make_wait(StreamHandle stream) const override {
    const Device::Current current(device_);
    check(Driver::get().stream_wait_event(to_stream(stream), end_.get(), 0), "wait for an event");
  }

 private:
  Device device_;
  DeviceMemory memory_;
  Event end_;
};

#if defined(TRT_MAJOR_RTX)
// The kernels that TensorRT for RTX compiles for the GPU. All sessions and batch sizes share them,
// and they are kept in a file if one is given.
class Kernels {
 public:
  explicit Kernels(std::string file) : file_(std::move(file)) {}

  // Loads the file. TensorRT ignores kernels for another GPU or version.
  void open(nvinfer1::ICudaEngine& engine) {
    const std::unique_ptr<nvinfer1::IRuntimeConfig> config(engine.createRuntimeConfig());
    if (config != nullptr) cache_.reset(config->createRuntimeCache());
    if (cache_ == nullptr || file_.empty() || !std::filesystem::exists(file_)) return;
    kept_ = read_file(file_);
    cache_->deserialize(kept_.data(), kept_.size());
  }

  void use_in(nvinfer1::IRuntimeConfig& config) const {
    if (cache_ != nullptr) config.setRuntimeCache(*cache_);
  }

  void keep() {
    if (cache_ == nullptr || file_.empty()) return;
    const std::unique_ptr<nvinfer1::IHostMemory> memory(cache_->serialize());
    if (memory == nullptr) return;
    const std::string_view bytes(static_cast<const char*>(memory->data()), memory->size());
    if (bytes == kept_) return;
    write_file_atomically(file_, {bytes});
    kept_ = bytes;
  }

 private:
  std::string file_;
  std::string kept_;
  std::unique_ptr<nvinfer1::IRuntimeCache> cache_;
};
#else
// TensorRT's engines contain their kernels.
struct Kernels {
  explicit Kernels(const std::string&) {}
  void open(nvinfer1::ICudaEngine&) {}
  void keep() {}
};
#endif

// An engine on a GPU, shared by its sessions.
struct Loaded {
  Loaded(const Device& on, const LoadOptions& options, Logger& log, EngineInfo what)
      : device(on),
        device_index(options.device.value_or(0)),
        logger(log),
        info(std::move(what)),
        kernels(options.tensorrt.value_or(TensorRTLoadOptions()).runtime_cache) {}

  Device device;
  int device_index;
  Logger& logger;
  EngineInfo info;
  // Held while a batch size runs for the first time, so that other sessions can use what TensorRT
  // initialises or compiles during that run.
  mutable std::mutex first_runs;
  std::unique_ptr<nvinfer1::IRuntime> runtime;
  Kernels kernels;
  std::unique_ptr<nvinfer1::ICudaEngine> engine;

  size_t image_bytes() const {
    return sizeof(float) * static_cast<size_t>(info.input.channels) *
           static_cast<size_t>(info.input.height) * static_cast<size_t>(info.input.width);
  }
  size_t logits_bytes() const { return sizeof(float) * static_cast<size_t>(info.classes); }

  // Throws BackendError for what TensorRT could not do. The device must be current.
  [[noreturn]] void fail(const char* what, uint64_t mark) const {
    check_not_lost(what);
    throw BackendError(concat(kProduct, " could not ", what, ": ", logger.errors_since(mark)));
  }
};

// TensorRT's context for one batch size. A CUDA graph is bound to the shapes that its context had
// when it was captured, so each size has its own context. They share their scratch memory.
struct Prepared {
  std::unique_ptr<nvinfer1::IExecutionContext> context;
  GraphExec graph;
};

// Runs one inference at a time, with its own stream, memory for a batch on the host and the device,
// and a graph per batch size.
class Session : public Context {
 public:
  explicit Session(const Loaded& loaded) : loaded_(loaded) {
    const Device::Current current(loaded_.device);
    const auto most = static_cast<size_t>(loaded_.info.max_batch);
    // If an allocation fails, the others are freed while the device is still current.
    auto memory = std::make_unique<Memory>();
    memory->stream = create_stream();
    memory->begin = create_event();
    memory->end = create_event();
    memory->pinned_images = allocate_pinned(most * loaded_.image_bytes());
    memory->pinned_logits = allocate_pinned(most * loaded_.logits_bytes());
    memory->images = allocate_on_device(most * loaded_.image_bytes());
    memory->logits = allocate_on_device(most * loaded_.logits_bytes());
    scratch_size_ = loaded_.engine->getDeviceMemorySizeV2();
    memory->scratch = allocate_on_device(static_cast<size_t>(scratch_size_));
    memory_ = std::move(memory);
  }

  ~Session() override {
    const Device::Current current(loaded_.device, std::nothrow);
    // An inference in a caller's stream must end before its context is destroyed.
    Driver::get().event_synchronize(memory_->end.get());
    memory_.reset();
  }

  void infer(const float* images, int batch, float* const* outputs) override {
    const Device::Current current(loaded_.device);
    const auto count = static_cast<size_t>(batch);
    std::memcpy(memory_->pinned_images.get(), images, count * loaded_.image_bytes());
    wait_in(memory_->stream.get());
    const auto found = memory_->prepared.find(batch);
    if (found == memory_->prepared.end()) {
      prepare(batch);
    } else {
      launch(found->second, batch);
    }
    check(Driver::get().stream_synchronize(memory_->stream.get()), "run an inference");
    std::memcpy(outputs[0], memory_->pinned_logits.get(), count * loaded_.logits_bytes());
  }

  void infer_on_device(const DeviceBatch& batch) override {
    const Device::Current current(loaded_.device);
    const CUstream asked = to_stream(batch.stream);
    const CUstream stream = is_default_stream(batch.stream) ? memory_->stream.get() : asked;
    if (stream != asked) order(memory_->begin, asked, stream);
    wait_in(stream);
    auto& context = memory_->on_device[batch.batch];
    std::unique_lock<std::mutex> first_run;
    if (context == nullptr) {
      first_run = std::unique_lock(loaded_.first_runs);
      context = create_context(batch.batch, Memories::caller);
    }
    enqueue_whole(stream, [&] {
      enqueue_on_device(*context, batch, stream);
      check(Driver::get().event_record(memory_->end.get(), stream), "record an event");
    });
    if (stream != asked) wait_in(asked);
  }

 private:
  // Everything that must be freed while the device is current, in reverse order.
  struct Memory {
    Stream stream;
    Event begin;  // of an inference for a default stream
    Event end;    // of the last inference in a caller's memory
    PinnedMemory pinned_images;
    PinnedMemory pinned_logits;
    DeviceMemory images;
    DeviceMemory logits;
    DeviceMemory scratch;
    std::map<int, Prepared> prepared;  // by batch size
    // Contexts for callers' memory and streams. They are separate because a context must not change
    // after a graph was captured with it.
    std::map<int, std::unique_ptr<nvinfer1::IExecutionContext>> on_device;
  };

  // All inferences share the scratch memory, and one in a caller's memory may still be running.
  void wait_in(CUstream stream) const {
    check(Driver::get().stream_wait_event(stream, memory_->end.get(), 0), "wait for an event");
  }

  // Makes later work in `second` wait for the work that is in `first` now.
  static void order(const Event& event, CUstream first, CUstream second) {
    check(Driver::get().event_record(event.get(), first), "record an event");
    check(Driver::get().stream_wait_event(second, event.get(), 0), "wait for an event");
  }

  // Copies through the session's own memory if the batch is not aligned for TensorRT.
  void enqueue_on_device(nvinfer1::IExecutionContext& context, const DeviceBatch& batch,
                         CUstream stream) const {
    const Driver& driver = Driver::get();
    const auto count = static_cast<size_t>(batch.batch);
    const void* images = batch.images;
    void* logits = batch.logits;
    if (!is_aligned(images)) {
      check(driver.copy_on_device(memory_->images.get(), reinterpret_cast<CUdeviceptr>(images),
                                  count * loaded_.image_bytes(), stream),
            "copy the images");
      images = to_pointer(memory_->images);
    }
    if (!is_aligned(logits)) logits = to_pointer(memory_->logits);
    const uint64_t mark = loaded_.logger.mark();
    if (!context.setInputTensorAddress(kImages, images) ||
        !context.setTensorAddress(kLogits, logits) || !context.enqueueV3(stream)) {
      loaded_.fail("run an inference", mark);
    }
    if (logits != batch.logits) {
      check(driver.copy_on_device(reinterpret_cast<CUdeviceptr>(batch.logits),
                                  memory_->logits.get(), count * loaded_.logits_bytes(), stream),
            "copy the logits");
    }
  }

  // Runs a batch of a size that has not run before, then captures it for the next time. The first
  // run cannot be captured, because TensorRT initialises what it needs during that run.
  void prepare(int batch) {
    const std::lock_guard first_run(loaded_.first_runs);
    Prepared prepared{create_context(batch, Memories::own), {}};
    enqueue(*prepared.context, batch);
    check(Driver::get().stream_synchronize(memory_->stream.get()), "run an inference");
    // TensorRT for RTX captures graphs itself, and again after it has compiled better kernels.
    if constexpr (!kRtx) prepared.graph = capture(*prepared.context, batch);
    memory_->prepared.emplace(batch, std::move(prepared));
  }

  void launch(const Prepared& prepared, int batch) {
    if (prepared.graph) {
      check(Driver::get().graph_launch(prepared.graph.get(), memory_->stream.get()),
            "run an inference");
    } else {
      enqueue(*prepared.context, batch);
    }
  }

  void enqueue(nvinfer1::IExecutionContext& context, int batch) {
    const Driver& driver = Driver::get();
    const CUstream stream = memory_->stream.get();
    const auto count = static_cast<size_t>(batch);
    enqueue_whole(stream, [&] {
      check(driver.copy_to_device(memory_->images.get(), memory_->pinned_images.get(),
                                  count * loaded_.image_bytes(), stream),
            "copy the images");
      const uint64_t mark = loaded_.logger.mark();
      if (!context.enqueueV3(stream)) loaded_.fail("run an inference", mark);
      check(driver.copy_to_host(memory_->pinned_logits.get(), memory_->logits.get(),
                                count * loaded_.logits_bytes(), stream),
            "copy the logits");
    });
  }

  GraphExec capture(nvinfer1::IExecutionContext& context, int batch) {
    const Driver& driver = Driver::get();
    const CUstream stream = memory_->stream.get();
    check(driver.stream_begin_capture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL),
          "capture an inference");
    const auto end = [&] {
      CUgraph graph = nullptr;
      const CUresult result = driver.stream_end_capture(stream, &graph);
      return std::pair(result, CapturedGraph(graph));
    };
    try {
      enqueue(context, batch);
    } catch (...) {
      end();  // makes the stream usable again
      throw;
    }
    const auto [result, graph] = end();
    check(result, "capture an inference");
    CUgraphExec executable = nullptr;
    check(driver.graph_instantiate(&executable, graph.get(), 0), "capture an inference");
    return GraphExec(executable);
  }

  // Whose images and logits a context uses: the session's own, or a caller's, which change with
  // each inference.
  enum class Memories { own, caller };

  std::unique_ptr<nvinfer1::IExecutionContext> create_context(int batch,
                                                              [[maybe_unused]] Memories memories) {
    const uint64_t mark = loaded_.logger.mark();
    nvinfer1::ICudaEngine& engine = *loaded_.engine;
    constexpr auto strategy = nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED;
#if defined(TRT_MAJOR_RTX)
    const std::unique_ptr<nvinfer1::IRuntimeConfig> config(engine.createRuntimeConfig());
    if (config == nullptr) loaded_.fail("prepare an inference", mark);
    config->setExecutionContextAllocationStrategy(strategy);
    // A graph is valid only for the addresses and streams that it was captured with.
    config->setCudaGraphStrategy(memories == Memories::own
                                     ? nvinfer1::CudaGraphStrategy::kWHOLE_GRAPH_CAPTURE
                                     : nvinfer1::CudaGraphStrategy::kDISABLED);
    // Compile for the batch size now, so that a warmed-up engine has its final speed.
    config->setDynamicShapesKernelSpecializationStrategy(
        nvinfer1::DynamicShapesKernelSpecializationStrategy::kEAGER);
    loaded_.kernels.use_in(*config);
    std::unique_ptr<nvinfer1::IExecutionContext> context(
        engine.createExecutionContext(config.get()));
#else
    std::unique_ptr<nvinfer1::IExecutionContext> context(engine.createExecutionContext(strategy));
#endif
    const Shape& image = loaded_.info.input;
    if (context == nullptr) loaded_.fail("prepare an inference", mark);
    context->setDeviceMemoryV2(to_pointer(memory_->scratch), scratch_size_);
    if (!context->setInputShape(kImages, {4, {batch, image.channels, image.height, image.width}}) ||
        !context->setTensorAddress(kImages, to_pointer(memory_->images)) ||
        !context->setTensorAddress(kLogits, to_pointer(memory_->logits))) {
      loaded_.fail("prepare an inference", mark);
    }
    return context;
  }

  static void* to_pointer(const DeviceMemory& memory) {
    return reinterpret_cast<void*>(memory.get());
  }

  const Loaded& loaded_;
  int64_t scratch_size_ = 0;
  std::unique_ptr<Memory> memory_;
};

class Engine : public Executable, public DeviceAccess {
 public:
  explicit Engine(std::unique_ptr<Loaded> loaded) : loaded_(std::move(loaded)) {}

  ~Engine() override {
    const Device::Current current(loaded_->device, std::nothrow);
    loaded_.reset();
  }

  // Every size runs in one launch.
  int next_part(int64_t left) const override {
    return static_cast<int>(std::min<int64_t>(left, loaded_->info.max_batch));
  }

  // Each size that runs costs a graph and the time to capture it.
  std::vector<int> warm_sizes() const override {
    std::vector<int> sizes = {loaded_->info.max_batch};
    for (int size = 1; size < loaded_->info.max_batch; size *= 2) sizes.push_back(size);
    return sizes;
  }

  void warmed_up() override {
    const Device::Current current(loaded_->device);
    loaded_->kernels.keep();
  }

  int concurrency() const override { return kConcurrentInferences; }

  std::unique_ptr<Context> create_context() override { return std::make_unique<Session>(*loaded_); }

  const DeviceAccess* device_access() const override { return this; }
  int device() const override { return loaded_->device_index; }
  int device_of(const void* pointer) const override { return Device::of(pointer); }
  std::unique_ptr<DeviceLogits> allocate(size_t floats) const override {
    return std::make_unique<Logits>(loaded_->device, floats);
  }

 private:
  std::unique_ptr<Loaded> loaded_;
};

}  // namespace

std::unique_ptr<Executable> load(const Library& library, Logger& logger, const Plan& plan,
                                 const EngineInfo& info, const LoadOptions& options) {
  const Device device(options.device.value_or(0));
  const Device::Current current(device);  // outlives `loaded` if loading fails
  auto loaded = std::make_unique<Loaded>(device, options, logger, info);
  const uint64_t mark = logger.mark();
  loaded->runtime = library.create_runtime(logger);
  if (loaded->runtime == nullptr) loaded->fail("start", mark);
  // Version-compatible engines and engines with a plugin contain code. Engine files are trusted.
  loaded->runtime->setEngineHostCodeAllowed(true);
  loaded->engine.reset(
      loaded->runtime->deserializeCudaEngine(plan.bytes.data(), plan.bytes.size()));
  if (loaded->engine == nullptr) {
    loaded->fail("load the engine, which may be for another GPU (if so, build it for this one)",
                 mark);
  }
  loaded->kernels.open(*loaded->engine);
  return std::make_unique<Engine>(std::move(loaded));
}

}  // namespace resrt::tensorrt

#include "backends/tensorrt/executable.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <map>
#include <memory>
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

// Images are copied to the GPU in chunks of at least this size, while the next chunk is copied into
// pinned memory.
constexpr size_t kChunkBytes = size_t{4} << 20U;

// TensorRT for RTX may capture a graph from the second run of a context on, and launches it from
// the third on.
constexpr int kRunsToPrepare = kRtx ? 3 : 1;

// How often a capture is tried that other threads' synchronisation breaks.
constexpr int kMostCaptures = 3;

// Returns the batch size at which a smaller batch runs: a power of two, one and a half times a
// power of two, or the largest. So few sizes have a context and a graph, and at most a third is
// computed in vain.
int round_up_batch(int batch, int max_batch) {
  int size = 1;
  while (size < batch) {
    const int middle = size + size / 2;
    size = middle > size && middle >= batch ? middle : 2 * size;
  }
  return std::min(size, max_batch);
}

CUstream to_stream(StreamHandle handle) {
  return reinterpret_cast<CUstream>(handle);
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

// Memory for logits, and an event that is recorded when they are complete.
struct LogitsMemory {
  size_t floats = 0;
  DeviceMemory memory;
  Event end;
};

// Memory that is used again, because allocating and freeing may wait for the whole GPU. Work that
// reads returned memory may still be running in any stream. So it is used again only after the GPU
// has been waited for, once for many of them.
class LogitsPool {
 public:
  explicit LogitsPool(const Device& device) : device_(device) {}
  ~LogitsPool() {
    const Device::Current current(device_, std::nothrow);
    Driver::get().context_synchronize();
    returned_.clear();
    free_.clear();
  }
  LogitsPool(const LogitsPool&) = delete;
  LogitsPool& operator=(const LogitsPool&) = delete;

  const Device& device() const { return device_; }

  // The device must be current.
  LogitsMemory take(size_t floats) {
    {
      const std::lock_guard lock(mutex_);
      if (returned_.size() >= kMostReturned) reclaim();
      const auto found = std::find_if(free_.begin(), free_.end(), [&](const LogitsMemory& memory) {
        return memory.floats == floats;
      });
      if (found != free_.end()) {
        LogitsMemory taken = std::move(*found);
        free_.erase(found);
        return taken;
      }
    }
    LogitsMemory made;
    made.floats = floats;
    made.memory = allocate_on_device(floats * sizeof(float));
    made.end = create_event();
    return made;
  }

  void put_back(LogitsMemory memory) {
    const std::lock_guard lock(mutex_);
    returned_.push_back(std::move(memory));
  }

 private:
  static constexpr size_t kMostReturned = 64;

  // Does nothing while a stream captures a graph, because then waiting fails.
  void reclaim() {
    if (Driver::get().context_synchronize() != CUDA_SUCCESS) return;
    if (free_.size() > kMostReturned) free_.clear();  // of sizes that are no longer in use
    std::move(returned_.begin(), returned_.end(), std::back_inserter(free_));
    returned_.clear();
  }

  Device device_;
  std::mutex mutex_;
  std::vector<LogitsMemory> returned_;
  std::vector<LogitsMemory> free_;
};

// Logits in memory of a pool, which both may outlive the engine.
class Logits : public DeviceLogits {
 public:
  Logits(std::shared_ptr<LogitsPool> pool, size_t floats) : pool_(std::move(pool)) {
    const Device::Current current(pool_->device());
    memory_ = pool_->take(floats);
  }
  ~Logits() override { pool_->put_back(std::move(memory_)); }

  float* data() const override { return reinterpret_cast<float*>(memory_.memory.get()); }
  void mark_end(StreamHandle stream) override {
    const Device::Current current(pool_->device());
    check(Driver::get().event_record(memory_.end.get(), to_stream(stream)), "record an event");
  }
  void make_wait(StreamHandle stream) const override {
    const Device::Current current(pool_->device());
    check(Driver::get().stream_wait_event(to_stream(stream), memory_.end.get(), 0),
          "wait for an event");
  }

 private:
  std::shared_ptr<LogitsPool> pool_;
  LogitsMemory memory_;
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
  GraphExec graph = {};
  int captures = 0;  // that were tried
};

// Runs one inference at a time, with its own stream, memory for a batch on the host and the device,
// and a graph per batch size. A batch in a caller's memory is copied, because a graph is bound to
// addresses, and the copy costs less than launching each kernel.
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
    const Driver& driver = Driver::get();
    const CUstream stream = memory_->stream.get();
    Prepared& prepared = prepare(round_up_batch(batch, loaded_.info.max_batch));
    enqueue_whole(stream, [&] {
      upload(images, static_cast<size_t>(batch));
      launch(prepared);
      check(driver.copy_to_host(memory_->pinned_logits.get(), memory_->logits.get(),
                                static_cast<size_t>(batch) * loaded_.logits_bytes(), stream),
            "copy the logits");
    });
    check(driver.stream_synchronize(stream), "run an inference");
    std::memcpy(outputs[0], memory_->pinned_logits.get(),
                static_cast<size_t>(batch) * loaded_.logits_bytes());
    capture(prepared);
  }

  // Runs in the session's stream, which the caller's waits for.
  void infer_on_device(const DeviceBatch& batch) override {
    const Device::Current current(loaded_.device);
    const Driver& driver = Driver::get();
    const CUstream asked = to_stream(batch.stream);
    const CUstream stream = memory_->stream.get();
    require_not_capturing(asked);
    Prepared& prepared = prepare(round_up_batch(batch.batch, loaded_.info.max_batch));
    order(memory_->begin, asked, stream);
    const auto count = static_cast<size_t>(batch.batch);
    enqueue_whole(stream, [&] {
      check(
          driver.copy_on_device(memory_->images.get(), reinterpret_cast<CUdeviceptr>(batch.images),
                                count * loaded_.image_bytes(), stream),
          "copy the images");
      launch(prepared);
      check(driver.copy_on_device(reinterpret_cast<CUdeviceptr>(batch.logits),
                                  memory_->logits.get(), count * loaded_.logits_bytes(), stream),
            "copy the logits");
      order(memory_->end, stream, asked);
    });
  }

 private:
  // Everything that must be freed while the device is current, in reverse order.
  struct Memory {
    Stream stream;
    Event begin;  // of the last inference in a caller's memory
    Event end;
    PinnedMemory pinned_images;
    PinnedMemory pinned_logits;
    DeviceMemory images;
    DeviceMemory logits;
    DeviceMemory scratch;
    std::map<int, Prepared> prepared;  // by batch size
  };

  // Makes later work in `second` wait for the work that is in `first` now.
  static void order(const Event& event, CUstream first, CUstream second) {
    check(Driver::get().event_record(event.get(), first), "record an event");
    check(Driver::get().stream_wait_event(second, event.get(), 0), "wait for an event");
  }

  // The session's memory is reused by other inferences, which a graph of the caller would not wait
  // for.
  static void require_not_capturing(CUstream stream) {
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;
    check(Driver::get().stream_is_capturing(stream, &status), "use the stream");
    if (status == CU_STREAM_CAPTURE_STATUS_NONE) return;
    throw BackendError(
        "the stream is capturing a CUDA graph, which an inference cannot be part of; run it "
        "outside "
        "the capture (resrt has a CUDA graph of its own for each batch size)");
  }

  // Copies images into the session's memory on the GPU.
  void upload(const float* images, size_t count) const {
    const size_t bytes = count * loaded_.image_bytes();
    auto* pinned = static_cast<std::byte*>(memory_->pinned_images.get());
    for (size_t begin = 0; begin < bytes; begin += kChunkBytes) {
      const size_t size = std::min(kChunkBytes, bytes - begin);
      std::memcpy(pinned + begin, reinterpret_cast<const std::byte*>(images) + begin, size);
      check(Driver::get().copy_to_device(memory_->images.get() + begin, pinned + begin, size,
                                         memory_->stream.get()),
            "copy the images");
    }
  }

  // Returns what runs a batch size. Runs a size that has not run before, because TensorRT
  // initialises what it needs in the first run, and captures it.
  Prepared& prepare(int batch) {
    const auto found = memory_->prepared.find(batch);
    if (found != memory_->prepared.end()) return found->second;
    const CUstream stream = memory_->stream.get();
    const std::lock_guard first_run(loaded_.first_runs);
    Prepared prepared{create_context(batch)};
    for (int run = 0; run < kRunsToPrepare; ++run) {
      enqueue_whole(stream, [&] { enqueue(*prepared.context); });
      check(Driver::get().stream_synchronize(stream), "run an inference");
    }
    capture(prepared);
    return memory_->prepared.emplace(batch, std::move(prepared)).first->second;
  }

  void launch(const Prepared& prepared) const {
    if (prepared.graph) {
      check(Driver::get().graph_launch(prepared.graph.get(), memory_->stream.get()),
            "run an inference");
    } else {
      enqueue(*prepared.context);
    }
  }

  void enqueue(nvinfer1::IExecutionContext& context) const {
    const uint64_t mark = loaded_.logger.mark();
    if (!context.enqueueV3(memory_->stream.get())) loaded_.fail("run an inference", mark);
  }

  // Captures a graph if there is none yet. A capture fails if another thread synchronises the GPU
  // meanwhile. Inferences are then enqueued without a graph, and a later one tries again. TensorRT
  // for RTX captures graphs itself, and again after it has compiled better kernels.
  void capture(Prepared& prepared) const {
    if (kRtx || prepared.graph || prepared.captures == kMostCaptures) return;
    ++prepared.captures;
    try {
      prepared.graph = capture_graph(*prepared.context);
    } catch (const BackendError&) {
      check_not_lost("capture an inference");
    }
  }

  GraphExec capture_graph(nvinfer1::IExecutionContext& context) const {
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
      enqueue(context);
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

  std::unique_ptr<nvinfer1::IExecutionContext> create_context(int batch) const {
    const uint64_t mark = loaded_.logger.mark();
    nvinfer1::ICudaEngine& engine = *loaded_.engine;
    constexpr auto strategy = nvinfer1::ExecutionContextAllocationStrategy::kUSER_MANAGED;
#if defined(TRT_MAJOR_RTX)
    const std::unique_ptr<nvinfer1::IRuntimeConfig> config(engine.createRuntimeConfig());
    if (config == nullptr) loaded_.fail("prepare an inference", mark);
    config->setExecutionContextAllocationStrategy(strategy);
    // The context always runs with the same addresses and in the same stream.
    config->setCudaGraphStrategy(nvinfer1::CudaGraphStrategy::kWHOLE_GRAPH_CAPTURE);
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
  explicit Engine(std::unique_ptr<Loaded> loaded)
      : loaded_(std::move(loaded)), logits_(std::make_shared<LogitsPool>(loaded_->device)) {}

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
    return std::make_unique<Logits>(logits_, floats);
  }

 private:
  std::unique_ptr<Loaded> loaded_;
  std::shared_ptr<LogitsPool> logits_;
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

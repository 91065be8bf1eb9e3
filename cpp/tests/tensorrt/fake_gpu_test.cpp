// Loads and runs engines without a GPU, with fakes of NVIDIA's driver and of TensorRT's library.
// The fakes detect leaks, memory that is freed too early or while another GPU is current, and
// missing waits. They can be made to fail at any call.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <gtest/gtest.h>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "backends/tensorrt/flavour.h"
#include "engine/engine_file.h"
#include "engine/library_folders.h"
#include "fake/driver.h"
#include "fake/inference.h"
#include "resrt/engine.h"
#include "resrt/error.h"
#include "support.h"
#include "text.h"

namespace resrt::test {
namespace {

using Names = std::vector<std::string>;
using Floats = std::vector<float>;

constexpr Shape kImage = {.channels = 3, .height = 4, .width = 4};
constexpr size_t kPixels = 3 * 4 * 4;
constexpr size_t kClasses = 7;
constexpr int kMaxBatch = 5;
constexpr unsigned kOrders = 20;  // the number of random execution orders to test

// A temporary engine file with a plan for the fake.
class PlanFile : public TemporaryFile {
 public:
  PlanFile(const std::string& name, const std::string& plan, int max_batch = kMaxBatch)
      : TemporaryFile(name) {
    write_engine_file(path(),
                      {.model = "fake",
                       .backend = tensorrt::kBackend,
                       .backend_version = concat(NV_TENSORRT_MAJOR, '.', NV_TENSORRT_MINOR, '.',
                                                 NV_TENSORRT_PATCH),
                       .precision = Precision::fp32,
                       .input = kImage,
                       .classes = kClasses,
                       .max_batch = max_batch},
                      {Bytes(plan)});
  }
};

Engine load(const LoadOptions& options) {
  static const PlanFile file("fake.engine", fake::make_plan({kPixels, kClasses, kMaxBatch}));
  return Engine::load(file.path(), options);
}
Engine load(int device = 0) {
  return load(LoadOptions{.device = device});
}

// Returns integers, so that sums are exact, that differ for every seed.
Floats images(size_t batch, unsigned seed) {
  std::minstd_rand random(seed + 1);
  Floats made(batch * kPixels);
  for (float& value : made) value = static_cast<float>(random() % 17) - 8;
  return made;
}

Floats expected(const Floats& images) {
  Floats logits;
  for (auto image = images.begin(); image != images.end(); image += kPixels) {
    for (size_t label = 0; label < kClasses; ++label) {
      logits.push_back(fake::bias(label));
      for (size_t i = 0; i < kPixels; ++i) {
        logits.back() += image[static_cast<std::ptrdiff_t>(i)] * fake::weight(i, label);
      }
    }
  }
  return logits;
}

// A caller's objects on a GPU: a stream, unless it is the default one, and memory for images and
// logits.
class Caller {
 public:
  enum class In { own_stream, default_stream };

  explicit Caller(size_t batch, unsigned seed, int device = 0, In in = In::own_stream)
      : device_(device), batch_(batch), images_(images(batch, seed)) {
    on_gpu([&] {
      if (in == In::own_stream) ok(cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING));
      ok(cuMemAlloc(&from_, batch * kPixels * sizeof(float)));
      ok(cuMemAlloc(&to_, batch * kClasses * sizeof(float)));
      // The images are written in the order of this stream only.
      ok(fake::submit(stream_, [from = from_, images = images_] {
        auto* floats = static_cast<float*>(fake::at(from, images.size() * sizeof(float)));
        if (floats != nullptr) std::copy(images.begin(), images.end(), floats);
      }));
    });
  }
  ~Caller() {
    on_gpu([&] {
      ok(cuStreamSynchronize(stream_));
      ok(cuMemFree(from_));
      ok(cuMemFree(to_));
      if (stream_ != nullptr) ok(cuStreamDestroy(stream_));
    });
  }
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;

  StreamHandle stream() const { return reinterpret_cast<StreamHandle>(stream_); }

  void infer(const Engine& engine) const {
    engine.infer_on_device(from(), static_cast<int64_t>(batch_), reinterpret_cast<float*>(to_),
                           stream());
  }
  std::unique_ptr<DeviceArray> infer_into_new(const Engine& engine) const {
    return engine.infer_on_device(from(), static_cast<int64_t>(batch_), stream());
  }

  // Acts while the stream captures a graph.
  template <class Act>
  void capture(Act act) const {
    on_gpu([&] {
      ok(cuStreamSynchronize(stream_));
      ok(cuStreamBeginCapture(stream_, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
      act();
      CUgraph graph = nullptr;
      ok(cuStreamEndCapture(stream_, &graph));
      ok(cuGraphDestroy(graph));
    });
  }

  // Returns the logits as a kernel in the stream reads them.
  Floats read(const float* logits) const {
    Floats found(batch_ * kClasses);
    on_gpu([&] {
      ok(fake::submit(stream_, [&found, logits] {
        const void* memory =
            fake::at(reinterpret_cast<CUdeviceptr>(logits), found.size() * sizeof(float));
        if (memory != nullptr) std::memcpy(found.data(), memory, found.size() * sizeof(float));
      }));
      ok(cuStreamSynchronize(stream_));
    });
    return found;
  }
  Floats read() const { return read(reinterpret_cast<const float*>(to_)); }
  Floats expected() const { return test::expected(images_); }

 private:
  static void ok(CUresult result) { EXPECT_EQ(result, CUDA_SUCCESS); }

  template <class Act>
  void on_gpu(Act act) const {
    CUcontext context = nullptr;
    ok(cuDevicePrimaryCtxRetain(&context, device_));
    ok(cuCtxPushCurrent(context));
    act();
    ok(cuCtxPopCurrent(&context));
  }
  const float* from() const { return reinterpret_cast<const float*>(from_); }

  int device_;
  size_t batch_;
  Floats images_;
  CUstream stream_ = nullptr;
  CUdeviceptr from_ = 0;
  CUdeviceptr to_ = 0;
};

// Returns the message of the BackendError that `act` throws, or "".
template <class Act>
std::string error_of(Act act) {
  try {
    act();
    return "";
  } catch (const BackendError& error) {
    return error.what();
  }
}

void expect_contains(const std::string& error, const std::string& part) {
  EXPECT_NE(error.find(part), std::string::npos) << "'" << part << "' is not in: " << error;
}

// Checks that nothing leaked and no call was invalid.
void expect_clean() {
  fake::finish();
  EXPECT_EQ(fake::alive(), Names());
  EXPECT_EQ(fake::faults(), Names());
  EXPECT_EQ(fake::current_gpu(), -1);
}

class EngineOnFakeGpu : public testing::Test {
 protected:
  void SetUp() override {
    testing::FLAGS_gtest_death_test_style = "threadsafe";  // re-executes the test program
    fake::reset();
  }
  void TearDown() override {
    fake::repair();
    expect_clean();
  }
};

TEST_F(EngineOnFakeGpu, GivesNanForImagesThatAreNotFinite) {
  const Engine engine = load();
  Floats some = images(kMaxBatch + 1, 0);
  const Floats expected_logits = expected(some);
  some[kPixels + 1] = std::numeric_limits<float>::infinity();
  const Floats logits = engine.infer(some);
  for (size_t i = 0; i < logits.size(); ++i) {
    if (i / kClasses == 1) {
      EXPECT_TRUE(std::isnan(logits[i])) << "logit " << i;
    } else {
      EXPECT_EQ(logits[i], expected_logits[i]) << "logit " << i;
    }
  }
}

TEST_F(EngineOnFakeGpu, RejectsProcessorThreads) {
  EXPECT_THROW(load(LoadOptions{.threads = 1}), InputError);
}

TEST_F(EngineOnFakeGpu, RejectsProfiles) {
  EXPECT_THROW(load(LoadOptions{.profile = true}), InputError);
}

TEST_F(EngineOnFakeGpu, InfersEveryBatchSize) {
  const Engine engine = load();
  for (unsigned seed = 0; seed < kOrders; ++seed) {
    for (size_t batch = 0; batch <= 2 * kMaxBatch + 1; ++batch) {
      const Floats some = images(batch, seed);
      EXPECT_EQ(engine.infer(some), expected(some)) << batch;
    }
  }
}

TEST_F(EngineOnFakeGpu, LaunchesAGraphForEachSizeThatRanBefore) {
  const Engine engine = load();
  const auto launches = [&](size_t batch) {
    const int before = fake::graph_launches();
    const Floats some = images(batch, 0);
    EXPECT_EQ(engine.infer(some), expected(some));
    return fake::graph_launches() - before;
  };
  // TensorRT for RTX launches graphs of its own, from the third run of a size on.
  for (const size_t warm : {1U, 2U, 4U, 5U}) EXPECT_EQ(launches(warm), 1) << warm;
  launches(3);
  EXPECT_EQ(launches(3), 1);
  EXPECT_EQ(launches(kMaxBatch + 3), 2);
}

TEST_F(EngineOnFakeGpu, LaunchesGraphsForBatchesInCallersMemory) {
  const Engine engine = load();
  for (const size_t batch : {1U, 2U, 4U, 5U}) {
    const Caller caller(batch, 1);
    const int before = fake::graph_launches();
    caller.infer(engine);
    EXPECT_EQ(fake::graph_launches() - before, 1) << batch;
    EXPECT_EQ(caller.read(), caller.expected());
  }
}

#if !defined(TRT_MAJOR_RTX)
// Another thread that synchronises the GPU breaks captures. Inferences then run without a graph
// until a later capture works.
TEST_F(EngineOnFakeGpu, SurvivesBrokenCaptures) {
  fake::break_next_captures(100);
  const Engine engine = load();
  const Floats some = images(2, 0);
  EXPECT_EQ(engine.infer(some), expected(some));
  EXPECT_EQ(fake::graph_launches(), 0);
  fake::break_next_captures(0);
  const Caller caller(3, 1);
  caller.infer(engine);
  EXPECT_EQ(caller.read(), caller.expected());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(engine.infer(some), expected(some));
  EXPECT_GT(fake::graph_launches(), 0);
}

// TensorRT finds the resources of its builder only if they are open already.
TEST_F(EngineOnFakeGpu, OpensTheLibrariesNextToTensorRt) {
  const auto open = [] {
    namespace fs = std::filesystem;
    const fs::path built = RESRT_TEST_WHEEL;
    const TemporaryFile site("site");
    const fs::path folder = fs::path(site.path()) / "tensorrt_libs";
    fs::create_directories(folder);
    for (const std::string& name : {concat("libnvinfer.so.", NV_TENSORRT_MAJOR),
                                    std::string("libnvinfer_builder_resource.so")}) {
      fs::create_symlink(built / name, folder / name);
    }
    add_library_folder(site.path());
    load();
    const bool opened = std::getenv("RESRT_TEST_RESOURCE_IS_OPEN") != nullptr;
    fs::remove_all(site.path());
    std::exit(opened ? 0 : 1);
  };
  EXPECT_EXIT(open(), testing::ExitedWithCode(0), "");
}
#endif

// Neither allocates, nor creates an event, nor waits for the whole GPU for each batch.
TEST_F(EngineOnFakeGpu, InfersOnTheGpuWithoutWaitingForIt) {
  const Engine engine = load();
  const Caller caller(3, 1);
  constexpr int batches = 1000;
  const auto infer_all = [&] {
    const fake::Counts before = fake::counts();
    for (int i = 0; i < batches; ++i) caller.infer_into_new(engine);
    const fake::Counts after = fake::counts();
    return std::pair(after.allocations - before.allocations,
                     after.synchronisations - before.synchronisations);
  };
  infer_all();
  const auto [allocations, synchronisations] = infer_all();
  EXPECT_EQ(allocations, 0);
  EXPECT_LT(synchronisations, batches / 50);
}

TEST_F(EngineOnFakeGpu, RefusesToBePartOfACallersGraph) {
  const Engine engine = load();
  const Caller caller(2, 1);
  caller.capture([&] {
    expect_contains(error_of([&] { caller.infer(engine); }),
                    "the stream is capturing a CUDA graph");
  });
  caller.infer(engine);
  EXPECT_EQ(caller.read(), caller.expected());
}

// Batch sizes are rounded up, so that there are few contexts however many sizes are used.
TEST_F(EngineOnFakeGpu, HasFewContextsForManyBatchSizes) {
  constexpr size_t most = 100;
  const PlanFile file("large.engine", fake::make_plan({kPixels, kClasses, most}), most);
  const Engine engine = Engine::load(file.path(), {.warm_up = std::vector<int>()});
  const int before = fake::contexts();
  for (size_t batch = 1; batch <= most; ++batch) {
    const Floats some = images(batch, static_cast<unsigned>(batch));
    EXPECT_EQ(engine.infer(some), expected(some)) << batch;
  }
  EXPECT_LE(fake::contexts() - before, 14);  // 1, 2, 3, 4, 6, 8, ..., 64, 96, 100
}

TEST_F(EngineOnFakeGpu, IsSharedByThreads) {
  const Engine engine = load();
  std::atomic<int> wrong = 0;
  std::vector<std::jthread> threads;
  for (unsigned thread = 0; thread < 4; ++thread) {
    threads.emplace_back([&, thread] {
      for (unsigned i = 0; i < 50; ++i) {
        const Floats some = images(1 + (thread + i) % (kMaxBatch + 2), 100 * thread + i);
        wrong += engine.infer(some) != expected(some);
      }
    });
  }
  for (unsigned thread = 0; thread < 2; ++thread) {
    threads.emplace_back([&, thread] {
      for (unsigned i = 0; i < 50; ++i) {
        const Caller caller(1 + (thread + i) % kMaxBatch, 100 * thread + i);
        const auto logits = caller.infer_into_new(engine);
        wrong += caller.read(logits->data()) != caller.expected();
      }
    });
  }
  threads.clear();  // waits for all of them
  EXPECT_EQ(wrong, 0);
}

// Inferences in different streams share a session's memory and are ordered only by events.
TEST_F(EngineOnFakeGpu, OrdersInferencesInCallersStreamsAndItsOwn) {
  for (unsigned order = 0; order < kOrders; ++order) {
    fake::reset(order);
    const Engine engine = load();
    const Caller first(kMaxBatch, 1);
    const Caller second(kMaxBatch + 2, 2);
    const Caller third(3, 3);
    first.infer(engine);
    second.infer(engine);
    third.infer(engine);
    for (unsigned seed = 4; seed < 6; ++seed) {
      const Floats own = images(3, seed);
      EXPECT_EQ(engine.infer(own), expected(own));
    }
    EXPECT_EQ(second.read(), second.expected());
    EXPECT_EQ(first.read(), first.expected());
    EXPECT_EQ(third.read(), third.expected());
  }
}

TEST_F(EngineOnFakeGpu, OrdersInferencesInTheDefaultStream) {
  for (unsigned order = 0; order < kOrders; ++order) {
    fake::reset(order);
    const Engine engine = load();
    const Caller first(kMaxBatch, 1, 0, Caller::In::default_stream);
    const Caller second(3, 2);
    first.infer(engine);
    second.infer(engine);
    const auto logits = first.infer_into_new(engine);
    EXPECT_EQ(second.read(), second.expected());
    EXPECT_EQ(first.read(logits->data()), first.expected());
    EXPECT_EQ(first.read(), first.expected());
  }
}

// The parts of a split batch are not aligned as TensorRT requires.
TEST_F(EngineOnFakeGpu, InfersUnalignedBatches) {
  const Engine engine = load();
  for (unsigned seed = 0; seed < kOrders; ++seed) {
    const Caller caller(3 * kMaxBatch + 3, seed);
    caller.infer(engine);
    EXPECT_EQ(caller.read(), caller.expected());
  }
}

TEST_F(EngineOnFakeGpu, CachesCompiledKernels) {
  const TemporaryFile file("kernels");
  const auto compiled_by_loading = [](const std::string& runtime_cache) {
    const int before = fake::compiled();
    const Engine engine = load({.tensorrt = TensorRTLoadOptions{runtime_cache}});
    const Floats some = images(kMaxBatch, 0);
    EXPECT_EQ(engine.infer(some), expected(some));
    return fake::compiled() - before;
  };
  if (!tensorrt::kRtx) {
    EXPECT_THROW(compiled_by_loading(file.path()), InputError);
    return;
  }
  constexpr int sizes = 4;  // warmed up in both sessions: 1, 2, 4 and 5
  EXPECT_EQ(compiled_by_loading(""), sizes);
  EXPECT_EQ(compiled_by_loading(file.path()), sizes);
  EXPECT_EQ(compiled_by_loading(file.path()), 0);
  std::ofstream(file.path()) << "of another GPU";
  EXPECT_EQ(compiled_by_loading(file.path()), sizes);
  EXPECT_EQ(compiled_by_loading(file.path()), 0);
}

TEST_F(EngineOnFakeGpu, MakesOtherStreamsWaitForLogits) {
  for (unsigned order = 0; order < kOrders; ++order) {
    fake::reset(order);
    const Engine engine = load();
    const Caller writer(kMaxBatch, 1);
    const Caller reader(kMaxBatch, 2);
    const auto logits = writer.infer_into_new(engine);
    logits->make_wait(reader.stream());
    EXPECT_EQ(reader.read(logits->data()), writer.expected());
  }
}

TEST_F(EngineOnFakeGpu, MayBeDestroyedDuringAnInference) {
  for (unsigned order = 0; order < kOrders; ++order) {
    fake::reset(order);
    auto engine = std::make_unique<Engine>(load());
    const Caller first(kMaxBatch, 1);
    const Caller second(2, 2);
    first.infer(*engine);
    const auto logits = second.infer_into_new(*engine);
    engine.reset();
    EXPECT_EQ(first.read(), first.expected());
    EXPECT_EQ(second.read(logits->data()), second.expected());
  }
}

TEST_F(EngineOnFakeGpu, FreesLogitsThatNobodyReads) {
  const Engine engine = load();
  const Caller caller(kMaxBatch, 1);
  caller.infer_into_new(engine);
  EXPECT_NE(engine.infer_on_device(nullptr, 0, caller.stream()), nullptr);
}

TEST_F(EngineOnFakeGpu, RunsOnTheRequestedGpu) {
  for (const int device : {0, 1}) {
    const Engine engine = load(device);
    EXPECT_EQ(engine.device(), device);
    const Floats some = images(kMaxBatch, 0);
    EXPECT_EQ(engine.infer(some), expected(some));
    const Caller caller(kMaxBatch, 1, device);
    const auto logits = caller.infer_into_new(engine);
    EXPECT_EQ(engine.device_of(logits->data()), device);
    EXPECT_EQ(caller.read(logits->data()), caller.expected());
    EXPECT_THROW(engine.device_of(some.data()), InputError);
  }
}

TEST_F(EngineOnFakeGpu, ReportsWhichGpusExist) {
  for (const int device : {-1, 2}) {
    expect_contains(error_of([&] { load(device); }),
                    concat("there is no GPU ", device, " here; choose one from 0 to 1"));
  }
}

TEST_F(EngineOnFakeGpu, ReportsThatAnEngineMayBeForAnotherGpu) {
  const PlanFile file("foreign.engine", "of another GPU");
  const std::string error = error_of([&] { Engine::load(file.path()); });
  expect_contains(error, "another GPU");
  expect_contains(error, "generated on an incompatible device");
  const Floats some = images(1, 0);
  EXPECT_EQ(load().infer(some), expected(some));
}

TEST_F(EngineOnFakeGpu, ReportsThatMemoryIsExhausted) {
  size_t memory = 0;
  const auto attempt = [&] {
    fake::set_memory(memory);
    const std::string error = error_of([] { load(); });
    expect_clean();
    return error;
  };
  std::string error = attempt();
  for (; !error.empty(); error = attempt()) {
    expect_contains(error, "memory");
    ASSERT_LT(memory += 64, 1U << 16U);
  }
  EXPECT_GT(memory, 3 * kMaxBatch * kPixels);
}

// Calls everything that an engine can do.
void use_engine(const Caller& caller) {
  const Engine engine = load();
  for (int repeat = 0; repeat < 2; ++repeat) {
    const Floats some = images(kMaxBatch + 3, 1);
    EXPECT_EQ(engine.infer(some), expected(some));
  }
  const auto logits = caller.infer_into_new(engine);
  logits->make_wait(caller.stream());
  engine.device_of(logits->data());
  caller.infer(engine);
}

// Uses an engine with a failure at the first call of the driver, at the second, and so on, until
// the failure would be after the last call. Each time, either an exception contains `words` or the
// results are right. Nothing leaks, and the next engine works.
template <class Break>
void expect_survives(Break break_at, const std::string& words) {
  use_engine(Caller(1, 0));  // opens the driver
  for (int n = 0;; ++n) {
    SCOPED_TRACE(concat("call ", n));
    fake::reset(static_cast<unsigned>(n));
    auto caller = std::make_unique<Caller>(kMaxBatch, 2);
    break_at(n);
    const std::string error = error_of([&] { use_engine(*caller); });
    const bool failed = fake::has_failed();
    const bool lost = fake::is_lost();
    fake::repair();
    if (!error.empty()) {
      expect_contains(error, words);
    } else if (!lost) {
      EXPECT_EQ(caller->read(), caller->expected());
    }
    caller.reset();
    expect_clean();
    const Floats some = images(kMaxBatch, 3);
    EXPECT_EQ(load().infer(some), expected(some));
    if (!failed || testing::Test::HasFailure()) {
      EXPECT_GT(n, 100);
      break;
    }
  }
}

TEST_F(EngineOnFakeGpu, SurvivesTheFailureOfAnyCall) {
  expect_survives([](int n) { fake::fail(n, CUDA_ERROR_OUT_OF_MEMORY); }, "memory");
  expect_survives([](int n) { fake::fail(n, CUDA_ERROR_UNKNOWN); }, "could not");
}

TEST_F(EngineOnFakeGpu, SurvivesTheLossOfTheGpuAtAnyCall) {
  expect_survives([](int n) { fake::lose(n, CUDA_ERROR_ILLEGAL_ADDRESS); }, "is lost");
  expect_survives([](int n) { fake::lose(n, CUDA_ERROR_ECC_UNCORRECTABLE); }, "is lost");
  expect_survives([](int n) { fake::lose(n, CUDA_ERROR_DEINITIALIZED); }, "has shut down");
}

TEST_F(EngineOnFakeGpu, ReportsThatTheGpuIsLost) {
  const Engine engine = load();
  const Floats some = images(1, 0);
  for (const auto& [result, words] :
       {std::pair{CUDA_ERROR_ILLEGAL_ADDRESS, "the GPU is lost to this process"},
        std::pair{CUDA_ERROR_DEINITIALIZED, "driver has shut down"},
        std::pair{CUDA_ERROR_NOT_INITIALIZED, "another process, from which this one was forked"}}) {
    fake::lose(0, result);
    for (const std::string& error :
         {error_of([&] { engine.infer(some); }), error_of([&] { engine.device_of(some.data()); }),
          error_of([] { load(); })}) {
      expect_contains(error, words);
    }
    fake::repair();
  }
}

TEST_F(EngineOnFakeGpu, MayBeDestroyedDuringProcessExit) {
  const auto end = [] {
    static const Engine engine = load();
    fake::lose(0, CUDA_ERROR_DEINITIALIZED);
    std::exit(0);
  };
  EXPECT_EXIT(end(), testing::ExitedWithCode(0), "");
}

TEST_F(EngineOnFakeGpu, ReportsWhyThereIsNoGpu) {
  const auto open = [] {
    fake::lose(0, CUDA_ERROR_NO_DEVICE);
    expect_contains(error_of([] { load(); }), "driver does not start (CUDA_ERROR_NO_DEVICE");
    fake::repair();
    if (!tensorrt::kRtx) {  // RTX opens the driver twice, because it can build without a GPU
      fake::fail(1, CUDA_ERROR_UNKNOWN);
      expect_contains(error_of([] { load(); }), "driver cannot count the GPUs");
    }
    fake::set_gpus(0);
    expect_contains(error_of([] { load(); }), "driver finds no GPU");
    fake::reset();
    load();
    std::exit(testing::Test::HasFailure() ? 1 : 0);
  };
  EXPECT_EXIT(open(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace resrt::test

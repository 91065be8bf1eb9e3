// Loading engines and running them, without a GPU: with stand-ins for NVIDIA's driver and for
// TensorRT's library, which find what is leaked, freed too early or while another GPU is current,
// and not waited for, and which fail where they are told to.

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <gtest/gtest.h>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "backends/tensorrt/flavour.h"
#include "engine/engine_file.h"
#include "resrt/engine.h"
#include "resrt/error.h"
#include "stand_in/driver.h"
#include "stand_in/inference.h"
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
constexpr unsigned kOrders = 20;  // of what streams run, that are tried

// An engine file with a plan for the stand-in, for as long as it lives.
class PlanFile : public TemporaryFile {
 public:
  PlanFile(const std::string& name, const std::string& plan) : TemporaryFile(name) {
    write_engine_file(path(),
                      {.model = "stand-in",
                       .backend = tensorrt::kBackend,
                       .backend_version = concat(NV_TENSORRT_MAJOR, '.', NV_TENSORRT_MINOR, '.',
                                                 NV_TENSORRT_PATCH),
                       .precision = Precision::fp32,
                       .input = kImage,
                       .classes = kClasses,
                       .max_batch = kMaxBatch},
                      {plan});
  }
};

Engine load(const LoadOptions& options) {
  static const PlanFile file("stand-in.engine",
                             stand_in::make_plan({kPixels, kClasses, kMaxBatch}));
  return Engine::load(file.path(), options);
}
Engine load(int device = 0) {
  return load(LoadOptions{.device = device});
}

// Whole numbers, so that sums are exact, other ones for every seed.
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
      logits.push_back(stand_in::bias(label));
      for (size_t i = 0; i < kPixels; ++i) {
        logits.back() += image[static_cast<std::ptrdiff_t>(i)] * stand_in::weight(i, label);
      }
    }
  }
  return logits;
}

// What a caller has on a GPU of his own: a stream, unless it is the default one, images and logits
// in its memory.
class Caller {
 public:
  enum class In { own_stream, default_stream };

  explicit Caller(size_t batch, unsigned seed, int device = 0, In in = In::own_stream)
      : device_(device), batch_(batch), images_(images(batch, seed)) {
    on_gpu([&] {
      if (in == In::own_stream) ok(cuStreamCreate(&stream_, CU_STREAM_NON_BLOCKING));
      ok(cuMemAlloc(&from_, batch * kPixels * sizeof(float)));
      ok(cuMemAlloc(&to_, batch * kClasses * sizeof(float)));
      // The images are not there before, and in none but the stream's order.
      ok(stand_in::submit(stream_, [from = from_, images = images_] {
        auto* floats = static_cast<float*>(stand_in::at(from, images.size() * sizeof(float)));
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

  // What the stream finds in its order where the logits should be.
  Floats read(const float* logits) const {
    Floats found(batch_ * kClasses);
    on_gpu([&] {
      ok(stand_in::submit(stream_, [&found, logits] {
        const void* memory =
            stand_in::at(reinterpret_cast<CUdeviceptr>(logits), found.size() * sizeof(float));
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

// What an engine says that cannot do what it should; "" where it can.
template <class Act>
std::string error_of(Act act) {
  try {
    act();
    return "";
  } catch (const BackendError& error) {
    return error.what();
  }
}

void expect_says(const std::string& error, const std::string& part) {
  EXPECT_NE(error.find(part), std::string::npos) << "'" << error << "' should say '" << part << "'";
}

// Nothing is left, and nothing was done that no program may do.
void expect_clean() {
  stand_in::finish();
  EXPECT_EQ(stand_in::alive(), Names());
  EXPECT_EQ(stand_in::faults(), Names());
  EXPECT_EQ(stand_in::current_gpu(), -1);
}

class StandIn : public testing::Test {
 protected:
  void SetUp() override {
    testing::FLAGS_gtest_death_test_style = "threadsafe";  // a process of its own
    stand_in::start_anew();
  }
  void TearDown() override {
    stand_in::mend();
    expect_clean();
  }
};

TEST_F(StandIn, InfersEveryBatch) {
  const Engine engine = load();
  for (unsigned seed = 0; seed < kOrders; ++seed) {
    for (size_t batch = 0; batch <= 2 * kMaxBatch + 1; ++batch) {
      const Floats some = images(batch, seed);
      EXPECT_EQ(engine.infer(some), expected(some)) << batch;
    }
  }
}

TEST_F(StandIn, LaunchesAGraphForEachSizeThatHasRunBefore) {
  const Engine engine = load();
  const auto launches = [&](size_t batch) {
    const int before = stand_in::graph_launches();
    const Floats some = images(batch, 0);
    EXPECT_EQ(engine.infer(some), expected(some));
    return stand_in::graph_launches() - before;
  };
  const int one = tensorrt::kRtx ? 0 : 1;  // TensorRT for RTX has graphs of its own
  for (const size_t warm : {1U, 2U, 4U, 5U}) EXPECT_EQ(launches(warm), one) << warm;
  EXPECT_EQ(launches(3), 0);
  EXPECT_EQ(launches(3), one);
  EXPECT_EQ(launches(kMaxBatch + 3), 2 * one);
}

TEST_F(StandIn, IsSharedByThreads) {
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

// Inferences in different streams share what a session has, and only events order them.
TEST_F(StandIn, OrdersInferencesInCallersStreamsAndItsOwn) {
  for (unsigned order = 0; order < kOrders; ++order) {
    stand_in::start_anew(order);
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

TEST_F(StandIn, OrdersInferencesInTheDefaultStream) {
  for (unsigned order = 0; order < kOrders; ++order) {
    stand_in::start_anew(order);
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

// The parts of a batch begin wherever the one before ends, which TensorRT does not take.
TEST_F(StandIn, InfersWhatLiesAnywhere) {
  const Engine engine = load();
  for (unsigned seed = 0; seed < kOrders; ++seed) {
    const Caller caller(3 * kMaxBatch + 3, seed);
    caller.infer(engine);
    EXPECT_EQ(caller.read(), caller.expected());
  }
}

TEST_F(StandIn, KeepsTheKernelsThatItCompiles) {
  const TemporaryFile file("kernels");
  const auto compiled_by_loading = [](const std::string& runtime_cache) {
    const int before = stand_in::compiled();
    const Engine engine = load({.runtime_cache = runtime_cache});
    const Floats some = images(kMaxBatch, 0);
    EXPECT_EQ(engine.infer(some), expected(some));
    return stand_in::compiled() - before;
  };
  if (!tensorrt::kRtx) {
    EXPECT_THROW(compiled_by_loading(file.path()), InputError);
    return;
  }
  constexpr int sizes = 4;  // that are warmed up: 1, 2, 4 and 5, in both sessions
  EXPECT_EQ(compiled_by_loading(""), sizes);
  EXPECT_EQ(compiled_by_loading(file.path()), sizes);
  EXPECT_EQ(compiled_by_loading(file.path()), 0);
  std::ofstream(file.path()) << "of another GPU";
  EXPECT_EQ(compiled_by_loading(file.path()), sizes);
  EXPECT_EQ(compiled_by_loading(file.path()), 0);
}

TEST_F(StandIn, HasOtherStreamsWaitForLogits) {
  for (unsigned order = 0; order < kOrders; ++order) {
    stand_in::start_anew(order);
    const Engine engine = load();
    const Caller writer(kMaxBatch, 1);
    const Caller reader(kMaxBatch, 2);
    const auto logits = writer.infer_into_new(engine);
    logits->make_wait(reader.stream());
    EXPECT_EQ(reader.read(logits->data()), writer.expected());
  }
}

TEST_F(StandIn, MayGoBeforeItsInferenceHasEnded) {
  for (unsigned order = 0; order < kOrders; ++order) {
    stand_in::start_anew(order);
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

TEST_F(StandIn, FreesLogitsThatNobodyWaitedFor) {
  const Engine engine = load();
  const Caller caller(kMaxBatch, 1);
  caller.infer_into_new(engine);
  EXPECT_NE(engine.infer_on_device(nullptr, 0, caller.stream()), nullptr);
}

TEST_F(StandIn, RunsOnTheGpuThatIsAskedFor) {
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

TEST_F(StandIn, SaysWhichGpusThereAre) {
  for (const int device : {-1, 2}) {
    expect_says(error_of([&] { load(device); }),
                concat("there is no GPU ", device, " here; the numbers are 0 to 1"));
  }
}

TEST_F(StandIn, SaysThatAnEngineMayBeForAnotherGpu) {
  const PlanFile file("foreign.engine", "of another GPU");
  const std::string error = error_of([&] { Engine::load(file.path()); });
  expect_says(error, "another GPU");
  expect_says(error, "generated on an incompatible device");
  const Floats some = images(1, 0);
  EXPECT_EQ(load().infer(some), expected(some));
}

TEST_F(StandIn, SaysThatMemoryDoesNotSuffice) {
  size_t memory = 0;
  const auto attempt = [&] {
    stand_in::set_memory(memory);
    const std::string error = error_of([] { load(); });
    expect_clean();
    return error;
  };
  std::string error = attempt();
  for (; !error.empty(); error = attempt()) {
    expect_says(error, "memory");
    ASSERT_LT(memory += 64, 1U << 16U);
  }
  EXPECT_GT(memory, 3 * kMaxBatch * kPixels);
}

// All that an engine does.
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
// all calls are made before. Each time an exception tells of it in those words, or what was asked
// for is there; nothing is left, and the next engine works.
template <class Break>
void expect_survives(Break break_at, const std::string& words) {
  use_engine(Caller(1, 0));  // the driver is open
  for (int n = 0;; ++n) {
    SCOPED_TRACE(concat("call ", n));
    stand_in::start_anew(static_cast<unsigned>(n));
    auto caller = std::make_unique<Caller>(kMaxBatch, 2);
    break_at(n);
    const std::string error = error_of([&] { use_engine(*caller); });
    const bool failed = stand_in::has_failed();
    const bool lost = stand_in::is_lost();
    stand_in::mend();
    if (!error.empty()) {
      expect_says(error, words);
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

TEST_F(StandIn, SurvivesTheFailureOfAnyCall) {
  expect_survives([](int n) { stand_in::fail(n, CUDA_ERROR_OUT_OF_MEMORY); }, "memory");
  expect_survives([](int n) { stand_in::fail(n, CUDA_ERROR_UNKNOWN); }, "could not");
}

TEST_F(StandIn, SurvivesTheLossOfTheGpuAtAnyCall) {
  expect_survives([](int n) { stand_in::lose(n, CUDA_ERROR_ILLEGAL_ADDRESS); }, "is lost");
  expect_survives([](int n) { stand_in::lose(n, CUDA_ERROR_ECC_UNCORRECTABLE); }, "is lost");
  expect_survives([](int n) { stand_in::lose(n, CUDA_ERROR_DEINITIALIZED); }, "has shut down");
}

TEST_F(StandIn, SaysThatTheGpuIsLost) {
  const Engine engine = load();
  const Floats some = images(1, 0);
  for (const auto& [result, words] :
       {std::pair{CUDA_ERROR_ILLEGAL_ADDRESS, "the GPU is lost to this process"},
        std::pair{CUDA_ERROR_DEINITIALIZED, "driver has shut down"}}) {
    stand_in::lose(0, result);
    for (const std::string& error :
         {error_of([&] { engine.infer(some); }), error_of([&] { engine.device_of(some.data()); }),
          error_of([] { load(); })}) {
      expect_says(error, words);
    }
    stand_in::mend();
  }
}

TEST_F(StandIn, MayGoAtTheEndOfTheProcess) {
  const auto end = [] {
    static const Engine engine = load();
    stand_in::lose(0, CUDA_ERROR_DEINITIALIZED);
    std::exit(0);
  };
  EXPECT_EXIT(end(), testing::ExitedWithCode(0), "");
}

TEST_F(StandIn, SaysWhyThereIsNoGpu) {
  const auto open = [] {
    stand_in::lose(0, CUDA_ERROR_NO_DEVICE);
    expect_says(error_of([] { load(); }), "driver does not start (CUDA_ERROR_NO_DEVICE");
    stand_in::mend();
    if (!tensorrt::kRtx) {  // which asks twice, as it has a use without a GPU
      stand_in::fail(1, CUDA_ERROR_UNKNOWN);
      expect_says(error_of([] { load(); }), "driver does not count GPUs");
    }
    stand_in::set_gpus(0);
    expect_says(error_of([] { load(); }), "driver finds none");
    stand_in::start_anew();
    load();
    std::exit(testing::Test::HasFailure() ? 1 : 0);
  };
  EXPECT_EXIT(open(), testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace resrt::test

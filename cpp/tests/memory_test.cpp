#include <atomic>
#include <chrono>
#include <fstream>
#include <gtest/gtest.h>
#include <malloc.h>
#include <thread>
#include <unistd.h>

#include "resrt/models.h"
#include "support.h"

namespace resrt::test {
namespace {

constexpr double kGrowthMb = 2;

class Memory : public testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "sanitizers hold freed memory back and find leaks themselves";
#endif
  }
};

// Returns the resident memory of the process in megabytes, without free memory in its heap.
double resident_mb() {
  ::malloc_trim(0);
  std::ifstream statm("/proc/self/statm");
  int64_t size = 0;
  int64_t resident = 0;
  statm >> size >> resident;
  return static_cast<double>(resident * ::sysconf(_SC_PAGESIZE)) / 1e6;
}

// With one thread, because each thread allocates working memory when it first gets work.
TEST_F(Memory, IsStableOverTenThousandInferences) {
  const Engine engine = tiny_engine({.threads = 1});
  const std::vector<float> images = noise(engine, 3);
  std::vector<float> logits(3 * 5);
  for (int i = 0; i < 1000; ++i) engine.infer(images, logits);
  const double before = resident_mb();
  for (int i = 0; i < 10000; ++i) engine.infer(images, logits);
  const double growth = resident_mb() - before;
  RecordProperty("growth_mb", std::to_string(growth));
  EXPECT_LT(growth, kGrowthMb);
}

// Each inference uses all cores, and other work keeps the cores busy, so that OpenVINO's threads
// often come too late for their share of an inference.
TEST_F(Memory, IsStableWithManyCallersOnABusyProcessor) {
  constexpr int kCallers = 32;
  constexpr int kBusy = 3;
  constexpr int kWarmUp = 1000;
  constexpr int kInferences = 40000;
  constexpr double kGrowth = 20;
  const ResNeStConfig config = {.depths = {1, 1, 1, 1}, .width = 8, .stem_channels = 16};
  const Graph graph =
      build_graph("small", config, {.classes = 10, .in_channels = 1, .height = 32, .width = 32});
  const Engine engine = Engine::build(graph, random_weights(graph), {.max_batch = 1});
  const std::vector<float> images = noise(engine, 1);

  std::atomic<int> inferences = 0;
  std::atomic<bool> done = false;
  std::vector<std::jthread> threads;
  for (int busy = 0; busy < kBusy; ++busy) {
    threads.emplace_back([&] {
      while (!done) continue;
    });
  }
  for (int caller = 0; caller < kCallers; ++caller) {
    threads.emplace_back([&] {
      std::vector<float> logits(10);
      while (!done) {
        engine.infer(images, logits);
        ++inferences;
      }
    });
  }
  const auto wait_for = [&](int count, std::chrono::seconds most) {
    const auto end = std::chrono::steady_clock::now() + most;
    while (inferences < count && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
  };
  wait_for(kWarmUp, std::chrono::seconds(60));
  const double before = resident_mb();
  wait_for(kInferences, std::chrono::seconds(15));
  const double growth = resident_mb() - before;
  done = true;
  threads.clear();  // waits for all of them
  RecordProperty("growth_mb", std::to_string(growth));
  RecordProperty("inferences", std::to_string(inferences));
  EXPECT_LT(growth, kGrowth) << "over " << inferences << " inferences";
}

TEST_F(Memory, IsStableOverTwoHundredLoads) {
  const TemporaryFile file("cycled.engine");
  tiny_engine().save(file.path());
  const auto cycle = [&] {
    const Engine engine = Engine::load(file.path(), {.threads = 1});
    engine.infer(noise(engine, 1));
  };
  for (int i = 0; i < 50; ++i) cycle();
  const double before = resident_mb();
  for (int i = 0; i < 200; ++i) cycle();
  const double growth = resident_mb() - before;
  RecordProperty("growth_mb", std::to_string(growth));
  EXPECT_LT(growth, kGrowthMb);
}

}  // namespace
}  // namespace resrt::test

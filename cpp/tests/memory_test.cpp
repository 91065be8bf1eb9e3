#include <fstream>
#include <gtest/gtest.h>
#include <malloc.h>
#include <unistd.h>

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

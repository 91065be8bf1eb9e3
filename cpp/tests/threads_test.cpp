#include <atomic>
#include <gtest/gtest.h>
#include <thread>

#include "support.h"

namespace resrt::test {
namespace {

// Sixteen threads share an engine, each with its own images, while others load and destroy their
// own engines. All results equal those of a single thread.
TEST(Threads, ShareAnEngineWhileOthersLoadAndDestroy) {
  constexpr int kCallers = 16;
  constexpr int kLoaders = 2;
  const TemporaryFile file("shared.engine");
  const Engine engine = tiny_engine({.threads = 1});
  engine.save(file.path());
  std::vector<std::vector<float>> images;
  std::vector<std::vector<float>> expected;
  for (unsigned caller = 0; caller < kCallers; ++caller) {
    images.push_back(noise(engine, 1 + caller % 5, caller));
    expected.push_back(engine.infer(images.back()));
  }

  std::atomic<int> wrong = 0;
  std::vector<std::jthread> threads;
  for (size_t caller = 0; caller < kCallers; ++caller) {
    threads.emplace_back([&, caller] {
      for (int i = 0; i < 50; ++i) {
        if (engine.infer(images[caller]) != expected[caller]) ++wrong;
      }
    });
  }
  for (size_t loader = 0; loader < kLoaders; ++loader) {
    threads.emplace_back([&, loader] {
      for (int i = 0; i < 10; ++i) {
        const Engine loaded = Engine::load(file.path(), {.threads = 1});
        if (loaded.infer(images[loader]) != expected[loader]) ++wrong;
      }
    });
  }
  threads.clear();  // waits for all of them
  EXPECT_EQ(wrong, 0);
}

TEST(Threads, OpenBackendsAtOnce) {
  std::atomic<int> usable = 0;
  {
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i) {
      threads.emplace_back([&] {
        for (const BackendStatus& status : backends()) usable += status.name == "openvino";
      });
    }
  }
  EXPECT_EQ(usable, 8);
}

}  // namespace
}  // namespace resrt::test

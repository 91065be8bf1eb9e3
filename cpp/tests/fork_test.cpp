#include <functional>
#include <gtest/gtest.h>
#include <optional>
#include <sys/wait.h>
#include <unistd.h>

#include "resrt/error.h"
#include "support.h"

namespace resrt::test {
namespace {

// Runs a function in a forked process and returns its result, 0 to 99, or -1 if it hangs or fails.
int run_in_child(const std::function<int()>& function) {
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    ::_exit(function());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

// Returns 1 if a function throws a BackendError that names the remedy.
int is_rejected(const std::function<void()>& function) {
  try {
    function();
  } catch (const BackendError& error) {
    return std::string(error.what()).find("'spawn' method") != std::string::npos ? 1 : 2;
  }
  return 0;
}

class Fork : public testing::TestWithParam<int> {};

TEST_P(Fork, RejectsWhatNeedsThreadsOfTheParent) {
  const LoadOptions options = {.threads = GetParam()};
  const TemporaryFile file("forked.engine");
  std::optional<Engine> engine = tiny_engine(options);
  engine->save(file.path());
  const std::vector<float> images = noise(*engine, 1);
  const std::vector<float> expected = engine->infer(images);
  EXPECT_EQ(run_in_child([&] { return is_rejected([&] { engine->infer(images); }); }), 1);
  EXPECT_EQ(run_in_child([&] { return is_rejected([&] { tiny_engine(options); }); }), 1);
  EXPECT_EQ(run_in_child([&] { return is_rejected([&] { Engine::load(file.path(), options); }); }),
            1);
  EXPECT_EQ(engine->infer(images), expected);
}

TEST_P(Fork, AllowsTheRest) {
  const TemporaryFile file("forked.engine");
  std::optional<Engine> engine = tiny_engine({.threads = GetParam()});
  engine->infer(noise(*engine, 1));
  const auto run = [&] {
    engine->save(file.path());
    const bool is_same = inspect(file.path()).model == engine->info().model;
    const bool is_available = !backends().front().why_not;
    engine.reset();
    return is_same && is_available ? 1 : 0;
  };
  EXPECT_EQ(run_in_child(run), 1);
}

TEST(ForkDeathTest, AllowsEnginesIfTheParentHasNone) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";  // in a process that has not used engines
  const auto use_engine = [] {
    const Engine engine = tiny_engine();
    engine.infer(noise(engine, 1));
    return 1;
  };
  const auto run = [&] {
    backends();
    ::_exit(run_in_child(use_engine));
  };
  EXPECT_EXIT(run(), testing::ExitedWithCode(1), "");
}

INSTANTIATE_TEST_SUITE_P(Threads, Fork, testing::Values(0, 1));

}  // namespace
}  // namespace resrt::test

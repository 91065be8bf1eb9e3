// How OpenVINO's kernels are chosen, with an executable and a clock that exist only here.

#include "backends/openvino/kernels.h"

#include <chrono>
#include <gtest/gtest.h>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "support.h"

namespace resrt::test {
namespace {

using Seconds = std::chrono::duration<double>;

// What a network takes, in seconds. Inferences are for one image; the time is linear in the batch.
struct Speed {
  double loading;
  double own;
  double direct;
};

// A machine on which time passes only while something is loaded or inferred.
class Machine {
 public:
  explicit Machine(Speed speed) : speed_(speed) {}

  // Chooses the kernels of a network that has one kind of convolution.
  std::vector<KernelChoice> choose(double seconds, int max_batch = 8) {
    const Graph graph = tiny_graph();
    EngineInfo info;
    info.model = graph.name();
    info.backend = "openvino";
    info.input = graph.input_shape();
    info.outputs = {{"logits", {graph.classes()}}};
    info.max_batch = max_batch;
    const auto load = [this](const std::vector<KernelChoice>& kernels) {
      return executable(kernels);
    };
    const auto now = [this] {
      return std::chrono::steady_clock::time_point(
          std::chrono::duration_cast<std::chrono::steady_clock::duration>(Seconds(passed_)));
    };
    return openvino::choose_kernels(graph, info, seconds, {}, load, now);
  }

  double passed() const { return passed_; }
  int loaded() const { return loaded_; }
  int measured(int batch) const { return measured_.contains(batch) ? measured_.at(batch) : 0; }
  int stopped() const { return stopped_; }
  // From then on everything takes longer, as on a machine that becomes busy.
  void slow_down(double after, double factor) { busy_ = {after, factor}; }

 private:
  class FakeContext : public Context {
   public:
    FakeContext(Machine& machine, bool is_direct) : machine_(machine), is_direct_(is_direct) {}

    void infer(const float*, int batch, float* const*) override {
      machine_.pass(seconds(batch));
      ++machine_.measured_[batch];
    }
    bool infer_within(Seconds limit, const float*, int batch, float* const*) override {
      if (seconds(batch) > limit.count()) {
        machine_.pass(limit.count());
        ++machine_.stopped_;
        return false;
      }
      machine_.pass(seconds(batch));
      return true;
    }
    std::vector<StepTime> profile(int batch) override {
      return {{.name = "conv#0",
               .type = "Convolution",
               .layers = {"conv"},
               .kernel = is_direct_ ? "jit" : "brgconv",
               .ms = 900 * seconds(batch)}};
    }

   private:
    double seconds(int batch) const {
      const Speed& speed = machine_.speed_;
      return machine_.factor() * batch * (is_direct_ ? speed.direct : speed.own);
    }

    Machine& machine_;
    bool is_direct_;
  };

  class FakeExecutable : public Executable {
   public:
    FakeExecutable(Machine& machine, bool is_direct) : machine_(machine), is_direct_(is_direct) {}
    int next_part(int64_t left) const override { return static_cast<int>(left); }
    std::vector<int> warm_sizes() const override { return {}; }
    int concurrency() const override { return 1; }
    std::unique_ptr<Context> create_context() override {
      return std::make_unique<FakeContext>(machine_, is_direct_);
    }

   private:
    Machine& machine_;
    bool is_direct_;
  };

  std::unique_ptr<Executable> executable(const std::vector<KernelChoice>& kernels) {
    pass(factor() * speed_.loading);
    ++loaded_;
    const bool is_direct = !kernels.empty() && !kernels.front().priorities.empty();
    return std::make_unique<FakeExecutable>(*this, is_direct);
  }

  void pass(double seconds) { passed_ += seconds; }
  double factor() const { return passed_ < busy_.first ? 1 : busy_.second; }

  Speed speed_;
  std::pair<double, double> busy_ = {0, 1};
  double passed_ = 0;
  int loaded_ = 0;
  std::map<int, int> measured_;  // by batch size
  int stopped_ = 0;
};

// How much longer than the given time it may take.
constexpr double kMargin = 1.3;

TEST(Kernels, TheFasterOnesAreChosen) {
  Machine machine({.loading = 0.1, .own = 0.02, .direct = 0.01});
  const std::vector<KernelChoice> choices = machine.choose(10);
  ASSERT_EQ(choices.size(), 1U);
  EXPECT_EQ(choices[0].kernel, "jit");
  EXPECT_FALSE(choices[0].priorities.empty());
  EXPECT_EQ(choices[0].times.size(), 2U);  // batches of 1 and 8
  EXPECT_EQ(machine.loaded(), 3);
  EXPECT_LT(machine.passed(), 10 * kMargin);
}

TEST(Kernels, TheDefaultOnesAreKeptIfTheyAreAsFast) {
  Machine machine({.loading = 0.1, .own = 0.01, .direct = 0.01});
  EXPECT_TRUE(machine.choose(10).empty());
  EXPECT_EQ(machine.loaded(), 2);
}

// As reference kernels are.
TEST(Kernels, FarSlowerOnesAreGivenUpInTheirFirstInference) {
  Machine machine({.loading = 0.1, .own = 0.005, .direct = 3.7});
  EXPECT_TRUE(machine.choose(10).empty());
  EXPECT_EQ(machine.stopped(), 1);
  EXPECT_EQ(machine.measured(1), 0);
  EXPECT_LT(machine.passed(), 1);
}

TEST(Kernels, ALargeBatchThatTakesTooLongIsLeftOut) {
  Machine machine({.loading = 0.1, .own = 0.12, .direct = 0.1});
  const std::vector<KernelChoice> choices = machine.choose(10);
  ASSERT_EQ(choices.size(), 1U);
  EXPECT_EQ(choices[0].times.size(), 1U);
  EXPECT_EQ(machine.measured(8), 0);
  EXPECT_GE(machine.measured(1), 16);
  EXPECT_LT(machine.passed(), 10 * kMargin);
}

// Only the default kernels are loaded, for one inference or two of each size.
TEST(Kernels, NothingIsMeasuredWithoutTime) {
  Machine machine({.loading = 0.1, .own = 0.02, .direct = 0.01});
  EXPECT_TRUE(machine.choose(0.2).empty());
  EXPECT_EQ(machine.loaded(), 1);
  EXPECT_EQ(machine.measured(1), 0);
  EXPECT_EQ(machine.measured(8), 0);

  Machine slow_to_load({.loading = 20, .own = 0.02, .direct = 0.01});
  EXPECT_TRUE(slow_to_load.choose(10).empty());
  EXPECT_EQ(slow_to_load.loaded(), 1);
}

TEST(Kernels, TheTimeIncludesLoading) {
  Machine machine({.loading = 3, .own = 0.02, .direct = 0.01});
  EXPECT_EQ(machine.choose(10).size(), 1U);
  EXPECT_EQ(machine.loaded(), 3);
  EXPECT_LT(machine.passed(), 10 * kMargin);
}

TEST(Kernels, TheTimeIsKeptOnAMachineThatBecomesBusy) {
  Machine machine({.loading = 0.1, .own = 0.02, .direct = 0.01});
  machine.slow_down(1, 10);
  EXPECT_TRUE(machine.choose(10).empty());
  EXPECT_LT(machine.passed(), 10 * kMargin + 10 * 8 * 0.02);  // and the inference that is running
}

TEST(Kernels, TheTimeIsKeptForAnySpeed) {
  for (const double loading : {0.01, 0.5, 2.0, 4.0}) {
    for (const double own : {0.0001, 0.001, 0.01, 0.05, 0.2, 1.0, 5.0, 30.0}) {
      for (const double ratio : {0.5, 0.9, 1.1, 3.0, 30.0, 1000.0}) {
        for (const int max_batch : {1, 8, 64}) {
          Machine machine({.loading = loading, .own = own, .direct = ratio * own});
          machine.choose(10, max_batch);
          // And the set that is being tried, or the network with OpenVINO's own kernels.
          EXPECT_LT(machine.passed(), 10 * kMargin + loading + 2 * own)
              << loading << ' ' << own << ' ' << ratio << ' ' << max_batch;
        }
      }
    }
  }
}

}  // namespace
}  // namespace resrt::test

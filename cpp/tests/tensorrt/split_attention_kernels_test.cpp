// Tests the plugin's kernels on an emulated GPU.

#include <algorithm>
#include <cstdint>
#include <gtest/gtest.h>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "backends/tensorrt/plugin/device.h"
#include "resrt/models.h"
#include "split_attention_cases.h"

namespace resrt::plugin::test {
namespace {

class EmulatedGpu : public testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "ThreadSanitizer does not support these fibers, which all run in one thread";
#endif
  }
};

// Uses random numbers and a random order of blocks and warps. They differ in each run and can be
// repeated with the seed.
class SplitAttentionKernels : public EmulatedGpu {
 protected:
  SplitAttentionKernels() { random_order.seed(seed_); }

  // Describes the case and how to repeat it.
  std::string trace(const Case& c) const {
    return describe(c) + ", --gtest_random_seed=" + std::to_string(seed_);
  }

  void check(const std::vector<Case>& cases);

  std::mt19937& random() { return random_; }

 private:
  static unsigned fresh_seed() {
    const auto given = static_cast<unsigned>(testing::GTEST_FLAG(random_seed));
    return given != 0 ? given : std::random_device{}() % 99999 + 1;  // the option's valid range
  }

  const unsigned seed_ = fresh_seed();
  std::mt19937 random_{seed_};
};

size_t workspace_of(const Case& c) {
  return split_attention_workspace(c.problem);
}

std::vector<uint8_t> compute_in(std::vector<uint8_t>& workspace, const Case& c, const Inputs& in,
                                std::vector<uint8_t> y) {
  const SplitAttentionCall call = {.problem = c.problem,
                                   .variant = c.variant,
                                   .gpu = kHopper,
                                   .x = in.x.bytes.data(),
                                   .fc1_weight = in.fc1_weight.bytes.data(),
                                   .fc1_bias = in.fc1_bias.bytes.data(),
                                   .fc2_weight = in.fc2_weight.bytes.data(),
                                   .fc2_bias = in.fc2_bias.bytes.data(),
                                   .y = y.data(),
                                   .workspace = workspace.data()};
  count_bytes("u", call.x, in.x.bytes.size());
  count_bytes("y", call.y, y.size());
  const auto sums =
      static_cast<size_t>(divide(c.problem, c.variant, kHopper).tiles.parts) *
      static_cast<size_t>(c.problem.batch * c.problem.sizes.radix * c.problem.sizes.channels) *
      sizeof(float);
  count_bytes("sums", workspace.data(), sums);
  count_bytes("hidden", workspace.data() + sums,
              static_cast<size_t>(c.problem.batch * c.problem.sizes.hidden) * sizeof(float));
  for (const Numbers* numbers : {&in.fc1_weight, &in.fc1_bias, &in.fc2_weight, &in.fc2_bias}) {
    count_bytes("parameters", numbers->bytes.data(), numbers->bytes.size());
  }
  EXPECT_EQ(split_attention(call, nullptr), cudaSuccess);
  return y;
}

// All buffers have their exact size, so that AddressSanitizer finds accesses out of bounds.
std::vector<uint8_t> compute(const Case& c, const Inputs& in, std::vector<uint8_t> y) {
  std::vector<uint8_t> workspace(workspace_of(c), 0xFF);
  return compute_in(workspace, c, in, std::move(y));
}

// Checks that the kernels moved the bytes that the geometry, and so the model of a GPU, says.
void expect_counted(const Case& c) {
  const Geometry geometry = divide(c.problem, c.variant, kHopper);
  Traffic expected;
  for (int i = 0; i < geometry.launch_count; ++i) {
    const Traffic& traffic = geometry.launches.at(static_cast<size_t>(i)).traffic;
    expected.u += traffic.u;
    expected.y += traffic.y;
    expected.sums += traffic.sums;
    expected.products += traffic.products;
  }
  auto counts = take_counts();
  const auto moved = [&](const char* tensor) {
    return counts[tensor].read + counts[tensor].written;
  };
  EXPECT_EQ(take_launches(), geometry.launch_count);
  EXPECT_EQ(counts["u"].read, expected.u);
  EXPECT_EQ(counts["u"].written, 0);
  EXPECT_EQ(counts["y"].written, expected.y);
  EXPECT_EQ(counts["y"].read, 0);
  EXPECT_EQ(moved("sums"), expected.sums);
  EXPECT_EQ(moved("hidden") + moved("parameters"), expected.products);
  if (c.problem.layout == Layout::channels_last) {
    EXPECT_EQ(counts["u"].narrowest, 16);
    EXPECT_EQ(counts["y"].narrowest, 16);
  }
}

void SplitAttentionKernels::check(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    SCOPED_TRACE(trace(c));
    take_counts();
    take_launches();
    ASSERT_NO_THROW(ASSERT_LE(largest_error(c, random(), compute), tolerance(c.problem.element)));
    expect_counted(c);
    ASSERT_FALSE(HasFailure());
  }
}

TEST_F(SplitAttentionKernels, ComputeSmallBlocks) {
  check(cases_of(small_blocks(), {2}, kHopper));
}

TEST_F(SplitAttentionKernels, ComputeTheBlocksOfResNeSt50) {
  const std::vector<Block> blocks = blocks_of({"ResNeSt50"});
  ASSERT_FALSE(blocks.empty());
  check(cases_of(blocks, {1}, kHopper));
}

TEST_F(SplitAttentionKernels, SupportLargeLogits) {
  check(cases_of_large_logits(kHopper));
}

TEST_F(SplitAttentionKernels, ComputeTheLargestBlocksThatFit) {
  // The first has a launch for the hidden layer, so only its units use shared memory.
  const SplitAttentionSizes deep = {16, 2, 1, 12152};
  const SplitAttentionSizes wide = {11896, 2, 1, 1};
  EXPECT_FALSE(split_attention_fits({deep.channels, 2, 1, deep.hidden + 8}));
  EXPECT_FALSE(split_attention_fits({wide.channels + 8, 2, 1, wide.hidden}));
  for (const SplitAttentionSizes& sizes : {deep, wide}) {
    ASSERT_TRUE(split_attention_fits(sizes));
    check({{{sizes, Element::fp16, Layout::channels_last, 1, 1, 2}, Variant::passes, 0.5}});
  }
}

TEST_F(SplitAttentionKernels, UseExactlyTheirWorkspace) {
  // The workspace ends with the counters of the tiles of hidden layers, which are wide enough for
  // tiles of their own.
  for (const Case& c : cases_of({{{256, 2, 2, 128}, 7, 7}}, {1, 2, 5}, kHopper)) {
    SCOPED_TRACE(trace(c));
    const size_t size = workspace_of(c);
    const std::vector<uint8_t> untouched(256, 0xFF);
    std::vector<uint8_t> workspace(size + untouched.size(), 0xFF);
    const auto compute_there = [&](const Case&, const Inputs& in, std::vector<uint8_t> y) {
      return compute_in(workspace, c, in, std::move(y));
    };
    EXPECT_LE(largest_error(c, random(), compute_there), tolerance(c.problem.element));
    const std::span all(workspace);
    EXPECT_TRUE(std::ranges::equal(all.subspan(size), untouched));
    const bool is_used =
        !std::ranges::equal(all.subspan(size - 4, 4), std::span(untouched).first(4));
    EXPECT_EQ(is_used, c.variant == Variant::tickets);
  }
}

// The bytes of U, y and the partial sums, and those of the parameters, over what is necessary.
struct Excess {
  double activations;
  double parameters;
  int launches;
};

Excess excess_of(const Problem& problem, Variant variant) {
  const Geometry geometry = divide(problem, variant, kHopper);
  const auto& [channels, radix, cardinality, hidden] = problem.sizes;
  const double element = bytes_of(problem.element);
  const double u = element * problem.batch * radix * channels * problem.pixels();
  const double y = element * problem.batch * channels * problem.output_pixels();
  const double parameters = element * hidden * (channels / cardinality + 1) +
                            element * radix * channels * (hidden / cardinality + 1);
  double activations = 0.0;
  double products = 0.0;
  for (int i = 0; i < geometry.launch_count; ++i) {
    const Traffic& traffic = geometry.launches.at(static_cast<size_t>(i)).traffic;
    activations += static_cast<double>(traffic.u + traffic.y + traffic.sums);
    products += static_cast<double>(traffic.products);
  }
  return {activations / (u + y), products / (problem.batch * parameters), geometry.launch_count};
}

TEST(SplitAttentionGeometry, MovesFewBytesForEveryBlockOfTheCatalogue) {
  std::vector<std::string> models;
  for (const Model& model : catalog()) models.push_back(model.name);
  int clusters = 0;
  int all = 0;
  for (const Case& c : cases_of(blocks_of(models), {1, 8, 32}, kHopper)) {
    SCOPED_TRACE(describe(c));
    const Excess excess = excess_of(c.problem, c.variant);
    ++all;
    if (c.variant == Variant::cluster) {
      ++clusters;
      EXPECT_LE(excess.activations, 1.1);
      EXPECT_LE(excess.parameters, 1.0);
      EXPECT_EQ(excess.launches, 1);
    } else {
      // U twice and y once, and partial sums of at most a fifth of U: 1.8 for a radix of 2. The
      // windows of a pooling overlap, so that they read U 2.25 times.
      const double radix = c.problem.sizes.radix;
      const bool pools = c.problem.pooling != Pooling::none;
      EXPECT_LE(excess.activations,
                pools ? (3.45 * radix + 0.25) / (radix + 0.25) : (2.2 * radix + 1) / (radix + 1));
      EXPECT_LE(excess.launches, c.variant == Variant::tickets ? 2 : 3);
    }
  }
  EXPECT_GT(clusters, 0);
  EXPECT_GT(all, clusters);
}

// Tests of the emulation itself.
struct Nothing {};

LaunchShape shape_of(Extent grid, int threads, size_t shared_memory = 0, int cluster = 1) {
  return {.grid = grid, .threads = threads, .shared_memory = shared_memory, .cluster = cluster};
}

std::string error_of(void (*kernel)(Nothing), Extent grid, size_t shared_memory) {
  try {
    launch_kernel(kernel, shape_of(grid, 64, shared_memory), false, nullptr, Nothing{});
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "none";
}

TEST_F(EmulatedGpu, RejectsLaunchesBeyondItsLimits) {
  const auto kernel = [](Nothing) {};
  EXPECT_EQ(error_of(kernel, {70000, 1, 1}, 227 * 1024), "none");
  EXPECT_EQ(error_of(kernel, {0, 1, 1}, 0), "invalid blocks along x: 0");
  EXPECT_EQ(error_of(kernel, {1, 70000, 1}, 0), "invalid blocks along y: 70000");
  EXPECT_EQ(error_of(kernel, {1, 1, 70000}, 0), "invalid blocks along z: 70000");
  EXPECT_EQ(error_of(kernel, {1, 1, 1}, 227 * 1024 + 1), "invalid bytes of shared memory: 232449");
}

TEST_F(EmulatedGpu, DetectsABarrierThatSomeThreadsSkip) {
  const auto kernel = [](Nothing) {
    if (threadIdx.x < 60) __syncthreads();
  };
  EXPECT_EQ(error_of(kernel, {}, 0), "only 60 threads of 64 reach a barrier");
}

TEST_F(EmulatedGpu, DetectsAShuffleThatSomeLanesSkip) {
  const auto kernel = [](Nothing) {
    if (threadIdx.x % 32 < 20) __shfl_xor_sync(0xFFFFFFFFU, 0.0F, 1);
  };
  EXPECT_EQ(error_of(kernel, {}, 0), "only 20 lanes of a warp shuffle");
}

TEST_F(EmulatedGpu, ShufflesWithinAWarp) {
  std::vector<float> values(64);
  void (*const kernel)(float*) = [](float* to) {
    to[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFU, static_cast<float>(threadIdx.x), 5);
  };
  launch_kernel(kernel, shape_of({}, 64), false, nullptr, values.data());
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], static_cast<float>(i ^ 5));
}

// Counts the threads that did not see the other warp's value.
template <bool Waits>
void exchange(int* late) {
  float* shared = launched_shared_memory();
  shared[threadIdx.x] = 1.0F;
  if (Waits) __syncthreads();
  if (shared[threadIdx.x ^ 32] != 1.0F) ++*late;
}

TEST_F(EmulatedGpu, RevealsAMissingBarrier) {
  int late = 0;
  const LaunchShape shape = shape_of({10, 1, 1}, 64, 64 * sizeof(float));
  launch_kernel(exchange<true>, shape, false, nullptr, &late);
  EXPECT_EQ(late, 0);
  launch_kernel(exchange<false>, shape, false, nullptr, &late);
  EXPECT_EQ(late, 10 * 32);
}

// Every block waits until all others have counted themselves.
struct Meeting {
  unsigned* counter;
  unsigned blocks;
};

std::string error_of_meeting(unsigned counted_before) {
  unsigned counter = counted_before;
  void (*const kernel)(Meeting) = [](Meeting meeting) {
    if (threadIdx.x == 0) {
      add_to(meeting.counter, 1);
      wait_until(meeting.counter, meeting.blocks);
    }
    __syncthreads();
  };
  try {
    launch_kernel(kernel, shape_of({20, 1, 1}, 64), false, nullptr, Meeting{&counter, 20});
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "none";
}

TEST_F(EmulatedGpu, DetectsBlocksThatWaitForBlocksThatDoNotRunYet) {
  EXPECT_EQ(error_of_meeting(20), "none");
  EXPECT_EQ(error_of_meeting(0), "all running blocks wait forever");
}

// Each block reads its neighbour's shared memory, with and without a barrier before and after.
struct Neighbours {
  int* wrong;
  bool waits_before;
  bool waits_after;
};

int wrong_neighbours(bool waits_before, bool waits_after) {
  int wrong = 0;
  void (*const kernel)(Neighbours) = [](Neighbours n) {
    float* shared = launched_shared_memory();
    shared[threadIdx.x] = 1.0F;
    if (n.waits_before) cluster_barrier();
    const int next = (cluster_rank() + 1) % cluster_size();
    if (in_block(shared, next)[threadIdx.x] != 1.0F) ++*n.wrong;
    if (n.waits_after) cluster_barrier();
  };
  launch_kernel(kernel, shape_of({40, 1, 1}, 64, 64 * sizeof(float), 4), false, nullptr,
                Neighbours{&wrong, waits_before, waits_after});
  return wrong;
}

TEST_F(EmulatedGpu, RevealsAMissingBarrierOfAClusterAndOneBeforeItsEnd) {
  EXPECT_EQ(wrong_neighbours(true, true), 0);
  EXPECT_GT(wrong_neighbours(false, true), 0);
  EXPECT_GT(wrong_neighbours(true, false), 0);
}

TEST_F(EmulatedGpu, RejectsGridsThatAreNotWholeClusters) {
  const auto launch = [] {
    launch_kernel(+[](Nothing) {}, shape_of({6, 1, 1}, 64, 0, 4), false, nullptr, Nothing{});
  };
  EXPECT_THROW(launch(), std::runtime_error);
}

}  // namespace
}  // namespace resrt::plugin::test

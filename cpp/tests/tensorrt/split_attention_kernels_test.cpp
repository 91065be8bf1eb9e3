// The plugin's kernels without a GPU, on one that is emulated.

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
#include "split_attention_cases.h"

namespace resrt::plugin::test {
namespace {

class EmulatedGpu : public testing::Test {
 protected:
  void SetUp() override {
#if defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "ThreadSanitizer does not follow fibers, and all of them are of one thread";
#endif
  }
};

// Random numbers, and a random order of blocks and warps, which are others in each run and can be
// repeated.
class SplitAttentionKernels : public EmulatedGpu {
 protected:
  SplitAttentionKernels() { random_order.seed(seed_); }

  // Says which case it is, and how to repeat it.
  std::string trace(const Case& c) const {
    return describe(c) + ", --gtest_random_seed=" + std::to_string(seed_);
  }

  void check(const std::vector<Case>& cases);

  std::mt19937& random() { return random_; }

 private:
  static unsigned fresh_seed() {
    const auto given = static_cast<unsigned>(testing::GTEST_FLAG(random_seed));
    return given != 0 ? given : std::random_device{}() % 99999 + 1;  // what that option takes
  }

  const unsigned seed_ = fresh_seed();
  std::mt19937 random_{seed_};
};

size_t workspace_of(const Case& c) {
  return split_attention_workspace(c.block.sizes, c.batch, c.block.pixels, c.layout);
}

std::vector<uint8_t> compute_in(std::vector<uint8_t>& workspace, const Case& c, const Inputs& in,
                                std::vector<uint8_t> y) {
  const SplitAttentionCall call = {.sizes = c.block.sizes,
                                   .element = c.element,
                                   .layout = c.layout,
                                   .batch = c.batch,
                                   .pixels = c.block.pixels,
                                   .x = in.x.bytes.data(),
                                   .fc1_weight = in.fc1_weight.bytes.data(),
                                   .fc1_bias = in.fc1_bias.bytes.data(),
                                   .fc2_weight = in.fc2_weight.bytes.data(),
                                   .fc2_bias = in.fc2_bias.bytes.data(),
                                   .y = y.data(),
                                   .workspace = workspace.data()};
  EXPECT_EQ(split_attention(call, nullptr), cudaSuccess);
  return y;
}

// All memory is just as long as it must be: AddressSanitizer sees what is touched beyond.
std::vector<uint8_t> compute(const Case& c, const Inputs& in, std::vector<uint8_t> y) {
  std::vector<uint8_t> workspace(workspace_of(c), 0xFF);
  return compute_in(workspace, c, in, std::move(y));
}

void SplitAttentionKernels::check(const std::vector<Case>& cases) {
  for (const Case& c : cases) {
    SCOPED_TRACE(trace(c));
    ASSERT_NO_THROW(ASSERT_LE(largest_error(c, random(), compute), tolerance(c.element)));
  }
}

TEST_F(SplitAttentionKernels, ComputeSmallBlocks) {
  check(cases_of(small_blocks(), {2}));
}

TEST_F(SplitAttentionKernels, ComputeTheBlocksOfResNeSt50) {
  const std::vector<Block> blocks = blocks_of({"ResNeSt50"});
  ASSERT_FALSE(blocks.empty());
  check(cases_of(blocks, {1}));
}

TEST_F(SplitAttentionKernels, TakeLargeLogits) {
  check(cases_of_large_logits());
}

TEST_F(SplitAttentionKernels, ComputeTheLargestBlocksThatFit) {
  // The hidden layer of the first is launched alone, so that only its units count.
  const SplitAttentionSizes deep = {16, 2, 1, 11904};
  const SplitAttentionSizes wide = {11896, 2, 1, 1};
  EXPECT_FALSE(split_attention_fits({deep.channels, 2, 1, deep.hidden + 1}));
  EXPECT_FALSE(split_attention_fits({wide.channels + 8, 2, 1, wide.hidden}));
  for (const SplitAttentionSizes& sizes : {deep, wide}) {
    ASSERT_TRUE(split_attention_fits(sizes));
    check({{{sizes, 2}, Element::fp16, Layout::channels_last, 1, 0.5}});
  }
}

TEST_F(SplitAttentionKernels, FillTheirWorkspaceAndNoMore) {
  // Hidden layers are at its end, and so wide that they are computed once for each image.
  for (const Case& c : cases_of({{{256, 2, 2, 128}, 49}}, {1, 2, 5})) {
    SCOPED_TRACE(trace(c));
    const size_t size = workspace_of(c);
    const std::vector<uint8_t> untouched(256, 0xFF);
    std::vector<uint8_t> workspace(size + untouched.size(), 0xFF);
    const auto compute_there = [&](const Case&, const Inputs& in, std::vector<uint8_t> y) {
      return compute_in(workspace, c, in, std::move(y));
    };
    EXPECT_LE(largest_error(c, random(), compute_there), tolerance(c.element));
    const std::span all(workspace);
    EXPECT_TRUE(std::ranges::equal(all.subspan(size), untouched));
    EXPECT_FALSE(std::ranges::equal(all.subspan(size - 4, 4), std::span(untouched).first(4)));
  }
}

// Now what the emulation itself is worth.
struct Nothing {};

std::string fault_of(void (*kernel)(Nothing), dim3 grid, size_t shared_memory) {
  try {
    launch_kernel(kernel, grid, 64, shared_memory, nullptr, Nothing{});
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "none";
}

TEST_F(EmulatedGpu, RefusesLaunchesBeyondItsLimits) {
  const auto kernel = [](Nothing) {};
  EXPECT_EQ(fault_of(kernel, dim3(70000, 1, 1), 48 * 1024), "none");
  EXPECT_EQ(fault_of(kernel, dim3(0, 1, 1), 0), "blocks along x: 0");
  EXPECT_EQ(fault_of(kernel, dim3(1, 70000, 1), 0), "blocks along y: 70000");
  EXPECT_EQ(fault_of(kernel, dim3(1, 1, 70000), 0), "blocks along z: 70000");
  EXPECT_EQ(fault_of(kernel, dim3(1, 1, 1), 48 * 1024 + 1), "bytes of shared memory: 49153");
}

TEST_F(EmulatedGpu, FindsABarrierThatSomeThreadsLeaveOut) {
  const auto kernel = [](Nothing) {
    if (threadIdx.x < 60) __syncthreads();
  };
  EXPECT_EQ(fault_of(kernel, 1, 0), "only 60 threads of 64 reach a barrier");
}

TEST_F(EmulatedGpu, FindsAShuffleThatSomeLanesLeaveOut) {
  const auto kernel = [](Nothing) {
    if (threadIdx.x % 32 < 20) __shfl_xor_sync(0xFFFFFFFFU, 0.0F, 1);
  };
  EXPECT_EQ(fault_of(kernel, 1, 0), "only 20 lanes of a warp shuffle");
}

TEST_F(EmulatedGpu, ShufflesWithinAWarp) {
  std::vector<float> values(64);
  void (*const kernel)(float*) = [](float* to) {
    to[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFU, static_cast<float>(threadIdx.x), 5);
  };
  launch_kernel(kernel, 1, 64, 0, nullptr, values.data());
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], static_cast<float>(i ^ 5));
}

// Counts threads to which the other warp's number was not there.
template <bool Waits>
void exchange(int* late) {
  float* shared = launched_shared_memory();
  shared[threadIdx.x] = 1.0F;
  if (Waits) __syncthreads();
  if (shared[threadIdx.x ^ 32] != 1.0F) ++*late;
}

TEST_F(EmulatedGpu, ShowsWhereABarrierIsMissing) {
  int late = 0;
  launch_kernel(exchange<true>, 10, 64, 64 * sizeof(float), nullptr, &late);
  EXPECT_EQ(late, 0);
  launch_kernel(exchange<false>, 10, 64, 64 * sizeof(float), nullptr, &late);
  EXPECT_EQ(late, 10 * 32);
}

}  // namespace
}  // namespace resrt::plugin::test

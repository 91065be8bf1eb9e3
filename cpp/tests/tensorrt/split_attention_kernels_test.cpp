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

// All buffers have their exact size, so that AddressSanitizer finds accesses out of bounds.
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

TEST_F(SplitAttentionKernels, SupportLargeLogits) {
  check(cases_of_large_logits());
}

TEST_F(SplitAttentionKernels, ComputeTheLargestBlocksThatFit) {
  // The first has a launch for the hidden layer, so only its units use shared memory.
  const SplitAttentionSizes deep = {16, 2, 1, 11904};
  const SplitAttentionSizes wide = {11896, 2, 1, 1};
  EXPECT_FALSE(split_attention_fits({deep.channels, 2, 1, deep.hidden + 1}));
  EXPECT_FALSE(split_attention_fits({wide.channels + 8, 2, 1, wide.hidden}));
  for (const SplitAttentionSizes& sizes : {deep, wide}) {
    ASSERT_TRUE(split_attention_fits(sizes));
    check({{{sizes, 2}, Element::fp16, Layout::channels_last, 1, 0.5}});
  }
}

TEST_F(SplitAttentionKernels, UseExactlyTheirWorkspace) {
  // The workspace ends with the hidden layers, which are wide enough for a launch of their own.
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

// Tests of the emulation itself.
struct Nothing {};

std::string error_of(void (*kernel)(Nothing), dim3 grid, size_t shared_memory) {
  try {
    launch_kernel(kernel, grid, 64, shared_memory, nullptr, Nothing{});
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "none";
}

TEST_F(EmulatedGpu, RejectsLaunchesBeyondItsLimits) {
  const auto kernel = [](Nothing) {};
  EXPECT_EQ(error_of(kernel, dim3(70000, 1, 1), 48 * 1024), "none");
  EXPECT_EQ(error_of(kernel, dim3(0, 1, 1), 0), "invalid blocks along x: 0");
  EXPECT_EQ(error_of(kernel, dim3(1, 70000, 1), 0), "invalid blocks along y: 70000");
  EXPECT_EQ(error_of(kernel, dim3(1, 1, 70000), 0), "invalid blocks along z: 70000");
  EXPECT_EQ(error_of(kernel, dim3(1, 1, 1), 48 * 1024 + 1),
            "invalid bytes of shared memory: 49153");
}

TEST_F(EmulatedGpu, DetectsABarrierThatSomeThreadsSkip) {
  const auto kernel = [](Nothing) {
    if (threadIdx.x < 60) __syncthreads();
  };
  EXPECT_EQ(error_of(kernel, 1, 0), "only 60 threads of 64 reach a barrier");
}

TEST_F(EmulatedGpu, DetectsAShuffleThatSomeLanesSkip) {
  const auto kernel = [](Nothing) {
    if (threadIdx.x % 32 < 20) __shfl_xor_sync(0xFFFFFFFFU, 0.0F, 1);
  };
  EXPECT_EQ(error_of(kernel, 1, 0), "only 20 lanes of a warp shuffle");
}

TEST_F(EmulatedGpu, ShufflesWithinAWarp) {
  std::vector<float> values(64);
  void (*const kernel)(float*) = [](float* to) {
    to[threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFU, static_cast<float>(threadIdx.x), 5);
  };
  launch_kernel(kernel, 1, 64, 0, nullptr, values.data());
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
  launch_kernel(exchange<true>, 10, 64, 64 * sizeof(float), nullptr, &late);
  EXPECT_EQ(late, 0);
  launch_kernel(exchange<false>, 10, 64, 64 * sizeof(float), nullptr, &late);
  EXPECT_EQ(late, 10 * 32);
}

}  // namespace
}  // namespace resrt::plugin::test

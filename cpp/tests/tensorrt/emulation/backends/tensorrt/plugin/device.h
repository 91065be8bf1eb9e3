#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cuda_runtime_api.h>
#include <functional>
#include <random>

// In place of the product's header of this name: what its kernels need to be C++ and run without a
// GPU, on one thread of the CPU. That checks what they compute, where they wait for each other and
// which memory they touch; not what nvcc makes of them, and not how fast they are.
//
// Every thread of a block is a fiber, which gives way at barriers and shuffles; the blocks of a
// grid, and the warps of a block between barriers, run in random order. Shared memory begins as
// NaN where the launch gives its size; variables of a kernel in it keep what the block before left,
// and do not count among the memory that a launch may have.

#undef __shared__
#define __shared__ static

namespace resrt::plugin {

using std::max;
using std::min;

extern dim3 gridDim;
extern uint3 blockIdx;
extern uint3 threadIdx;

void __syncthreads();
// Of all lanes, whatever the mask.
float __shfl_xor_sync(unsigned mask, float value, int lanes_apart);
// As GPUs do it: the argument of the power of 2 is rounded.
inline float __expf(float x) {
  return std::exp2(x * 1.44269504F);
}

float* launched_shared_memory();

// That of the blocks and warps.
extern std::mt19937 random_order;

// Throws std::runtime_error for what a GPU refuses, hangs at or does not define: a grid or shared
// memory beyond its limits, and a barrier or shuffle that not all threads of the block or warp
// reach.
void run_grid(dim3 grid, int threads, size_t shared_memory, const std::function<void()>& thread);

template <class Parameters>
void launch_kernel(void (*kernel)(Parameters), dim3 grid, int threads, size_t shared_memory,
                   cudaStream_t, const Parameters& parameters) {
  run_grid(grid, threads, shared_memory, [&] { kernel(parameters); });
}

}  // namespace resrt::plugin

#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cuda_runtime_api.h>
#include <functional>
#include <random>

// Replaces the plugin's header of this name so that its kernels compile as C++ and run without a
// GPU, on one CPU thread. This checks what the kernels compute, their synchronisation and their
// memory accesses, but not nvcc's output or their speed.
//
// Every thread of a block is a fiber that yields at barriers and shuffles. The blocks of a grid,
// and the warps of a block between barriers, run in random order. Shared memory whose size is given
// at launch is initialised to NaN. Static shared variables keep the values of the previous block
// and do not count towards a launch's limit.

#undef __shared__
#define __shared__ static

namespace resrt::plugin {

using std::max;
using std::min;

extern dim3 gridDim;
extern uint3 blockIdx;
extern uint3 threadIdx;

void __syncthreads();
// Shuffles all lanes and ignores the mask.
float __shfl_xor_sync(unsigned mask, float value, int lanes_apart);
// Like on GPUs, the argument of the power of 2 is rounded.
inline float __expf(float x) {
  return std::exp2(x * 1.44269504F);
}

float* launched_shared_memory();

// Determines the order of blocks and warps.
extern std::mt19937 random_order;

// Throws std::runtime_error if a GPU would reject the launch, hang or have undefined behaviour: if
// the grid or shared memory exceeds its limits, or if not all threads of a block or warp reach a
// barrier or shuffle.
void run_grid(dim3 grid, int threads, size_t shared_memory, const std::function<void()>& thread);

template <class Parameters>
void launch_kernel(void (*kernel)(Parameters), dim3 grid, int threads, size_t shared_memory,
                   cudaStream_t, const Parameters& parameters) {
  run_grid(grid, threads, shared_memory, [&] { kernel(parameters); });
}

}  // namespace resrt::plugin

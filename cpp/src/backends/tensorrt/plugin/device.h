#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>

// The parts of CUDA that only nvcc can compile. The tests replace this header by one that runs
// grids without a GPU, so the rest of the kernels must be C++.
namespace resrt::plugin {

template <class Parameters>
void launch_kernel(void (*kernel)(Parameters), dim3 grid, int threads, size_t shared_memory,
                   cudaStream_t stream, const Parameters& parameters) {
  kernel<<<grid, threads, shared_memory, stream>>>(parameters);
}

// The block's shared memory whose size is given at launch.
__device__ inline float* launched_shared_memory() {
  extern __shared__ float memory[];
  return memory;
}

}  // namespace resrt::plugin

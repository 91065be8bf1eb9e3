#pragma once

#include <cstddef>
#include <cstdint>
#include <cuda_runtime.h>

#include "backends/tensorrt/plugin/geometry.h"

// The parts of CUDA that only nvcc can compile. The tests replace this header by one that runs
// grids without a GPU, so the rest of the kernels must be C++.
namespace resrt::plugin {

// Whether thread blocks can form clusters, and launches of a stream can overlap.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
inline constexpr bool kHasClusters = false;
#else
inline constexpr bool kHasClusters = true;
#endif

// Launches a kernel. With `overlaps`, it may start while the previous launch of the stream is still
// running, and must call wait_for_previous_launch before it uses that launch's results.
template <class Parameters>
cudaError_t launch_kernel(void (*kernel)(Parameters), const LaunchShape& shape, bool overlaps,
                          cudaStream_t stream, const Parameters& parameters) {
  constexpr size_t without_opting_in = 48 * 1024;
  constexpr int portable_cluster = 8;
  if (shape.shared_memory > without_opting_in) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_memory));
    if (error != cudaSuccess) return error;
  }
  if (shape.cluster > portable_cluster) {
    const cudaError_t error =
        cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1);
    if (error != cudaSuccess) return error;
  }
  cudaLaunchAttribute attributes[2];
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(shape.grid.x, shape.grid.y, shape.grid.z);
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_memory;
  config.stream = stream;
  config.attrs = attributes;
  if (shape.cluster > 1) {
    attributes[config.numAttrs].id = cudaLaunchAttributeClusterDimension;
    attributes[config.numAttrs++].val.clusterDim = {static_cast<unsigned>(shape.cluster), 1, 1};
  }
  if (overlaps) {
    attributes[config.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[config.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
  }
  return cudaLaunchKernelEx(&config, kernel, parameters);
}

// Sets memory to zero, which costs as much as a launch.
inline cudaError_t clear(void* memory, size_t bytes, cudaStream_t stream) {
  return cudaMemsetAsync(memory, 0, bytes, stream);
}

// The block's shared memory, whose size is given at launch.
__device__ inline float* launched_shared_memory() {
  extern __shared__ __align__(16) float memory[];
  return memory;
}

// Accesses to global memory. load_fresh also reads what other thread blocks of the launch wrote.
template <class Value>
__device__ Value load(const Value* from) {
  return *from;
}
__device__ inline float load_fresh(const float* from) {
  return __ldcg(from);
}
template <class Value>
__device__ void store(Value* to, const Value& value) {
  *to = value;
}
__device__ inline void prefetch(const void* line) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(line));
}

__device__ inline unsigned add_to(unsigned* counter, unsigned value) {
  return atomicAdd(counter, value);
}
// Makes what the thread has seen visible to the GPU.
__device__ inline void publish() {
  __threadfence();
}
__device__ inline void wait_until(const unsigned* counter, unsigned value) {
  while (*static_cast<const volatile unsigned*>(counter) < value) __nanosleep(32);
  __threadfence();
}

__device__ inline void wait_for_previous_launch() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
#endif
}
__device__ inline void let_next_launch_start() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

__device__ inline int cluster_rank() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  return static_cast<int>(__clusterRelativeBlockRank());
#else
  return 0;
#endif
}
__device__ inline int cluster_size() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  return static_cast<int>(__clusterSizeInBlocks());
#else
  return 1;
#endif
}
// A barrier of all threads of a cluster, which also orders their accesses to shared memory.
__device__ inline void cluster_barrier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  __cluster_barrier_arrive();
  __cluster_barrier_wait();
#endif
}
// The same place in the shared memory of another block of the cluster.
template <class Value>
__device__ Value* in_block(Value* here, int rank) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  return static_cast<Value*>(__cluster_map_shared_rank(here, static_cast<unsigned>(rank)));
#else
  return here;
#endif
}

}  // namespace resrt::plugin

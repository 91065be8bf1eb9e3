#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cuda_runtime_api.h>
#include <functional>
#include <map>
#include <random>
#include <string>

#include "backends/tensorrt/plugin/geometry.h"

// Replaces the plugin's header of this name so that its kernels compile as C++ and run without a
// GPU, on one CPU thread. This checks what the kernels compute, their synchronisation, their memory
// accesses and the bytes that they move, but not nvcc's output or their speed.
//
// Every thread of a block is a fiber that yields at barriers and shuffles, and while it waits for a
// counter. Some blocks of a grid run at the same time, from only one to more than a GPU could hold.
// They, and the warps of a block, run in random order. A cluster's blocks always run together.
// Shared memory is initialised to NaN, and becomes NaN again when its block ends.

#undef __launch_bounds__
#define __launch_bounds__(...)

namespace resrt::plugin {

using std::max;
using std::min;

inline constexpr bool kHasClusters = true;

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

int cluster_rank();
int cluster_size();
void cluster_barrier();
// Translates an address in the block's shared memory to another block's.
void* address_in_block(const void* here, int rank);
template <class Value>
Value* in_block(Value* here, int rank) {
  return static_cast<Value*>(address_in_block(here, rank));
}

// Global memory is accessed only by these, so that the bytes of each of the tensors that
// `count_bytes` was told about are counted.
void count_bytes(const std::string& tensor, const void* begin, size_t size);
struct Counted {
  int64_t read = 0;
  int64_t written = 0;
  size_t narrowest = SIZE_MAX;  // bytes of an access
};
// Returns the counts since the last call, by tensor, and forgets the tensors.
std::map<std::string, Counted> take_counts();
void count_access(const void* address, size_t bytes, bool writes);

template <class Value>
Value load(const Value* from) {
  count_access(from, sizeof(Value), false);
  return *from;
}
inline float load_fresh(const float* from) {
  return load(from);
}
template <class Value>
void store(Value* to, const Value& value) {
  count_access(to, sizeof(Value), true);
  *to = value;
}
inline void prefetch(const void*) {}

inline unsigned add_to(unsigned* counter, unsigned value) {
  return (*counter += value) - value;
}
inline void publish() {}
// Yields until the counter has the value.
void wait_until(const unsigned* counter, unsigned value);

// Launches of a stream do not overlap.
inline void wait_for_previous_launch() {}
inline void let_next_launch_start() {}

// Determines the order of blocks and warps, and how many blocks run at the same time.
extern std::mt19937 random_order;

// Throws std::runtime_error if a GPU would reject the launch, hang or have undefined behaviour: if
// the grid or shared memory exceeds its limits, if not all threads of a block, warp or cluster
// reach a barrier or shuffle, or if all running blocks wait for a counter.
void run_grid(const LaunchShape& shape, const std::function<void()>& thread);

// The launches since the last call.
int take_launches();

cudaError_t clear(void* memory, size_t bytes, cudaStream_t);

template <class Parameters>
cudaError_t launch_kernel(void (*kernel)(Parameters), const LaunchShape& shape, bool, cudaStream_t,
                          const Parameters& parameters) {
  run_grid(shape, [&] { kernel(parameters); });
  return cudaSuccess;
}

}  // namespace resrt::plugin

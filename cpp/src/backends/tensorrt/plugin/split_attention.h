#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>

#include "backends/tensorrt/plugin/geometry.h"

// The split-attention block of ResNeSt on a GPU, independent of TensorRT.
namespace resrt::plugin {

struct SplitAttentionCall {
  Problem problem;
  Variant variant;  // supported for the problem and the GPU
  Gpu gpu;
  const void* x;           // (batch, radix * channels, height, width)
  const void* fc1_weight;  // (hidden, channels / cardinality)
  const void* fc1_bias;    // (hidden)
  const void* fc2_weight;  // (radix * channels, hidden / cardinality), cardinality-major
  const void* fc2_bias;    // (radix * channels)
  void* y;                 // (batch, channels, output height, output width)
  void* workspace;         // of split_attention_workspace bytes
};

// Enough for every variant.
size_t split_attention_workspace(const Problem& problem);

// Enqueues the computation on the stream: `cluster` in one launch; `tickets` in one after it has
// cleared its counters; `passes` in two, or in three if the block is so wide that each thread block
// would spend too long on the hidden layer. Sums are computed in float32, always in the same order.
cudaError_t split_attention(const SplitAttentionCall& call, cudaStream_t stream);

}  // namespace resrt::plugin

#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>

// The split-attention block of ResNeSt on a GPU, apart from TensorRT.
namespace resrt::plugin {

struct SplitAttentionSizes {
  int channels;  // of one split
  int radix;
  int cardinality;
  int hidden;
};

enum class Element { fp32, fp16, bf16 };

// planes: channel after channel. channels_last: pixel after pixel, TensorRT's HWC8; for 16-bit
// elements, and channels that are a multiple of 8.
enum class Layout { planes, channels_last };

struct SplitAttentionCall {
  SplitAttentionSizes sizes;
  Element element;
  Layout layout;
  int batch;
  int pixels;              // height x width
  const void* x;           // (batch, radix * channels, pixels)
  const void* fc1_weight;  // (hidden, channels / cardinality)
  const void* fc1_bias;    // (hidden)
  const void* fc2_weight;  // (radix * channels, hidden / cardinality), cardinality-major
  const void* fc2_bias;    // (radix * channels)
  void* y;                 // (batch, channels, pixels)
  void* workspace;         // of split_attention_workspace bytes
};

// Whether the kernels take blocks of these sizes: they fit their shared memory.
bool split_attention_fits(const SplitAttentionSizes& sizes);

size_t split_attention_workspace(const SplitAttentionSizes& sizes, int batch, int pixels,
                                 Layout layout);

// Begins the computation on the stream, in two launches, or in three where the block is so wide
// that each thread block would spend long on the hidden layer. Sums are taken in float32, always in
// the same order.
cudaError_t split_attention(const SplitAttentionCall& call, cudaStream_t stream);

}  // namespace resrt::plugin

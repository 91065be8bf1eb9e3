#pragma once

#include <cstddef>
#include <cuda_runtime_api.h>

// The split-attention block of ResNeSt on a GPU, independent of TensorRT.
namespace resrt::plugin {

struct SplitAttentionSizes {
  int channels;  // of one split
  int radix;
  int cardinality;
  int hidden;
};

enum class Element { fp32, fp16, bf16 };

// planes is NCHW. channels_last is TensorRT's HWC8, which requires 16-bit elements and a multiple
// of 8 channels.
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

// Whether the kernels support blocks of these sizes, which must fit their shared memory.
bool split_attention_fits(const SplitAttentionSizes& sizes);

size_t split_attention_workspace(const SplitAttentionSizes& sizes, int batch, int pixels,
                                 Layout layout);

// Enqueues the computation on the stream, in two launches, or in three if the block is so wide that
// each thread block would spend too long on the hidden layer. Sums are computed in float32, always
// in the same order.
cudaError_t split_attention(const SplitAttentionCall& call, cudaStream_t stream);

}  // namespace resrt::plugin

#include <algorithm>
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "backends/tensorrt/plugin/device.h"
#include "backends/tensorrt/plugin/split_attention.h"

// There are two passes over U: one computes means, the other the weighted sum of the splits. The
// two small products between them give the attention. They are computed by the thread blocks of the
// second pass, each for its own channels.

namespace resrt::plugin {
namespace {

// The results of the stages, in the workspace.
struct Stages {
  float* sums;    // (batch, parts, radix * channels), over the pixels of each part of the image
  float* hidden;  // (batch, hidden)
  int parts;
};

struct Parameters {
  SplitAttentionSizes sizes;
  int pixels;
  const void* x;
  const void* fc1_weight;
  const void* fc1_bias;
  const void* fc2_weight;
  const void* fc2_bias;
  void* y;
  Stages stages;
  bool hidden_is_ready;  // whether compute_hidden, in its own launch, fills stages.hidden
};

__device__ float to_float(float value) {
  return value;
}
__device__ float to_float(__half value) {
  return __half2float(value);
}
__device__ float to_float(__nv_bfloat16 value) {
  return __bfloat162float(value);
}

template <class T>
__device__ T from_float(float value);
template <>
__device__ float from_float(float value) {
  return value;
}
template <>
__device__ __half from_float(float value) {
  return __float2half_rn(value);
}
template <>
__device__ __nv_bfloat16 from_float(float value) {
  return __float2bfloat16_rn(value);
}

// Elements that are read and written together.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T values[N];
};

// Sums over neighbouring lanes of a warp. All lanes must call it.
template <int Lanes>
__device__ float sum_over_lanes(float value) {
#pragma unroll
  for (int offset = Lanes / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFU, value, offset);
  }
  return value;
}

// One warp sums each channel of each part of the image.
template <class T, int N>
__global__ void sum_planes(Parameters p) {
  const int all_channels = p.sizes.radix * p.sizes.channels;
  const int channel = blockIdx.x * kWarps + threadIdx.x / kWarp;
  if (channel >= all_channels) return;
  const int part = blockIdx.y;
  const int64_t plane = int64_t{blockIdx.z} * all_channels + channel;
  const auto* packs =
      reinterpret_cast<const Pack<T, N>*>(static_cast<const T*>(p.x) + plane * p.pixels);
  const int count = p.pixels / N;
  const int begin = int64_t{count} * part / p.stages.parts;
  const int end = int64_t{count} * (part + 1) / p.stages.parts;
  float sum = 0.0F;
  for (int i = begin + threadIdx.x % kWarp; i < end; i += kWarp) {
    const Pack<T, N> pack = packs[i];
#pragma unroll
    for (int k = 0; k < N; ++k) sum += to_float(pack.values[k]);
  }
  sum = sum_over_lanes<kWarp>(sum);
  if (threadIdx.x % kWarp == 0) {
    p.stages.sums[(int64_t{blockIdx.z} * p.stages.parts + part) * all_channels + channel] = sum;
  }
}

// A warp reads 32 groups of 8 channels of one pixel. The warps of a block alternate over the
// pixels.
template <class T>
__global__ void sum_channels_last(Parameters p) {
  __shared__ float sums[kWarps][kWarp][kHwc8 + 1];
  const int all_channels = p.sizes.radix * p.sizes.channels;
  const int groups = all_channels / kHwc8;
  const int lane = threadIdx.x % kWarp;
  const int warp = threadIdx.x / kWarp;
  const int group = blockIdx.x * kWarp + lane;
  const int part = blockIdx.y;
  const int begin = int64_t{p.pixels} * part / p.stages.parts;
  const int end = int64_t{p.pixels} * (part + 1) / p.stages.parts;
  const auto* packs =
      static_cast<const Pack<T, kHwc8>*>(p.x) + int64_t{blockIdx.z} * p.pixels * groups;
  float sum[kHwc8] = {};
  if (group < groups) {
    for (int pixel = begin + warp; pixel < end; pixel += kWarps) {
      const Pack<T, kHwc8> pack = packs[int64_t{pixel} * groups + group];
#pragma unroll
      for (int k = 0; k < kHwc8; ++k) sum[k] += to_float(pack.values[k]);
    }
  }
  for (int k = 0; k < kHwc8; ++k) sums[warp][lane][k] = sum[k];
  __syncthreads();
  // One thread for each of the 256 channels that the block has summed.
  const int channel = blockIdx.x * kWarp * kHwc8 + threadIdx.x;
  if (channel >= all_channels) return;
  float total = 0.0F;
  for (int w = 0; w < kWarps; ++w) total += sums[w][threadIdx.x / kHwc8][threadIdx.x % kHwc8];
  p.stages.sums[(int64_t{blockIdx.z} * p.stages.parts + part) * all_channels + channel] = total;
}

// Computes the mean of the sum of the splits, (channels), in shared memory. Pooling is linear, so
// the sums of the splits are added up here instead of the splits. If there are fewer channels than
// threads, several threads share each channel.
__device__ void take_means(const Parameters& p, int image, float* means) {
  __shared__ float shares[kThreads];
  const int channels = p.sizes.channels;
  const int rows = p.stages.parts * p.sizes.radix;
  const float* sums = p.stages.sums + int64_t{image} * rows * channels;
  const int sharers = max(1, kThreads / channels);
  const auto add_up = [&](int channel, int first) {
    float sum = 0.0F;
#pragma unroll 8
    for (int row = first; row < rows; row += sharers) sum += sums[row * channels + channel];
    return sum;
  };
  const auto pixels = static_cast<float>(p.pixels);
  if (sharers == 1) {
    for (int channel = threadIdx.x; channel < channels; channel += kThreads) {
      means[channel] = add_up(channel, 0) / pixels;
    }
  } else {
    const int share = threadIdx.x / channels;
    if (share < sharers) shares[threadIdx.x] = add_up(threadIdx.x % channels, share);
    __syncthreads();
    if (threadIdx.x < channels) {
      float sum = 0.0F;
      for (int k = 0; k < sharers; ++k) sum += shares[k * channels + threadIdx.x];
      means[threadIdx.x] = sum / pixels;
    }
  }
  __syncthreads();
}

// A row of a matrix and the vector that it is multiplied by.
struct Operands {
  int row;
  const float* vector;
};

// Computes `count` dot products with rows of `length` elements. A few lanes of a warp share each
// row, so that a block loads many rows at once. find(i) returns the operands, and take(i, product)
// is called with the result, in one thread.
template <class T, int N, class Find, class Take>
__device__ void multiply_packs(const void* weights, int count, int length, Find find, Take take) {
  const int lane = threadIdx.x % kLanesPerRow;
  for (int first = 0; first < count; first += kRowsAtOnce) {
    const int i = first + threadIdx.x / kLanesPerRow;
    float sum = 0.0F;
    if (i < count) {
      const Operands operands = find(i);
      const auto* packs = reinterpret_cast<const Pack<T, N>*>(static_cast<const T*>(weights) +
                                                              int64_t{operands.row} * length);
#pragma unroll 4
      for (int pack = lane; pack < length / N; pack += kLanesPerRow) {
        const Pack<T, N> weight = packs[pack];
#pragma unroll
        for (int k = 0; k < N; ++k) {
          sum += to_float(weight.values[k]) * operands.vector[pack * N + k];
        }
      }
    }
    sum = sum_over_lanes<kLanesPerRow>(sum);
    if (i < count && lane == 0) take(i, sum);
  }
}

// The same with the widest packs that divide a row.
template <class T, class Find, class Take>
__device__ void multiply(const void* weights, int count, int length, Find find, Take take) {
  constexpr int widest = 16 / sizeof(T);
  if (length % widest == 0) {
    multiply_packs<T, widest>(weights, count, length, find, take);
  } else {
    multiply_packs<T, 1>(weights, count, length, find, take);
  }
}

// Computes fc1 and ReLU for `count` units from `first` on.
template <class T>
__device__ void compute_units(const Parameters& p, const float* means, int first, int count,
                              float* hidden) {
  const SplitAttentionSizes& s = p.sizes;
  const int length = s.channels / s.cardinality;
  const int group_units = s.hidden / s.cardinality;
  multiply<T>(
      p.fc1_weight, count, length,
      [&](int i) {
        const int unit = first + i;
        return Operands{unit, means + unit / group_units * length};
      },
      [&](int i, float sum) {
        const T* bias = static_cast<const T*>(p.fc1_bias);
        hidden[i] = fmaxf(sum + to_float(bias[first + i]), 0.0F);
      });
}

// Computes the hidden layer in a launch of its own.
template <class T>
__global__ void compute_hidden(Parameters p) {
  float* means = launched_shared_memory();
  take_means(p, blockIdx.y, means);
  const int first = blockIdx.x * kRowsAtOnce;
  compute_units<T>(p, means, first, min(kRowsAtOnce, p.sizes.hidden - first),
                   p.stages.hidden + int64_t{blockIdx.y} * p.sizes.hidden + first);
}

// Computes the attention of `count` channels from `first` on, (radix, count), in shared memory.
template <class T>
__device__ void attend(const Parameters& p, int image, int first, int count, float* attention,
                       float* scratch) {
  const SplitAttentionSizes& s = p.sizes;
  float* hidden = scratch;
  if (p.hidden_is_ready) {
    for (int i = threadIdx.x; i < s.hidden; i += kThreads) {
      hidden[i] = p.stages.hidden[image * s.hidden + i];
    }
  } else {
    float* means = scratch + s.hidden;
    take_means(p, image, means);
    compute_units<T>(p, means, 0, s.hidden, hidden);
  }
  __syncthreads();

  const int group_channels = s.channels / s.cardinality;
  const int length = s.hidden / s.cardinality;
  // fc2's rows are cardinality-major: (cardinality, radix, channels / cardinality).
  const auto row_of = [&](int i) {
    const int channel = first + i % count;
    const int split = i / count;
    return (channel / group_channels * s.radix + split) * group_channels + channel % group_channels;
  };
  multiply<T>(
      p.fc2_weight, s.radix * count, length,
      [&](int i) {
        const int group = (first + i % count) / group_channels;
        return Operands{row_of(i), hidden + group * length};
      },
      [&](int i, float sum) {
        attention[i] = sum + to_float(static_cast<const T*>(p.fc2_bias)[row_of(i)]);
      });
  __syncthreads();

  for (int i = threadIdx.x; i < count; i += kThreads) {
    if (s.radix == 1) {
      attention[i] = 1.0F / (1.0F + __expf(-attention[i]));
      continue;
    }
    float most = attention[i];
    for (int r = 1; r < s.radix; ++r) most = fmaxf(most, attention[r * count + i]);
    float total = 0.0F;
    for (int r = 0; r < s.radix; ++r) {
      const float power = __expf(attention[r * count + i] - most);
      attention[r * count + i] = power;
      total += power;
    }
    for (int r = 0; r < s.radix; ++r) attention[r * count + i] /= total;
  }
  __syncthreads();
}

template <class T, int N>
__global__ void weigh_planes(Parameters p) {
  float* attention = launched_shared_memory();
  const SplitAttentionSizes& s = p.sizes;
  const int first = blockIdx.y * kPlanesAtOnce;
  const int count = min(kPlanesAtOnce, s.channels - first);
  attend<T>(p, blockIdx.z, first, count, attention, attention + s.radix * kPlanesAtOnce);

  const int packs = p.pixels / N;
  const int64_t image = int64_t{blockIdx.z} * s.channels;
  const auto* x = static_cast<const Pack<T, N>*>(p.x) + image * s.radix * packs;
  auto* y = static_cast<Pack<T, N>*>(p.y) + image * packs;
  for (int i = blockIdx.x * kThreads + threadIdx.x; i < count * packs; i += gridDim.x * kThreads) {
    const int channel = i / packs;
    const int64_t at = int64_t{first} * packs + i;
    float sum[N] = {};
    for (int r = 0; r < s.radix; ++r) {
      const float weight = attention[r * count + channel];
      const Pack<T, N> pack = x[int64_t{r} * s.channels * packs + at];
#pragma unroll
      for (int k = 0; k < N; ++k) sum[k] += weight * to_float(pack.values[k]);
    }
    Pack<T, N> result;
#pragma unroll
    for (int k = 0; k < N; ++k) result.values[k] = from_float<T>(sum[k]);
    y[at] = result;
  }
}

template <class T>
__global__ void weigh_channels_last(Parameters p) {
  float* attention = launched_shared_memory();
  const SplitAttentionSizes& s = p.sizes;
  const int first = blockIdx.y * kChannelsAtOnce;
  const int count = min(kChannelsAtOnce, s.channels - first);
  attend<T>(p, blockIdx.z, first, count, attention, attention + s.radix * kChannelsAtOnce);

  const int groups = count / kHwc8;           // of this block
  const int all_groups = s.channels / kHwc8;  // of a split
  const auto* x = static_cast<const Pack<T, kHwc8>*>(p.x) +
                  int64_t{blockIdx.z} * p.pixels * s.radix * all_groups + first / kHwc8;
  auto* y = static_cast<Pack<T, kHwc8>*>(p.y) + int64_t{blockIdx.z} * p.pixels * all_groups +
            first / kHwc8;
  for (int i = blockIdx.x * kThreads + threadIdx.x; i < p.pixels * groups;
       i += gridDim.x * kThreads) {
    const int64_t pixel = i / groups;
    const int group = i % groups;
    float sum[kHwc8] = {};
    for (int r = 0; r < s.radix; ++r) {
      const Pack<T, kHwc8> pack = x[(pixel * s.radix + r) * all_groups + group];
#pragma unroll
      for (int k = 0; k < kHwc8; ++k) {
        sum[k] += attention[r * count + group * kHwc8 + k] * to_float(pack.values[k]);
      }
    }
    Pack<T, kHwc8> result;
#pragma unroll
    for (int k = 0; k < kHwc8; ++k) result.values[k] = from_float<T>(sum[k]);
    y[pixel * all_groups + group] = result;
  }
}

dim3 to_dim3(const Extent& extent) {
  return {static_cast<unsigned>(extent.x), static_cast<unsigned>(extent.y),
          static_cast<unsigned>(extent.z)};
}

void launch(void (*kernel)(Parameters), const LaunchShape& shape, const Parameters& p,
            cudaStream_t stream) {
  launch_kernel(kernel, to_dim3(shape.grid), kThreads, shape.shared_memory, stream, p);
}

template <class T>
void launch_all(void (*sum)(Parameters), void (*weigh)(Parameters), const Geometry& geometry,
                const Parameters& p, cudaStream_t stream) {
  launch(sum, geometry.launches.front(), p, stream);
  if (geometry.hidden_is_ready) launch(compute_hidden<T>, geometry.launches[1], p, stream);
  launch(weigh, geometry.launches[geometry.launch_count - 1], p, stream);
}

template <class T, int N>
void launch_planes(const Geometry& geometry, const Parameters& p, cudaStream_t stream) {
  launch_all<T>(sum_planes<T, N>, weigh_planes<T, N>, geometry, p, stream);
}

template <class T>
void launch(const Problem& problem, const Geometry& geometry, const Parameters& p,
            cudaStream_t stream) {
  if constexpr (sizeof(T) == 2) {
    if (problem.layout == Layout::channels_last) {
      return launch_all<T>(sum_channels_last<T>, weigh_channels_last<T>, geometry, p, stream);
    }
    if (pack_of(problem) == 8) return launch_planes<T, 8>(geometry, p, stream);
  }
  switch (pack_of(problem)) {
    case 4: return launch_planes<T, 4>(geometry, p, stream);
    case 2: return launch_planes<T, 2>(geometry, p, stream);
    default: return launch_planes<T, 1>(geometry, p, stream);
  }
}

}  // namespace

size_t split_attention_workspace(const SplitAttentionSizes& sizes, int batch, int pixels,
                                 Layout layout) {
  const Problem problem = {sizes, Element::fp16, layout, batch, pixels};
  const auto parts = static_cast<size_t>(divide(problem).parts);
  return sizeof(float) * static_cast<size_t>(batch) *
         (parts * sizes.radix * sizes.channels + sizes.hidden);
}

cudaError_t split_attention(const SplitAttentionCall& call, cudaStream_t stream) {
  const SplitAttentionSizes& sizes = call.sizes;
  const Problem problem = {sizes, call.element, call.layout, call.batch, call.pixels};
  const Geometry geometry = divide(problem);
  auto* sums = static_cast<float*>(call.workspace);
  const int64_t count = int64_t{call.batch} * geometry.parts * sizes.radix * sizes.channels;
  const Parameters p = {sizes,
                        call.pixels,
                        call.x,
                        call.fc1_weight,
                        call.fc1_bias,
                        call.fc2_weight,
                        call.fc2_bias,
                        call.y,
                        {sums, sums + count, geometry.parts},
                        geometry.hidden_is_ready};
  switch (call.element) {
    case Element::fp32: launch<float>(problem, geometry, p, stream); break;
    case Element::fp16: launch<__half>(problem, geometry, p, stream); break;
    case Element::bf16: launch<__nv_bfloat16>(problem, geometry, p, stream); break;
  }
  return cudaGetLastError();
}

}  // namespace resrt::plugin

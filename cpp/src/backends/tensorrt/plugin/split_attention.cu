#include <algorithm>
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "backends/tensorrt/plugin/device.h"
#include "backends/tensorrt/plugin/split_attention.h"

// A block is computed in three kinds of tiles. Some sum parts of U, some compute the hidden layer
// from the sums, and some weigh the splits, for which they compute the attention of their own
// channels. `passes` launches each kind by itself, `tickets` all of them at once. `cluster` has
// other code, because it keeps U.

namespace resrt::plugin {
namespace {

struct Parameters {
  Problem problem;
  Tiles tiles;
  const void* x;
  const void* fc1_weight;
  const void* fc1_bias;
  const void* fc2_weight;
  const void* fc2_bias;
  void* y;
  float* sums;    // (batch, parts, radix * channels), over the pixels of each part of the image
  float* hidden;  // (batch, hidden)
  unsigned* counters;
  int most_pixels;  // of a thread block of a cluster
};

// One of the tiles of a kind.
struct Tile {
  int x;
  int y;
  int image;
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
template <class T>
inline constexpr int kWidest = 16 / sizeof(T);
template <class T>
using Widest = Pack<T, kWidest<T>>;

template <class T, int N>
__device__ void add(const Pack<T, N>& pack, float (&sum)[N]) {
#pragma unroll
  for (int k = 0; k < N; ++k) sum[k] += to_float(pack.values[k]);
}

template <class T, int N>
__device__ void add_weighted(const Pack<T, N>& pack, const float* weights, float (&sum)[N]) {
#pragma unroll
  for (int k = 0; k < N; ++k) sum[k] += weights[k] * to_float(pack.values[k]);
}

template <class T, int N>
__device__ void store_rounded(Pack<T, N>* to, const float (&values)[N]) {
  Pack<T, N> result;
#pragma unroll
  for (int k = 0; k < N; ++k) result.values[k] = from_float<T>(values[k]);
  store(to, result);
}

// Sums over neighbouring lanes of a warp. All lanes must call it.
template <int Lanes>
__device__ float sum_over_lanes(float value) {
#pragma unroll
  for (int offset = Lanes / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xFFFFFFFFU, value, offset);
  }
  return value;
}

// The radix, known to the compiler if it is 2.
template <int Radix>
__device__ int radix_of(const Parameters& p) {
  return Radix > 0 ? Radix : p.problem.sizes.radix;
}

// One warp sums each channel of a part of the image.
template <class T, int N>
__device__ void sum_planes(const Parameters& p, const Tile& tile) {
  const int all_channels = p.problem.sizes.radix * p.problem.sizes.channels;
  const int channel = tile.x * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  if (channel >= all_channels) return;
  const int pixels = p.problem.pixels();
  const auto* packs = reinterpret_cast<const Pack<T, N>*>(
      static_cast<const T*>(p.x) + (int64_t{tile.image} * all_channels + channel) * pixels);
  const int count = pixels / N;
  const int begin = static_cast<int>(int64_t{count} * tile.y / p.tiles.parts);
  const int end = static_cast<int>(int64_t{count} * (tile.y + 1) / p.tiles.parts);
  float sums[N] = {};
#pragma unroll 4
  for (int i = begin + static_cast<int>(threadIdx.x) % kWarp; i < end; i += kWarp) {
    add(load(packs + i), sums);
  }
  float sum = 0.0F;
  for (int k = 0; k < N; ++k) sum += sums[k];
  sum = sum_over_lanes<kWarp>(sum);
  if (threadIdx.x % kWarp == 0) {
    store(p.sums + (int64_t{tile.image} * p.tiles.parts + tile.y) * all_channels + channel, sum);
  }
}

// How a thread block shares pixels of several groups of channels: each thread has one group, and
// every `slots`-th pixel.
struct Share {
  __device__ Share(int threads, int groups_at_once)
      : groups(min(groups_at_once, threads)),
        slots(threads / groups),
        group(static_cast<int>(threadIdx.x) % groups),
        slot(static_cast<int>(threadIdx.x) / groups) {}
  __device__ bool works() const { return slot < slots; }
  int groups, slots, group, slot;
};

// Adds up what each slot has summed, (slots, groups * N) in shared memory. take(i, sum) receives
// the sum of each of the groups' channels.
template <int N, class Take>
__device__ void reduce_slots(const Share& share, int threads, const float (&sum)[N], float* scratch,
                             Take take) {
  const int channels = share.groups * N;
  if (share.works()) {
#pragma unroll
    for (int k = 0; k < N; ++k) scratch[share.slot * channels + share.group * N + k] = sum[k];
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < channels; i += threads) {
    float total = 0.0F;
    for (int slot = 0; slot < share.slots; ++slot) total += scratch[slot * channels + i];
    take(i, total);
  }
  __syncthreads();
}

// Sums up to 32 groups of channels of a part of the image.
template <class T>
__device__ void sum_channels_last(const Parameters& p, const Tile& tile, float* shared) {
  constexpr int N = kWidest<T>;
  const int all_channels = p.problem.sizes.radix * p.problem.sizes.channels;
  const int groups = all_channels / N;
  const int first = tile.x * kWarp;
  const Share share(kThreads, min(kWarp, groups - first));
  const int pixels = p.problem.pixels();
  const int begin = static_cast<int>(int64_t{pixels} * tile.y / p.tiles.parts);
  const int end = static_cast<int>(int64_t{pixels} * (tile.y + 1) / p.tiles.parts);
  const auto* packs = static_cast<const Widest<T>*>(p.x) + int64_t{tile.image} * pixels * groups +
                      first + share.group;
  float sum[N] = {};
  if (share.works()) {
#pragma unroll 4
    for (int pixel = begin + share.slot; pixel < end; pixel += share.slots) {
      add(load(packs + int64_t{pixel} * groups), sum);
    }
  }
  float* sums = p.sums + (int64_t{tile.image} * p.tiles.parts + tile.y) * all_channels + first * N;
  reduce_slots(share, kThreads, sum, shared, [&](int i, float total) { store(sums + i, total); });
}

// Computes the mean of the sum of the splits, (channels), in shared memory. Pooling is linear, so
// the sums of the splits are added up here instead of the splits. If there are fewer channels than
// threads, several threads share each channel.
__device__ void take_means(const Parameters& p, int image, float* means, float* shares) {
  const int channels = p.problem.sizes.channels;
  const int rows = p.tiles.parts * p.problem.sizes.radix;
  const float* sums = p.sums + int64_t{image} * rows * channels;
  const int sharers = max(1, kThreads / channels);
  const int thread = static_cast<int>(threadIdx.x);
  const auto add_up = [&](int channel, int first) {
    float sum = 0.0F;
#pragma unroll 8
    for (int row = first; row < rows; row += sharers) {
      sum += load_fresh(sums + row * channels + channel);
    }
    return sum;
  };
  const auto pixels = static_cast<float>(p.problem.pixels());
  if (sharers == 1) {
    for (int channel = thread; channel < channels; channel += kThreads) {
      means[channel] = add_up(channel, 0) / pixels;
    }
  } else {
    const int share = thread / channels;
    if (share < sharers) shares[thread] = add_up(thread % channels, share);
    __syncthreads();
    if (thread < channels) {
      float sum = 0.0F;
      for (int k = 0; k < sharers; ++k) sum += shares[k * channels + thread];
      means[thread] = sum / pixels;
    }
  }
  __syncthreads();
}

// A row of a matrix and the vector that it is multiplied by.
struct Operands {
  int row;
  const float* vector;
};

// A matrix with a bias for each row.
struct Product {
  const void* weights;
  const void* biases;
};

template <class T>
__device__ float bias_at(const Product& product, int row) {
  return to_float(load(static_cast<const T*>(product.biases) + row));
}

// Computes `count` dot products with rows of `length` elements. Some lanes of a warp share each
// row, so that a block loads many rows at once. find(i) returns the operands. take(i, lane,
// product) is called with the result in each of these lanes.
template <class T, int N, int Lanes, class Find, class Take>
__device__ void multiply_packs(const Product& product, int threads, int count, int length,
                               Find find, Take take) {
  const int lane = static_cast<int>(threadIdx.x) % Lanes;
  for (int first = 0; first < count; first += threads / Lanes) {
    const int i = first + static_cast<int>(threadIdx.x) / Lanes;
    float sum = 0.0F;
    if (i < count) {
      const Operands operands = find(i);
      const auto* packs = reinterpret_cast<const Pack<T, N>*>(
          static_cast<const T*>(product.weights) + int64_t{operands.row} * length);
      if (lane == 0) sum = bias_at<T>(product, operands.row);
#pragma unroll 4
      for (int pack = lane; pack < length / N; pack += Lanes) {
        const Pack<T, N> weight = load(packs + pack);
#pragma unroll
        for (int k = 0; k < N; ++k) {
          sum += to_float(weight.values[k]) * operands.vector[pack * N + k];
        }
      }
    }
    sum = sum_over_lanes<Lanes>(sum);
    if (i < count) take(i, lane, sum);
  }
}

// The same with the widest packs that divide a row.
template <class T, int Lanes, class Find, class Take>
__device__ void multiply(const Product& product, int threads, int count, int length, Find find,
                         Take take) {
  if (length % kWidest<T> == 0) {
    multiply_packs<T, kWidest<T>, Lanes>(product, threads, count, length, find, take);
  } else {
    multiply_packs<T, 1, Lanes>(product, threads, count, length, find, take);
  }
}

// Computes fc1 and ReLU for `count` units from `first` on. take(i, lane, value) is called in each
// of `Lanes` lanes.
template <class T, int Lanes, class Take>
__device__ void compute_units(const Parameters& p, int threads, const float* means, int first,
                              int count, Take take) {
  const SplitAttentionSizes& s = p.problem.sizes;
  const int length = s.channels / s.cardinality;
  const int group_units = s.hidden / s.cardinality;
  multiply<T, Lanes>(
      {p.fc1_weight, p.fc1_bias}, threads, count, length,
      [&](int i) {
        const int unit = first + i;
        return Operands{unit, means + unit / group_units * length};
      },
      [&](int i, int lane, float sum) { take(i, lane, fmaxf(sum, 0.0F)); });
}

// fc2's rows are cardinality-major: (cardinality, radix, channels / cardinality).
__device__ int row_of_fc2(const SplitAttentionSizes& s, int radix, int split, int channel) {
  const int group_channels = s.channels / s.cardinality;
  return (channel / group_channels * radix + split) * group_channels + channel % group_channels;
}

// Computes the logits of `count` channels from `first` on, (radix, count), in shared memory.
template <class T, int Lanes>
__device__ void compute_logits(const Parameters& p, int threads, int radix, const float* hidden,
                               int first, int count, float* logits) {
  const SplitAttentionSizes& s = p.problem.sizes;
  const int length = s.hidden / s.cardinality;
  const int group_channels = s.channels / s.cardinality;
  const auto row_of = [&](int i) { return row_of_fc2(s, radix, i / count, first + i % count); };
  multiply<T, Lanes>(
      {p.fc2_weight, p.fc2_bias}, threads, radix * count, length,
      [&](int i) {
        return Operands{row_of(i), hidden + (first + i % count) / group_channels * length};
      },
      [&](int i, int lane, float sum) {
        if (lane == 0) logits[i] = sum;
      });
  __syncthreads();
}

// Replaces the logits, (radix, count), by the attention.
__device__ void normalise(float* logits, int threads, int radix, int count) {
  for (int i = static_cast<int>(threadIdx.x); i < count; i += threads) {
    if (radix == 1) {
      logits[i] = 1.0F / (1.0F + __expf(-logits[i]));
      continue;
    }
    float most = logits[i];
    for (int r = 1; r < radix; ++r) most = fmaxf(most, logits[r * count + i]);
    float total = 0.0F;
    for (int r = 0; r < radix; ++r) {
      const float power = __expf(logits[r * count + i] - most);
      logits[r * count + i] = power;
      total += power;
    }
    for (int r = 0; r < radix; ++r) logits[r * count + i] /= total;
  }
  __syncthreads();
}

// Computes some units of an image's hidden layer.
template <class T>
__device__ void compute_hidden(const Parameters& p, const Tile& tile, float* shared) {
  float* means = shared;
  take_means(p, tile.image, means, means + p.problem.sizes.channels);
  const int hidden = p.problem.sizes.hidden;
  const int first = tile.x * p.tiles.hidden_units;
  float* units = p.hidden + int64_t{tile.image} * hidden + first;
  compute_units<T, kLanesPerRow>(p, kThreads, means, first,
                                 min(p.tiles.hidden_units, hidden - first),
                                 [&](int i, int lane, float unit) {
                                   if (lane == 0) store(units + i, unit);
                                 });
}

// Computes the attention of `count` channels from `first` on, (radix, count), in shared memory.
template <class T, int Radix>
__device__ void attend(const Parameters& p, int image, int first, int count, float* attention,
                       float* scratch) {
  const SplitAttentionSizes& s = p.problem.sizes;
  float* hidden = scratch;
  if (p.tiles.hidden_blocks > 0) {
    for (int i = static_cast<int>(threadIdx.x); i < s.hidden; i += kThreads) {
      hidden[i] = load_fresh(p.hidden + int64_t{image} * s.hidden + i);
    }
  } else {
    float* means = scratch + s.hidden;
    take_means(p, image, means, means + s.channels);
    compute_units<T, kLanesPerRow>(p, kThreads, means, 0, s.hidden,
                                   [&](int i, int lane, float unit) {
                                     if (lane == 0) hidden[i] = unit;
                                   });
  }
  __syncthreads();
  const int radix = radix_of<Radix>(p);
  compute_logits<T, kLanesPerRow>(p, kThreads, radix, hidden, first, count, attention);
  normalise(attention, kThreads, radix, count);
}

// `ready` waits until the tile's inputs, except U, are complete.
template <class T, int N, int Radix, class Ready>
__device__ void weigh_planes(const Parameters& p, const Tile& tile, float* shared, Ready ready) {
  const SplitAttentionSizes& s = p.problem.sizes;
  const int radix = radix_of<Radix>(p);
  const int first = tile.y * kPlanesAtOnce;
  const int count = min(kPlanesAtOnce, s.channels - first);
  const int packs = p.problem.pixels() / N;
  const int64_t image = int64_t{tile.image} * s.channels;
  const auto* x =
      static_cast<const Pack<T, N>*>(p.x) + image * radix * packs + int64_t{first} * packs;
  auto* y = static_cast<Pack<T, N>*>(p.y) + image * packs + int64_t{first} * packs;
  const int64_t split = int64_t{s.channels} * packs;
  const int step = p.tiles.shares * kThreads;
  int i = tile.x * kThreads + static_cast<int>(threadIdx.x);

  // What the first iteration needs is loaded before the wait, if the compiler can keep it.
  Pack<T, N> next[Radix > 0 ? Radix : 1];
  const auto fetch = [&] {
    if constexpr (Radix > 0) {
#pragma unroll
      for (int r = 0; r < Radix; ++r) next[r] = load(x + r * split + i);
    }
  };
  if (i < count * packs) fetch();
  ready();
  float* attention = shared;
  attend<T, Radix>(p, tile.image, first, count, attention, shared + radix * kPlanesAtOnce);
  while (i < count * packs) {
    const int channel = i / packs;
    const int at = i;
    float sum[N] = {};
    const auto weigh = [&](const Pack<T, N>& pack, int r) {
      const float weight = attention[r * count + channel];
#pragma unroll
      for (int k = 0; k < N; ++k) sum[k] += weight * to_float(pack.values[k]);
    };
    i += step;
    if constexpr (Radix > 0) {
#pragma unroll
      for (int r = 0; r < Radix; ++r) weigh(next[r], r);
      if (i < count * packs) fetch();
    } else {
      for (int r = 0; r < radix; ++r) weigh(load(x + r * split + at), r);
    }
    store_rounded(y + at, sum);
  }
}

// The pixels that a window of the pooling covers in the image.
struct Window {
  __device__ Window(const Problem& problem, int output) {
    const int columns = problem.output_width();
    const int row = 2 * (output / columns);
    const int column = 2 * (output % columns);
    top = max(0, row - 1);
    bottom = min(problem.height, row + 2);
    left = max(0, column - 1);
    right = min(problem.width, column + 2);
    const bool is_padded = problem.pooling == Pooling::padded;
    scale = reciprocal(is_padded ? 3 : bottom - top) * reciprocal(is_padded ? 3 : right - left);
  }
  // Of 1 to 3. A division would need a subroutine and its stack.
  __device__ static float reciprocal(int count) {
    return count == 1 ? 1.0F : count == 2 ? 0.5F : 1.0F / 3.0F;
  }
  int top, bottom, left, right;
  float scale;  // one over the number of pixels
};

template <class T, int Radix, bool Pooled, class Ready>
__device__ void weigh_channels_last(const Parameters& p, const Tile& tile, float* shared,
                                    Ready ready) {
  constexpr int N = kWidest<T>;
  const SplitAttentionSizes& s = p.problem.sizes;
  const int radix = radix_of<Radix>(p);
  const int first = tile.y * kChannelsAtOnce;
  const int count = min(kChannelsAtOnce, s.channels - first);
  const int all_groups = s.channels / N;  // of a split
  const Share share(kThreads, count / N);
  const int outputs = p.problem.output_pixels();
  const auto* x = static_cast<const Widest<T>*>(p.x) +
                  int64_t{tile.image} * p.problem.pixels() * radix * all_groups + first / N +
                  share.group;
  auto* y = static_cast<Widest<T>*>(p.y) + int64_t{tile.image} * outputs * all_groups + first / N +
            share.group;
  const int step = p.tiles.shares * share.slots;
  int pixel = share.works() ? tile.x * share.slots + share.slot : outputs;

  constexpr bool fetches = Radix > 0 && !Pooled;
  Widest<T> next[fetches ? Radix : 1];
  const auto fetch = [&] {
    if constexpr (fetches) {
#pragma unroll
      for (int r = 0; r < Radix; ++r) next[r] = load(x + (int64_t{pixel} * Radix + r) * all_groups);
    }
  };
  if (pixel < outputs) fetch();
  ready();
  float* attention = shared;
  attend<T, Radix>(p, tile.image, first, count, attention, shared + radix * kChannelsAtOnce);
  const float* weights = attention + share.group * N;
  while (pixel < outputs) {
    const int at = pixel;
    pixel += step;
    float sum[N] = {};
    if constexpr (fetches) {
      Widest<T> packs[Radix];
#pragma unroll
      for (int r = 0; r < Radix; ++r) packs[r] = next[r];
      if (pixel < outputs) fetch();
#pragma unroll
      for (int r = 0; r < Radix; ++r) add_weighted(packs[r], weights + r * count, sum);
    } else if constexpr (Pooled) {
      const Window window(p.problem, at);
      for (int row = window.top; row < window.bottom; ++row) {
        for (int column = window.left; column < window.right; ++column) {
          const int64_t from = int64_t{row} * p.problem.width + column;
          for (int r = 0; r < radix; ++r) {
            add_weighted(load(x + (from * radix + r) * all_groups), weights + r * count, sum);
          }
        }
      }
#pragma unroll
      for (int k = 0; k < N; ++k) sum[k] *= window.scale;
    } else {
      for (int r = 0; r < radix; ++r) {
        add_weighted(load(x + (int64_t{at} * radix + r) * all_groups), weights + r * count, sum);
      }
    }
    store_rounded(y + int64_t{at} * all_groups, sum);
  }
}

__device__ Tile tile_of_block() {
  return {static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.z)};
}

template <class T, int N>
__global__ void run_sum_planes(Parameters p) {
  let_next_launch_start();
  sum_planes<T, N>(p, tile_of_block());
}

template <class T>
__global__ void run_sum_channels_last(Parameters p) {
  let_next_launch_start();
  sum_channels_last<T>(p, tile_of_block(), launched_shared_memory());
}

template <class T>
__global__ void run_hidden(Parameters p) {
  let_next_launch_start();
  wait_for_previous_launch();
  compute_hidden<T>(p, tile_of_block(), launched_shared_memory());
}

template <class T, int N, int Radix>
__global__ void run_weigh_planes(Parameters p) {
  weigh_planes<T, N, Radix>(p, tile_of_block(), launched_shared_memory(),
                            [] { wait_for_previous_launch(); });
}

template <class T, int Radix, bool Pooled>
__global__ void run_weigh_channels_last(Parameters p) {
  weigh_channels_last<T, Radix, Pooled>(p, tile_of_block(), launched_shared_memory(),
                                        [] { wait_for_previous_launch(); });
}

// The counters of `tickets`, which are zero before the launch.
struct Counters {
  unsigned* drawn;     // tickets
  unsigned* summed;    // (batch), tiles
  unsigned* computed;  // (batch), tiles of the hidden layer
};

__device__ Counters counters_of(const Parameters& p) {
  unsigned* first = p.counters;
  return {first, first + 1, first + 1 + p.problem.batch};
}

enum class Kind { sum, hidden, weigh };

struct Ticket {
  Kind kind;
  int index;  // of the image's tiles of the kind
  int image;
};

// The tiles in their order: those that sum an image come before those that weigh the image before
// it, so that a thread block that must wait rarely does. A tile waits only for tiles before it.
// Since those are already running, there is no deadlock however few blocks run at once.
__device__ Ticket read_ticket(const Parameters& p, int number) {
  const int sums = p.tiles.sum_tiles();
  const int hidden = p.tiles.hidden_blocks;
  if (number < sums) return {Kind::sum, number, 0};
  number -= sums;
  const int image = min(number / p.tiles.per_image(), p.problem.batch - 1);
  int index = number - image * p.tiles.per_image();
  if (image < p.problem.batch - 1) {
    if (index < sums) return {Kind::sum, index, image + 1};
    index -= sums;
  }
  if (index < hidden) return {Kind::hidden, index, image};
  return {Kind::weigh, index - hidden, image};
}

// Waits, in all threads of the block, until a counter reaches a value.
__device__ void wait_in_block(const unsigned* counter, int value) {
  if (threadIdx.x == 0) wait_until(counter, static_cast<unsigned>(value));
  __syncthreads();
}

// Counts a tile, when all threads of the block have written their results.
__device__ void count_tile(unsigned* counter) {
  __syncthreads();
  if (threadIdx.x == 0) {
    publish();
    add_to(counter, 1);
  }
}

template <class T, int Radix, bool Pooled>
__device__ void compute_tile(const Parameters& p, const Ticket& ticket, float* shared) {
  const Counters counters = counters_of(p);
  unsigned* summed = counters.summed + ticket.image;
  unsigned* computed = counters.computed + ticket.image;
  switch (ticket.kind) {
    case Kind::sum:
      sum_channels_last<T>(
          p, {ticket.index % p.tiles.sum_groups, ticket.index / p.tiles.sum_groups, ticket.image},
          shared);
      return count_tile(summed);
    case Kind::hidden:
      wait_in_block(summed, p.tiles.sum_tiles());
      compute_hidden<T>(p, {ticket.index, 0, ticket.image}, shared);
      return count_tile(computed);
    case Kind::weigh:
      weigh_channels_last<T, Radix, Pooled>(
          p, {ticket.index % p.tiles.shares, ticket.index / p.tiles.shares, ticket.image}, shared,
          [&] {
            if (p.tiles.hidden_blocks > 0) {
              wait_in_block(computed, p.tiles.hidden_blocks);
            } else {
              wait_in_block(summed, p.tiles.sum_tiles());
            }
          });
  }
}

// Thread blocks draw tickets for tiles until there are none left.
template <class T, int Radix, bool Pooled>
__global__ void run_tickets(Parameters p) {
  float* shared = launched_shared_memory();
  int& drawn = *reinterpret_cast<int*>(shared);
  const Counters counters = counters_of(p);
  const int tickets = p.problem.batch * p.tiles.per_image();
  for (;;) {
    if (threadIdx.x == 0) drawn = static_cast<int>(add_to(counters.drawn, 1));
    __syncthreads();
    const int number = drawn;
    if (number >= tickets) break;
    compute_tile<T, Radix, Pooled>(p, read_ticket(p, number), shared + 4);
    __syncthreads();  // before the next ticket and tile use the shared memory
  }
}

// The shared memory of a thread block of a cluster.
template <class T>
struct ClusterMemory {
  __device__ ClusterMemory(const Parameters& p, int pixels) {
    const SplitAttentionSizes& s = p.problem.sizes;
    const int all_channels = s.radix * s.channels;
    tile = reinterpret_cast<Widest<T>*>(launched_shared_memory());
    scratch = reinterpret_cast<float*>(tile + pixels * (all_channels / kWidest<T>));
    sums = scratch + max(kClusterThreads * kWidest<T>, all_channels);
    attention = sums + all_channels;
    means = attention + all_channels;
    hidden = means + s.channels;
  }
  Widest<T>* tile;   // (pixels, radix * channels), of this block
  float* scratch;    // (threads, channels of a pack), or the logits of this block's channels
  float* sums;       // (radix * channels), over this block's pixels
  float* attention;  // (radix, channels)
  float* means;      // (channels)
  float* hidden;     // (hidden)
};

// Loads the block's pixels into shared memory and sums them.
template <class T>
__device__ void load_and_sum(const Parameters& p, const ClusterMemory<T>& memory,
                             const Widest<T>* packs, int count) {
  constexpr int N = kWidest<T>;
  constexpr int kAtOnce = 8;
  const int groups = p.problem.sizes.radix * p.problem.sizes.channels / N;
  for (int first = 0; first < groups; first += kClusterThreads) {
    const Share share(kClusterThreads, groups - first);
    float sum[N] = {};
    if (share.works()) {
      const int group = first + share.group;
      for (int begin = share.slot; begin < count; begin += kAtOnce * share.slots) {
        Widest<T> loaded[kAtOnce];
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) {
          const int pixel = begin + k * share.slots;
          if (pixel < count) loaded[k] = load(packs + int64_t{pixel} * groups + group);
        }
#pragma unroll
        for (int k = 0; k < kAtOnce; ++k) {
          const int pixel = begin + k * share.slots;
          if (pixel < count) {
            memory.tile[pixel * groups + group] = loaded[k];
            add(loaded[k], sum);
          }
        }
      }
    }
    reduce_slots(share, kClusterThreads, sum, memory.scratch,
                 [&](int i, float total) { memory.sums[first * N + i] = total; });
  }
}

// Part `rank` of `count` things that a cluster shares.
struct Part {
  __device__ Part(int all, int rank, int ranks)
      : first(static_cast<int>(int64_t{all} * rank / ranks)),
        count(static_cast<int>(int64_t{all} * (rank + 1) / ranks) - first) {}
  int first, count;
};

// Computes the attention of all channels in each block of the cluster. Each computes the means, the
// units of the hidden layer and the attention of its part, and stores them in all of them. Lane r
// of a half-warp talks to block r.
template <class T, int Radix>
__device__ void attend_in_cluster(const Parameters& p, const ClusterMemory<T>& memory) {
  const SplitAttentionSizes& s = p.problem.sizes;
  const int radix = radix_of<Radix>(p);
  const int rank = cluster_rank();
  const int ranks = cluster_size();
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kLargestCluster;
  const bool talks = lane < ranks;
  const auto pixels = static_cast<float>(p.problem.pixels());
  constexpr int kAtOnce = kClusterThreads / kLargestCluster;

  const Part channels(s.channels, rank, ranks);
  for (int first = 0; first < channels.count; first += kAtOnce) {
    const int i = first + thread / kLargestCluster;
    const int channel = channels.first + i;
    float sum = 0.0F;
    if (i < channels.count && talks) {
      const float* sums = in_block(memory.sums, lane);
      for (int r = 0; r < radix; ++r) sum += sums[r * s.channels + channel];
    }
    sum = sum_over_lanes<kLargestCluster>(sum);
    if (i < channels.count && talks) in_block(memory.means, lane)[channel] = sum / pixels;
  }
  cluster_barrier();

  const Part units(s.hidden, rank, ranks);
  compute_units<T, kLargestCluster>(p, kClusterThreads, memory.means, units.first, units.count,
                                    [&](int i, int, float unit) {
                                      if (talks)
                                        in_block(memory.hidden, lane)[units.first + i] = unit;
                                    });
  cluster_barrier();

  float* logits = memory.scratch;
  compute_logits<T, kLargestCluster>(p, kClusterThreads, radix, memory.hidden, channels.first,
                                     channels.count, logits);
  normalise(logits, kClusterThreads, radix, channels.count);
  for (int i = thread / kLargestCluster; i < radix * channels.count; i += kAtOnce) {
    const int at = i / channels.count * s.channels + channels.first + i % channels.count;
    if (talks) in_block(memory.attention, lane)[at] = logits[i];
  }
  cluster_barrier();
}

// Weighs the block's pixels, from shared memory.
template <class T, int Radix>
__device__ void weigh_in_cluster(const Parameters& p, const ClusterMemory<T>& memory, Widest<T>* y,
                                 int count) {
  constexpr int N = kWidest<T>;
  const int radix = radix_of<Radix>(p);
  const int groups = p.problem.sizes.channels / N;  // of a split
  for (int first = 0; first < groups; first += kClusterThreads) {
    const Share share(kClusterThreads, groups - first);
    if (!share.works()) continue;
    const int group = first + share.group;
    const float* weights = memory.attention + group * N;
    for (int pixel = share.slot; pixel < count; pixel += share.slots) {
      float sum[N] = {};
#pragma unroll
      for (int r = 0; r < radix; ++r) {
        add_weighted(memory.tile[(pixel * radix + r) * groups + group],
                     weights + r * p.problem.sizes.channels, sum);
      }
      store_rounded(y + int64_t{pixel} * groups + group, sum);
    }
  }
}

// The same with pooling. The row above the block's first one is in the block before.
template <class T, int Radix>
__device__ void pool_in_cluster(const Parameters& p, const ClusterMemory<T>& memory, Widest<T>* y,
                                int begin, int end, int begin_before) {
  constexpr int N = kWidest<T>;
  const int radix = radix_of<Radix>(p);
  const int width = p.problem.width;
  const int columns = p.problem.output_width();
  const int first_output = begin / width / 2 * columns;
  const int last_output = (end / width + 1) / 2 * columns;
  const int groups = p.problem.sizes.channels / N;
  const Widest<T>* before = begin > 0 ? in_block(memory.tile, cluster_rank() - 1) : memory.tile;
  for (int first = 0; first < groups; first += kClusterThreads) {
    const Share share(kClusterThreads, groups - first);
    if (!share.works()) continue;
    const int group = first + share.group;
    const float* weights = memory.attention + group * N;
    for (int output = first_output + share.slot; output < last_output; output += share.slots) {
      const Window window(p.problem, output);
      float sum[N] = {};
      for (int row = window.top; row < window.bottom; ++row) {
        const bool is_here = row * width >= begin;
        const Widest<T>* tile = is_here ? memory.tile : before;
        const int first_column = row * width - (is_here ? begin : begin_before);
        for (int column = window.left; column < window.right; ++column) {
#pragma unroll
          for (int r = 0; r < radix; ++r) {
            add_weighted(tile[((first_column + column) * radix + r) * groups + group],
                         weights + r * p.problem.sizes.channels, sum);
          }
        }
      }
#pragma unroll
      for (int k = 0; k < N; ++k) sum[k] *= window.scale;
      store_rounded(y + int64_t{output} * groups + group, sum);
    }
  }
}

// Asks for the parameters of this block's part of the products before they are needed.
template <class T>
__device__ void prefetch_parameters(const Parameters& p) {
  constexpr int line = 128;
  const SplitAttentionSizes& s = p.problem.sizes;
  const auto ask = [&](const void* weights, int64_t elements) {
    const int64_t lines = elements * static_cast<int64_t>(sizeof(T)) / line;
    const int64_t step = int64_t{cluster_size()} * kClusterThreads;
    for (int64_t i = int64_t{cluster_rank()} * kClusterThreads + threadIdx.x; i < lines;
         i += step) {
      prefetch(static_cast<const char*>(weights) + i * line);
    }
  };
  ask(p.fc1_weight, int64_t{s.hidden} * (s.channels / s.cardinality));
  ask(p.fc2_weight, int64_t{s.radix} * s.channels * (s.hidden / s.cardinality));
}

// One cluster of thread blocks for each image.
template <class T, int Radix, bool Pooled>
__global__ void __launch_bounds__(kClusterThreads, 1) run_cluster(Parameters p) {
  if constexpr (kHasClusters) {
    const Problem& problem = p.problem;
    const int rank = cluster_rank();
    const int ranks = cluster_size();
    const auto first_of = [&](int block) {
      return first_pixel(block, ranks, problem.height, problem.width, Pooled);
    };
    const int begin = first_of(rank);
    const int end = first_of(rank + 1);
    const int image = static_cast<int>(blockIdx.y);
    const int groups = problem.sizes.channels / kWidest<T>;
    const int splits = problem.sizes.radix * groups;
    const ClusterMemory<T> memory(p, p.most_pixels);
    prefetch_parameters<T>(p);
    load_and_sum<T>(
        p, memory,
        static_cast<const Widest<T>*>(p.x) + (int64_t{image} * problem.pixels() + begin) * splits,
        end - begin);
    cluster_barrier();
    attend_in_cluster<T, Radix>(p, memory);
    auto* y = static_cast<Widest<T>*>(p.y) + int64_t{image} * problem.output_pixels() * groups;
    if constexpr (Pooled) {
      pool_in_cluster<T, Radix>(p, memory, y, begin, end, rank > 0 ? first_of(rank - 1) : 0);
      cluster_barrier();  // no block may end while another reads its shared memory
    } else {
      weigh_in_cluster<T, Radix>(p, memory, y + int64_t{begin} * groups, end - begin);
    }
  }
}

using Kernel = void (*)(Parameters);

// The kernels of a variant, in the order of their launches. Without `sum`, the counters are cleared
// instead.
struct Kernels {
  Kernel sum = nullptr;
  Kernel hidden = nullptr;
  Kernel weigh = nullptr;
};

template <class T, int Radix, bool Pooled>
Kernels find_channels_last(Variant variant) {
  switch (variant) {
    case Variant::cluster: return {run_cluster<T, Radix, Pooled>, nullptr, nullptr};
    case Variant::tickets: return {nullptr, nullptr, run_tickets<T, Radix, Pooled>};
    case Variant::passes: break;
  }
  return {run_sum_channels_last<T>, run_hidden<T>, run_weigh_channels_last<T, Radix, Pooled>};
}

template <class T, int N, int Radix>
Kernels find_planes() {
  return {run_sum_planes<T, N>, run_hidden<T>, run_weigh_planes<T, N, Radix>};
}

template <class T, int Radix>
Kernels find_kernels(const Problem& problem, Variant variant) {
  if (problem.layout == Layout::channels_last) {
    return problem.pooling == Pooling::none ? find_channels_last<T, Radix, false>(variant)
                                            : find_channels_last<T, Radix, true>(variant);
  }
  switch (pack_of(problem)) {
    case 8: return find_planes<T, kWidest<T>, Radix>();
    case 4: return find_planes<T, 4, Radix>();
    case 2: return find_planes<T, 2, Radix>();
    default: return find_planes<T, 1, Radix>();
  }
}

template <class T>
Kernels find_kernels(const Problem& problem, Variant variant) {
  return problem.sizes.radix == 2 ? find_kernels<T, 2>(problem, variant)
                                  : find_kernels<T, 0>(problem, variant);
}

Kernels find_kernels(const Problem& problem, Variant variant) {
  switch (problem.element) {
    case Element::fp16: return find_kernels<__half>(problem, variant);
    case Element::bf16: return find_kernels<__nv_bfloat16>(problem, variant);
    case Element::fp32: break;
  }
  return find_kernels<float>(problem, variant);
}

constexpr int kFirstWithOverlap = 90;  // compute capability

size_t bytes_of_counters(int batch) {
  return sizeof(unsigned) * (1 + 2 * static_cast<size_t>(batch));
}

}  // namespace

size_t split_attention_workspace(const Problem& problem) {
  const SplitAttentionSizes& sizes = problem.sizes;
  const Tiles tiles = divide(problem, Variant::passes, {}).tiles;
  const size_t floats = static_cast<size_t>(tiles.parts) * sizes.radix * sizes.channels +
                        static_cast<size_t>(sizes.hidden);
  return sizeof(float) * static_cast<size_t>(problem.batch) * floats +
         bytes_of_counters(problem.batch);
}

cudaError_t split_attention(const SplitAttentionCall& call, cudaStream_t stream) {
  const Problem& problem = call.problem;
  const Geometry geometry = divide(problem, call.variant, call.gpu);
  Parameters p = {};
  p.problem = problem;
  p.tiles = geometry.tiles;
  p.x = call.x;
  p.fc1_weight = call.fc1_weight;
  p.fc1_bias = call.fc1_bias;
  p.fc2_weight = call.fc2_weight;
  p.fc2_bias = call.fc2_bias;
  p.y = call.y;
  p.sums = static_cast<float*>(call.workspace);
  p.hidden = p.sums + int64_t{problem.batch} * geometry.tiles.parts * problem.sizes.radix *
                          problem.sizes.channels;
  p.counters =
      reinterpret_cast<unsigned*>(p.hidden + int64_t{problem.batch} * problem.sizes.hidden);
  p.most_pixels = geometry.most_pixels;

  const Kernels kernels = find_kernels(problem, call.variant);
  const bool with_hidden = geometry.launch_count == 3;
  const Kernel order[] = {kernels.sum, with_hidden ? kernels.hidden : kernels.weigh, kernels.weigh};
  const bool can_overlap =
      call.variant == Variant::passes && call.gpu.compute_capability >= kFirstWithOverlap;
  for (int i = 0; i < geometry.launch_count; ++i) {
    const cudaError_t error =
        order[i] == nullptr
            ? clear(p.counters, bytes_of_counters(problem.batch), stream)
            : launch_kernel(order[i], geometry.launches[i], can_overlap && i > 0, stream, p);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}

}  // namespace resrt::plugin

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

// How the split-attention kernels divide their work: the launches, and the bytes that they move.
// Independent of CUDA and TensorRT, so that a model of the GPU can use the same code.
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

struct Problem {
  SplitAttentionSizes sizes;
  Element element;
  Layout layout;
  int batch;
  int pixels;  // height x width
};

struct Extent {
  int x = 1;
  int y = 1;
  int z = 1;
};

// Bytes that a kernel reads and writes, counted at each access, whatever the caches do.
struct Traffic {
  int64_t u = 0;
  int64_t y = 0;
  int64_t sums = 0;      // partial sums
  int64_t products = 0;  // the parameters of the two products, and the hidden layer
};

struct LaunchShape {
  const char* kernel = nullptr;
  Extent grid;
  size_t shared_memory = 0;
  int steps = 1;  // rounds of loads that each depend on the round before
  Traffic traffic;
};

struct Geometry {
  std::array<LaunchShape, 3> launches;
  int launch_count = 0;
  int parts = 0;                 // parts of an image that are summed separately
  bool hidden_is_ready = false;  // whether a launch of its own computes the hidden layer
};

inline constexpr int kThreads = 256;
inline constexpr int kWarp = 32;
inline constexpr int kWarps = kThreads / kWarp;
inline constexpr int kLanesPerRow = 8;  // lanes of a warp for each row of a product
inline constexpr int kRowsAtOnce = kThreads / kLanesPerRow;
inline constexpr int kHwc8 = 8;             // adjacent channels in HWC8
inline constexpr int kPlanesAtOnce = 8;     // channels of a block in weigh_planes
inline constexpr int kChannelsAtOnce = 64;  // in weigh_channels_last: 128 bytes of a pixel

int bytes_of(Element element);

// Elements that are read and written together: as many as divide a plane, of at most 16 bytes.
int pack_of(const Problem& problem);

Geometry divide(const Problem& problem);

// Whether the kernels support blocks of these sizes, which must fit their shared memory.
bool split_attention_fits(const SplitAttentionSizes& sizes);

}  // namespace resrt::plugin

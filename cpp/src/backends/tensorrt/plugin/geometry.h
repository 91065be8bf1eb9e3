#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

// For functions that kernels also call.
#if defined(__CUDACC__)
#define RESRT_ON_GPU_TOO __host__ __device__
#else
#define RESRT_ON_GPU_TOO
#endif

// How the split-attention kernels divide their work: the launches, and the bytes that they move.
// Independent of CUDA and TensorRT, so that a model of a GPU can use the same code.
namespace resrt::plugin {

struct SplitAttentionSizes {
  int channels;  // of one split
  int radix;
  int cardinality;
  int hidden;
};

enum class Element { fp32, fp16, bf16 };

// planes is NCHW. channels_last is TensorRT's HWC8 with 16-bit elements, which requires a multiple
// of 8 channels, and HWC with 32-bit elements, which the kernels support for a multiple of 4.
enum class Layout { planes, channels_last };

// An average pooling that follows: 3x3 windows with a stride of 2 and a padding of 1. `padded`
// always divides by 9, `inside` by the number of pixels in the image.
enum class Pooling { none, padded, inside };

// How a block is computed. `passes` reads U in one launch for the sums and in another for the
// weighing. `tickets` does the same in one launch, whose thread blocks weigh an image while it is
// still in the L2 cache. `cluster` keeps each image in the shared memory of a cluster of thread
// blocks and reads U once.
enum class Variant { passes, tickets, cluster };

struct Problem {
  SplitAttentionSizes sizes;
  Element element;
  Layout layout;
  int batch;
  int height;
  int width;
  Pooling pooling = Pooling::none;

  RESRT_ON_GPU_TOO int pixels() const { return height * width; }
  RESRT_ON_GPU_TOO int output_height() const {
    return pooling == Pooling::none ? height : (height + 1) / 2;
  }
  RESRT_ON_GPU_TOO int output_width() const {
    return pooling == Pooling::none ? width : (width + 1) / 2;
  }
  RESRT_ON_GPU_TOO int output_pixels() const { return output_height() * output_width(); }
};

// What the kernels need to know of a GPU.
struct Gpu {
  int compute_capability;  // times ten: 90
  int processors;
  size_t shared_memory;  // that a thread block may use
  int largest_cluster;   // thread blocks; 1 where there are no clusters
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
  int threads = 0;
  size_t shared_memory = 0;
  int cluster = 1;  // thread blocks, along x
  int steps = 1;    // rounds of loads that each depend on the round before
  Traffic traffic;
};

// The tiles of the kernels that sum and weigh. One thread block computes a tile.
struct Tiles {
  int parts;          // of an image, summed separately
  int sum_groups;     // of channels, summed separately
  int hidden_blocks;  // 0: the tiles that weigh also compute the hidden layer
  int hidden_units;   // of each of them
  int shares;         // of an image's output, weighed separately
  int groups;         // of channels, weighed separately

  RESRT_ON_GPU_TOO int sum_tiles() const { return parts * sum_groups; }
  RESRT_ON_GPU_TOO int weigh_tiles() const { return shares * groups; }
  RESRT_ON_GPU_TOO int per_image() const { return sum_tiles() + hidden_blocks + weigh_tiles(); }
};

struct Geometry {
  std::array<LaunchShape, 3> launches;
  int launch_count = 0;
  Tiles tiles = {};     // of passes and tickets
  int most_pixels = 0;  // of a thread block of a cluster
};

inline constexpr int kThreads = 256;
inline constexpr int kClusterThreads = 512;
inline constexpr int kWarp = 32;
inline constexpr int kWarps = kThreads / kWarp;
inline constexpr int kLanesPerRow = 8;  // lanes of a warp for each row of a product
inline constexpr int kRowsAtOnce = kThreads / kLanesPerRow;
inline constexpr int kLargestCluster = 16;
inline constexpr int kPlanesAtOnce = 8;     // channels of a tile in planes
inline constexpr int kChannelsAtOnce = 64;  // of a tile that weighs channels_last

int bytes_of(Element element);

// Returns the number of elements that are read and written together, at most 16 bytes: all that
// divide a plane, or a pixel's channels.
int pack_of(const Problem& problem);

// Whether the kernels compute the problem by a variant on a GPU. Every problem that fits (below) is
// computed by `passes` on every GPU.
bool supports(const Problem& problem, Variant variant, const Gpu& gpu);

// The variant must be supported.
Geometry divide(const Problem& problem, Variant variant, const Gpu& gpu);

// Whether the kernels support blocks of these sizes, which must fit the shared memory of every GPU.
bool split_attention_fits(const SplitAttentionSizes& sizes);

// The first pixel of a thread block of a cluster, (rank) of (ranks). With pooling, blocks begin at
// even rows, so that a window reaches at most into the block before.
RESRT_ON_GPU_TOO inline int first_pixel(int rank, int ranks, int height, int width, bool pooled) {
  if (!pooled) return static_cast<int>(int64_t{height} * width * rank / ranks);
  const int row = static_cast<int>(2 * (int64_t{(height + 1) / 2} * rank / ranks));
  return (row < height ? row : height) * width;
}

}  // namespace resrt::plugin

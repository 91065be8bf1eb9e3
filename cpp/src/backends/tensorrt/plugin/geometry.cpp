#include "backends/tensorrt/plugin/geometry.h"

#include <algorithm>

namespace resrt::plugin {
namespace {

constexpr int kBlocksWanted = 512;           // enough to fill a large GPU
constexpr int kMostParts = 64;               // of an image
constexpr int kHiddenWorthALaunch = 16384;   // multiply-adds of fc1 that justify their own tiles
constexpr double kSumsOverU = 0.18;          // the bytes of partial sums that are allowed
constexpr size_t kSharedMemory = 48 * 1024;  // of every GPU, without opting in to more

int divide_up(int64_t value, int64_t by) {
  return static_cast<int>((value + by - 1) / by);
}

int64_t float_bytes(int64_t count) {
  return count * static_cast<int64_t>(sizeof(float));
}

size_t floats(int64_t count) {
  return static_cast<size_t>(float_bytes(count));
}

// Returns the number of blocks for each image and group of channels: enough to fill the GPU, but no
// more than there are rounds of work.
int spread(int64_t blocks, int64_t rounds) {
  const int64_t wanted = std::max<int64_t>(1, kBlocksWanted / blocks);
  return static_cast<int>(std::min(wanted, std::max<int64_t>(1, rounds)));
}

bool is_worth_a_launch(const SplitAttentionSizes& sizes) {
  return int64_t{sizes.channels} * sizes.hidden / sizes.cardinality >= kHiddenWorthALaunch;
}

// Means and the array of take_means.
size_t shared_for_means(const SplitAttentionSizes& sizes) {
  return floats(int64_t{sizes.channels} + kThreads);
}

size_t shared_to_attend(const SplitAttentionSizes& sizes, int channels_at_once,
                        bool hidden_is_ready) {
  return floats(int64_t{sizes.radix} * channels_at_once + sizes.hidden) +
         (hidden_is_ready ? 0 : shared_for_means(sizes));
}

int weighed_at_once(Layout layout) {
  return layout == Layout::planes ? kPlanesAtOnce : kChannelsAtOnce;
}

// Divides the tiles so that the partial sums, each of which several tiles read, cost less than U.
Tiles divide_into_tiles(const Problem& problem) {
  const SplitAttentionSizes& sizes = problem.sizes;
  const bool planes = problem.layout == Layout::planes;
  const int pack = pack_of(problem);
  const int all_channels = sizes.radix * sizes.channels;
  Tiles tiles = {};
  tiles.sum_groups = divide_up(all_channels, planes ? kWarps : kWarp * pack);
  tiles.parts = std::min(kMostParts, spread(int64_t{tiles.sum_groups} * problem.batch,
                                            problem.pixels() / (planes ? 256 : 16)));
  const int at_once = weighed_at_once(problem.layout);
  tiles.groups = divide_up(sizes.channels, at_once);
  const int rounds = divide_up(int64_t{at_once} * problem.output_pixels(), kThreads * pack);
  tiles.shares = spread(int64_t{tiles.groups} * problem.batch, rounds);

  // An image's sums are `parts` rows that are written once and read by each of the readers.
  const double budget = kSumsOverU * problem.pixels() * bytes_of(problem.element) / sizeof(float);
  if (is_worth_a_launch(sizes) || 1 + tiles.groups > budget) {
    tiles.hidden_blocks = divide_up(sizes.hidden, kRowsAtOnce);
  }
  const auto readers = [&] {
    return tiles.hidden_blocks > 0 ? tiles.hidden_blocks : tiles.weigh_tiles();
  };
  while (tiles.parts * (1 + readers()) > budget) {
    int& divided = tiles.hidden_blocks > 0 ? tiles.hidden_blocks : tiles.shares;
    if (tiles.parts > 1 && (tiles.parts >= readers() || divided == 1)) {
      --tiles.parts;
    } else if (divided > 1) {
      --divided;
    } else {
      break;
    }
  }
  if (tiles.hidden_blocks > 0) {
    tiles.hidden_units = divide_up(sizes.hidden, tiles.hidden_blocks);
    tiles.hidden_blocks = divide_up(sizes.hidden, tiles.hidden_units);
  }
  return tiles;
}

// The bytes of the tensors and parameters of a problem.
struct Bytes {
  explicit Bytes(const Problem& problem) {
    const auto& [channels, radix, cardinality, hidden] = problem.sizes;
    const int64_t element = bytes_of(problem.element);
    u = int64_t{problem.batch} * radix * channels * problem.pixels() * element;
    y = int64_t{problem.batch} * channels * problem.output_pixels() * element;
    fc1 = element * hidden * (channels / cardinality + 1);
    fc2 = element * radix * channels * (hidden / cardinality + 1);
  }
  int64_t u, y, fc1, fc2;
};

// Returns how many pixels of one axis the windows of a pooling cover, each as often as it is
// covered.
int64_t covered(int length) {
  const int64_t windows = (length + 1) / 2;
  return 3 * windows - 1 - (length % 2 == 0 ? 0 : 1);  // less the padding before and after
}

Traffic sum_traffic(const Problem& problem, const Tiles& tiles) {
  const int64_t sums =
      float_bytes(int64_t{tiles.parts} * problem.sizes.radix * problem.sizes.channels);
  return {.u = Bytes(problem).u, .sums = problem.batch * sums};
}

Traffic hidden_traffic(const Problem& problem, const Tiles& tiles) {
  const int64_t written = float_bytes(problem.sizes.hidden);
  return {.sums = sum_traffic(problem, tiles).sums * tiles.hidden_blocks,
          .products = problem.batch * (Bytes(problem).fc1 + written)};
}

Traffic weigh_traffic(const Problem& problem, const Tiles& tiles) {
  const Bytes bytes(problem);
  const int64_t read =
      problem.pooling == Pooling::none
          ? bytes.u
          : bytes.u / problem.pixels() * covered(problem.height) * covered(problem.width);
  Traffic traffic = {.u = read, .y = bytes.y, .products = problem.batch * tiles.shares * bytes.fc2};
  if (tiles.hidden_blocks > 0) {
    const int64_t hidden = float_bytes(problem.sizes.hidden);
    traffic.products += problem.batch * tiles.weigh_tiles() * hidden;
  } else {
    traffic.products += problem.batch * tiles.weigh_tiles() * bytes.fc1;
    traffic.sums = sum_traffic(problem, tiles).sums * tiles.weigh_tiles();
  }
  return traffic;
}

Traffic operator+(const Traffic& a, const Traffic& b) {
  return {a.u + b.u, a.y + b.y, a.sums + b.sums, a.products + b.products};
}

size_t shared_to_sum(const Problem& problem) {
  return problem.layout == Layout::planes ? 0 : floats(int64_t{kThreads} * pack_of(problem));
}

Geometry divide_into_passes(const Problem& problem) {
  Geometry g;
  g.tiles = divide_into_tiles(problem);
  const auto add = [&](const LaunchShape& launch) {
    g.launches.at(static_cast<size_t>(g.launch_count++)) = launch;
  };
  add({.kernel = "sum",
       .grid = {g.tiles.sum_groups, g.tiles.parts, problem.batch},
       .threads = kThreads,
       .shared_memory = shared_to_sum(problem),
       .traffic = sum_traffic(problem, g.tiles)});
  if (g.tiles.hidden_blocks > 0) {
    add({.kernel = "hidden",
         .grid = {g.tiles.hidden_blocks, 1, problem.batch},
         .threads = kThreads,
         .shared_memory = shared_for_means(problem.sizes),
         .steps = 2,
         .traffic = hidden_traffic(problem, g.tiles)});
  }
  add({.kernel = "weigh",
       .grid = {g.tiles.shares, g.tiles.groups, problem.batch},
       .threads = kThreads,
       .shared_memory = shared_to_attend(problem.sizes, weighed_at_once(problem.layout),
                                         g.tiles.hidden_blocks > 0),
       .steps =
           g.tiles.hidden_blocks > 0 ? 2 : 3,  // U is loaded before the attention is waited for
       .traffic = weigh_traffic(problem, g.tiles)});
  return g;
}

Geometry divide_by_tickets(const Problem& problem, const Gpu& gpu) {
  Geometry passes = divide_into_passes(problem);
  Geometry g;
  g.tiles = passes.tiles;
  constexpr int kBlocksOfAProcessor = 4;
  LaunchShape launch = {
      .kernel = "tickets",
      .grid = {std::min(kBlocksOfAProcessor * gpu.processors, problem.batch * g.tiles.per_image()),
               1, 1},
      .threads = kThreads,
      .steps = 0};
  for (int i = 0; i < passes.launch_count; ++i) {
    const LaunchShape& pass = passes.launches.at(static_cast<size_t>(i));
    launch.traffic = launch.traffic + pass.traffic;
    launch.shared_memory = std::max(launch.shared_memory, pass.shared_memory);
    launch.steps += pass.steps + 1;  // drawing the ticket
  }
  launch.shared_memory += 16;  // the ticket
  // Clearing the counters costs as much as a launch.
  g.launches.front() = {.kernel = "clear"};
  g.launches.at(1) = launch;
  g.launch_count = 2;
  return g;
}

// Returns the most pixels that a thread block of an image's cluster has.
int most_pixels_of(const Problem& problem, int ranks) {
  const auto first = [&](int rank) {
    return first_pixel(rank, ranks, problem.height, problem.width,
                       problem.pooling != Pooling::none);
  };
  int most = 0;
  for (int rank = 0; rank < ranks; ++rank) most = std::max(most, first(rank + 1) - first(rank));
  return most;
}

size_t shared_of_cluster(const Problem& problem, int ranks) {
  const auto& [channels, radix, cardinality, hidden] = problem.sizes;
  const int64_t all_channels = int64_t{radix} * channels;
  const int64_t tile = most_pixels_of(problem, ranks) * all_channels * bytes_of(problem.element);
  const int64_t scratch = int64_t{kClusterThreads} * pack_of(problem);  // holds the logits, too
  return static_cast<size_t>(tile) +
         floats(std::max(scratch, all_channels) + 2 * all_channels + channels + hidden);
}

// Returns the thread blocks of an image's cluster, or 0 if none fits: few, because each exchange
// costs more with many, but enough to occupy the GPU.
int ranks_of_cluster(const Problem& problem, const Gpu& gpu) {
  const int most =
      std::min({gpu.largest_cluster, kLargestCluster,
                problem.pooling == Pooling::none ? problem.pixels() : (problem.height + 1) / 2});
  int ranks = 1;
  while (2 * ranks <= most && (shared_of_cluster(problem, ranks) > gpu.shared_memory ||
                               ranks * problem.batch < gpu.processors)) {
    ranks *= 2;
  }
  return shared_of_cluster(problem, ranks) <= gpu.shared_memory ? ranks : 0;
}

Geometry divide_into_clusters(const Problem& problem, const Gpu& gpu) {
  const Bytes bytes(problem);
  const int ranks = ranks_of_cluster(problem, gpu);
  Geometry g;
  g.launches.front() = {
      .kernel = "cluster",
      .grid = {ranks, problem.batch, 1},
      .threads = kClusterThreads,
      .shared_memory = shared_of_cluster(problem, ranks),
      .cluster = ranks,
      .steps = 5,  // U, means, the hidden layer, the logits, the attention
      .traffic = {.u = bytes.u, .y = bytes.y, .products = problem.batch * (bytes.fc1 + bytes.fc2)}};
  g.launch_count = 1;
  g.most_pixels = most_pixels_of(problem, ranks);
  return g;
}

}  // namespace

int bytes_of(Element element) {
  return element == Element::fp32 ? 4 : 2;
}

int pack_of(const Problem& problem) {
  const int widest = 16 / bytes_of(problem.element);
  if (problem.layout == Layout::channels_last) return widest;
  for (const int pack : {8, 4, 2}) {
    if (pack <= widest && problem.pixels() % pack == 0) return pack;
  }
  return 1;
}

bool supports(const Problem& problem, Variant variant, const Gpu& gpu) {
  if (problem.layout == Layout::planes) {
    return variant == Variant::passes && problem.pooling == Pooling::none;
  }
  if (problem.sizes.channels % pack_of(problem) != 0) return false;
  return variant != Variant::cluster ||
         (gpu.largest_cluster > 1 && ranks_of_cluster(problem, gpu) > 0);
}

Geometry divide(const Problem& problem, Variant variant, const Gpu& gpu) {
  switch (variant) {
    case Variant::cluster: return divide_into_clusters(problem, gpu);
    case Variant::tickets: return divide_by_tickets(problem, gpu);
    case Variant::passes: break;
  }
  return divide_into_passes(problem);
}

bool split_attention_fits(const SplitAttentionSizes& sizes) {
  return shared_to_attend(sizes, kChannelsAtOnce, is_worth_a_launch(sizes)) + 16 <= kSharedMemory &&
         shared_for_means(sizes) + 16 <= kSharedMemory;
}

}  // namespace resrt::plugin

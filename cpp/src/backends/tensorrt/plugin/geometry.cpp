#include "backends/tensorrt/plugin/geometry.h"

#include <algorithm>

namespace resrt::plugin {
namespace {

constexpr int kBlocksWanted = 512;          // enough to fill a large GPU
constexpr int kMostParts = 128;             // parts of an image, whose sums every block adds up
constexpr int kHiddenWorthALaunch = 16384;  // multiply-adds of fc1 that justify their own launch
constexpr size_t kSharedMemory = 48 * 1024 - sizeof(float) * kThreads;  // minus take_means' array

int divide_up(int64_t value, int64_t by) {
  return static_cast<int>((value + by - 1) / by);
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

size_t shared_to_attend(const SplitAttentionSizes& sizes, int channels_at_once,
                        bool hidden_is_ready) {
  const int floats =
      sizes.radix * channels_at_once + sizes.hidden + (hidden_is_ready ? 0 : sizes.channels);
  return sizeof(float) * static_cast<size_t>(floats);
}

}  // namespace

int bytes_of(Element element) {
  return element == Element::fp32 ? 4 : 2;
}

int pack_of(const Problem& problem) {
  const int widest = 16 / bytes_of(problem.element);
  if (problem.layout == Layout::channels_last) return widest;
  for (const int pack : {8, 4, 2}) {
    if (pack <= widest && problem.pixels % pack == 0) return pack;
  }
  return 1;
}

Geometry divide(const Problem& problem) {
  const auto& [channels, radix, cardinality, hidden] = problem.sizes;
  const bool planes = problem.layout == Layout::planes;
  const int all_channels = radix * channels;
  const int summed_at_once = planes ? kWarps : kWarp * kHwc8;
  const int weighed_at_once = planes ? kPlanesAtOnce : kChannelsAtOnce;
  const int pack = pack_of(problem);

  const int64_t element = bytes_of(problem.element);
  const int64_t batch = problem.batch;
  const int64_t u = batch * all_channels * problem.pixels * element;
  const int64_t fc1 = element * hidden * (channels / cardinality + 1);
  const int64_t fc2 = element * all_channels * (hidden / cardinality + 1);
  const int64_t hidden_floats = int64_t{sizeof(float)} * hidden;

  Geometry g;
  g.hidden_is_ready = is_worth_a_launch(problem.sizes);
  const int sum_blocks = divide_up(all_channels, summed_at_once);
  g.parts = std::min(kMostParts, spread(int64_t{sum_blocks} * problem.batch,
                                        problem.pixels / (planes ? 256 : 2 * kWarps)));
  const int64_t sums = batch * g.parts * all_channels * int64_t{sizeof(float)};
  const auto add = [&](const LaunchShape& launch) {
    g.launches.at(static_cast<size_t>(g.launch_count++)) = launch;
  };
  add({"sum", {sum_blocks, g.parts, problem.batch}, 0, 1, {.u = u, .sums = sums}});
  if (g.hidden_is_ready) {
    const int blocks = divide_up(hidden, kRowsAtOnce);
    add({"hidden",
         {blocks, problem.batch, 1},
         sizeof(float) * static_cast<size_t>(channels),
         2,
         {.sums = sums * blocks, .products = batch * (fc1 + hidden_floats)}});
  }
  const int groups = divide_up(channels, weighed_at_once);
  const int rounds = divide_up(int64_t{weighed_at_once} / pack * problem.pixels, kThreads);
  const int shares = spread(int64_t{groups} * problem.batch, rounds);
  const int64_t blocks = int64_t{shares} * groups;
  const int64_t hidden_bytes = blocks * (g.hidden_is_ready ? hidden_floats : fc1);
  add({"weigh",
       {shares, groups, problem.batch},
       shared_to_attend(problem.sizes, weighed_at_once, g.hidden_is_ready),
       g.hidden_is_ready ? 3 : 4,
       {.u = u,
        .y = u / radix,
        .sums = g.hidden_is_ready ? 0 : sums * blocks,
        .products = batch * (shares * fc2 + hidden_bytes)}});
  return g;
}

bool split_attention_fits(const SplitAttentionSizes& sizes) {
  const bool ready = is_worth_a_launch(sizes);
  return shared_to_attend(sizes, kChannelsAtOnce, ready) <= kSharedMemory &&
         sizeof(float) * static_cast<size_t>(sizes.channels) <= kSharedMemory;
}

}  // namespace resrt::plugin

#include "resrt/timing.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <random>
#include <vector>

#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

constexpr int kWarmUp = 3;

// Between the two nearest of the sorted values, as NumPy has it.
double percentile(const std::vector<double>& sorted, double percent) {
  const double place = percent / 100 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(place);
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return std::lerp(sorted[below], sorted[above], place - std::floor(place));
}

}  // namespace

Timing measure_latency(const Engine& engine, int64_t batch, int repeats) {
  if (batch < 1) throw InputError(concat("a batch size must be at least 1, not ", batch));
  if (repeats < 1) throw InputError(concat("repeats must be at least 1, not ", repeats));
  const EngineInfo& info = engine.info();
  std::mt19937 random;
  std::normal_distribution<float> pixel;
  std::vector<float> images(static_cast<size_t>(batch * info.input.size()));
  for (float& value : images) value = pixel(random);
  std::vector<float> logits(static_cast<size_t>(batch * info.classes));

  using Clock = std::chrono::steady_clock;
  std::vector<double> milliseconds;
  for (int run = -kWarmUp; run < repeats; ++run) {
    const Clock::time_point start = Clock::now();
    engine.infer(images, logits);
    const std::chrono::duration<double, std::milli> taken = Clock::now() - start;
    if (run >= 0) milliseconds.push_back(taken.count());
  }
  std::sort(milliseconds.begin(), milliseconds.end());
  return {.batch = batch,
          .repeats = repeats,
          .min_ms = milliseconds.front(),
          .median_ms = percentile(milliseconds, 50),
          .p90_ms = percentile(milliseconds, 90),
          .p99_ms = percentile(milliseconds, 99)};
}

}  // namespace resrt

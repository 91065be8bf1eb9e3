#include "resrt/timing.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <vector>

#include "engine/percentile.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

constexpr int kWarmUp = 3;

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
  for (int run = 0; run < kWarmUp; ++run) engine.infer(images, logits);
  std::vector<double> milliseconds;
  const Clock::time_point begin = Clock::now();
  for (int run = 0; run < repeats; ++run) {
    const Clock::time_point start = Clock::now();
    engine.infer(images, logits);
    const std::chrono::duration<double, std::milli> taken = Clock::now() - start;
    milliseconds.push_back(taken.count());
  }
  const std::chrono::duration<double> all = Clock::now() - begin;
  std::sort(milliseconds.begin(), milliseconds.end());
  return {.batch = batch,
          .repeats = repeats,
          .min_ms = milliseconds.front(),
          .median_ms = percentile(milliseconds, 50),
          .p90_ms = percentile(milliseconds, 90),
          .p99_ms = percentile(milliseconds, 99),
          .seconds = all.count()};
}

}  // namespace resrt

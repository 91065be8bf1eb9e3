#pragma once

#include <cstdint>

#include "resrt/engine.h"
#include "resrt/export.h"

namespace resrt {

// Latencies of one batch size, in milliseconds per batch, over `repeats` timed runs. The median and
// the percentiles are latencies of actual runs: half of the runs took at most `median_ms`, 90 % at
// most `p90_ms`. With fewer than 100 runs, `p99_ms` is the slowest one. All runs together took
// `seconds`.
struct Timing {
  int64_t batch = 0;
  int repeats = 0;
  double min_ms = 0;
  double median_ms = 0;
  double p90_ms = 0;
  double p99_ms = 0;
  double seconds = 0;

  // The mean throughput over all timed runs.
  double images_per_second() const {
    return static_cast<double>(batch) * static_cast<double>(repeats) / seconds;
  }
};

// Measures `infer` on one batch of random images, after a few untimed runs. Other threads that use
// the engine or the processor affect the result. Throws InputError if batch or repeats is below 1.
RESRT_API Timing measure_latency(const Engine& engine, int64_t batch, int repeats = 30);

}  // namespace resrt

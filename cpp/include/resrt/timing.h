#pragma once

#include <cstdint>

#include "resrt/engine.h"
#include "resrt/export.h"

namespace resrt {

// Latencies of one batch size, in milliseconds per batch, over `repeats` timed runs. Median and
// percentiles are latencies of runs that took place: half took at most `median_ms`, nine tenths at
// most `p90_ms`. Of fewer than 100 runs, `p99_ms` is the slowest. The runs took `seconds` in all.
struct Timing {
  int64_t batch = 0;
  int repeats = 0;
  double min_ms = 0;
  double median_ms = 0;
  double p90_ms = 0;
  double p99_ms = 0;
  double seconds = 0;

  // Throughput over all timed runs.
  double images_per_second() const {
    return static_cast<double>(batch) * static_cast<double>(repeats) / seconds;
  }
};

// Measures `infer` on one batch of random images, after a few untimed runs. What other threads do
// with the engine, or with the processor, counts. Throws InputError for a batch or repeats below 1.
RESRT_API Timing measure_latency(const Engine& engine, int64_t batch, int repeats = 30);

}  // namespace resrt

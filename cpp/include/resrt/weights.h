#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "resrt/export.h"
#include "resrt/graph.h"

namespace resrt {

// A float32 tensor in row-major order. Copies share the data, which is never written through them.
struct RESRT_API Array {
  std::vector<int64_t> shape;
  std::shared_ptr<const float> data;

  size_t size() const;
};

// Parameters by name, under timm's names.
using Weights = std::map<std::string, Array>;

// A new array of that shape, and the memory to fill it in before it is shared.
RESRT_API std::pair<Array, float*> make_array(std::vector<int64_t> shape);

// Throws one WeightsError that lists every parameter of the graph that is missing from the weights
// or has another shape, every array that the graph does not expect, and every one with values that
// are not finite or, in a variance, below zero.
RESRT_API void check_weights(const Graph& graph, const Weights& weights);

// Parameters drawn from a seeded generator, the same on every machine: for timing and tests, where
// what a network computes does not matter but its values must stay finite.
RESRT_API Weights random_weights(const Graph& graph, uint64_t seed = 0);

}  // namespace resrt

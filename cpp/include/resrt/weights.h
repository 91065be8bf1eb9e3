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

// A float32 tensor in row-major order. Copies share the data, which is never written through them,
// so that any number of threads may read them; the memory is freed with the last copy.
struct RESRT_API Array {
  std::vector<int64_t> shape;
  std::shared_ptr<const float> data;

  // The number of its values: 1 for an empty shape.
  size_t size() const;
};

// Parameters by name, under timm's names.
using Weights = std::map<std::string, Array>;

// A new array of that shape, and its memory, size() floats of no particular value, to be filled in
// before it is shared.
RESRT_API std::pair<Array, float*> make_array(std::vector<int64_t> shape);

// The arrays of a safetensors file (https://huggingface.co/docs/safetensors), as `resrt convert`
// and timm write them, under their names there. float16, bfloat16 and float64 are converted to
// float32; arrays of integers are left out: no parameter is one, but a counter of the training's
// may be. Throws FileError where the file cannot be read, WeightsError where it is no such file,
// cut short, or inconsistent.
RESRT_API Weights read_safetensors(const std::string& path);

// Throws one WeightsError that lists every parameter of the graph that is missing from the weights
// or has another shape, every array that the graph does not expect, and every one with values that
// are not finite or, in a variance, below zero.
RESRT_API void check_weights(const Graph& graph, const Weights& weights);

// Parameters drawn from a seeded generator, the same on every machine: for timing and tests, where
// what a network computes does not matter but its values must stay finite.
RESRT_API Weights random_weights(const Graph& graph, uint64_t seed = 0);

}  // namespace resrt

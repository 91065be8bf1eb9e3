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

// A float32 tensor in row-major order. Copies share the read-only data, so any number of threads
// may read them. The memory is freed with the last copy.
struct RESRT_API Array {
  std::vector<int64_t> shape;
  std::shared_ptr<const float> data;

  // The number of values; 1 for an empty shape.
  size_t size() const;
};

// Parameters by name, using timm's names.
using Weights = std::map<std::string, Array>;

// Returns a new array of that shape and a pointer to its size() uninitialised floats, which must be
// filled before the array is shared.
RESRT_API std::pair<Array, float*> make_array(std::vector<int64_t> shape);

// Returns the arrays of a safetensors file (https://huggingface.co/docs/safetensors), such as
// `resrt convert` and timm write, under their names in the file. float16, bfloat16 and float64 are
// converted to float32. Integer arrays are skipped: they are training counters, not parameters.
// Throws FileError if the file cannot be read, and WeightsError if it is truncated, inconsistent or
// not a safetensors file.
RESRT_API Weights read_safetensors(const std::string& path);

// Throws a single WeightsError that lists every parameter of the graph that is missing from the
// weights or has the wrong shape, every array that the graph does not expect, and every parameter
// with non-finite values or a negative variance.
RESRT_API void check_weights(const Graph& graph, const Weights& weights);

// Returns the weights together with that of the layer that select_outputs (models.h) adds to a
// graph for class activation maps: "cam.weight" is the weight of the last linear layer.
// Engine::build completes the weights by itself.
RESRT_API Weights complete_weights(const Graph& graph, Weights weights);

// Returns parameters from a seeded generator, the same on every machine. They are for timing and
// tests, where a network's outputs do not matter but must stay finite.
RESRT_API Weights random_weights(const Graph& graph, uint64_t seed = 0);

}  // namespace resrt

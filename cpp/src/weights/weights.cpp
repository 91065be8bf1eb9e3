#include "resrt/weights.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <set>
#include <span>

#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

// How many names of each kind an error lists. There may be any number of them.
constexpr size_t kMostListed = 5;

// splitmix64 (https://prng.di.unimi.it/splitmix64.c), because the standard library's distributions
// differ between implementations.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  float uniform(float low, float high) {
    const auto bits = static_cast<float>(next() >> 40U);
    return low + (high - low) * bits * 0x1p-24F;
  }

 private:
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15U);
    z = (z ^ (z >> 30U)) * 0xbf58476d1ce4e5b9U;
    z = (z ^ (z >> 27U)) * 0x94d049bb133111ebU;
    return z ^ (z >> 31U);
  }

  uint64_t state_;
};

// Bounds that keep activations finite through 200 layers: He's variance for the weights, and scales
// below 1 for batch normalisation, so that residual branches add less than their input.
std::pair<float, float> bounds(const Parameter& parameter) {
  if (parameter.shape.size() > 1) {
    const auto fan_in = std::accumulate(parameter.shape.begin() + 1, parameter.shape.end(), 1.0F,
                                        std::multiplies<>());
    const float bound = std::sqrt(6.0F / fan_in);
    return {-bound, bound};
  }
  if (parameter.name.ends_with("running_var")) return {0.5F, 1.5F};
  if (parameter.name.ends_with(".weight")) return {0.3F, 0.7F};
  return {-0.1F, 0.1F};
}

bool is_usable(const Parameter& parameter, const Array& array) {
  const bool is_variance = parameter.name.ends_with("running_var");
  const float* const values = array.data.get();
  return std::all_of(values, values + array.size(), [&](float value) {
    return std::isfinite(value) && !(is_variance && value < 0);
  });
}

}  // namespace

size_t Array::size() const {
  return static_cast<size_t>(
      std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>()));
}

std::pair<Array, float*> make_array(std::vector<int64_t> shape) {
  Array array{std::move(shape), nullptr};
  const std::shared_ptr<float> data(new float[array.size()], std::default_delete<float[]>());
  array.data = data;
  return {array, data.get()};
}

void check_weights(const Graph& graph, const Weights& weights) {
  std::vector<std::string> missing;
  std::vector<std::string> misshapen;
  std::vector<std::string> unexpected;
  std::vector<std::string> unusable;
  std::set<std::string> expected;
  for (const Parameter& parameter : graph.parameters()) {
    expected.insert(parameter.name);
    const auto found = weights.find(parameter.name);
    if (found == weights.end()) {
      missing.push_back(concat(parameter.name, " ", shape_text(parameter.shape)));
    } else if (found->second.shape != parameter.shape || found->second.data == nullptr) {
      misshapen.push_back(concat(parameter.name, ": expected ", shape_text(parameter.shape),
                                 ", found ", shape_text(found->second.shape)));
    } else if (!is_usable(parameter, found->second)) {
      unusable.push_back(parameter.name);
    }
  }
  for (const auto& [name, array] : weights) {
    if (!expected.contains(name))
      unexpected.push_back(concat(shown(name), " ", shape_text(array.shape)));
  }
  if (missing.empty() && misshapen.empty() && unexpected.empty() && unusable.empty()) return;

  std::string text = concat("these weights do not fit ", graph.name(), ", which has ",
                            expected.size(), " parameters and buffers:");
  const auto list = [&](const char* what, const std::vector<std::string>& names) {
    if (names.empty()) return;
    const size_t listed = std::min(names.size(), kMostListed);
    text += concat("\n  ", names.size(), " ", what, ":\n    ",
                   join(std::span(names).first(listed), "\n    "));
    if (listed < names.size()) text += concat("\n    and ", names.size() - listed, " more");
  };
  list("missing", missing);
  list("with the wrong shape", misshapen);
  list("unexpected", unexpected);
  list("with non-finite values or a negative variance", unusable);
  text += "\nCheck that the weights were trained for this network and this number of classes.";
  throw WeightsError(text);
}

Weights random_weights(const Graph& graph, uint64_t seed) {
  Random random(seed);
  Weights weights;
  for (const Parameter& parameter : graph.parameters()) {
    const auto [low, high] = bounds(parameter);
    auto [array, data] = make_array(parameter.shape);
    for (size_t i = 0; i < array.size(); ++i) data[i] = random.uniform(low, high);
    weights.emplace(parameter.name, array);
  }
  return weights;
}

}  // namespace resrt

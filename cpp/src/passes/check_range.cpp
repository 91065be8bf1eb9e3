#include <algorithm>
#include <span>
#include <string>
#include <vector>

#include "engine/range.h"
#include "passes/passes.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt {

void check_range(const Network& network, Precision precision) {
  constexpr size_t most_listed = 5;
  std::vector<std::string> names;
  for (const auto& [name, array] : network.weights) {
    if (!all_below(array.data.get(), static_cast<int64_t>(array.size()), overflow_of(precision))) {
      names.push_back(name);
    }
  }
  if (names.empty()) return;
  const size_t listed = std::min(names.size(), most_listed);
  throw WeightsError(
      concat(names.size(), " parameters of ", network.graph.name(),
             ", with the batch normalisations folded into them, have values that are infinite in ",
             to_string(precision), ": ", join(std::span(names).first(listed)),
             listed < names.size() ? " and others" : "",
             precision == Precision::fp16 ? "; choose bf16 or fp32"
                                          : "; check that they were trained for this network"));
}

}  // namespace resrt

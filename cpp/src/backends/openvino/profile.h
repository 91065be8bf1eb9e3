#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <openvino/runtime/infer_request.hpp>

#include "resrt/engine.h"

namespace resrt::openvino {

// The name of a node of the model, from that of the layer that it is part of and a number that is
// its own. A compiled model has the names of the nodes that each of its steps was made from.
std::string node_name(const std::string& layer, size_t number);

// Returns the name of the layer that a node of that name is part of, or nothing.
std::string_view layer_of_node(std::string_view node);

// OpenVINO's counters of a model that was compiled with ov::enable_profiling. They are means over
// all inferences, including the first ones, which are slower.
class Counters {
 public:
  void count_inference() { ++inferences_; }
  // Returns the time of each step, the mean over the inferences since the previous call.
  std::vector<StepTime> read(ov::InferRequest& request);

 private:
  int64_t inferences_ = 0;
  int64_t previous_inferences_ = 0;
  std::vector<double> previous_ms_;  // by node: the total time until the previous call
};

}  // namespace resrt::openvino

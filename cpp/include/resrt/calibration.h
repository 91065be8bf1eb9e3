#pragma once

#include <map>
#include <set>
#include <string>

namespace resrt {

// The values that a tensor takes.
struct Range {
  float low;
  float high;
  bool operator==(const Range&) const = default;
};

// What a network needs to be built with 8-bit integers: the range of each tensor that is rounded to
// them. It depends on the network and its weights, not on a backend or a device. `resrt calibrate`
// measures the ranges on images and writes them to a file.
struct Calibration {
  std::string network;
  std::string weights_sha256;  // as in EngineNotes; may be empty
  // By the name of the layer that returns the tensor, once its batch normalisations are folded: the
  // output of a convolution with batch normalisation has the name of the convolution.
  std::map<std::string, Range> ranges;
  // The names of convolutions that stay in floating point, because rounding them costs too much
  // accuracy, and of additions whose inputs do.
  std::set<std::string> keep;
};

}  // namespace resrt

#pragma once

#include <cstddef>
#include <string>
#include <vector>

// A fake of TensorRT's library for machines without a GPU: libnvinfer with a runtime but without a
// builder. It computes no network, but a function of every pixel and class. Two simultaneous
// inferences in the same scratch memory give wrong results. Calls in an order that the
// documentation does not allow are reported as faults.
//
// It does not model what TensorRT itself does or whether its results are right.
namespace resrt::fake {

struct Sizes {
  size_t image = 0;  // floats
  size_t classes = 0;
  size_t max_batch = 0;
};

// Returns a plan for the fake's engines, instead of one from TensorRT's builder.
std::string make_plan(const Sizes& sizes);

// The number of batch sizes for which TensorRT for RTX has compiled kernels.
int compiled();

// The number of execution contexts that were ever created.
int contexts();

// A logit of an image is the weighted sum of its pixels plus the bias of the class. It is exact for
// integers up to a thousand.
inline float weight(size_t pixel, size_t label) {
  return static_cast<float>((pixel * 7 + label * 3) % 11) - 5;
}
inline float bias(size_t label) {
  return static_cast<float>(label * 100);
}

}  // namespace resrt::fake

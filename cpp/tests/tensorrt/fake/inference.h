#pragma once

#include <cstddef>
#include <string>
#include <vector>

// A stand-in for TensorRT's library where there is no GPU: libnvinfer with a runtime, but no
// builder. What it computes is no network's, but every pixel and every class counts, and what two
// inferences at once write into the same scratch memory makes both wrong. It keeps to the order in
// which the documentation asks for calls, and reports as faults what breaks it.
//
// It claims nothing about what TensorRT itself does, or whether its results are right.
namespace resrt::stand_in {

struct Sizes {
  size_t image = 0;  // floats
  size_t classes = 0;
  size_t max_batch = 0;
};

// What its engines are made of, in the place of what TensorRT's builder writes.
std::string make_plan(const Sizes& sizes);

// For how many batch sizes TensorRT for RTX has compiled kernels.
int compiled();

// The logits of one image: the sum over its pixels, each times its weight, and the class's bias.
// Exact for whole numbers up to a thousand.
inline float weight(size_t pixel, size_t label) {
  return static_cast<float>((pixel * 7 + label * 3) % 11) - 5;
}
inline float bias(size_t label) {
  return static_cast<float>(label * 100);
}

}  // namespace resrt::stand_in

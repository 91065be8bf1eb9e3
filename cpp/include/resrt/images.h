#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "resrt/export.h"
#include "resrt/graph.h"

namespace resrt {

// The library whose resizing, cropping and normalisation of photographs is reproduced. Their
// results differ by up to tens of grey levels in a pixel:
// - paddleclas: OpenCV's resize, which reads four input pixels per output pixel at any scale. The
//   long side is rounded, and the crop offset is rounded down.
// - torchvision: Pillow's resize, which averages over the whole area that an output pixel covers.
//   The long side is rounded down, and the crop offset is rounded. timm does the same.
// - squash: as torchvision, but the image is resized to the proportions of the input, not its own.
//   This is timm's crop mode "squash".
enum class Pipeline { paddleclas, torchvision, squash };

// "paddleclas", "torchvision", "squash"; parse_pipeline throws InputError for anything else.
RESRT_API const char* to_string(Pipeline pipeline);
RESRT_API Pipeline parse_pipeline(const std::string& name);

// How a photograph becomes an engine's input: resize the short side to `resize`, crop the centre
// to the input's size, scale to 0..1, subtract `mean` and divide by `std` (one value per channel).
struct Preprocessing {
  int resize = 256;                        // pixels; unused if resize_height and _width are given
  std::string interpolation = "bilinear";  // or "bicubic", "lanczos"
  std::vector<float> mean;
  std::vector<float> std;
  Pipeline pipeline = Pipeline::torchvision;
  // The input's size in pixels. An engine sets it to its own; 0 fits any input.
  int input_height = 0;
  int input_width = 0;
  // The size that the resized image covers instead, in its own proportions, as timm does for an
  // input that is not square. With the pipeline squash, the resized image has exactly this size.
  int resize_height = 0;
  int resize_width = 0;

  bool operator==(const Preprocessing&) const = default;
};

// Throws InputError if the steps are invalid for inputs of that shape. Mean and std may both be
// empty; the engine then accepts only prepared batches.
RESRT_API void check_preprocessing(const Preprocessing& steps, const Shape& input);

// An upright image in the caller's memory: uint8 (height, width, channels) in row-major order, with
// 1 channel (grey) or 3 (RGB).
struct ImageView {
  const uint8_t* pixels = nullptr;
  int width = 0;
  int height = 0;
  int channels = 3;
};

// Writes the preprocessed image to `output`, float32 (channels, height, width) of `input` in the
// caller's memory. Each pixel equals that of the pipeline's library. If the resized image is
// smaller than the input, it is enlarged to cover it. Throws InputError if the image has no pixels
// or the wrong number of channels, or if the steps are invalid or have no mean and std. Safe to
// call from many threads at once.
RESRT_API void preprocess(const ImageView& image, const Preprocessing& steps, const Shape& input,
                          float* output);

}  // namespace resrt

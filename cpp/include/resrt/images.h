#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "resrt/export.h"
#include "resrt/graph.h"

namespace resrt {

// Whose way of resizing, cropping and normalising photographs it is. They differ in what a network
// sees, by up to tens of grey levels in a pixel:
//   paddleclas:  OpenCV's resize, which reads four pixels for one of the result however much
//   smaller
//                that is; the long side is rounded, the crop's offset rounded down.
//   torchvision: Pillow's resize, which averages over all that a pixel of the result covers; the
//                long side is rounded down, the crop's offset rounded. timm does as torchvision.
enum class Pipeline { paddleclas, torchvision };

// "paddleclas", "torchvision"; parse_pipeline throws InputError for anything else.
RESRT_API const char* to_string(Pipeline pipeline);
RESRT_API Pipeline parse_pipeline(const std::string& name);

// How a photograph becomes an engine's input: resize the short side to `resize`, crop the centre
// to the input's size, scale to 0..1, subtract `mean`, divide by `std` (one value per channel).
struct Preprocessing {
  int resize = 256;                        // pixels
  std::string interpolation = "bilinear";  // or "bicubic", "lanczos"
  std::vector<float> mean;
  std::vector<float> std;
  Pipeline pipeline = Pipeline::torchvision;
};

// Throws InputError where these are no steps for images of that many channels. A preprocessing
// without mean and std is none: its engine takes prepared batches only.
RESRT_API void check_preprocessing(const Preprocessing& steps, int channels);

// An upright image in the caller's memory: uint8 (height, width, channels) in row-major order, of 1
// channel (grey) or 3 (RGB).
struct ImageView {
  const uint8_t* pixels = nullptr;
  int width = 0;
  int height = 0;
  int channels = 3;
};

// Writes what the network's source would make of the image, pixel by pixel: float32 (channels,
// height, width) of `input`, the caller's memory. Where `resize` does not cover the input, the
// image is enlarged until it does. Throws InputError for an image without pixels, of other channels
// than the input's, or steps that are none. Safe to call from many threads at once.
RESRT_API void preprocess(const ImageView& image, const Preprocessing& steps, const Shape& input,
                          float* output);

}  // namespace resrt

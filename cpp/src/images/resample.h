#pragma once

#include <cstdint>
#include <vector>

#include "resrt/images.h"

namespace resrt {

struct Size {
  int64_t width = 0;
  int64_t height = 0;
};

// A part of a resized image. Only what the part shows is computed.
struct Crop {
  int64_t left = 0;
  int64_t top = 0;
  int width = 0;
  int height = 0;
};

enum class Filter { bilinear, bicubic, lanczos };

// uint8 (crop.height, crop.width, image.channels): that part of the image resized to `size`.

// As cv2.resize with INTER_LINEAR does, to the bit (OpenCV 3.4 to 4.x): no smoothing, and weights
// of 11 bits.
std::vector<uint8_t> resize_like_opencv(const ImageView& image, Size size, const Crop& crop);

// As PIL.Image.resize does, to the bit (Pillow 2.7 on): a filter as wide as what it shrinks,
// columns first, rounded to whole grey levels in between.
std::vector<uint8_t> resize_like_pillow(const ImageView& image, Filter filter, Size size,
                                        const Crop& crop);

}  // namespace resrt

#pragma once

#include <cstdint>
#include <vector>

#include "resrt/images.h"

namespace resrt {

struct Size {
  int64_t width = 0;
  int64_t height = 0;
};

// A region of a resized image. Only this region is computed.
struct Crop {
  int64_t left = 0;
  int64_t top = 0;
  int width = 0;
  int height = 0;
};

enum class Filter { bilinear, bicubic, lanczos };

// Both functions resize the image to `size` and return the crop as uint8 (crop.height, crop.width,
// image.channels).

// Bit-identical to cv2.resize with INTER_LINEAR (OpenCV 3.4 to 4.x): no smoothing, 11-bit weights.
std::vector<uint8_t> resize_like_opencv(const ImageView& image, Size size, const Crop& crop);

// Bit-identical to PIL.Image.resize (Pillow 2.7 and later): the filter widens with the scale, and
// the horizontal pass comes first and rounds to whole grey levels.
std::vector<uint8_t> resize_like_pillow(const ImageView& image, Filter filter, Size size,
                                        const Crop& crop);

}  // namespace resrt

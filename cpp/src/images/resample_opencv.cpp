#include <algorithm>
#include <cmath>

#include "images/resample.h"

namespace resrt {
namespace {

// OpenCV's INTER_RESIZE_COEF_SCALE.
constexpr int kOne = 1 << 11;

// An output pixel along one axis: near * weights[0] + far * weights[1].
struct Tap {
  int64_t near;
  int64_t far;
  int weights[2];
};

int fixed_point(float weight) {
  return static_cast<int>(std::lrint(weight * float{kOne}));  // half to even, as cvRound
}

// OpenCV computes positions in double and the distance between neighbours in float.
Tap tap(int64_t index, int64_t from, int64_t to) {
  const double scale = 1.0 / (static_cast<double>(to) / static_cast<double>(from));
  const auto position = static_cast<float>((static_cast<double>(index) + 0.5) * scale - 0.5);
  const auto near = static_cast<int64_t>(std::floor(position));
  const float fraction = position - static_cast<float>(near);
  const int64_t last = from - 1;
  return {std::clamp<int64_t>(near, 0, last),
          std::clamp<int64_t>(near + 1, 0, last),
          {fixed_point(1.0F - fraction), fixed_point(fraction)}};
}

// OpenCV averages four pixels if both sides are halved exactly.
bool is_halved(const ImageView& image, Size size) {
  return image.width == 2 * size.width && image.height == 2 * size.height;
}

void halve(const ImageView& image, const Crop& crop, uint8_t* out) {
  const int64_t channels = image.channels;
  const int64_t pitch = image.width * channels;
  for (int64_t y = 0; y < crop.height; ++y) {
    const uint8_t* row = image.pixels + 2 * (crop.top + y) * pitch + 2 * crop.left * channels;
    for (int64_t x = 0; x < crop.width; ++x) {
      for (int64_t c = 0; c < channels; ++c) {
        const uint8_t* first = row + 2 * x * channels + c;
        const int sum = first[0] + first[channels] + first[pitch] + first[pitch + channels];
        *out++ = static_cast<uint8_t>((sum + 2) >> 2);
      }
    }
  }
}

// Resizes one row of the image horizontally, to values of 8 + 11 bits.
void resize_row(const uint8_t* row, const std::vector<Tap>& columns, int channels, int* out) {
  for (const Tap& column : columns) {
    for (int c = 0; c < channels; ++c) {
      *out++ = row[column.near * channels + c] * column.weights[0] +
               row[column.far * channels + c] * column.weights[1];
    }
  }
}

}  // namespace

std::vector<uint8_t> resize_like_opencv(const ImageView& image, Size size, const Crop& crop) {
  const auto pitch = static_cast<size_t>(crop.width) * static_cast<size_t>(image.channels);
  std::vector<uint8_t> resized(static_cast<size_t>(crop.height) * pitch);
  if (is_halved(image, size)) {
    halve(image, crop, resized.data());
    return resized;
  }
  std::vector<Tap> columns;
  for (int x = 0; x < crop.width; ++x) {
    Tap column = tap(crop.left + x, image.width, size.width);
    // Horizontally, OpenCV gives an edge pixel all of the weight. Vertically, it does not.
    if (column.near == column.far) column.weights[0] = kOne, column.weights[1] = 0;
    columns.push_back(column);
  }
  std::vector<int> near(pitch);
  std::vector<int> far(pitch);
  uint8_t* out = resized.data();
  for (int y = 0; y < crop.height; ++y) {
    const Tap row = tap(crop.top + y, image.height, size.height);
    const auto pixels = [&](int64_t at) {
      return image.pixels + at * image.width * image.channels;
    };
    resize_row(pixels(row.near), columns, image.channels, near.data());
    resize_row(pixels(row.far), columns, image.channels, far.data());
    for (size_t i = 0; i < pitch; ++i) {
      // From 19 + 11 bits to 8 in three steps, as in OpenCV's vectorised code.
      const int sum =
          ((row.weights[0] * (near[i] >> 4)) >> 16) + ((row.weights[1] * (far[i] >> 4)) >> 16);
      *out++ = static_cast<uint8_t>((sum + 2) >> 2);
    }
  }
  return resized;
}

}  // namespace resrt

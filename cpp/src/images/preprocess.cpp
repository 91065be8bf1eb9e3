#include <algorithm>
#include <array>
#include <cmath>

#include "choices.h"
#include "images/normalise.h"
#include "images/region.h"
#include "images/resample.h"
#include "resrt/error.h"
#include "resrt/images.h"
#include "text.h"

namespace resrt {
namespace {

constexpr auto kPipelines =
    choices<InputError, Pipeline>("preprocessing pipeline", {{Pipeline::paddleclas, "paddleclas"},
                                                             {Pipeline::torchvision, "torchvision"},
                                                             {Pipeline::squash, "squash"}});
constexpr auto kFilters = choices<InputError, Filter>(
    "interpolation",
    {{Filter::bilinear, "bilinear"}, {Filter::bicubic, "bicubic"}, {Filter::lanczos, "lanczos"}});

Size resized_size(const ImageView& image, const Preprocessing& steps, const Shape& input) {
  const double width = image.width;
  const double height = image.height;
  if (steps.resize_height != 0) {
    if (steps.pipeline == Pipeline::squash) return {steps.resize_width, steps.resize_height};
    const double ratio = std::min(height / steps.resize_height, width / steps.resize_width);
    return {std::lrint(width / ratio), std::lrint(height / ratio)};
  }
  if (steps.pipeline == Pipeline::squash) {
    const double scale = steps.resize / static_cast<double>(std::min(input.width, input.height));
    return {std::max<int64_t>(input.width, std::lrint(input.width * scale)),
            std::max<int64_t>(input.height, std::lrint(input.height * scale))};
  }
  if (steps.pipeline == Pipeline::paddleclas) {
    const double scale = steps.resize / std::min(width, height);
    return {std::lrint(width * scale), std::lrint(height * scale)};
  }
  // torchvision uses integer division.
  const int64_t resize = steps.resize;
  return image.width < image.height ? Size{resize, resize * image.height / image.width}
                                    : Size{resize * image.width / image.height, resize};
}

// The smallest size with the image's proportions that covers the input.
Size covering(const ImageView& image, const Shape& input) {
  const double width = image.width;
  const double height = image.height;
  const double scale = std::max(input.width / width, input.height / height);
  return {std::max<int64_t>(input.width, std::lrint(width * scale)),
          std::max<int64_t>(input.height, std::lrint(height * scale))};
}

Crop centre(Size size, const Shape& input, Pipeline pipeline) {
  const auto offset = [&](int64_t whole, int part) -> int64_t {
    if (pipeline == Pipeline::paddleclas) return (whole - part) / 2;
    return std::lrint(static_cast<double>(whole - part) / 2);  // half to even, as Python rounds
  };
  return {offset(size.width, input.width), offset(size.height, input.height), input.width,
          input.height};
}

// The size to which a photograph is resized before it is cropped.
Size size_before_crop(const ImageView& image, const Preprocessing& steps, const Shape& input) {
  const Size size = resized_size(image, steps, input);
  return size.width < input.width || size.height < input.height ? covering(image, input) : size;
}

void check_image(const ImageView& image, const Shape& input) {
  if (image.pixels == nullptr || image.width < 1 || image.height < 1) {
    throw InputError(concat("invalid image: ", image.width, "x", image.height, " pixels"));
  }
  if (image.channels != input.channels || (image.channels != 1 && image.channels != 3)) {
    throw InputError(concat("an image with ", image.channels, " channels does not fit an input of ",
                            input.channels, "; both must have 1 channel (grey) or 3 (RGB)"));
  }
}

}  // namespace

std::array<float, 256> normalised(float mean, float std, Pipeline pipeline) {
  std::array<float, 256> values{};
  for (size_t i = 0; i < values.size(); ++i) {
    const auto pixel = static_cast<float>(i);
    const float scaled =
        pipeline == Pipeline::paddleclas ? pixel * (1.0F / 255.0F) : pixel / 255.0F;
    values[i] = (scaled - mean) / std;
  }
  return values;
}

const char* to_string(Pipeline pipeline) {
  return kPipelines.name(pipeline);
}

Pipeline parse_pipeline(const std::string& name) {
  return kPipelines.value(name);
}

void check_preprocessing(const Preprocessing& steps, const Shape& input) {
  const bool any_size = steps.input_height == 0 && steps.input_width == 0;
  if (!any_size && (steps.input_height != input.height || steps.input_width != input.width)) {
    throw InputError(concat("the preprocessing is for inputs of ", steps.input_height, "x",
                            steps.input_width, " pixels, but the network's are ", input.height, "x",
                            input.width, "; leave out its input_size, and choose the resize for ",
                            input.height, "x", input.width));
  }
  if (steps.resize < 1 || steps.resize > kLargestSide) {
    throw InputError(concat("preprocessing must resize to at least 1 pixel and at most ",
                            kLargestSide, ", not ", steps.resize));
  }
  const bool has_sides = steps.resize_height != 0 || steps.resize_width != 0;
  if (has_sides && (steps.pipeline == Pipeline::paddleclas || steps.resize_height < 1 ||
                    steps.resize_width < 1 || steps.resize_height > kLargestSide ||
                    steps.resize_width > kLargestSide)) {
    throw InputError(
        concat("preprocessing may resize to a height and width of at least 1 pixel and "
               "at most ",
               kLargestSide,
               ", with the pipelines torchvision and squash, "
               "not to ",
               steps.resize_height, "x", steps.resize_width, " with ", to_string(steps.pipeline)));
  }
  const Filter filter = kFilters.value(steps.interpolation);
  if (steps.pipeline == Pipeline::paddleclas && filter != Filter::bilinear) {
    throw InputError(concat("the paddleclas pipeline supports only bilinear interpolation, not ",
                            steps.interpolation, "; choose bilinear or the torchvision pipeline"));
  }
  const auto count = static_cast<size_t>(input.channels);
  const bool has_none = steps.mean.empty() && steps.std.empty();
  const bool fits = steps.mean.size() == count && steps.std.size() == count &&
                    std::all_of(steps.std.begin(), steps.std.end(), [](float x) { return x > 0; });
  const auto given = [&] { return concat("(", join(steps.mean), ") and (", join(steps.std), ")"); };
  if (!has_none && !fits) {
    throw InputError(concat("mean and std must have one value for each of ", input.channels,
                            " channels, and std must be positive, not ", given()));
  }
  for (size_t channel = 0; channel < steps.mean.size(); ++channel) {
    // The values of the darkest and the brightest pixel, which a mean that is not finite changes.
    const float dark = (0 - steps.mean[channel]) / steps.std[channel];
    const float bright = (1 - steps.mean[channel]) / steps.std[channel];
    if (!std::isfinite(steps.std[channel]) || !std::isfinite(dark) || !std::isfinite(bright)) {
      throw InputError(concat("mean and std must be finite and give finite values, not ", given()));
    }
  }
}

Region seen_region(const ImageView& image, const Preprocessing& steps, const Shape& input) {
  if (image.width < 1 || image.height < 1) {
    throw InputError(concat("invalid image: ", image.width, "x", image.height, " pixels"));
  }
  check_preprocessing(steps, input);
  const Size size = size_before_crop(image, steps, input);
  const Crop crop = centre(size, input, steps.pipeline);
  const double across = static_cast<double>(image.width) / static_cast<double>(size.width);
  const double down = static_cast<double>(image.height) / static_cast<double>(size.height);
  return {static_cast<double>(crop.left) * across, static_cast<double>(crop.top) * down,
          static_cast<double>(crop.left + crop.width) * across,
          static_cast<double>(crop.top + crop.height) * down};
}

void preprocess(const ImageView& image, const Preprocessing& steps, const Shape& input,
                float* output) {
  check_image(image, input);
  check_preprocessing(steps, input);
  if (steps.mean.empty()) {
    throw InputError("this preprocessing has no mean and std; only prepared batches can be used");
  }
  const Size size = size_before_crop(image, steps, input);
  const Crop crop = centre(size, input, steps.pipeline);
  const std::vector<uint8_t> pixels =
      steps.pipeline == Pipeline::paddleclas
          ? resize_like_opencv(image, size, crop)
          : resize_like_pillow(image, kFilters.value(steps.interpolation), size, crop);
  const auto channels = static_cast<size_t>(input.channels);
  for (size_t channel = 0; channel < channels; ++channel) {
    const auto values = normalised(steps.mean[channel], steps.std[channel], steps.pipeline);
    for (size_t i = channel; i < pixels.size(); i += channels) *output++ = values[pixels[i]];
  }
}

}  // namespace resrt

#pragma once

#include "resrt/images.h"

namespace resrt {

// A rectangle of a photograph, in its pixels. Its edges may lie within pixels.
struct Region {
  double left;
  double top;
  double right;
  double bottom;
};

// Returns the part of a photograph that `preprocess` makes an input of. Only the size of the
// photograph is read. Throws InputError as `preprocess` does.
RESRT_API Region seen_region(const ImageView& image, const Preprocessing& steps,
                             const Shape& input);

}  // namespace resrt

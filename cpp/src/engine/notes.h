#pragma once

#include "resrt/engine.h"

namespace resrt {

// Throws InputError unless there are no labels or one for each class, each a single line.
RESRT_API void check_labels(const std::vector<std::string>& labels, int classes);

// Throws InputError if a calibration is not of this network with these weights.
RESRT_API void check_calibration(const Calibration& calibration, const std::string& network,
                                 const std::string& weights_sha256);

// Throws InputError if the notes do not fit an engine with such an input and that many classes.
void check_notes(const EngineNotes& notes, const Shape& input, int classes);

}  // namespace resrt

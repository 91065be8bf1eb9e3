#pragma once

#include "resrt/engine.h"

namespace resrt {

// Throws InputError unless there are no labels or one for each class, each a single line.
RESRT_API void check_labels(const std::vector<std::string>& labels, int classes);

// Throws InputError if the notes do not fit an engine with that many input channels and classes.
void check_notes(const EngineNotes& notes, int channels, int classes);

}  // namespace resrt

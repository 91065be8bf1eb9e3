#pragma once

#include "resrt/engine.h"

namespace resrt {

// Throws InputError where the notes do not fit an engine of so many input channels and classes.
void check_notes(const EngineNotes& notes, int channels, int classes);

}  // namespace resrt

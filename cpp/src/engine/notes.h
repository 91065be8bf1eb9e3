#pragma once

#include "resrt/engine.h"

namespace resrt {

// Throws InputError if the notes do not fit an engine with that many input channels and classes.
void check_notes(const EngineNotes& notes, int channels, int classes);

}  // namespace resrt

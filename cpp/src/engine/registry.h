#pragma once

#include <string>

#include "backends/backend.h"

namespace resrt {

// Returns the backend of that name, which is opened on first use and kept until the process ends.
// Throws BackendError if the name is unknown or the backend's library cannot be opened.
Backend& find_backend(const std::string& name);

}  // namespace resrt

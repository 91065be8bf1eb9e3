#pragma once

#include <string>

#include "backends/backend.h"

namespace resrt {

// Returns the backend of that name, which is opened on first use and kept until the process ends.
// Throws BackendError if the name is unknown or the backend's library cannot be opened.
Backend& find_backend(const std::string& name);

// Does the same for building or loading an engine. Also throws BackendError if the process from
// which this one was forked did so: the backend's library may wait for threads that exist only
// there.
Backend& use_backend(const std::string& name);

}  // namespace resrt

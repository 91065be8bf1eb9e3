#pragma once

#include <string>

#include "backends/backend.h"

namespace resrt {

// The backend of that name, opened on first use and kept until the process ends. Throws
// BackendError where there is none, or where its library cannot be opened.
Backend& find_backend(const std::string& name);

}  // namespace resrt

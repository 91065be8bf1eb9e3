#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "resrt/export.h"

namespace resrt {

// The folder of libresrt.so, beside which the backends lie and what they bring.
RESRT_API std::filesystem::path backend_folder();

// The packages that may carry a backend's library, under the names that Python imports them by.
// Throws BackendError for an unknown backend, as install_command does.
RESRT_API std::vector<std::string> library_packages(const std::string& backend);

// The command that installs a backend's library.
RESRT_API const char* install_command(const std::string& backend);

// Where these packages may be: in the folder that resrt itself is installed in, and in those that
// add_library_folder named.
RESRT_API std::vector<std::filesystem::path> library_folders(const std::string& backend);

// Makes a folder of packages known to all backends that are not open yet.
RESRT_API void add_library_folder(const std::filesystem::path& folder);

}  // namespace resrt

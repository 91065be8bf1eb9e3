#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "resrt/export.h"

namespace resrt {

// Returns the folder of libresrt.so, which also contains the backends and their files.
RESRT_API std::filesystem::path backend_folder();

// Returns the import names of the Python packages that may contain a backend's library. Throws
// BackendError if the backend is unknown, as install_command does.
RESRT_API std::vector<std::string> library_packages(const std::string& backend);

// Returns the command that installs a backend's library.
RESRT_API const char* install_command(const std::string& backend);

// Returns the folders that these packages may have: in the folder that resrt itself is installed
// in, and in each folder that was passed to add_library_folder.
RESRT_API std::vector<std::filesystem::path> library_folders(const std::string& backend);

// Adds a folder of packages to search. It affects all backends that are not open yet.
RESRT_API void add_library_folder(const std::filesystem::path& folder);

}  // namespace resrt

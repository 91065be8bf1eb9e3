#pragma once

#include <filesystem>
#include <vector>

#include "resrt/export.h"

namespace resrt {

// The folder of libresrt.so, beside which the backends lie and what they bring.
RESRT_API std::filesystem::path backend_folder();

// The folders in which wheels of inference libraries may lie: the one that resrt itself is
// installed in, and those that add_library_folder named.
RESRT_API std::vector<std::filesystem::path> library_folders();

// Makes another folder of packages known, where a wheel was found outside our own.
RESRT_API void add_library_folder(const std::filesystem::path& folder);

}  // namespace resrt

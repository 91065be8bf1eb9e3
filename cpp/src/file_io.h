#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "resrt/export.h"

namespace resrt {

// Reads a file, or only its first `most` bytes. Throws FileError.
RESRT_API std::string read_file(const std::string& path, size_t most = std::string::npos);

// Writes the parts one after another to a temporary file next to `path` and renames it, so `path`
// always holds a complete file, the old one or the new one. If this fails, the temporary file is
// removed. Follows symbolic links and keeps the permissions of an existing file. If `path` is a
// device or a pipe, the parts are written into it. Throws FileError.
RESRT_API void write_file_atomically(const std::string& path,
                                     const std::vector<std::string_view>& parts);

}  // namespace resrt

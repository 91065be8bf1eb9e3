#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "resrt/export.h"

namespace resrt {

// A file's bytes, all of them or the first `most`. Throws FileError.
RESRT_API std::string read_file(const std::string& path, size_t most = std::string::npos);

// Writes the parts one after another to a temporary file beside `path` and renames it: the file at
// `path` is the old one or the new one, never a part. A symbolic link is followed, an old file's
// permissions are kept, and what is no regular file is left alone. Throws FileError.
RESRT_API void write_file_atomically(const std::string& path,
                                     const std::vector<std::string_view>& parts);

}  // namespace resrt

#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace resrt {

// The whole of a file. Throws FileError.
std::string read_file(const std::string& path);

// Writes the parts one after another to a temporary file beside `path` and renames it: the file at
// `path` is the old one or the new one, never a part. Throws FileError.
void write_file_atomically(const std::string& path, const std::vector<std::string_view>& parts);

}  // namespace resrt

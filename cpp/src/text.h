#pragma once

#include <cstdint>
#include <sstream>
#include <string>
#include <vector>

namespace resrt {

// Concatenates the parts. (std::format requires GCC 13.)
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

// "a, b, c"
template <class Range>
std::string join(const Range& range, const char* separator = ", ") {
  std::ostringstream out;
  const char* between = "";
  for (const auto& item : range) {
    out << between << item;
    between = separator;
  }
  return out.str();
}

// "(64, 3, 7, 7)"
inline std::string shape_text(const std::vector<int64_t>& shape) {
  return concat('(', join(shape), shape.size() == 1 ? ",)" : ")");
}

}  // namespace resrt

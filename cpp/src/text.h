#pragma once

#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
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

// A name from a file as a message may show it: control characters and everything else that is not
// printable ASCII as "\x1b", and at most 200 bytes.
inline std::string shown(std::string_view name) {
  constexpr size_t longest = 200;
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (const char character : name.substr(0, longest)) {
    const auto byte = static_cast<unsigned char>(character);
    if (byte >= 0x20 && byte < 0x7f) {
      text += character;
    } else {
      text += {'\\', 'x', digits[byte >> 4U], digits[byte & 0xfU]};
    }
  }
  return name.size() > longest ? text + "..." : text;
}

// "(64, 3, 7, 7)"
inline std::string shape_text(const std::vector<int64_t>& shape) {
  return concat('(', join(shape), shape.size() == 1 ? ",)" : ")");
}

}  // namespace resrt

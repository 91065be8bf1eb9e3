#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "text.h"

namespace resrt {

// The values of an enumeration and the names that users write for them. An unknown name throws an
// Exception, whose message calls the enumeration `what`.
template <class Exception, class Value, size_t count>
class Choices {
 public:
  using Pair = std::pair<Value, const char*>;

  constexpr Choices(const char* what, const std::array<Pair, count>& pairs)
      : what_(what), pairs_(pairs) {}

  Value value(const std::string& name) const {
    for (const auto& [value, known] : pairs_) {
      if (name == known) return value;
    }
    throw Exception(
        concat("there is no ", what_, " named '", name, "'; choose one of ", join(names())));
  }

  const char* name(Value value) const {
    for (const auto& [known, name] : pairs_) {
      if (value == known) return name;
    }
    throw Exception(concat("invalid ", what_));
  }

  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const Pair& pair : pairs_) names.emplace_back(pair.second);
    return names;
  }

 private:
  const char* what_;
  std::array<Pair, count> pairs_;
};

template <class Exception, class Value, size_t count>
constexpr Choices<Exception, Value, count> choices(
    const char* what, const std::pair<Value, const char*> (&pairs)[count]) {
  return {what, std::to_array(pairs)};
}

}  // namespace resrt

#pragma once

namespace resrt {

// One lambda per layer definition, as the visitor of a std::visit.
template <class... Callables>
struct Overloaded : Callables... {
  using Callables::operator()...;
};

}  // namespace resrt

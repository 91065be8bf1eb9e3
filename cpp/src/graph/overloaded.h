#pragma once

namespace resrt {

// A visitor for std::visit with one lambda per layer definition.
template <class... Callables>
struct Overloaded : Callables... {
  using Callables::operator()...;
};

}  // namespace resrt

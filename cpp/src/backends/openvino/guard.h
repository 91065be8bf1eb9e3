#pragma once

#include <exception>
#include <new>

#include "resrt/error.h"
#include "text.h"

namespace resrt::openvino {

// Runs what calls OpenVINO, and turns whatever that throws into a BackendError which says what
// could not be done.
template <class Work>
auto guard(const char* what, Work work) {
  try {
    return work();
  } catch (const Error&) {
    throw;
  } catch (const std::bad_alloc&) {
    throw;
  } catch (const std::exception& error) {
    throw BackendError(concat("OpenVINO could not ", what, ": ", error.what()));
  }
}

}  // namespace resrt::openvino

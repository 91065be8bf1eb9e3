#pragma once

#include <exception>
#include <new>

#include "resrt/error.h"
#include "text.h"

namespace resrt::openvino {

// Runs `work`, which calls OpenVINO, and converts its exceptions to a BackendError that says `what`
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

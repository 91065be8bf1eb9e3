#include "resrt/log.h"

#include <memory>

#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include "bindings/bindings.h"
#include "bindings/gil.h"

namespace py = pybind11;

namespace resrt {
namespace {

using PythonSink = py::typing::Callable<void(int, const std::string&, const std::string&)>;

// Returns the level as a number of Python's logging module.
int to_number(LogLevel level) {
  switch (level) {
    case LogLevel::error: return 40;
    case LogLevel::warning: return 30;
    case LogLevel::info: return 20;
    case LogLevel::debug: break;
  }
  return 10;
}

LogSink to_sink(const PythonSink& function) {
  // The function must be freed with the GIL held, by whichever thread releases it last.
  const std::shared_ptr<PythonSink> shared = shared_with_gil(function);
  return [shared](LogLevel level, const std::string& source, const std::string& message) {
    const HeldGil gil;
    try {
      // Messages of libraries are not always valid UTF-8.
      const auto text = py::reinterpret_steal<py::str>(
          PyUnicode_DecodeUTF8(message.data(), static_cast<Py_ssize_t>(message.size()), "replace"));
      (*shared)(to_number(level), source, text);
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("resrt's log");
    }
  };
}

}  // namespace

void bind_log(py::module_& module) {
  module.def(
      "set_log",
      [](const std::optional<PythonSink>& sink) {
        LogSink made = sink ? to_sink(*sink) : LogSink();
        const ReleasedGil release;
        set_log(std::move(made), LogLevel::debug);
      },
      py::arg("sink"),
      "Send the messages of inference libraries to a function of (level, backend, message).");
}

}  // namespace resrt

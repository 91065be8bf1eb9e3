#include <exception>
#include <string_view>

#include <pybind11/gil_safe_call_once.h>

#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "resrt/error.h"

namespace py = pybind11;

namespace {

// Makes an exception class of Python for one of C++. Its message may contain a path, which need not
// be UTF-8; pybind11's own translation would fail for it.
template <class E>
py::object bind_error(py::module_& module, const char* name, const py::object& bases,
                      const char* doc) {
  PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> stored;
  stored.call_once_and_store_result(
      [&]() -> py::object { return py::exception<E>(module, name, bases); });
  py::register_exception_translator([](std::exception_ptr thrown) {
    try {
      if (thrown) std::rethrow_exception(thrown);
    } catch (const E& error) {
      const std::string_view message = error.what();
      const auto text = py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(
          message.data(), static_cast<Py_ssize_t>(message.size()), "surrogateescape"));
      PyErr_SetObject(stored.get_stored().ptr(), text.ptr());
    }
  });
  stored.get_stored().attr("__doc__") = doc;
  return stored.get_stored();
}

// Each class also derives from the built-in exception that fits it, so that code which only knows
// built-in exceptions can catch it too.
void bind_errors(py::module_& module) {
  const py::object exception = py::reinterpret_borrow<py::object>(PyExc_Exception);
  const py::object base = bind_error<resrt::Error>(
      module, "Error", exception, "The base class of all exceptions that resrt raises.");
  const auto bind = [&]<class E>(const char* name, py::handle builtin, const char* doc, E*) {
    bind_error<E>(module, name, py::make_tuple(base, builtin), doc);
  };
  bind("ModelError", PyExc_ValueError, "An unknown network or an invalid configuration.",
       static_cast<resrt::ModelError*>(nullptr));
  bind("WeightsError", PyExc_ValueError,
       "Weights that do not fit the network, or an invalid weights file.",
       static_cast<resrt::WeightsError*>(nullptr));
  bind("InputError", PyExc_ValueError, "An invalid batch, image or option.",
       static_cast<resrt::InputError*>(nullptr));
  bind("PrecisionError", PyExc_ValueError,
       "A precision that this backend or device does not support.",
       static_cast<resrt::PrecisionError*>(nullptr));
  bind("EngineFileError", PyExc_ValueError,
       "An engine file that is cut short, altered, or built for something else.",
       static_cast<resrt::EngineFileError*>(nullptr));
  bind("BackendError", PyExc_RuntimeError, "A backend that is unknown, is not installed or failed.",
       static_cast<resrt::BackendError*>(nullptr));
  bind("FileError", PyExc_OSError, "A file that does not exist, or cannot be read or written.",
       static_cast<resrt::FileError*>(nullptr));
}

}  // namespace

PYBIND11_MODULE(_core, module) {
  module.doc() = "The C++ core of resrt.";
  module.attr("__version__") = py::str(RESRT_VERSION);
  bind_errors(module);
  resrt::bind_gil();
  resrt::bind_graph(module);
  resrt::bind_models(module);
  resrt::bind_log(module);
  resrt::bind_split_attention(module);
  resrt::bind_tensorrt(module);
  resrt::bind_device_arrays(module);
  resrt::bind_engine(module);
}

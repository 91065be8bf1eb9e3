#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "resrt/error.h"

namespace py = pybind11;

namespace {

// Each class also derives from the built-in exception that fits it, so that code which only knows
// built-in exceptions can catch it too.
void bind_errors(py::module_& module) {
  const auto base = py::register_exception<resrt::Error>(module, "Error");
  base.attr("__doc__") = "The base class of all exceptions that resrt raises.";
  const auto bind = [&]<class E>(const char* name, py::handle builtin, const char* doc, E*) {
    py::register_exception<E>(module, name, py::make_tuple(base, builtin)).attr("__doc__") = doc;
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

#pragma once

#include <pybind11/pybind11.h>

namespace resrt {

void bind_graph(pybind11::module_& module);
void bind_models(pybind11::module_& module);
void bind_log(pybind11::module_& module);
void bind_split_attention(pybind11::module_& module);
void bind_tensorrt(pybind11::module_& module);
void bind_device_arrays(pybind11::module_& module);
void bind_engine(pybind11::module_& module);

}  // namespace resrt

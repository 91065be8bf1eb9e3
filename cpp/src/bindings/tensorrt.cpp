#include "resrt/tensorrt.h"

#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "choices.h"
#include "resrt/error.h"
#include "text.h"

namespace py = pybind11;

namespace resrt {
namespace {

constexpr auto kCompatibilities = choices<InputError, HardwareCompatibility>(
    "hardware_compatibility",
    {{HardwareCompatibility::none, "none"},
     {HardwareCompatibility::ampere_plus, "ampere+"},
     {HardwareCompatibility::same_compute_capability, "same_compute_capability"}});

std::string join_quoted(const std::vector<std::string>& names) {
  std::vector<std::string> quoted;
  for (const std::string& name : names) quoted.push_back(concat('\'', name, '\''));
  return join(quoted);
}

}  // namespace

void bind_tensorrt(py::module_& module) {
  const TensorRTOptions defaults;
  py::class_<TensorRTOptions>(module, "TensorRTOptions",
                              R"(Options for building an engine with TensorRT.

Args:
    workspace: scratch memory that a layer may use, in MiB. 0 allows all of the GPU's memory.
    optimization_level: from 0, the fastest build, to 5, the longest search.
    optimum_batch: the batch size that kernels are optimised for. 0 means max_batch.
    timing_cache: a file of kernel timings, which makes the next build faster. It is read if it
        exists and written after the build. Not supported by TensorRT for RTX.
    hardware_compatibility: which other GPUs the engine runs on: "none", "ampere+" or
        "same_compute_capability". Not supported by TensorRT for RTX.
    version_compatible: whether later versions of TensorRT can load the engine too. Not supported by
        TensorRT for RTX.
    compute_capabilities: the GPUs that the engine targets, as compute capabilities times ten: 75,
        80, 86, 89, 120, 121. Empty means Ampere and later. Only supported by TensorRT for RTX.
    split_attention_plugin: whether to compute split attention with resrt's plugin, which the engine
        then contains. Not supported by TensorRT for RTX.
    lowering: other ways to lower some layers, which compute the same and may be faster: "split",
        "dense", "merged", "pooled", "windows", "matrix". docs/gpu.md describes them.)")
      .def(py::init([](int64_t workspace, int optimization_level, int optimum_batch,
                       std::string timing_cache, const std::string& hardware_compatibility,
                       bool version_compatible, std::vector<int> compute_capabilities,
                       bool split_attention_plugin, std::vector<std::string> lowering) {
             return TensorRTOptions{workspace,
                                    optimization_level,
                                    optimum_batch,
                                    std::move(timing_cache),
                                    kCompatibilities.value(hardware_compatibility),
                                    version_compatible,
                                    std::move(compute_capabilities),
                                    split_attention_plugin,
                                    std::move(lowering)};
           }),
           py::kw_only(), py::arg("workspace") = defaults.workspace,
           py::arg("optimization_level") = defaults.optimization_level,
           py::arg("optimum_batch") = defaults.optimum_batch,
           py::arg("timing_cache") = defaults.timing_cache,
           py::arg("hardware_compatibility") = "none",
           py::arg("version_compatible") = defaults.version_compatible,
           py::arg("compute_capabilities") = defaults.compute_capabilities,
           py::arg("split_attention_plugin") = defaults.split_attention_plugin,
           py::arg("lowering") = defaults.lowering)
      .def("__repr__", [](const TensorRTOptions& self) {
        return concat("TensorRTOptions(workspace=", self.workspace,
                      ", optimization_level=", self.optimization_level,
                      ", optimum_batch=", self.optimum_batch, ", timing_cache='", self.timing_cache,
                      "', hardware_compatibility='",
                      kCompatibilities.name(self.hardware_compatibility),
                      "', version_compatible=", self.version_compatible ? "True" : "False",
                      ", compute_capabilities=[", join(self.compute_capabilities),
                      "], split_attention_plugin=", self.split_attention_plugin ? "True" : "False",
                      ", lowering=[", join_quoted(self.lowering), "])");
      });
}

}  // namespace resrt

#include "resrt/engine.h"

#include <exception>
#include <functional>
#include <optional>
#include <tuple>

#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include "bindings/bindings.h"
#include "bindings/device_arrays.h"
#include "bindings/gil.h"
#include "engine/library_folders.h"
#include "engine/notes.h"
#include "passes/passes.h"
#include "resrt/error.h"
#include "text.h"

namespace py = pybind11;

namespace resrt {
namespace {

using FloatArray = py::array_t<float, py::array::c_style>;
using PixelArray = py::array_t<uint8_t, py::array::c_style>;

// Returns weights that share the arrays' memory and keep each array alive as long as it is used.
Weights to_weights(const std::map<std::string, FloatArray>& arrays) {
  Weights weights;
  for (const auto& [name, array] : arrays) {
    const std::shared_ptr<py::object> owner(new py::object(array), [](py::object* object) {
      const HeldGil gil;
      delete object;
    });
    weights[name] = {{array.shape(), array.shape() + array.ndim()},
                     std::shared_ptr<const float>(owner, array.data())};
  }
  return weights;
}

std::map<std::string, FloatArray> to_arrays(const Weights& weights) {
  std::map<std::string, FloatArray> arrays;
  for (const auto& [name, array] : weights) {
    arrays.emplace(name, FloatArray(array.shape, array.data.get()));
  }
  return arrays;
}

std::vector<std::string> names(const std::vector<Precision>& precisions) {
  std::vector<std::string> all;
  for (const Precision precision : precisions) all.emplace_back(to_string(precision));
  return all;
}

using Step = py::typing::Callable<void(const std::string&, int, int)>;

// Reports a build's steps to a Python function. An exception in it, or an interrupt, stops the
// build and is raised again when the build has ended.
class Steps {
 public:
  explicit Steps(const std::optional<Step>& function) : function_(function) {}

  bool operator()(const BuildStep& step) {
    const HeldGil gil;
    try {
      if (PyErr_CheckSignals() != 0) throw py::error_already_set();
      if (function_) (*function_)(step.phase, step.done, step.steps);
      return true;
    } catch (py::error_already_set&) {
      raised_ = std::current_exception();
      return false;
    }
  }

  void rethrow() const {
    if (raised_) std::rethrow_exception(raised_);
  }

 private:
  const std::optional<Step>& function_;
  std::exception_ptr raised_;
};

}  // namespace

void bind_engine(py::module_& module) {
  module.def(
      "random_weights",
      [](const Graph& graph, uint64_t seed) { return to_arrays(random_weights(graph, seed)); },
      py::arg("graph"), py::arg("seed"), "Return seeded random parameters that fit the graph.");
  module.def(
      "check_weights",
      [](const Graph& graph, const std::map<std::string, FloatArray>& weights) {
        check_weights(graph, to_weights(weights));
      },
      py::arg("graph"), py::arg("weights"),
      "Check that weights fit a graph. Raises one WeightsError that lists everything wrong.");

  module.def(
      "fold_batch_norm",
      [](const Graph& graph, const std::map<std::string, FloatArray>& weights) {
        Network folded = fold_batch_norm({graph, to_weights(weights)});
        return std::make_pair(std::move(folded.graph), to_arrays(folded.weights));
      },
      py::arg("graph"), py::arg("weights"),
      "Fold batch normalisations into convolutions; return the graph and its weights.");
  module.def("fuse_add_relu", &fuse_add_relu, py::arg("graph"),
             "Fuse additions and ReLUs into convolutions; return the graph.");

  py::class_<BackendStatus>(module, "BackendStatus", "Whether a backend can be used here.")
      .def_readonly("name", &BackendStatus::name)
      .def_readonly("version", &BackendStatus::version,
                    "The version of its library; empty if unavailable.")
      .def_property_readonly(
          "precisions", [](const BackendStatus& self) { return names(self.precisions); },
          "The precisions that it supports natively here, the fastest first.")
      .def_readonly("why_not", &BackendStatus::why_not,
                    "Why it is unavailable, and what to do about it.")
      .def_readonly("why_build_only", &BackendStatus::why_build_only,
                    "Why engines can be built here, but not run.")
      .def_readonly("install", &BackendStatus::install, "The command that installs its library.")
      .def_readonly("runs_on_gpu", &BackendStatus::runs_on_gpu, "Whether its engines run on a GPU.")
      .def("__repr__", [](const BackendStatus& self) {
        return self.why_not ? concat("BackendStatus(", self.name, ": ", *self.why_not, ")")
                            : concat("BackendStatus(", self.name, " ", self.version, ": ",
                                     join(names(self.precisions)), ")");
      });
  module.def("backends", &backends, py::call_guard<ReleasedGil>(),
             "Return the status of every backend that this build supports.");
  module.def(
      "add_library_folder",
      [](const py::bytes& folder) { add_library_folder(std::string(folder)); }, py::arg("folder"),
      "Add a folder of packages that the core searches for the wheels of inference libraries.");
  module.def("library_packages", &library_packages, py::arg("backend"),
             "Return the import names of the packages that may contain a backend's library.");
  module.def("backend_names", &backend_names, "Return the names of the backends.");
  module.def("check_labels", &check_labels, py::arg("labels"), py::arg("classes"),
             "Raise InputError unless there are no labels or one for each class.");
  module.def("precision_names", &precision_names, "Return the names of the precisions.");

  py::class_<Preprocessing>(module, "Preprocessing",
                            "How a photograph is converted to an engine's input.")
      .def(py::init([](int resize, std::string interpolation, std::vector<float> mean,
                       std::vector<float> std, const std::string& pipeline) {
             return Preprocessing{resize, std::move(interpolation), std::move(mean), std::move(std),
                                  parse_pipeline(pipeline)};
           }),
           py::kw_only(), py::arg("resize"), py::arg("interpolation"), py::arg("mean"),
           py::arg("std"), py::arg("pipeline") = to_string(Pipeline::torchvision))
      .def_readonly("resize", &Preprocessing::resize, "The short side after resizing, in pixels.")
      .def_readonly("interpolation", &Preprocessing::interpolation)
      .def_readonly("mean", &Preprocessing::mean, "The mean of each channel, for pixels in 0..1.")
      .def_readonly("std", &Preprocessing::std,
                    "The standard deviation of each channel, for pixels in 0..1.")
      .def_property_readonly(
          "pipeline", [](const Preprocessing& self) { return to_string(self.pipeline); },
          "How images are resized and cropped: as in \"paddleclas\" or in \"torchvision\" and "
          "timm.")
      .def("__repr__", [](const Preprocessing& self) {
        return concat("Preprocessing(resize=", self.resize, ", interpolation='", self.interpolation,
                      "', mean=[", join(self.mean), "], std=[", join(self.std), "], pipeline='",
                      to_string(self.pipeline), "')");
      });
  module.def(
      "preprocess",
      [](const PixelArray& pixels, const Preprocessing& steps,
         const std::tuple<int, int, int>& input_shape) {
        if (pixels.ndim() != 3) {
          throw InputError(concat("expected an image of shape (height, width, channels), got ",
                                  pixels.ndim(), " dimensions"));
        }
        const auto side = [&](int axis) { return static_cast<int>(pixels.shape(axis)); };
        const ImageView image = {pixels.data(), side(1), side(0), side(2)};
        const auto& [channels, height, width] = input_shape;
        FloatArray output(std::vector<py::ssize_t>{channels, height, width});
        float* out = output.mutable_data();
        const ReleasedGil release;
        preprocess(image, steps, {channels, height, width}, out);
        return output;
      },
      py::arg("pixels"), py::arg("steps"), py::arg("input_shape"),
      "Convert uint8 (height, width, channels) to float32 of input_shape, (channels, height, "
      "width).");

  py::class_<EngineInfo>(module, "EngineInfo", "A description of an engine.")
      .def_readonly("model", &EngineInfo::model)
      .def_readonly("backend", &EngineInfo::backend)
      .def_readonly("backend_version", &EngineInfo::backend_version)
      .def_property_readonly("precision",
                             [](const EngineInfo& self) { return to_string(self.precision); })
      .def_property_readonly(
          "input_shape",
          [](const EngineInfo& self) {
            return std::make_tuple(self.input.channels, self.input.height, self.input.width);
          },
          "The shape of one image: (channels, height, width).")
      .def_readonly("classes", &EngineInfo::classes)
      .def_readonly("max_batch", &EngineInfo::max_batch, "The largest batch that runs at once.")
      .def_readonly("version_compatible", &EngineInfo::version_compatible,
                    "Whether later versions of the backend can load it too.")
      .def_property_readonly(
          "weights", [](const EngineInfo& self) { return self.notes.weights; },
          "Where the weights came from.")
      .def_property_readonly(
          "weights_sha256", [](const EngineInfo& self) { return self.notes.weights_sha256; },
          "The hash of the weights' file or arrays, in hexadecimal; empty for random weights.")
      .def_readonly("layers", &EngineInfo::layers, "The graph as text: layers, shapes and costs.")
      .def_property_readonly("labels", [](const EngineInfo& self) { return self.notes.labels; })
      .def_property_readonly("preprocessing",
                             [](const EngineInfo& self) { return self.notes.preprocessing; });

  module.def(
      "inspect",
      [](const py::bytes& path) {
        const std::string file = path;
        const ReleasedGil release;
        return inspect(file);
      },
      py::arg("path"),
      "Read the description in an engine file. The backend need not be installed.");

  py::class_<Engine>(module, "Engine", "A network that is ready to run.")
      .def_static(
          "build",
          [](const Graph& graph, const std::map<std::string, FloatArray>& weights,
             const std::string& backend, const std::string& precision, int max_batch, int threads,
             const std::string& weights_note, const std::string& weights_sha256,
             const std::vector<std::string>& labels, const Preprocessing& preprocessing,
             std::optional<int> device, const std::optional<TensorRTOptions>& tensorrt,
             const std::optional<Step>& progress) {
            Steps steps(progress);
            const BuildOptions options = {
                .backend = backend,
                .precision = parse_precision(precision),
                .max_batch = max_batch,
                .notes = {weights_note, weights_sha256, labels, preprocessing},
                .tensorrt = tensorrt,
                .progress = std::ref(steps)};
            const Weights parameters = to_weights(weights);
            // Another thread may add layers to `graph` meanwhile.
            const Graph network = graph;
            try {
              const ReleasedGil release;
              return Engine::build(network, parameters, options,
                                   {.threads = threads, .device = device});
            } catch (const BackendError&) {
              steps.rethrow();
              throw;
            }
          },
          py::arg("graph"), py::arg("weights"), py::kw_only(), py::arg("backend"),
          py::arg("precision"), py::arg("max_batch"), py::arg("threads"), py::arg("weights_note"),
          py::arg("weights_sha256"), py::arg("labels"), py::arg("preprocessing"), py::arg("device"),
          py::arg("tensorrt"), py::arg("progress"))
      .def_static(
          "load",
          [](const py::bytes& path, int threads, std::optional<int> device,
             const std::optional<py::bytes>& runtime_cache) {
            const std::string file = path;
            LoadOptions options = {.threads = threads, .device = device};
            if (runtime_cache) options.tensorrt = TensorRTLoadOptions{*runtime_cache};
            const ReleasedGil release;
            return Engine::load(file, options);
          },
          py::arg("path"), py::kw_only(), py::arg("threads"), py::arg("device"),
          py::arg("runtime_cache"))
      .def(
          "save",
          [](const Engine& self, const py::bytes& path) {
            const std::string file = path;
            const ReleasedGil release;
            self.save(file);
          },
          py::arg("path"))
      .def_property_readonly("info", &Engine::info)
      .def_property_readonly("plan", [](const Engine& self) { return py::bytes(self.plan()); })
      .def(
          "infer",
          [](const Engine& self, const FloatArray& batch) {
            const auto& info = self.info();
            const std::vector<int64_t> expected = {batch.ndim() > 0 ? batch.shape(0) : 0,
                                                   info.input.channels, info.input.height,
                                                   info.input.width};
            const std::vector<int64_t> found(batch.shape(), batch.shape() + batch.ndim());
            if (found != expected) {
              throw InputError(concat(info.model, " requires a batch of shape (N, ",
                                      info.input.channels, ", ", info.input.height, ", ",
                                      info.input.width, "), not ", shape_text(found)));
            }
            FloatArray logits(std::vector<py::ssize_t>{expected.front(), info.classes});
            float* out = logits.mutable_data();
            const ReleasedGil release;
            self.infer(batch.data(), expected.front(), out);
            return logits;
          },
          py::arg("batch").noconvert(),
          "Return the logits, float32 (N, classes), of a contiguous batch, float32 (N, channels, "
          "height, width).")
      .def_property_readonly("device", &Engine::device,
                             "The number of the GPU that the engine runs on, or None.")
      .def(
          "device_of",
          [](const Engine& self, uintptr_t pointer) {
            return self.device_of(reinterpret_cast<const void*>(pointer));
          },
          py::arg("pointer"), "Return the number of the GPU whose memory a pointer points to.")
      .def(
          "infer_on_device",
          [](const Engine& self, uintptr_t pointer, int64_t batch, StreamHandle stream,
             py::object owner) {
            std::unique_ptr<DeviceArray> logits;
            {
              const ReleasedGil release;
              logits = self.infer_on_device(reinterpret_cast<const float*>(pointer), batch, stream);
            }
            return LogitsOnDevice{keep_batch(std::move(logits), std::move(owner)), batch,
                                  self.info().classes, self.device().value(), stream};
          },
          py::arg("pointer"), py::arg("batch"), py::arg("stream"), py::arg("owner"),
          "Compute the logits of a contiguous batch in the GPU's memory, in the order of a stream. "
          "They stay there and keep a reference to the owner of the batch's memory.");
}

}  // namespace resrt

#include "resrt/engine.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <exception>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <tuple>
#include <utility>
#include <variant>

#include <pybind11/numpy.h>
#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include "bindings/bindings.h"
#include "bindings/device_arrays.h"
#include "bindings/gil.h"
#include "bindings/interrupt.h"
#include "cpus.h"
#include "engine/library_folders.h"
#include "engine/notes.h"
#include "images/region.h"
#include "passes/passes.h"
#include "passes/quantise.h"
#include "passes/value_counts.h"
#include "resrt/error.h"
#include "text.h"

namespace py = pybind11;

namespace resrt {
namespace {

using FloatArray = py::array_t<float, py::array::c_style>;
using PixelArray = py::array_t<uint8_t, py::array::c_style>;

// A short side, or a height and width.
using Resize = std::variant<int, std::pair<int, int>>;

// Returns the short side, and the height and width if they are given.
std::array<int, 3> resized_sides(const Resize& resize) {
  if (const int* short_side = std::get_if<int>(&resize)) return {*short_side, 0, 0};
  const auto [height, width] = std::get<std::pair<int, int>>(resize);
  if (height < 1 || width < 1) {
    throw InputError(
        concat("resize must be the short side in pixels, or the height and width, not (", height,
               ", ", width, ")"));
  }
  return {std::min(height, width), height, width};
}

Resize resize_of(const Preprocessing& steps) {
  if (steps.resize_height == 0) return steps.resize;
  return std::pair(steps.resize_height, steps.resize_width);
}

// Returns weights that share the arrays' memory and keep each array alive as long as it is used.
Weights to_weights(const std::map<std::string, FloatArray>& arrays) {
  Weights weights;
  for (const auto& [name, array] : arrays) {
    const std::shared_ptr<FloatArray> owner = shared_with_gil(array);
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

// Returns arrays that share the weights' memory, which takes no time.
std::map<std::string, FloatArray> to_shared_arrays(const Weights& weights) {
  using Owner = std::shared_ptr<const float>;
  std::map<std::string, FloatArray> arrays;
  for (const auto& [name, array] : weights) {
    const py::capsule owner(new Owner(array.data),
                            [](void* data) { delete static_cast<Owner*>(data); });
    arrays.emplace(name, FloatArray(array.shape, array.data.get(), owner));
  }
  return arrays;
}

std::vector<std::string> names(const std::vector<Precision>& precisions) {
  std::vector<std::string> all;
  for (const Precision precision : precisions) all.emplace_back(to_string(precision));
  return all;
}

using Step = py::typing::Callable<void(const std::string&, int, int)>;

// Reports a build's steps to a Python function. An exception in it stops the build, and is raised
// again when the build has ended.
class Steps {
 public:
  explicit Steps(const std::optional<Step>& function) {
    if (function) function_ = shared_with_gil(*function);
  }

  bool operator()(const BuildStep& step) {
    if (function_ == nullptr) return true;
    const HeldGil gil;
    try {
      (*function_)(step.phase, step.done, step.steps);
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
  std::shared_ptr<Step> function_;
  std::exception_ptr raised_;
};

// Returns the network as other programs run it: with all the weights' bits, and unfused additions.
Graph quantise_for_export(const Graph& graph, const Calibration& calibration) {
  return quantise(graph, calibration, {.weight_bits = 8, .round_branches = true});
}

// An engine, and what is known about how long it takes.
class MeasuredEngine : public Engine {
 public:
  explicit MeasuredEngine(Engine engine) : Engine(std::move(engine)) {}

  // Like Engine::infer, but returns early if it is abandoned. `layout` is that of uint8 images.
  template <class Value, class... Layout>
  void infer_in_parts(const Value* images, int64_t batch, std::vector<float*> outputs,
                      const Abandoned& abandoned, Layout... layout) const {
    using Seconds = std::chrono::duration<float>;
    const auto start = std::chrono::steady_clock::now();
    for (int64_t done = 0; done < batch && !abandoned; done += info().max_batch) {
      const int64_t part = std::min<int64_t>(info().max_batch, batch - done);
      infer(images + done * info().input.size(), layout..., part, outputs);
      for (size_t i = 0; i < outputs.size(); ++i) outputs[i] += part * info().outputs[i].size();
    }
    if (batch > 0) {
      const Seconds taken = std::chrono::steady_clock::now() - start;
      seconds_per_image_ = taken.count() / static_cast<float>(batch);
    }
  }

  // Whether a batch may take so long that an interrupt should end it.
  bool may_take_long(int64_t batch) const {
    return static_cast<float>(batch) * seconds_per_image_ > 0.1F;
  }

 private:
  mutable std::atomic<float> seconds_per_image_ = 1.0F;  // until the first inference
};

// Returns the memory of an engine's outputs for a batch.
std::vector<float*> pointers(const EngineInfo& info, int64_t batch,
                             const std::vector<FloatArray>& arrays) {
  bool fit = arrays.size() == info.outputs.size();
  std::vector<float*> found;
  for (size_t i = 0; fit && i < arrays.size(); ++i) {
    fit = arrays[i].size() == batch * info.outputs[i].size() && arrays[i].writeable();
    found.push_back(const_cast<float*>(arrays[i].data()));
  }
  if (!fit) throw InputError("the arrays for the outputs do not fit the engine");
  return found;
}

// Writes the outputs for a batch to arrays, which the caller has made.
template <class Images, class... Layout>
void infer(const MeasuredEngine& engine, const Images& batch,
           const std::vector<FloatArray>& outputs, Layout... layout) {
  const int64_t count = batch.ndim() > 0 ? batch.shape(0) : 0;
  if (batch.size() != count * engine.info().input.size()) {
    throw InputError("the shape of the batch does not fit the engine");
  }
  const auto run = [&engine, images = batch.data(), count, layout...,
                    out = pointers(engine.info(), count, outputs)](const Abandoned& abandoned) {
    engine.infer_in_parts(images, count, out, abandoned, layout...);
  };
  if (engine.may_take_long(count)) {
    const auto self = py::cast(engine, py::return_value_policy::reference);
    interruptibly([run, owned = shared_with_gil(py::make_tuple(self, batch, outputs))](
                      const Abandoned& abandoned) { run(abandoned); });
  } else {
    const ReleasedGil release;
    run(false);
  }
}

}  // namespace

void bind_engine(py::module_& module) {
  module.def(
      "random_weights",
      [](const Graph& graph, uint64_t seed) {
        return to_shared_arrays(
            interruptibly([graph, seed](const Abandoned&) { return random_weights(graph, seed); }));
      },
      py::arg("graph"), py::arg("seed"), "Return seeded random parameters that fit the graph.");
  module.def(
      "complete_weights",
      [](const Graph& graph, const std::map<std::string, FloatArray>& weights) {
        std::map<std::string, FloatArray> arrays = weights;  // without a copy of their memory
        for (const auto& [name, array] : complete_weights(graph, to_weights(weights))) {
          if (!arrays.contains(name)) {
            arrays.emplace(name, FloatArray(array.shape, array.data.get()));
          }
        }
        return arrays;
      },
      py::arg("graph"), py::arg("weights"),
      "Return the weights together with that of the layer that select_outputs adds for class "
      "activation maps.");
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

  module.def(
      "quantised_tensors",
      [](const Graph& graph, const std::set<std::string>& keep) {
        std::vector<std::string> names;
        for (const int layer : quantised_tensors(graph, keep, true)) {
          names.push_back(graph.layers()[static_cast<size_t>(layer)].name);
        }
        return names;
      },
      py::arg("graph"), py::arg("keep"),
      "Return the names of the tensors whose ranges a calibration must have, of a graph whose "
      "batch normalisations are folded.");
  module.def(
      "quantise_weight",
      [](const FloatArray& array, int bits) {
        if (array.ndim() == 0 || array.size() == 0) throw InputError("the weight is empty");
        const Array weight{{array.shape(), array.shape() + array.ndim()},
                           {std::shared_ptr<void>(), array.data()}};
        const QuantisedWeight made = quantise_weight(weight, bits);
        return std::make_pair(
            py::array_t<int8_t, py::array::c_style>(weight.shape, made.integers->data()),
            FloatArray(made.scales.shape, made.scales.data.get()));
      },
      py::arg("weight"), py::arg("bits"),
      "Return a weight as int8 with so many bits, and the float32 scale of each output channel.");
  module.attr("VALUE_INTERVALS") = kValueIntervals;
  module.def(
      "count_values",
      [](const FloatArray& values, const py::array_t<uint64_t, py::array::c_style>& counts) {
        if (static_cast<size_t>(counts.size()) != kValueIntervals || !counts.writeable()) {
          throw InputError(concat("the counts must be ", kValueIntervals, " integers"));
        }
        const std::span<const float> from(values.data(), static_cast<size_t>(values.size()));
        const std::span<uint64_t> to(const_cast<uint64_t*>(counts.data()), kValueIntervals);
        const ReleasedGil release;
        count_values(from, to);
      },
      py::arg("values").noconvert(), py::arg("counts").noconvert(),
      "Add the number of the values whose 16 upper bits are i to element i of uint64 counts.");
  py::class_<Calibration>(module, "Calibration", "The ranges of a network's tensors.")
      .def(py::init([](std::string network, std::string weights_sha256,
                       const std::map<std::string, std::pair<float, float>>& ranges,
                       std::set<std::string> keep) {
             Calibration made{std::move(network), std::move(weights_sha256), {}, std::move(keep)};
             for (const auto& [name, range] : ranges) {
               made.ranges[name] = {range.first, range.second};
             }
             return made;
           }),
           py::kw_only(), py::arg("network"), py::arg("weights_sha256"), py::arg("ranges"),
           py::arg("keep"))
      .def_readonly("network", &Calibration::network)
      .def_readonly("weights_sha256", &Calibration::weights_sha256);
  module.def("quantise", &quantise_for_export, py::arg("graph"), py::arg("calibration"),
             "Round tensors to 8 bits, in a graph whose batch normalisations are folded.");

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
      .def_readonly("loads_other_versions", &BackendStatus::loads_other_versions,
                    "Whether it loads engines that other versions of its library built.")
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
  module.def("processor", &processor,
             "Return the processor's name, family, model, stepping and features.");
  module.def("usable_cpus", &usable_cpus,
             "Return how many threads this process can keep busy, within its CPU quota.");
  module.def(
      "cpu_quota", &cpu_quota, py::arg("proc"), py::arg("groups"),
      "Return how many CPUs this process may keep busy over time, or None. The arguments are "
      "the folders in which Linux reports processes and control groups.");
  module.def("library_packages", &library_packages, py::arg("backend"),
             "Return the import names of the packages that may contain a backend's library.");
  module.def("backend_names", &backend_names, "Return the names of the backends.");
  module.def("check_calibration", &check_calibration, py::arg("calibration"), py::arg("network"),
             py::arg("weights_sha256"),
             "Raise InputError unless a calibration is of this network with these weights.");
  module.def("check_labels", &check_labels, py::arg("labels"), py::arg("classes"),
             "Raise InputError unless there are no labels or one for each class.");
  module.def("precision_names", &precision_names, "Return the names of the precisions.");

  py::class_<Preprocessing>(module, "Preprocessing",
                            "How a photograph is converted to an engine's input.")
      .def(py::init([](const Resize& resize, std::string interpolation, std::vector<float> mean,
                       std::vector<float> std, const std::string& pipeline,
                       const std::optional<std::pair<int, int>>& input_size) {
             const auto [height, width] = input_size.value_or(std::pair(0, 0));
             if (input_size && (height < 1 || width < 1)) {
               throw InputError(concat("input_size must be the height and width in pixels, not (",
                                       height, ", ", width, ")"));
             }
             const auto [short_side, resize_height, resize_width] = resized_sides(resize);
             return Preprocessing{short_side,
                                  std::move(interpolation),
                                  std::move(mean),
                                  std::move(std),
                                  parse_pipeline(pipeline),
                                  height,
                                  width,
                                  resize_height,
                                  resize_width};
           }),
           py::kw_only(), py::arg("resize"), py::arg("interpolation"), py::arg("mean"),
           py::arg("std"), py::arg("pipeline") = to_string(Pipeline::torchvision),
           py::arg("input_size") = py::none())
      .def_property_readonly(
          "resize", resize_of,
          "The short side after resizing, in pixels; or (height, width), which the resized image "
          "covers in its own proportions, or has in the pipeline \"squash\".")
      .def_readonly("interpolation", &Preprocessing::interpolation)
      .def_readonly("mean", &Preprocessing::mean, "The mean of each channel, for pixels in 0..1.")
      .def_readonly("std", &Preprocessing::std,
                    "The standard deviation of each channel, for pixels in 0..1.")
      .def_property_readonly(
          "pipeline", [](const Preprocessing& self) { return to_string(self.pipeline); },
          "How images are resized and cropped: as in \"paddleclas\"; as in \"torchvision\" "
          "and timm; or \"squash\", timm's crop mode of that name.")
      .def_property_readonly(
          "input_size",
          [](const Preprocessing& self) {
            using HeightWidth = std::pair<int, int>;
            return self.input_height == 0 ? std::optional<HeightWidth>()
                                          : HeightWidth(self.input_height, self.input_width);
          },
          "The height and width of the input, in pixels; None if it fits any input.")
      .def("__eq__",
           [](const Preprocessing& self, const py::object& other) {
             return py::isinstance<Preprocessing>(other) && self == other.cast<Preprocessing>();
           })
      .def("__hash__",
           [](const Preprocessing& self) {
             return py::hash(py::make_tuple(self.resize, self.interpolation, self.input_height,
                                            self.input_width));
           })
      .def(py::pickle(
          [](const Preprocessing& self) {
            return py::make_tuple(self.resize, self.interpolation, self.mean, self.std,
                                  to_string(self.pipeline), self.input_height, self.input_width,
                                  self.resize_height, self.resize_width);
          },
          [](const py::tuple& state) {
            return Preprocessing{state[0].cast<int>(),
                                 state[1].cast<std::string>(),
                                 state[2].cast<std::vector<float>>(),
                                 state[3].cast<std::vector<float>>(),
                                 parse_pipeline(state[4].cast<std::string>()),
                                 state[5].cast<int>(),
                                 state[6].cast<int>(),
                                 state[7].cast<int>(),
                                 state[8].cast<int>()};
          }))
      .def("__repr__", [](const Preprocessing& self) {
        const std::string size =
            self.input_height == 0
                ? ""
                : concat(", input_size=(", self.input_height, ", ", self.input_width, ")");
        const std::string resize =
            self.resize_height == 0 ? std::to_string(self.resize)
                                    : concat("(", self.resize_height, ", ", self.resize_width, ")");
        return concat("Preprocessing(resize=", resize, ", interpolation='", self.interpolation,
                      "', mean=[", join(self.mean), "], std=[", join(self.std), "], pipeline='",
                      to_string(self.pipeline), "'", size, ")");
      });
  module.def(
      "check_preprocessing",
      [](const Preprocessing& steps, const std::tuple<int, int, int>& input_shape) {
        const auto& [channels, height, width] = input_shape;
        check_preprocessing(steps, {channels, height, width});
      },
      py::arg("steps"), py::arg("input_shape"),
      "Raise InputError unless the preprocessing is valid for inputs of that shape.");
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
  module.def(
      "seen_region",
      [](int photo_width, int photo_height, const Preprocessing& steps,
         const std::tuple<int, int, int>& input_shape) {
        const auto& [channels, height, width] = input_shape;
        const Region region = seen_region({nullptr, photo_width, photo_height, channels}, steps,
                                          {channels, height, width});
        return std::make_tuple(region.left, region.top, region.right, region.bottom);
      },
      py::arg("width"), py::arg("height"), py::arg("steps"), py::arg("input_shape"),
      "Return the part of a photograph that `preprocess` makes an input of: (left, top, right, "
      "bottom) in its pixels.");

  py::class_<KernelTime>(module, "KernelTime",
                         "The time per inference of all convolutions of a kind.")
      .def_readonly("batch", &KernelTime::batch, "Images per inference.")
      .def_readonly("ms", &KernelTime::ms, "Milliseconds by the chosen kernels.")
      .def_readonly("default_ms", &KernelTime::default_ms,
                    "Milliseconds by the kernels that the backend would have taken by itself.");

  py::class_<KernelChoice>(module, "KernelChoice",
                           "The kernels that were measured to be the fastest for a kind of "
                           "convolution.")
      .def_readonly("kind", &KernelChoice::kind, "Such as \"3x3, stride 2, to 28x28\".")
      .def_readonly("layers", &KernelChoice::layers, "The convolutions of that kind.")
      .def_readonly("kernel", &KernelChoice::kernel, "The backend's name of the kernel.")
      .def_property_readonly(
          "is_default", [](const KernelChoice& self) { return self.priorities.empty(); },
          "Whether it is the one that the backend takes by itself.")
      .def_readonly("times", &KernelChoice::times, "For each batch size that was measured.");

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
      .def_readonly("classes", &EngineInfo::classes,
                    "The number of logits, which need not be among the outputs.")
      .def_property_readonly(
          "outputs",
          [](const EngineInfo& self) {
            using ImageShape = py::typing::Tuple<int, py::ellipsis>;
            py::typing::Dict<std::string, ImageShape> outputs;
            for (const auto& [name, shape] : self.outputs) {
              outputs[py::str(name)] = py::tuple(py::cast(shape));
            }
            return outputs;
          },
          "What `infer` returns: the name of each output and its shape for one image.")
      .def_readonly("max_batch", &EngineInfo::max_batch, "The largest batch that runs at once.")
      .def_readonly("kernels", &EngineInfo::kernels,
                    "The choice for each kind of convolution, as measured when the engine was "
                    "built; empty if the backend's default kernels are used.")
      .def_readonly("kernels_processor", &EngineInfo::kernels_processor,
                    "The processor that the kernels were chosen on. Others use the default ones.")
      .def_readonly("version_compatible", &EngineInfo::version_compatible,
                    "Whether other versions of the backend can load it too.")
      .def_property_readonly(
          "weights", [](const EngineInfo& self) { return self.notes.weights; },
          "Where the weights came from.")
      .def_property_readonly(
          "weights_sha256", [](const EngineInfo& self) { return self.notes.weights_sha256; },
          "The hash of the weights' file or arrays, in hexadecimal; empty for random weights.")
      .def_readonly("layers", &EngineInfo::layers, "The graph as text: layers, shapes and costs.")
      .def_property_readonly("labels", [](const EngineInfo& self) { return self.notes.labels; })
      .def_property_readonly("preprocessing",
                             [](const EngineInfo& self) { return self.notes.preprocessing; })
      .def_property_readonly(
          "preprocessing_source",
          [](const EngineInfo& self) { return self.notes.preprocessing_source; },
          "Where the preprocessing is from, or that it was assumed.")
      .def_property_readonly(
          "build_key", [](const EngineInfo& self) { return self.notes.build_key; },
          "What the cache knows the engine by, a hash of all that it depends on; may be empty.");

  module.def(
      "inspect",
      [](const py::bytes& path) {
        return interruptibly(
            [file = std::string(path)](const Abandoned&) { return inspect(file); });
      },
      py::arg("path"),
      "Read the description in an engine file. The backend need not be installed.");

  py::class_<StepTime>(module, "StepTime", "The time of a step of an inference.")
      .def_readonly("name", &StepTime::name)
      .def_readonly("type", &StepTime::type)
      .def_readonly("layers", &StepTime::layers)
      .def_readonly("kernel", &StepTime::kernel)
      .def_readonly("ms", &StepTime::ms);

  py::class_<MeasuredEngine>(module, "Engine", "A network that is ready to run.")
      .def_static(
          "build",
          [](const Graph& graph, const std::map<std::string, FloatArray>& weights,
             const std::string& backend, const std::string& precision, int max_batch, int threads,
             const std::string& weights_note, const std::string& weights_sha256,
             const std::vector<std::string>& labels, const Preprocessing& preprocessing,
             const std::string& preprocessing_source, const std::string& build_key,
             std::optional<double> tuning_seconds, std::optional<int> device,
             const std::optional<Calibration>& calibration,
             const std::optional<TensorRTOptions>& tensorrt, const std::optional<Step>& progress) {
            const auto steps = std::make_shared<Steps>(progress);
            BuildOptions options = {.backend = backend,
                                    .precision = parse_precision(precision),
                                    .max_batch = max_batch,
                                    .notes = {weights_note, weights_sha256, labels, preprocessing,
                                              preprocessing_source, build_key},
                                    .calibration = calibration,
                                    .tensorrt = tensorrt,
                                    .tuning_seconds = tuning_seconds,
                                    .progress = {}};
            const auto build = [graph, parameters = to_weights(weights), options, steps,
                                load = LoadOptions{.threads = threads, .device = device}](
                                   const Abandoned& abandoned) mutable {
              options.progress = [&](const BuildStep& step) {
                return !abandoned && (*steps)(step);
              };
              return Engine::build(graph, parameters, options, load);
            };
            try {
              return std::make_unique<MeasuredEngine>(interruptibly(build));
            } catch (const BackendError&) {
              steps->rethrow();
              throw;
            }
          },
          py::arg("graph"), py::arg("weights"), py::kw_only(), py::arg("backend"),
          py::arg("precision"), py::arg("max_batch"), py::arg("threads"), py::arg("weights_note"),
          py::arg("weights_sha256"), py::arg("labels"), py::arg("preprocessing"),
          py::arg("preprocessing_source"), py::arg("build_key"), py::arg("tuning_seconds"),
          py::arg("device"), py::arg("calibration"), py::arg("tensorrt"), py::arg("progress"))
      .def_static(
          "load",
          [](const py::bytes& path, int threads, bool for_throughput, std::optional<int> device,
             const std::optional<py::bytes>& runtime_cache, std::optional<std::vector<int>> warm_up,
             std::vector<int> batch_sizes, std::optional<bool> pin_threads, bool profile) {
            const std::string file = path;
            LoadOptions options = {.threads = threads,
                                   .optimize_for_throughput = for_throughput,
                                   .pin_threads = pin_threads,
                                   .warm_up = std::move(warm_up),
                                   .batch_sizes = std::move(batch_sizes),
                                   .profile = profile,
                                   .device = device};
            if (runtime_cache) options.tensorrt = TensorRTLoadOptions{*runtime_cache};
            return std::make_unique<MeasuredEngine>(interruptibly(
                [file, options](const Abandoned&) { return Engine::load(file, options); }));
          },
          py::arg("path"), py::kw_only(), py::arg("threads"), py::arg("for_throughput"),
          py::arg("device"), py::arg("runtime_cache"), py::arg("warm_up"), py::arg("batch_sizes"),
          py::arg("pin_threads"), py::arg("profile"))
      .def(
          "save",
          [](const MeasuredEngine& self, const py::bytes& path) {
            const auto engine = py::cast(self, py::return_value_policy::reference);
            interruptibly([&self, file = std::string(path),
                           owned = shared_with_gil(engine)](const Abandoned& abandoned) {
              const DelayedExit until_its_temporary_file_is_removed;
              self.save(file, [&] { return abandoned.load(); });
            });
          },
          py::arg("path"))
      .def_property_readonly("info", &Engine::info)
      .def_property_readonly("plan",
                             [](const MeasuredEngine& self) { return py::bytes(self.plan()); })
      .def(
          "infer",
          [](const MeasuredEngine& self, const FloatArray& batch,
             const std::vector<FloatArray>& outputs) { infer(self, batch, outputs); },
          py::arg("batch").noconvert(), py::arg("outputs").noconvert(),
          "Write the outputs for a contiguous batch, float32 (N, channels, height, width), to an "
          "array each, float32 (N, *shape).")
      .def(
          "infer_pixels",
          [](const MeasuredEngine& self, const PixelArray& batch, bool channels_last,
             const std::vector<FloatArray>& outputs) {
            infer(self, batch, outputs, channels_last ? PixelLayout::nhwc : PixelLayout::nchw);
          },
          py::arg("batch").noconvert(), py::arg("channels_last"), py::arg("outputs").noconvert(),
          "The same for a contiguous batch of pictures, uint8 (N, channels, height, width) or (N, "
          "height, width, channels).")
      .def(
          "profile",
          [](const MeasuredEngine& self, const FloatArray& batch, int repeats) {
            const int64_t count = batch.ndim() > 0 ? batch.shape(0) : 0;
            if (batch.size() != count * self.info().input.size()) {
              throw InputError("the shape of the batch does not fit the engine");
            }
            const auto engine = py::cast(self, py::return_value_policy::reference);
            return interruptibly([&self, images = batch.data(), count, repeats,
                                  owned = shared_with_gil(py::make_tuple(engine, batch))](
                                     const Abandoned& abandoned) {
              return self.profile(images, count, repeats, [&] { return abandoned.load(); });
            });
          },
          py::arg("batch").noconvert(), py::arg("repeats"),
          "Return the mean time of each step of an inference of a contiguous batch, float32 (N, "
          "channels, height, width), in the order of execution.")
      .def_property_readonly("device", &Engine::device,
                             "The number of the GPU that the engine runs on, or None.")
      .def(
          "device_of",
          [](const MeasuredEngine& self, uintptr_t pointer) {
            return self.device_of(reinterpret_cast<const void*>(pointer));
          },
          py::arg("pointer"), "Return the number of the GPU whose memory a pointer points to.")
      .def(
          "infer_on_device",
          [](const MeasuredEngine& self, uintptr_t pointer, int64_t batch, StreamHandle stream,
             py::object owner) {
            std::unique_ptr<DeviceArray> logits;
            {
              const ReleasedGil release;
              logits = self.infer_on_device(reinterpret_cast<const float*>(pointer), batch, stream);
            }
            return LogitsOnDevice{keep_batch(std::move(logits), std::move(owner)), batch,
                                  self.info().outputs.front().size(), self.device().value(),
                                  stream};
          },
          py::arg("pointer"), py::arg("batch"), py::arg("stream"), py::arg("owner"),
          "Compute the logits of a contiguous batch in the GPU's memory, in the order of a stream. "
          "They stay there and keep a reference to the owner of the batch's memory.");
}

}  // namespace resrt

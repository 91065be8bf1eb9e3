#include "resrt/graph.h"

#include <algorithm>
#include <tuple>
#include <utility>
#include <variant>
#include <vector>

#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include "bindings/bindings.h"
#include "resrt/error.h"
#include "text.h"

namespace py = pybind11;

namespace resrt {
namespace {

std::tuple<int, int, int> to_tuple(const Shape& shape) {
  return {shape.channels, shape.height, shape.width};
}

// A layer together with its properties in the graph.
struct LayerView {
  std::string name;
  Definition definition;
  std::vector<std::string> inputs;
  Shape shape;
  std::vector<Parameter> parameters;
  Cost cost;
};

std::vector<LayerView> layers(const Graph& graph) {
  std::vector<LayerView> views;
  for (const Layer& layer : graph.layers()) {
    std::vector<std::string> inputs;
    for (const Tensor input : layer.inputs) inputs.push_back(graph.layer(input).name);
    views.push_back({layer.name, layer.definition, std::move(inputs), layer.shape,
                     graph.parameters(layer), graph.cost(layer)});
  }
  return views;
}

// Returns how a definition is pickled and copied: its attributes are the arguments that make it.
py::tuple reduced(const py::object& self) {
  const py::object type = py::type::of(self);
  const py::object property = py::module_::import("builtins").attr("property");
  py::dict arguments;
  for (const auto& [name, member] : py::dict(type.attr("__dict__"))) {
    if (py::isinstance(member, property)) arguments[name] = self.attr(name);
  }
  const py::object partial = py::module_::import("functools").attr("partial");
  return py::make_tuple(partial(type, **arguments), py::tuple());
}

template <class T>
py::class_<T> definition(py::module_& module, const char* doc) {
  return py::class_<T>(module, kind(T{}), doc)
      .def("__repr__", [](const T& self) { return to_string(Definition(self)); })
      .def("__reduce__", reduced);
}

void bind_definitions(py::module_& module) {
  definition<Input>(module, "The network's input: one image, channels x height x width.")
      .def(py::init([](int channels, int height, int width) {
             return Input{.channels = channels, .height = height, .width = width};
           }),
           py::arg("channels"), py::arg("height"), py::arg("width"))
      .def_readonly("channels", &Input::channels)
      .def_readonly("height", &Input::height)
      .def_readonly("width", &Input::width);

  const Conv2d conv{};
  definition<Conv2d>(module, "A square 2-D convolution, and the layers that are fused into it.")
      .def(py::init([](int out_channels, int kernel, int stride, int padding, int groups, bool bias,
                       bool residual, bool relu, int weight_bits) {
             return Conv2d{.out_channels = out_channels,
                           .kernel = kernel,
                           .stride = stride,
                           .padding = padding,
                           .groups = groups,
                           .bias = bias,
                           .residual = residual,
                           .relu = relu,
                           .weight_bits = weight_bits};
           }),
           py::arg("out_channels"), py::kw_only(), py::arg("kernel"),
           py::arg("stride") = conv.stride, py::arg("padding") = conv.padding,
           py::arg("groups") = conv.groups, py::arg("bias") = conv.bias,
           py::arg("residual") = conv.residual, py::arg("relu") = conv.relu,
           py::arg("weight_bits") = conv.weight_bits)
      .def_readonly("out_channels", &Conv2d::out_channels)
      .def_readonly("kernel", &Conv2d::kernel)
      .def_readonly("stride", &Conv2d::stride)
      .def_readonly("padding", &Conv2d::padding)
      .def_readonly("groups", &Conv2d::groups)
      .def_readonly("bias", &Conv2d::bias)
      .def_readonly("residual", &Conv2d::residual)
      .def_readonly("relu", &Conv2d::relu)
      .def_readonly("weight_bits", &Conv2d::weight_bits);

  definition<BatchNorm2d>(module, "Batch normalisation with its running statistics.")
      .def(py::init([](float epsilon) { return BatchNorm2d{.epsilon = epsilon}; }), py::kw_only(),
           py::arg("epsilon") = BatchNorm2d().epsilon)
      .def_readonly("epsilon", &BatchNorm2d::epsilon);

  definition<Relu>(module, "max(x, 0).").def(py::init<>());
  definition<Silu>(module, "x * sigmoid(x), also called swish.").def(py::init<>());

  const MaxPool2d max_pool{};
  definition<MaxPool2d>(module, "The maximum over square windows.")
      .def(py::init([](int kernel, int stride, int padding) {
             return MaxPool2d{.kernel = kernel, .stride = stride, .padding = padding};
           }),
           py::kw_only(), py::arg("kernel"), py::arg("stride"),
           py::arg("padding") = max_pool.padding)
      .def_readonly("kernel", &MaxPool2d::kernel)
      .def_readonly("stride", &MaxPool2d::stride)
      .def_readonly("padding", &MaxPool2d::padding);

  const AvgPool2d avg_pool{};
  definition<AvgPool2d>(module, "The average over square windows.")
      .def(
          py::init([](int kernel, int stride, int padding, bool ceil_mode, bool count_include_pad) {
            return AvgPool2d{.kernel = kernel,
                             .stride = stride,
                             .padding = padding,
                             .ceil_mode = ceil_mode,
                             .count_include_pad = count_include_pad};
          }),
          py::kw_only(), py::arg("kernel"), py::arg("stride"),
          py::arg("padding") = avg_pool.padding, py::arg("ceil_mode") = avg_pool.ceil_mode,
          py::arg("count_include_pad") = avg_pool.count_include_pad)
      .def_readonly("kernel", &AvgPool2d::kernel)
      .def_readonly("stride", &AvgPool2d::stride)
      .def_readonly("padding", &AvgPool2d::padding)
      .def_readonly("ceil_mode", &AvgPool2d::ceil_mode)
      .def_readonly("count_include_pad", &AvgPool2d::count_include_pad);

  definition<BlurPool2d>(module,
                         "The mean over 3x3 windows with binomial weights and a reflected border "
                         "(https://arxiv.org/abs/1904.11486).")
      .def(py::init([](int stride) { return BlurPool2d{.stride = stride}; }), py::kw_only(),
           py::arg("stride") = BlurPool2d().stride)
      .def_readonly("stride", &BlurPool2d::stride);

  definition<PadChannels>(module, "Adds channels of zeros before and after those of its input.")
      .def(py::init(
               [](int before, int after) { return PadChannels{.before = before, .after = after}; }),
           py::kw_only(), py::arg("before"), py::arg("after"))
      .def_readonly("before", &PadChannels::before)
      .def_readonly("after", &PadChannels::after);

  definition<GlobalAvgPool2d>(module, "The mean over height and width.").def(py::init<>());
  definition<Add>(module, "The sum of two tensors of the same shape.").def(py::init<>());

  const SplitAttention attention{};
  definition<SplitAttention>(
      module, "The split-attention block of ResNeSt (https://arxiv.org/abs/2004.08955).")
      .def(py::init([](int channels, int radix, int cardinality, int hidden, bool fc1_bias,
                       bool batch_norm, float epsilon) {
             return SplitAttention{.channels = channels,
                                   .radix = radix,
                                   .cardinality = cardinality,
                                   .hidden = hidden,
                                   .fc1_bias = fc1_bias,
                                   .batch_norm = batch_norm,
                                   .epsilon = epsilon};
           }),
           py::arg("channels"), py::kw_only(), py::arg("radix"), py::arg("cardinality"),
           py::arg("hidden"), py::arg("fc1_bias") = attention.fc1_bias,
           py::arg("batch_norm") = attention.batch_norm, py::arg("epsilon") = attention.epsilon)
      .def_readonly("channels", &SplitAttention::channels)
      .def_readonly("radix", &SplitAttention::radix)
      .def_readonly("cardinality", &SplitAttention::cardinality)
      .def_readonly("hidden", &SplitAttention::hidden)
      .def_readonly("fc1_bias", &SplitAttention::fc1_bias)
      .def_readonly("batch_norm", &SplitAttention::batch_norm)
      .def_readonly("epsilon", &SplitAttention::epsilon, "The epsilon of the batch normalisation.");

  definition<SqueezeExcite>(module, "Squeeze-and-excitation (https://arxiv.org/abs/1709.01507).")
      .def(py::init(
               [](int hidden, bool silu) { return SqueezeExcite{.hidden = hidden, .silu = silu}; }),
           py::kw_only(), py::arg("hidden"), py::arg("silu") = SqueezeExcite().silu)
      .def_readonly("hidden", &SqueezeExcite::hidden)
      .def_readonly("silu", &SqueezeExcite::silu,
                    "Whether the first layer is followed by SiLU instead of ReLU.");

  definition<EfficientChannelAttention>(
      module, "Efficient channel attention (https://arxiv.org/abs/1910.03151).")
      .def(py::init([](int kernel) { return EfficientChannelAttention{.kernel = kernel}; }),
           py::kw_only(), py::arg("kernel"))
      .def_readonly("kernel", &EfficientChannelAttention::kernel);

  const Quantize quantize{};
  definition<Quantize>(module, "Rounds to the multiples of a scale that an 8-bit integer can hold.")
      .def(py::init([](float scale, bool is_signed) {
             return Quantize{.scale = scale, .is_signed = is_signed};
           }),
           py::kw_only(), py::arg("scale"), py::arg("is_signed") = quantize.is_signed)
      .def_readonly("scale", &Quantize::scale)
      .def_readonly("is_signed", &Quantize::is_signed);

  definition<Linear>(module, "A fully connected layer.")
      .def(py::init([](int out_features) { return Linear{.out_features = out_features}; }),
           py::arg("out_features"))
      .def_readonly("out_features", &Linear::out_features);
}

// Returns the Python classes of a variant's alternatives, in order. Throws if one is not bound.
template <class... Kinds>
py::tuple classes(const std::variant<Kinds...>*) {
  return py::make_tuple(py::type::of<Kinds>()...);
}

// Appends a layer to a graph and returns its name, by which later layers read it.
std::string add_layer(Graph& graph, const std::string& name, const Definition& definition,
                      const std::vector<std::string>& inputs) {
  const std::vector<Layer>& layers = graph.layers();
  std::vector<Tensor> tensors;
  for (const std::string& input : inputs) {
    const auto found = std::find_if(layers.begin(), layers.end(),
                                    [&](const Layer& layer) { return layer.name == input; });
    if (found == layers.end()) {
      throw ModelError(concat("layer '", name, "' of ", graph.name(), " reads '", input,
                              "', which is not the name of a layer before it"));
    }
    tensors.push_back({static_cast<int>(found - layers.begin())});
  }
  graph.add(name, definition, std::move(tensors));
  return name;
}

using NamedDefinition = std::tuple<std::string, Definition, std::vector<std::string>>;

Graph make_graph(std::string name, const std::vector<NamedDefinition>& layers) {
  Graph graph(std::move(name));
  for (const auto& [layer, definition, inputs] : layers) {
    add_layer(graph, layer, definition, inputs);
  }
  graph.output();  // throws if there are no layers
  return graph;
}

std::string summary(const Graph& graph) {
  if (graph.layers().empty()) return concat("Graph(", graph.name(), ", no layers)");
  const Shape in = graph.input_shape();
  return concat("Graph(", graph.name(), ", input ", in.channels, "x", in.height, "x", in.width,
                ", ", graph.classes(), " classes, ", graph.layers().size(), " layers)");
}

bool is_vector(const Graph& graph, const std::string& name) {
  for (int i = 0; i < static_cast<int>(graph.layers().size()); ++i) {
    if (graph.layers()[static_cast<size_t>(i)].name == name) return graph.is_vector({i});
  }
  throw ModelError(concat(graph.name(), " has no layer '", name, "'"));
}

}  // namespace

void bind_graph(py::module_& module) {
  bind_definitions(module);
  module.attr("DEFINITIONS") = classes(static_cast<const Definition*>(nullptr));

  py::class_<Parameter>(module, "Parameter", "The name and shape of a parameter of a network.")
      .def_readonly("name", &Parameter::name)
      .def_property_readonly(
          "shape",
          [](const Parameter& self) {
            return py::typing::Tuple<int, py::ellipsis>(py::tuple(py::cast(self.shape)));
          })
      .def_readonly("trainable", &Parameter::trainable,
                    "False for the running statistics of a batch normalisation.")
      .def("__repr__", [](const Parameter& self) {
        return concat("Parameter(", self.name, ", ", shape_text(self.shape), ")");
      });

  py::class_<Cost>(module, "Cost", "The cost of a layer or a network for one image.")
      .def_readonly("parameters", &Cost::parameters, "The number of trainable parameters.")
      .def_readonly("multiply_adds", &Cost::multiply_adds,
                    "Those of convolutions and linear layers. Published FLOPs are twice as many.")
      .def("__repr__", [](const Cost& self) {
        return concat("Cost(parameters=", self.parameters, ", multiply_adds=", self.multiply_adds,
                      ")");
      });

  py::class_<LayerView>(module, "Layer", "A layer of a graph.")
      .def_readonly("name", &LayerView::name)
      .def_readonly("definition", &LayerView::definition)
      .def_property_readonly(
          "kind", [](const LayerView& self) { return kind(self.definition); },
          "The name of the definition's type.")
      .def_readonly("inputs", &LayerView::inputs, "The names of the layers that it reads.")
      .def_property_readonly(
          "shape", [](const LayerView& self) { return to_tuple(self.shape); },
          "The shape of the output without the batch: (channels, height, width).")
      .def_readonly("parameters", &LayerView::parameters)
      .def_readonly("cost", &LayerView::cost)
      .def("__repr__", [](const LayerView& self) {
        return concat("Layer(", self.name, ", ", to_string(self.definition), ")");
      });

  py::class_<Graph>(module, "Graph",
                    R"(A network: its layers in topological order. str() returns a table of them.

The first layer is the only input, and the last layer returns the logits.)")
      .def(py::init<std::string>(), py::arg("name"), "Create a graph without layers; see `add`.")
      .def(
          py::init(&make_graph), py::arg("name"), py::arg("layers"),
          "Create a graph from the name, the definition and the input layers' names of each layer. "
          "Raises ModelError if a definition does not fit its inputs.")
      .def(
          "add",
          [](Graph& self, const std::string& name, const Definition& definition,
             const std::variant<std::string, std::vector<std::string>>& inputs) {
            const auto* one = std::get_if<std::string>(&inputs);
            return add_layer(
                self, name, definition,
                one != nullptr ? std::vector{*one} : std::get<std::vector<std::string>>(inputs));
          },
          py::arg("name"), py::arg("definition"), py::arg("inputs") = std::vector<std::string>(),
          R"(Append a layer and return its name, by which later layers read its output.

Args:
    name: its name, unique in the graph and the prefix of its parameters' names.
    definition: one of `resrt.layers`.
    inputs: the name of the layer that it reads, or a list of names; none for an Input.

Raises ModelError, which names the layer, if the definition does not fit its inputs.)")
      .def_property_readonly("name", &Graph::name)
      .def_property_readonly("layers", &layers)
      .def_property_readonly(
          "input_shape", [](const Graph& self) { return to_tuple(self.input_shape()); },
          "The shape of one image: (channels, height, width).")
      .def_property_readonly("classes", &Graph::classes)
      .def_property_readonly(
          "outputs",
          [](const Graph& self) {
            std::vector<std::pair<std::string, std::string>> outputs;
            for (const auto& [name, tensor] : self.outputs()) {
              outputs.emplace_back(name, self.layer(tensor).name);
            }
            return outputs;
          },
          "The name of each output, and of the layer that computes it; see `select_outputs`.")
      .def("is_vector", &is_vector, py::arg("layer"),
           "Return whether the output of a layer is a vector, not a feature map.")
      .def_property_readonly(
          "parameters", [](const Graph& self) { return self.parameters(); },
          "The names and shapes of all parameters and buffers. Names are timm's.")
      .def_property_readonly(
          "cost", [](const Graph& self) { return self.cost(); }, "The total cost of all layers.")
      .def("__len__", [](const Graph& self) { return self.layers().size(); })
      .def("__str__", &Graph::table)
      .def("__repr__", &summary);
}

}  // namespace resrt

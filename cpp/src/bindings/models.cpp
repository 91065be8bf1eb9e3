#include "resrt/models.h"

#include <utility>

#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "choices.h"
#include "resrt/error.h"
#include "text.h"

namespace py = pybind11;

namespace resrt {
namespace {

constexpr auto kBlocks = choices<ModelError, Block>(
    "block", {{Block::basic, "basic"}, {Block::bottleneck, "bottleneck"}});
constexpr auto kStems = choices<ModelError, Stem>("stem", {{Stem::plain, "plain"},
                                                           {Stem::deep, "deep"},
                                                           {Stem::tiered, "tiered"},
                                                           {Stem::small, "small"}});
constexpr auto kStemPools = choices<ModelError, StemPool>(
    "stem_pool", {{StemPool::max, "max"}, {StemPool::convolution, "convolution"}});
constexpr auto kDownsamples =
    choices<ModelError, Downsample>("downsample", {{Downsample::convolution, "convolution"},
                                                   {Downsample::average_pool, "average_pool"},
                                                   {Downsample::pad, "pad"}});
constexpr auto kAntialiases =
    choices<ModelError, Antialias>("antialias", {{Antialias::none, "none"},
                                                 {Antialias::average_pool, "average_pool"},
                                                 {Antialias::blur, "blur"}});
constexpr auto kAttentions =
    choices<ModelError, Attention>("attention", {{Attention::none, "none"},
                                                 {Attention::squeeze_excite, "squeeze_excite"},
                                                 {Attention::efficient, "efficient"}});
constexpr auto kActivations = choices<ModelError, Activation>(
    "activation", {{Activation::relu, "relu"}, {Activation::silu, "silu"}});
constexpr auto kShortcuts =
    choices<ModelError, Shortcut>("shortcut", {{Shortcut::convolution, "convolution"},
                                               {Shortcut::average_pool, "average_pool"},
                                               {Shortcut::none, "none"}});

// Returns a getter of an enumeration's name.
template <class Config, class Value, class Names>
auto name_of(Value Config::* field, const Names& names) {
  return [field, &names](const Config& self) { return names.name(self.*field); };
}

// Adds what a value type has: equality, a hash, and a repr() with all parameters of the
// constructor.
template <class Config>
void bind_value(py::class_<Config>& config, std::vector<std::string> fields) {
  config.def("__hash__", [](py::handle self) { return py::hash(py::repr(self)); });
  config.def("__eq__", [](const Config& self, const py::object& other) {
    return py::isinstance<Config>(other) && self == other.cast<const Config&>();
  });
  config.def("__repr__", [fields](py::handle self) {
    std::vector<std::string> parts;
    for (const std::string& field : fields) {
      parts.push_back(concat(field, "=", py::repr(self.attr(field.c_str())).cast<std::string>()));
    }
    return concat(py::type::of(self).attr("__name__").cast<std::string>(), "(", join(parts), ")");
  });
}

void bind_resnet(py::module_& module) {
  const ResNetConfig normal;
  py::class_<ResNetConfig> config(module, "ResNet",
                                  R"(Parameters of a ResNet (https://arxiv.org/abs/1512.03385).

Args:
    depths: blocks per stage.
    block: "basic" or "bottleneck".
    width: channels of the first stage before expansion; each stage doubles them.
    stem: "plain" (one 7x7 convolution), "deep" (three 3x3 convolutions), "tiered" (the same with a
        narrower first one) or, for small images, "small" (one 3x3 convolution without pooling).
    stem_channels: channels of the stem's output.
    stem_pool: what follows the stem, "max" or "convolution", as in ResNet-RS.
    downsample: how shortcuts reduce the resolution, "convolution", "average_pool" or "pad", which
        leaves out pixels, adds channels of zeros and has no parameters.
    project_first: whether the first shortcut has a convolution even if the shapes do not require
        one, as in PaddleClas.
    cardinality: groups of the bottleneck's 3x3 convolution, as in ResNeXt.
    base_width: channels of each group for a width of 64, as in ResNeXt and Wide ResNet.
    stride_first: whether a bottleneck's first convolution has the stride, as in the paper and in
        Caffe, instead of its 3x3 convolution.
    antialias: what reduces the resolution in the stem and in blocks instead of a stride, "none",
        "average_pool" or "blur" (https://arxiv.org/abs/1904.11486).
    attention: at the end of blocks, "none", "squeeze_excite" (https://arxiv.org/abs/1709.01507) or
        "efficient" (https://arxiv.org/abs/1910.03151).
    attention_reduction: the ratio of a block's channels to the hidden ones of squeeze_excite.
    attention_divisor: these are rounded to a multiple of this; 1 in PaddleClas.
    activation: "relu" or "silu".)");
  config
      .def(py::init([](std::vector<int> depths, const std::string& block, int width,
                       const std::string& stem, int stem_channels, const std::string& stem_pool,
                       const std::string& downsample, bool project_first, int cardinality,
                       int base_width, bool stride_first, const std::string& antialias,
                       const std::string& attention, int attention_reduction, int attention_divisor,
                       const std::string& activation) {
             return ResNetConfig{.depths = std::move(depths),
                                 .block = kBlocks.value(block),
                                 .width = width,
                                 .stem = kStems.value(stem),
                                 .stem_channels = stem_channels,
                                 .stem_pool = kStemPools.value(stem_pool),
                                 .downsample = kDownsamples.value(downsample),
                                 .project_first = project_first,
                                 .cardinality = cardinality,
                                 .base_width = base_width,
                                 .stride_first = stride_first,
                                 .antialias = kAntialiases.value(antialias),
                                 .attention = kAttentions.value(attention),
                                 .attention_reduction = attention_reduction,
                                 .attention_divisor = attention_divisor,
                                 .activation = kActivations.value(activation)};
           }),
           py::kw_only(), py::arg("depths") = normal.depths,
           py::arg("block") = kBlocks.name(normal.block), py::arg("width") = normal.width,
           py::arg("stem") = kStems.name(normal.stem),
           py::arg("stem_channels") = normal.stem_channels,
           py::arg("stem_pool") = kStemPools.name(normal.stem_pool),
           py::arg("downsample") = kDownsamples.name(normal.downsample),
           py::arg("project_first") = normal.project_first,
           py::arg("cardinality") = normal.cardinality, py::arg("base_width") = normal.base_width,
           py::arg("stride_first") = normal.stride_first,
           py::arg("antialias") = kAntialiases.name(normal.antialias),
           py::arg("attention") = kAttentions.name(normal.attention),
           py::arg("attention_reduction") = normal.attention_reduction,
           py::arg("attention_divisor") = normal.attention_divisor,
           py::arg("activation") = kActivations.name(normal.activation))
      .def_readonly("depths", &ResNetConfig::depths)
      .def_property_readonly("block", name_of(&ResNetConfig::block, kBlocks))
      .def_readonly("width", &ResNetConfig::width)
      .def_property_readonly("stem", name_of(&ResNetConfig::stem, kStems))
      .def_readonly("stem_channels", &ResNetConfig::stem_channels)
      .def_property_readonly("stem_pool", name_of(&ResNetConfig::stem_pool, kStemPools))
      .def_property_readonly("downsample", name_of(&ResNetConfig::downsample, kDownsamples))
      .def_readonly("project_first", &ResNetConfig::project_first)
      .def_readonly("cardinality", &ResNetConfig::cardinality)
      .def_readonly("base_width", &ResNetConfig::base_width)
      .def_readonly("stride_first", &ResNetConfig::stride_first)
      .def_property_readonly("antialias", name_of(&ResNetConfig::antialias, kAntialiases))
      .def_property_readonly("attention", name_of(&ResNetConfig::attention, kAttentions))
      .def_readonly("attention_reduction", &ResNetConfig::attention_reduction)
      .def_readonly("attention_divisor", &ResNetConfig::attention_divisor)
      .def_property_readonly("activation", name_of(&ResNetConfig::activation, kActivations));
  bind_value(config,
             {"depths", "block", "width", "stem", "stem_channels", "stem_pool", "downsample",
              "project_first", "cardinality", "base_width", "stride_first", "antialias",
              "attention", "attention_reduction", "attention_divisor", "activation"});
}

void bind_resnest(py::module_& module) {
  const ResNeStConfig normal;
  py::class_<ResNeStConfig> config(module, "ResNeSt",
                                   R"(Parameters of a ResNeSt (https://arxiv.org/abs/2004.08955).

Args:
    depths: blocks per stage.
    width: channels of the first stage before expansion; each stage doubles them.
    stem: "plain", "deep", "tiered" or "small", as for `resrt.ResNet`.
    stem_channels: channels of the stem's output.
    radix: the number of splits.
    cardinality: the number of groups.
    base_width: channels of each group for a width of 64.
    pool_first: whether average pooling comes before the split attention instead of after it.
    attention_bias: whether the attention's first convolution has a bias; False in PaddleClas.
    count_include_pad: whether padding counts in average pooling; False in PaddleClas.
    hidden_divisor: hidden channels are rounded to a multiple of this; 1 in PaddleClas.)");
  config
      .def(py::init([](std::vector<int> depths, int width, const std::string& stem,
                       int stem_channels, int radix, int cardinality, int base_width,
                       bool pool_first, bool attention_bias, bool count_include_pad,
                       int hidden_divisor) {
             return ResNeStConfig{.depths = std::move(depths),
                                  .width = width,
                                  .stem = kStems.value(stem),
                                  .stem_channels = stem_channels,
                                  .radix = radix,
                                  .cardinality = cardinality,
                                  .base_width = base_width,
                                  .pool_first = pool_first,
                                  .attention_bias = attention_bias,
                                  .count_include_pad = count_include_pad,
                                  .hidden_divisor = hidden_divisor};
           }),
           py::kw_only(), py::arg("depths") = normal.depths, py::arg("width") = normal.width,
           py::arg("stem") = kStems.name(normal.stem),
           py::arg("stem_channels") = normal.stem_channels, py::arg("radix") = normal.radix,
           py::arg("cardinality") = normal.cardinality, py::arg("base_width") = normal.base_width,
           py::arg("pool_first") = normal.pool_first,
           py::arg("attention_bias") = normal.attention_bias,
           py::arg("count_include_pad") = normal.count_include_pad,
           py::arg("hidden_divisor") = normal.hidden_divisor)
      .def_readonly("depths", &ResNeStConfig::depths)
      .def_readonly("width", &ResNeStConfig::width)
      .def_property_readonly("stem", name_of(&ResNeStConfig::stem, kStems))
      .def_readonly("stem_channels", &ResNeStConfig::stem_channels)
      .def_readonly("radix", &ResNeStConfig::radix)
      .def_readonly("cardinality", &ResNeStConfig::cardinality)
      .def_readonly("base_width", &ResNeStConfig::base_width)
      .def_readonly("pool_first", &ResNeStConfig::pool_first)
      .def_readonly("attention_bias", &ResNeStConfig::attention_bias)
      .def_readonly("count_include_pad", &ResNeStConfig::count_include_pad)
      .def_readonly("hidden_divisor", &ResNeStConfig::hidden_divisor);
  bind_value(config,
             {"depths", "width", "stem", "stem_channels", "radix", "cardinality", "base_width",
              "pool_first", "attention_bias", "count_include_pad", "hidden_divisor"});
}

void bind_regnet(py::module_& module) {
  const RegNetConfig normal;
  py::class_<RegNetConfig> config(module, "RegNet",
                                  R"(Parameters of a RegNet (https://arxiv.org/abs/2003.13678).

Args:
    depth: the total number of blocks.
    width_initial: w_0 of the paper, the offset of the linear function of the blocks' widths.
    width_slope: w_a of the paper, its slope.
    width_multiplier: w_m of the paper, which quantises the widths.
    group_width: channels per group.
    squeeze_excite: whether blocks have squeeze-and-excitation, as in RegNetY.
    stem_channels: channels of the stem's output.
    min_width_ratio: 0.9 rounds widths as torchvision does, 0 as pycls and timm do.
    stem_stride: 2, or 1 for small images.
    bottleneck_ratio: the inner channels of a block over those of its output; 4 in RegNetZ.
    shortcut: of blocks that change the shape, "convolution", "average_pool" or, as in RegNetZ,
        "none".
    activation: "relu" or "silu".
    pre_activation: whether normalisation and activation come before convolutions.
    linear_blocks: whether no activation follows the addition at the end of a block.
    final_channels: channels of a 1x1 convolution before the head; 0 for none.)");
  config
      .def(py::init([](int depth, int width_initial, double width_slope, double width_multiplier,
                       int group_width, bool squeeze_excite, int stem_channels,
                       double min_width_ratio, int stem_stride, double bottleneck_ratio,
                       const std::string& shortcut, const std::string& activation,
                       bool pre_activation, bool linear_blocks, int final_channels) {
             return RegNetConfig{.depth = depth,
                                 .width_initial = width_initial,
                                 .width_slope = width_slope,
                                 .width_multiplier = width_multiplier,
                                 .group_width = group_width,
                                 .squeeze_excite = squeeze_excite,
                                 .stem_channels = stem_channels,
                                 .min_width_ratio = min_width_ratio,
                                 .stem_stride = stem_stride,
                                 .bottleneck_ratio = bottleneck_ratio,
                                 .shortcut = kShortcuts.value(shortcut),
                                 .activation = kActivations.value(activation),
                                 .pre_activation = pre_activation,
                                 .linear_blocks = linear_blocks,
                                 .final_channels = final_channels};
           }),
           py::kw_only(), py::arg("depth") = normal.depth,
           py::arg("width_initial") = normal.width_initial,
           py::arg("width_slope") = normal.width_slope,
           py::arg("width_multiplier") = normal.width_multiplier,
           py::arg("group_width") = normal.group_width,
           py::arg("squeeze_excite") = normal.squeeze_excite,
           py::arg("stem_channels") = normal.stem_channels,
           py::arg("min_width_ratio") = normal.min_width_ratio,
           py::arg("stem_stride") = normal.stem_stride,
           py::arg("bottleneck_ratio") = normal.bottleneck_ratio,
           py::arg("shortcut") = kShortcuts.name(normal.shortcut),
           py::arg("activation") = kActivations.name(normal.activation),
           py::arg("pre_activation") = normal.pre_activation,
           py::arg("linear_blocks") = normal.linear_blocks,
           py::arg("final_channels") = normal.final_channels)
      .def_readonly("depth", &RegNetConfig::depth)
      .def_readonly("width_initial", &RegNetConfig::width_initial)
      .def_readonly("width_slope", &RegNetConfig::width_slope)
      .def_readonly("width_multiplier", &RegNetConfig::width_multiplier)
      .def_readonly("group_width", &RegNetConfig::group_width)
      .def_readonly("squeeze_excite", &RegNetConfig::squeeze_excite)
      .def_readonly("stem_channels", &RegNetConfig::stem_channels)
      .def_readonly("min_width_ratio", &RegNetConfig::min_width_ratio)
      .def_readonly("stem_stride", &RegNetConfig::stem_stride)
      .def_readonly("bottleneck_ratio", &RegNetConfig::bottleneck_ratio)
      .def_property_readonly("shortcut", name_of(&RegNetConfig::shortcut, kShortcuts))
      .def_property_readonly("activation", name_of(&RegNetConfig::activation, kActivations))
      .def_readonly("pre_activation", &RegNetConfig::pre_activation)
      .def_readonly("linear_blocks", &RegNetConfig::linear_blocks)
      .def_readonly("final_channels", &RegNetConfig::final_channels);
  bind_value(config, {"depth", "width_initial", "width_slope", "width_multiplier", "group_width",
                      "squeeze_excite", "stem_channels", "min_width_ratio", "stem_stride",
                      "bottleneck_ratio", "shortcut", "activation", "pre_activation",
                      "linear_blocks", "final_channels"});
}

}  // namespace

void bind_models(py::module_& module) {
  bind_resnet(module);
  bind_resnest(module);
  bind_regnet(module);

  py::class_<Model>(module, "Model", "A row of the catalog.")
      .def_readonly("name", &Model::name)
      .def_readonly("family", &Model::family,
                    "ResNet, ResNeSt, RegNetX, RegNetY, RegNetV or RegNetZ.")
      .def_readonly("source", &Model::source,
                    "The source whose conventions it follows: PaddleClas, timm or torchvision; or "
                    "paper, for the original paper's networks for CIFAR.")
      .def_readonly("input_size", &Model::input_size,
                    "The height and width of images that its weights were published for.")
      .def_readonly("config", &Model::config)
      .def_readonly("classes", &Model::classes, "The number of classes of its weights.")
      .def("__repr__", [](const Model& self) { return concat("Model(", self.name, ")"); });

  module.def("catalog", &catalog, "Return the catalog of named networks.");
  module.def(
      "find_model", &find_model, py::arg("name"),
      "Return the row of that name. Raises ModelError, with similar names, if there is none.");

  module.def("select_outputs", &select_outputs, py::arg("graph"), py::arg("names"),
             R"(Return a graph that has these outputs, in this order.

Args:
    graph: the network, which is not changed.
    names: "logits"; "features", the vector that the last linear layer reads; "layer1", "layer2" and
        so on, the feature maps at the end of each stage, in every family; "cam", the class activation
        maps (classes, H, W), whose means plus the bias are the logits; or the name of any layer but the
        input.

Raises ModelError, listing the outputs, if there is none of a name.)");

  const auto options = [](std::optional<int> classes, int in_channels, std::optional<int> height,
                          std::optional<int> width) {
    return ModelOptions{classes, in_channels, height, width};
  };
  module.def(
      "build_graph",
      [options](const std::string& name, std::optional<int> classes, int in_channels,
                std::optional<int> height, std::optional<int> width) {
        return build_graph(name, options(classes, in_channels, height, width));
      },
      py::arg("name"), py::arg("classes"), py::arg("in_channels"), py::arg("height"),
      py::arg("width"), "Return the graph of a network of the catalog.");
  module.def(
      "build_graph",
      [options](const std::string& name, const ModelConfig& config, std::optional<int> classes,
                int in_channels, std::optional<int> height, std::optional<int> width) {
        return build_graph(name, config, options(classes, in_channels, height, width));
      },
      py::arg("name"), py::arg("config"), py::arg("classes"), py::arg("in_channels"),
      py::arg("height"), py::arg("width"),
      "Return the graph of a configuration under a given name.");
}

}  // namespace resrt

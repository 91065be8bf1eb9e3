#include <algorithm>
#include <array>
#include <cctype>
#include <numeric>

#include "models/families.h"
#include "resrt/error.h"
#include "resrt/models.h"
#include "text.h"

namespace resrt {
namespace {

constexpr const char* kPaddle = "PaddleClas";
constexpr const char* kTimm = "timm";
constexpr const char* kTorchvision = "torchvision";
constexpr const char* kPaper = "paper";

// Blocks per stage, by the number of layers. Basic blocks have two layers, bottlenecks three.
const std::vector<int> k10 = {1, 1, 1, 1};  // and 14 with bottlenecks
const std::vector<int> k18 = {2, 2, 2, 2};  // and 26
const std::vector<int> k34 = {3, 4, 6, 3};  // and 50
const std::vector<int>& k50 = k34;
const std::vector<int> k101 = {3, 4, 23, 3};
const std::vector<int> k152 = {3, 8, 36, 3};
const std::vector<int> k200 = {3, 24, 36, 3};
const std::vector<int> k269 = {3, 30, 48, 8};

ResNetConfig basic(const std::vector<int>& depths) {
  return {.depths = depths, .block = Block::basic};
}

ResNetConfig bottleneck(const std::vector<int>& depths) {
  return {.depths = depths};
}

// The variants that the letters and words in names stand for, as changes of a configuration.

ResNetConfig c(ResNetConfig config, int stem_channels = 64) {
  config.stem = Stem::deep;
  config.stem_channels = stem_channels;
  return config;
}

ResNetConfig d(ResNetConfig config, int stem_channels = 64) {
  config = c(config, stem_channels);
  config.downsample = Downsample::average_pool;
  return config;
}

ResNetConfig s(const ResNetConfig& config) {
  return c(config, 128);
}

ResNetConfig t(ResNetConfig config) {
  config = d(config);
  config.stem = Stem::tiered;
  return config;
}

// A ResNeXt, such as 32x4d.
ResNetConfig next(int cardinality, int base_width, ResNetConfig config) {
  config.cardinality = cardinality;
  config.base_width = base_width;
  return config;
}

ResNetConfig wide(int base_width, ResNetConfig config) {
  config.base_width = base_width;
  return config;
}

ResNetConfig se(ResNetConfig config) {
  config.attention = Attention::squeeze_excite;
  return config;
}

ResNetConfig eca(ResNetConfig config) {
  config.attention = Attention::efficient;
  return config;
}

ResNetConfig aa(ResNetConfig config) {
  config.antialias = Antialias::average_pool;
  return config;
}

ResNetConfig blur(ResNetConfig config) {
  config.antialias = Antialias::blur;
  return config;
}

// Revisiting ResNets (https://arxiv.org/abs/2103.07579).
ResNetConfig rs(const std::vector<int>& depths) {
  ResNetConfig config = se(d(bottleneck(depths)));
  config.attention_reduction = 4;
  config.stem_pool = StemPool::convolution;
  return config;
}

// PaddleClas has a convolution in the first shortcut of the first stage even if the shapes already
// match, and does not round the hidden channels of a squeeze-and-excitation.
ResNetConfig paddle(ResNetConfig config) {
  config.project_first = true;
  config.attention_divisor = 1;
  return config;
}

struct ResNetRow {
  const char* name;
  ResNetConfig config;
  int input_size = 224;
};

const std::vector<ResNetRow>& paddle_resnets() {
  static const std::vector<ResNetRow> rows = {
      {"ResNet18", basic(k18)},
      {"ResNet18_vd", d(basic(k18))},
      {"ResNet34", basic(k34)},
      {"ResNet34_vd", d(basic(k34))},
      {"ResNet34_vd_ssld", d(basic(k34))},
      {"ResNet50", bottleneck(k50)},
      {"ResNet50_vc", c(bottleneck(k50))},
      {"ResNet50_vd", d(bottleneck(k50))},
      {"ResNet50_vd_v2", d(bottleneck(k50))},
      {"ResNet50_vd_ssld", d(bottleneck(k50))},
      {"ResNet50_vd_ssld_v2", d(bottleneck(k50))},
      {"Fix_ResNet50_vd_ssld_v2", d(bottleneck(k50)), 320},
      {"ResNet101", bottleneck(k101)},
      {"ResNet101_vd", d(bottleneck(k101))},
      {"ResNet101_vd_ssld", d(bottleneck(k101))},
      {"ResNet152", bottleneck(k152)},
      {"ResNet152_vd", d(bottleneck(k152))},
      {"ResNet200_vd", d(bottleneck({3, 12, 48, 3}))},
      {"ResNeXt50_32x4d", next(32, 4, bottleneck(k50))},
      {"ResNeXt50_64x4d", next(64, 4, bottleneck(k50))},
      {"ResNeXt101_32x4d", next(32, 4, bottleneck(k101))},
      {"ResNeXt101_64x4d", next(64, 4, bottleneck(k101))},
      {"ResNeXt152_32x4d", next(32, 4, bottleneck(k152))},
      {"ResNeXt152_64x4d", next(64, 4, bottleneck(k152))},
      {"ResNeXt50_vd_32x4d", next(32, 4, d(bottleneck(k50)))},
      {"ResNeXt50_vd_64x4d", next(64, 4, d(bottleneck(k50)))},
      {"ResNeXt101_vd_32x4d", next(32, 4, d(bottleneck(k101)))},
      {"ResNeXt101_vd_64x4d", next(64, 4, d(bottleneck(k101)))},
      {"ResNeXt152_vd_32x4d", next(32, 4, d(bottleneck(k152)))},
      {"ResNeXt152_vd_64x4d", next(64, 4, d(bottleneck(k152)))},
      {"ResNeXt101_32x8d_wsl", next(32, 8, bottleneck(k101))},
      {"ResNeXt101_32x16d_wsl", next(32, 16, bottleneck(k101))},
      {"ResNeXt101_32x32d_wsl", next(32, 32, bottleneck(k101))},
      {"ResNeXt101_32x48d_wsl", next(32, 48, bottleneck(k101))},
      {"Fix_ResNeXt101_32x48d_wsl", next(32, 48, bottleneck(k101)), 320},
      {"SE_ResNet18_vd", se(d(basic(k18)))},
      {"SE_ResNet34_vd", se(d(basic(k34)))},
      {"SE_ResNet50_vd", se(d(bottleneck(k50)))},
      {"SE_ResNeXt50_32x4d", next(32, 4, se(bottleneck(k50)))},
      {"SE_ResNeXt50_vd_32x4d", next(32, 4, se(d(bottleneck(k50), 128)))},
      {"SE_ResNeXt101_32x4d", next(32, 4, se(bottleneck(k101)))},
      {"SENet154_vd", next(64, 4, se(d(bottleneck(k152), 128)))},
  };
  return rows;
}

// Those whose names torchvision has too are the same there.
const std::vector<ResNetRow>& timm_resnets() {
  static const std::vector<ResNetRow> rows = {
      {"resnet10t", t(basic(k10)), 176},
      {"resnet14t", t(bottleneck(k10)), 176},
      {"resnet18", basic(k18)},
      {"resnet18d", d(basic(k18))},
      {"resnet26", bottleneck(k18)},
      {"resnet26d", d(bottleneck(k18))},
      {"resnet26t", t(bottleneck(k18)), 256},
      {"resnet34", basic(k34)},
      {"resnet34d", d(basic(k34))},
      {"resnet50", bottleneck(k50)},
      {"resnet50c", c(bottleneck(k50))},
      {"resnet50d", d(bottleneck(k50))},
      {"resnet50s", s(bottleneck(k50))},
      {"resnet50t", t(bottleneck(k50))},
      {"resnet101", bottleneck(k101)},
      {"resnet101c", c(bottleneck(k101))},
      {"resnet101d", d(bottleneck(k101)), 256},
      {"resnet101s", s(bottleneck(k101))},
      {"resnet152", bottleneck(k152)},
      {"resnet152c", c(bottleneck(k152))},
      {"resnet152d", d(bottleneck(k152)), 256},
      {"resnet152s", s(bottleneck(k152))},
      {"resnet200", bottleneck(k200)},
      {"resnet200d", d(bottleneck(k200)), 256},
      {"wide_resnet50_2", wide(128, bottleneck(k50))},
      {"wide_resnet101_2", wide(128, bottleneck(k101))},
      {"resnext50_32x4d", next(32, 4, bottleneck(k50))},
      {"resnext50d_32x4d", next(32, 4, d(bottleneck(k50)))},
      {"resnext101_32x4d", next(32, 4, bottleneck(k101))},
      {"resnext101_32x8d", next(32, 8, bottleneck(k101))},
      {"resnext101_32x16d", next(32, 16, bottleneck(k101))},
      {"resnext101_32x32d", next(32, 32, bottleneck(k101))},
      {"resnext101_64x4d", next(64, 4, bottleneck(k101))},
      {"resnetaa34d", aa(d(basic(k34)))},
      {"resnetaa50", aa(bottleneck(k50))},
      {"resnetaa50d", aa(d(bottleneck(k50)))},
      {"resnetaa101d", aa(d(bottleneck(k101)))},
      {"resnetblur18", blur(basic(k18))},
      {"resnetblur50", blur(bottleneck(k50))},
      {"resnetblur50d", blur(d(bottleneck(k50)))},
      {"resnetblur101d", blur(d(bottleneck(k101)))},
      {"resnetrs50", rs(k50), 160},
      {"resnetrs101", rs(k101), 192},
      {"resnetrs152", rs(k152), 256},
      {"resnetrs200", rs(k200), 256},
      {"resnetrs270", rs({4, 29, 53, 4}), 256},
      {"resnetrs350", rs({4, 36, 72, 4}), 288},
      {"resnetrs420", rs({4, 44, 87, 4}), 320},
      {"seresnet18", se(basic(k18))},
      {"seresnet34", se(basic(k34))},
      {"seresnet50", se(bottleneck(k50))},
      {"seresnet50t", se(t(bottleneck(k50)))},
      {"seresnet101", se(bottleneck(k101))},
      {"seresnet152", se(bottleneck(k152))},
      {"seresnet152d", se(d(bottleneck(k152))), 256},
      {"seresnet200d", se(d(bottleneck(k200))), 256},
      {"seresnet269d", se(d(bottleneck(k269))), 256},
      {"seresnetaa50d", se(aa(d(bottleneck(k50))))},
      {"seresnext26d_32x4d", next(32, 4, se(d(bottleneck(k18))))},
      {"seresnext26t_32x4d", next(32, 4, se(t(bottleneck(k18))))},
      {"seresnext50_32x4d", next(32, 4, se(bottleneck(k50)))},
      {"seresnext101_32x4d", next(32, 4, se(bottleneck(k101)))},
      {"seresnext101_32x8d", next(32, 8, se(bottleneck(k101)))},
      {"seresnext101_64x4d", next(64, 4, se(bottleneck(k101)))},
      {"seresnext101d_32x8d", next(32, 8, se(d(bottleneck(k101))))},
      {"seresnextaa101d_32x8d", next(32, 8, se(aa(d(bottleneck(k101))))), 288},
      {"seresnextaa201d_32x8d", next(32, 8, se(aa(d(bottleneck({3, 24, 36, 4}), 128)))), 384},
      {"ecaresnet26t", eca(t(bottleneck(k18))), 256},
      {"ecaresnet50d", eca(d(bottleneck(k50)))},
      {"ecaresnet50t", eca(t(bottleneck(k50))), 256},
      {"ecaresnet101d", eca(d(bottleneck(k101)))},
      {"ecaresnet200d", eca(d(bottleneck(k200))), 256},
      {"ecaresnet269d", eca(d(bottleneck(k269))), 320},
      {"ecaresnetlight", eca({.depths = {1, 1, 11, 3}, .downsample = Downsample::average_pool})},
      {"ecaresnext26t_32x4d", next(32, 4, eca(t(bottleneck(k18))))},
      {"ecaresnext50t_32x4d", next(32, 4, eca(t(bottleneck(k50))))},
  };
  return rows;
}

void add_resnets(std::vector<Model>& models) {
  for (const ResNetRow& row : paddle_resnets()) {
    models.push_back({row.name, "ResNet", kPaddle, row.input_size, paddle(row.config)});
  }
  for (const ResNetRow& row : timm_resnets()) {
    models.push_back({row.name, "ResNet", kTimm, row.input_size, row.config});
  }
}

// The networks of section 4.2 of the ResNet paper, with 6n + 2 layers.
void add_cifar_resnets(std::vector<Model>& models) {
  for (const int layers : {20, 32, 44, 56, 110, 1202}) {
    const int n = (layers - 2) / 6;
    const ResNetConfig config = {.depths = {n, n, n},
                                 .block = Block::basic,
                                 .width = 16,
                                 .stem = Stem::small,
                                 .stem_channels = 16,
                                 .downsample = Downsample::pad};
    constexpr int size = 32;
    constexpr int classes = 10;
    models.push_back({concat("cifar_resnet", layers), "ResNet", kPaper, size, config, classes});
  }
}

void add_resnests(std::vector<Model>& models) {
  const auto add = [&](const char* name, const char* source, const ResNeStConfig& config,
                       int size = 224) {
    models.push_back({name, "ResNeSt", source, size, config});
  };
  const auto paddle = [](ResNeStConfig config) {
    config.attention_bias = false;
    config.count_include_pad = false;
    config.hidden_divisor = 1;
    return config;
  };
  const ResNeStConfig fast_50 = {.radix = 1, .pool_first = true};
  const ResNeStConfig resnest14 = {.depths = {1, 1, 1, 1}};
  const ResNeStConfig resnest26 = {.depths = {2, 2, 2, 2}};
  const ResNeStConfig resnest50 = {};
  const ResNeStConfig resnest101 = {.depths = {3, 4, 23, 3}, .stem_channels = 128};
  const ResNeStConfig resnest200 = {.depths = {3, 24, 36, 3}, .stem_channels = 128};
  const ResNeStConfig resnest269 = {.depths = {3, 30, 48, 8}, .stem_channels = 128};

  add("ResNeSt50_fast_1s1x64d", kPaddle, paddle(fast_50));
  add("ResNeSt50", kPaddle, paddle(resnest50));
  add("ResNeSt101", kPaddle, paddle(resnest101));
  add("ResNeSt200", kPaddle, paddle(resnest200));
  add("ResNeSt269", kPaddle, paddle(resnest269));
  add("resnest14d", kTimm, resnest14);
  add("resnest26d", kTimm, resnest26);
  add("resnest50d", kTimm, resnest50);
  add("resnest50d_1s4x24d", kTimm,
      {.radix = 1, .cardinality = 4, .base_width = 24, .pool_first = true});
  add("resnest50d_4s2x40d", kTimm,
      {.radix = 4, .cardinality = 2, .base_width = 40, .pool_first = true});
  add("resnest101e", kTimm, resnest101, 256);
  add("resnest200e", kTimm, resnest200, 320);
  add("resnest269e", kTimm, resnest269, 416);
}

// A RegNet and its names: PaddleClas's RegNetX_200MF, timm's regnetx_002 and torchvision's
// regnet_x_400mf. A part of a name is "" if the source does not have the network.
struct RegNetRow {
  const char* paddle;
  const char* timm;
  const char* torchvision;
  RegNetConfig config;
  bool is_torchvision_in_timm = false;  // whether timm has torchvision's network too, as "_tv"
  int input_size = 224;
};

void add_regnets(std::vector<Model>& models, char kind, const std::vector<RegNetRow>& rows) {
  const std::string family = concat("RegNet", kind);
  const char lower = kind == 'Y' ? 'y' : 'x';
  const auto add = [&](const std::string& name, const char* source, const RegNetRow& row,
                       bool as_torchvision) {
    RegNetConfig config = row.config;
    config.squeeze_excite = kind == 'Y';
    if (as_torchvision) config.min_width_ratio = 0.9;
    models.push_back({name, family, source, row.input_size, config});
  };
  for (const RegNetRow& row : rows) {
    if (*row.paddle) add(concat(family, "_", row.paddle), kPaddle, row, false);
  }
  for (const RegNetRow& row : rows) {
    const std::string name = concat("regnet", lower, "_", row.timm);
    add(name, kTimm, row, false);
    if (row.is_torchvision_in_timm) add(name + "_tv", kTimm, row, true);
  }
  for (const RegNetRow& row : rows) {
    if (!*row.torchvision) continue;
    add(concat("regnet_", lower, "_", row.torchvision), kTorchvision, row, true);
  }
}

void add_regnets(std::vector<Model>& models) {
  // depth, width_initial, width_slope, width_multiplier, group_width
  add_regnets(models, 'X',
              {{"200MF", "002", "", {13, 24, 36.44, 2.49, 8}},
               {"400MF", "004", "400mf", {22, 24, 24.48, 2.54, 16}, true},
               {"600MF", "006", "", {16, 48, 36.97, 2.24, 24}},
               {"800MF", "008", "800mf", {16, 56, 35.73, 2.28, 16}},
               {"1600MF", "016", "1_6gf", {18, 80, 34.01, 2.25, 24}},
               {"3200MF", "032", "3_2gf", {25, 88, 26.31, 2.25, 48}},
               {"4GF", "040", "", {23, 96, 38.65, 2.43, 40}},
               {"6400MF", "064", "", {17, 184, 60.83, 2.07, 56}},
               {"8GF", "080", "8gf", {23, 80, 49.56, 2.88, 120}},
               {"12GF", "120", "", {19, 168, 73.36, 2.37, 112}},
               {"16GF", "160", "16gf", {22, 216, 55.59, 2.1, 128}},
               {"32GF", "320", "32gf", {23, 320, 69.86, 2.0, 168}}});
  add_regnets(models, 'Y',
              {{"", "002", "", {13, 24, 36.44, 2.49, 8}},
               {"", "004", "400mf", {16, 48, 27.89, 2.09, 8}},
               {"", "006", "", {15, 48, 32.54, 2.32, 16}},
               {"", "008", "800mf", {14, 56, 38.84, 2.4, 16}, true},
               {"", "016", "1_6gf", {27, 48, 20.71, 2.65, 24}},
               {"", "032", "3_2gf", {21, 80, 42.63, 2.66, 24}},
               {"", "040", "", {22, 96, 31.41, 2.24, 64}},
               {"", "064", "", {25, 112, 33.22, 2.27, 72}},
               {"", "080", "8gf", {17, 192, 76.82, 2.19, 56}, true},
               {"", "120", "", {19, 168, 73.36, 2.37, 112}},
               {"", "160", "16gf", {18, 200, 106.23, 2.48, 112}},
               {"", "320", "32gf", {20, 232, 115.89, 2.53, 232}},
               {"", "640", "", {20, 352, 147.48, 2.4, 328}, false, 384},
               {"", "1280", "128gf", {27, 456, 160.83, 2.52, 264}, false, 384},
               {"", "2560", "", {27, 640, 230.83, 2.53, 373}, false, 384}});
}

// timm's variants of RegNetY, with SiLU: V activates before convolutions, Z widens inside blocks.
void add_regnet_variants(std::vector<Model>& models) {
  RegNetConfig v{22, 96, 31.41, 2.24, 64, true};
  v.activation = Activation::silu;
  v.pre_activation = true;
  models.push_back({"regnetv_040", "RegNetV", kTimm, 224, v});
  RegNetConfig v_064{25, 112, 33.22, 2.27, 72, true};
  v_064.activation = Activation::silu;
  v_064.pre_activation = true;
  v_064.shortcut = Shortcut::average_pool;
  models.push_back({"regnetv_064", "RegNetV", kTimm, 224, v_064});

  const auto z = [](RegNetConfig config, int final_channels) {
    config.squeeze_excite = true;
    config.bottleneck_ratio = 4.0;
    config.shortcut = Shortcut::none;
    config.activation = Activation::silu;
    config.linear_blocks = true;
    config.final_channels = final_channels;
    return config;
  };
  const RegNetConfig z_040 = {28, 48, 14.5, 2.226, 8};
  models.push_back({"regnetz_005", "RegNetZ", kTimm, 224, z({21, 16, 10.7, 2.51, 4}, 1024)});
  models.push_back({"regnetz_040", "RegNetZ", kTimm, 256, z(z_040, 0)});
  models.push_back({"regnetz_040_h", "RegNetZ", kTimm, 256, z(z_040, 1536)});
}

std::string lowercase(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return lower;
}

// The Levenshtein distance: the minimum number of insertions, deletions and replacements.
size_t edit_distance(const std::string& from, const std::string& to) {
  std::vector<size_t> row(to.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < from.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < to.size(); ++j) {
      const size_t replaced = diagonal + (from[i] == to[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, row[j] + 1, diagonal + 1});
    }
  }
  return row.back();
}

std::vector<std::string> nearest_names(std::string_view wanted, size_t count) {
  std::vector<std::pair<size_t, std::string>> ranked;
  for (const Model& model : catalog()) {
    ranked.emplace_back(edit_distance(lowercase(wanted), lowercase(model.name)), model.name);
  }
  // Stable, so that ties keep the catalog's order.
  std::stable_sort(ranked.begin(), ranked.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> names;
  for (size_t i = 0; i < std::min(count, ranked.size()); ++i) names.push_back(ranked[i].second);
  return names;
}

Input input_of(const ModelOptions& options, int size) {
  return {options.in_channels, options.height.value_or(size), options.width.value_or(size)};
}

}  // namespace

const std::vector<Model>& catalog() {
  static const std::vector<Model> models = [] {
    std::vector<Model> rows;
    add_resnets(rows);
    add_resnests(rows);
    add_regnets(rows);
    add_regnet_variants(rows);
    add_cifar_resnets(rows);
    return rows;
  }();
  return models;
}

const Model& find_model(std::string_view name) {
  for (const Model& model : catalog()) {
    if (model.name == name) return model;
  }
  // Names longer than any valid one are truncated in the message.
  constexpr size_t longest = 60;
  const std::string shown(name.substr(0, longest));
  throw ModelError(concat("there is no network named '", shown, name.size() > longest ? "…" : "",
                          "'; the nearest names are ", join(nearest_names(shown, 4)), " (",
                          catalog().size(), " networks in all)"));
}

Graph build_graph(std::string_view name, const ModelOptions& options) {
  const Model& model = find_model(name);
  return std::visit(
      [&](const auto& config) {
        return build(model.name, config, input_of(options, model.input_size),
                     options.classes.value_or(model.classes));
      },
      model.config);
}

Graph build_graph(std::string name, const ModelConfig& config, const ModelOptions& options) {
  return std::visit(
      [&](const auto& parameters) {
        return build(std::move(name), parameters, input_of(options, 224),
                     options.classes.value_or(1000));
      },
      config);
}

}  // namespace resrt

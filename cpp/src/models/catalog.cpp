#include <algorithm>
#include <array>
#include <cctype>
#include <map>
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

struct Depth {
  int layers;
  Block block;
  std::vector<int> depths;
};

const std::vector<Depth>& depths() {
  static const std::vector<Depth> table = {
      {18, Block::basic, {2, 2, 2, 2}},        {26, Block::bottleneck, {2, 2, 2, 2}},
      {34, Block::basic, {3, 4, 6, 3}},        {50, Block::bottleneck, {3, 4, 6, 3}},
      {101, Block::bottleneck, {3, 4, 23, 3}}, {152, Block::bottleneck, {3, 8, 36, 3}},
      {200, Block::bottleneck, {3, 24, 36, 3}}};
  return table;
}

ResNetConfig plain(const Depth& depth) {
  return {.depths = depth.depths, .block = depth.block};
}

// Variant c has the deep stem. Variant d (PaddleClas's vd) also has average pooling in the
// shortcuts.
ResNetConfig variant_c(const Depth& depth) {
  ResNetConfig config = plain(depth);
  config.stem = Stem::deep;
  return config;
}

ResNetConfig variant_d(const Depth& depth) {
  ResNetConfig config = variant_c(depth);
  config.downsample = Downsample::average_pool;
  return config;
}

// PaddleClas has a convolution in the first shortcut of the first stage even if the shapes already
// match, and other depths for ResNet200.
ResNetConfig paddle(ResNetConfig config) {
  config.project_first = true;
  if (config.depths == std::vector{3, 24, 36, 3}) config.depths = {3, 12, 48, 3};
  return config;
}

void add_resnets(std::vector<Model>& models) {
  const auto add = [&](const std::string& name, const char* source, const ResNetConfig& config,
                       int size = 224) {
    models.push_back({name, "ResNet", source, size, config});
  };

  // Published names for other weights of the same architecture.
  const std::map<int, std::vector<std::string>> distilled = {
      {34, {"ResNet34_vd_ssld"}},
      {50, {"ResNet50_vd_v2", "ResNet50_vd_ssld", "ResNet50_vd_ssld_v2"}},
      {101, {"ResNet101_vd_ssld"}}};

  for (const Depth& depth : depths()) {
    const std::string name = concat("ResNet", depth.layers);
    if (depth.layers == 26) continue;
    if (depth.layers != 200) {
      add(name, kPaddle, paddle(plain(depth)));
      add(name + "_vc", kPaddle, paddle(variant_c(depth)));
    }
    add(name + "_vd", kPaddle, paddle(variant_d(depth)));
    if (const auto rows = distilled.find(depth.layers); rows != distilled.end()) {
      for (const std::string& row : rows->second) add(row, kPaddle, paddle(variant_d(depth)));
    }
    if (depth.layers == 50) add("Fix_ResNet50_vd_ssld_v2", kPaddle, paddle(variant_d(depth)), 320);
  }
  for (const Depth& depth : depths()) {
    const std::string name = concat("resnet", depth.layers);
    add(name, kTimm, plain(depth));
    add(name + "c", kTimm, variant_c(depth));
    add(name + "d", kTimm, variant_d(depth), depth.layers > 100 ? 256 : 224);
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

// A RegNet and its names in PaddleClas, timm and torchvision.
struct RegNetRow {
  const char* size;
  const char* timm;
  const char* torchvision;  // "" if torchvision has none
  RegNetConfig config;
};

void add_regnets(std::vector<Model>& models, char kind, const std::vector<RegNetRow>& rows) {
  const bool is_y = kind == 'Y';
  const std::string family = concat("RegNet", kind);
  const char lower = is_y ? 'y' : 'x';
  const auto add_all = [&](const char* source, auto name_of) {
    for (const RegNetRow& row : rows) {
      const std::string name = name_of(row);
      if (name.empty()) continue;
      RegNetConfig config = row.config;
      config.squeeze_excite = is_y;
      if (source == kTorchvision) config.min_width_ratio = 0.9;
      models.push_back({name, family, source, 224, config});
    }
  };
  // PaddleClas has no RegNetY, so the names in its style are timm's networks.
  add_all(is_y ? kTimm : kPaddle,
          [&](const RegNetRow& row) { return concat(family, "_", row.size); });
  add_all(kTimm, [&](const RegNetRow& row) { return concat("regnet", lower, "_", row.timm); });
  add_all(kTorchvision, [&](const RegNetRow& row) {
    return *row.torchvision ? concat("regnet_", lower, "_", row.torchvision) : std::string();
  });
}

void add_regnets(std::vector<Model>& models) {
  // depth, width_initial, width_slope, width_multiplier, group_width
  add_regnets(models, 'X',
              {{"200MF", "002", "", {13, 24, 36.44, 2.49, 8}},
               {"400MF", "004", "400mf", {22, 24, 24.48, 2.54, 16}},
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
              {{"200MF", "002", "", {13, 24, 36.44, 2.49, 8}},
               {"400MF", "004", "400mf", {16, 48, 27.89, 2.09, 8}},
               {"600MF", "006", "", {15, 48, 32.54, 2.32, 16}},
               {"800MF", "008", "800mf", {14, 56, 38.84, 2.4, 16}},
               {"1600MF", "016", "1_6gf", {27, 48, 20.71, 2.65, 24}},
               {"3200MF", "032", "3_2gf", {21, 80, 42.63, 2.66, 24}},
               {"4GF", "040", "", {22, 96, 31.41, 2.24, 64}},
               {"6400MF", "064", "", {25, 112, 33.22, 2.27, 72}},
               {"8GF", "080", "8gf", {17, 192, 76.82, 2.19, 56}},
               {"12GF", "120", "", {19, 168, 73.36, 2.37, 112}},
               {"16GF", "160", "16gf", {18, 200, 106.23, 2.48, 112}},
               {"32GF", "320", "32gf", {20, 232, 115.89, 2.53, 232}}});
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
        return build(model.name, config, input_of(options, model.input_size), options.classes);
      },
      model.config);
}

Graph build_graph(std::string name, const ModelConfig& config, const ModelOptions& options) {
  return std::visit(
      [&](const auto& parameters) {
        return build(std::move(name), parameters, input_of(options, 224), options.classes);
      },
      config);
}

}  // namespace resrt

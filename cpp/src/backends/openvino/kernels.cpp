#include "backends/openvino/kernels.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <random>
#include <set>
#include <utility>

#include "backends/openvino/profile.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt::openvino {
namespace {

using Clock = std::chrono::steady_clock;

// A set of kernels: the list of names that OpenVINO tries first. It skips those that the processor,
// the type or the shape does not allow, and continues with its own list, which prefers kernels
// named brgconv. With jit_gemm, ResNet50 takes 100 times as long in bf16, and in fp32 OpenVINO
// takes other kernels instead.
struct KernelSet {
  const char* name;
  const char* priorities;
};
constexpr KernelSet kOwnKernels = {"", ""};
constexpr std::array kKernelSets = {
    kOwnKernels,
    KernelSet{"direct",
              "cpu:jit_avx512_amx_1x1,cpu:jit_avx512_amx,cpu:jit_avx512_1x1,cpu:jit_avx512,"
              "cpu:jit_avx2_1x1,cpu:jit_avx2"},
};

// Rounds of measuring, unless the time is over before.
constexpr int kRounds = 10;
constexpr int kFewestRounds = 4;
// A choice that saves less than this is not worth a difference from OpenVINO's own.
constexpr double kLeastGain = 0.01;

// The least time is the one with the least work of other processes in it.
double least(const std::vector<double>& times) {
  return *std::min_element(times.begin(), times.end());
}

std::string side_text(const Shape& shape) {
  return concat(shape.height, "x", shape.width);
}

// The convolutions that are expected to be fastest with the same kernels.
std::string kind_of(const Conv2d& conv, const Shape& input, const Shape& output) {
  std::string text = concat(conv.kernel, "x", conv.kernel);
  if (conv.stride > 1) text += concat(", stride ", conv.stride);
  if (conv.groups > 1) text += concat(", ", input.channels / conv.groups, " channels per group");
  return text + ", to " + side_text(output);
}

// Engine files list the layers of a kind with spaces between them.
bool can_be_listed(const std::string& name) {
  return std::none_of(name.begin(), name.end(), [](char c) { return c >= 0 && c <= ' '; });
}

struct Kind {
  std::string name;
  std::vector<std::string> layers;
};

std::vector<Kind> kinds_of(const Graph& graph) {
  std::vector<Kind> kinds;
  for (const Layer& layer : graph.layers()) {
    const auto* conv = std::get_if<Conv2d>(&layer.definition);
    if (conv == nullptr || !can_be_listed(layer.name)) continue;
    const std::string name = kind_of(*conv, graph.shape(layer.inputs.front()), layer.shape);
    auto found = std::find_if(kinds.begin(), kinds.end(),
                              [&](const Kind& kind) { return kind.name == name; });
    if (found == kinds.end()) found = kinds.insert(kinds.end(), {name, {}});
    found->layers.push_back(layer.name);
  }
  return kinds;
}

// The network, loaded with certain kernels, and what its inferences took.
class Candidate {
 public:
  Candidate(std::unique_ptr<Executable> executable, const EngineInfo& info)
      : executable_(std::move(executable)), context_(executable_->create_context()) {
    for (const EngineOutput& output : info.outputs) {
      memory_.emplace_back(static_cast<size_t>(output.size() * info.max_batch));
      outputs_.push_back(memory_.back().data());
    }
  }

  void measure(const float* images, int batch) {
    const auto start = Clock::now();
    infer(images, batch);
    const std::chrono::duration<double, std::milli> taken = Clock::now() - start;
    totals_[batch].push_back(taken.count());
    std::map<std::string, double> of_layers;
    for (const StepTime& step : context_->profile(batch)) {
      if (step.type != "Convolution") continue;
      for (const std::string& layer : step.layers) {
        of_layers[layer] += step.ms;
        kernels_[layer] = step.kernel;
      }
    }
    for (const auto& [layer, ms] : of_layers) layers_[batch][layer].push_back(ms);
  }

  double total(int batch) const { return least(totals_.at(batch)); }

  double time(const Kind& kind, int batch) const {
    double sum = 0;
    for (const std::string& layer : kind.layers) {
      const auto& of_batch = layers_.at(batch);
      if (const auto found = of_batch.find(layer); found != of_batch.end()) {
        sum += least(found->second);
      }
    }
    return sum;
  }

  void infer(const float* images, int batch) { context_->infer(images, batch, outputs_.data()); }

  // The names of the kernels that a kind ran by.
  std::string kernels(const Kind& kind) const {
    std::set<std::string> names;
    for (const std::string& layer : kind.layers) {
      if (const auto found = kernels_.find(layer); found != kernels_.end()) {
        names.insert(found->second);
      }
    }
    return join(names, " and ");
  }

 private:
  std::unique_ptr<Executable> executable_;
  std::unique_ptr<Context> context_;
  std::vector<std::vector<float>> memory_;
  std::vector<float*> outputs_;
  std::map<int, std::vector<double>> totals_;                         // by batch size
  std::map<int, std::map<std::string, std::vector<double>>> layers_;  // then by layer
  std::map<std::string, std::string> kernels_;                        // by layer
};

class Choosing {
 public:
  Choosing(const Graph& graph, const EngineInfo& info, double seconds, const Progress& progress,
           const LoadWithKernels& load)
      : kinds_(kinds_of(graph)),
        info_(info),
        progress_(progress),
        load_(load),
        start_(Clock::now()),
        seconds_(seconds),
        batches_(info.max_batch > 1 ? std::vector{1, info.max_batch} : std::vector{1}),
        images_(static_cast<size_t>(info.input.size() * info.max_batch)) {
    // Zeros and subnormal numbers could take another time than photographs do.
    std::mt19937 random;
    std::normal_distribution<float> normal;
    std::generate(images_.begin(), images_.end(), [&] { return normal(random); });
  }

  std::vector<KernelChoice> run() {
    if (kinds_.empty()) return {};
    std::vector<Candidate> candidates;
    for (const KernelSet& set : kKernelSets) candidates.push_back(load(all_by(set)));
    constexpr double share_of_kinds = 0.7;  // of the time; the rest is for the verification
    measure(candidates, share_of_kinds * seconds_);
    std::vector<KernelChoice> choices = choose(candidates);
    const auto is_own = [](const KernelChoice& choice) { return choice.priorities.empty(); };
    if (std::all_of(choices.begin(), choices.end(), is_own)) return {};

    // The kernels of one convolution also determine the memory layout of the next one's input, so
    // that only the whole network shows what the choice is worth.
    std::vector<Candidate> whole;
    whole.push_back(load({}));
    whole.push_back(load(choices));
    measure(whole, seconds_);
    double ratio = 0;
    for (const int batch : batches_) ratio += whole[1].total(batch) / whole[0].total(batch);
    const bool is_faster = ratio / static_cast<double>(batches_.size()) < 1 - kLeastGain;
    return is_faster ? choices : std::vector<KernelChoice>();
  }

 private:
  // Loads the network and runs each batch size once, which takes longer than later inferences.
  Candidate load(const std::vector<KernelChoice>& kernels) {
    Candidate candidate(load_(kernels), info_);
    for (const int batch : batches_) candidate.infer(images_.data(), batch);
    if (batches_.size() > 1) {
      const auto start = Clock::now();
      candidate.infer(images_.data(), batches_.back());
      const std::chrono::duration<double> taken = Clock::now() - start;
      const double inferences = kFewestRounds * (kKernelSets.size() + 2);
      if (inferences * taken.count() > seconds_) batches_.pop_back();
    }
    return candidate;
  }

  std::vector<KernelChoice> all_by(const KernelSet& set) const {
    std::vector<KernelChoice> choices;
    for (const Kind& kind : kinds_) {
      choices.push_back({.kind = kind.name,
                         .layers = kind.layers,
                         .kernel = set.name,
                         .priorities = set.priorities,
                         .times = {}});
    }
    return choices;
  }

  // Measures all candidates in rounds, in both orders in turn, until so many seconds have passed
  // since the start.
  void measure(std::vector<Candidate>& candidates, double until) const {
    for (int round = 0; round < kRounds; ++round) {
      report(round);
      for (const int batch : batches_) {
        for (Candidate& candidate : candidates) candidate.measure(images_.data(), batch);
      }
      std::reverse(candidates.begin(), candidates.end());
      const std::chrono::duration<double> passed = Clock::now() - start_;
      const bool is_in_order = round % 2 == 1;
      if (is_in_order && round + 1 >= kFewestRounds && passed.count() > until) return;
    }
  }

  std::vector<KernelChoice> choose(const std::vector<Candidate>& candidates) const {
    std::vector<KernelChoice> choices;
    for (const Kind& kind : kinds_) {
      const Candidate& own = candidates.front();
      // The sum over the batch sizes of the time in units of that of OpenVINO's own kernels.
      const auto cost = [&](const Candidate& candidate) {
        double sum = 0;
        for (const int batch : batches_) {
          const double reference = own.time(kind, batch);
          sum += reference > 0 ? candidate.time(kind, batch) / reference : 1;
        }
        return sum;
      };
      size_t best = 0;
      for (size_t i = 1; i < candidates.size(); ++i) {
        if (cost(candidates[i]) < (1 - kLeastGain) * cost(candidates[best])) best = i;
      }
      KernelChoice choice{.kind = kind.name,
                          .layers = kind.layers,
                          .kernel = candidates[best].kernels(kind),
                          .priorities = kKernelSets[best].priorities,
                          .times = {}};
      for (const int batch : batches_) {
        choice.times.push_back({batch, candidates[best].time(kind, batch), own.time(kind, batch)});
      }
      choices.push_back(std::move(choice));
    }
    return choices;
  }

  void report(int round) const {
    if (progress_ && !progress_({"choosing kernels", round, kRounds})) {
      throw BackendError("the build was stopped by the caller");
    }
  }

  std::vector<Kind> kinds_;
  const EngineInfo& info_;
  const Progress& progress_;
  const LoadWithKernels& load_;
  Clock::time_point start_;
  double seconds_;
  std::vector<int> batches_;
  std::vector<float> images_;
};

// Returns a text as the value of an attribute in XML.
std::string escaped(const std::string& text) {
  std::string result;
  for (const char character : text) {
    switch (character) {
      case '&': result += "&amp;"; break;
      case '<': result += "&lt;"; break;
      case '>': result += "&gt;"; break;
      case '"': result += "&quot;"; break;
      default: result += character;
    }
  }
  return result;
}

// Returns the value of an attribute of an XML tag, or nothing.
std::string_view attribute(std::string_view tag, const std::string& name) {
  const std::string start = " " + name + "=\"";
  const size_t begin = tag.find(start);
  if (begin == std::string_view::npos) return {};
  const std::string_view value = tag.substr(begin + start.size());
  return value.substr(0, value.find('"'));
}

}  // namespace

std::string with_kernels(const std::string& xml, const std::vector<KernelChoice>& kernels) {
  std::map<std::string, std::string, std::less<>> priorities;  // by layer
  for (const KernelChoice& choice : kernels) {
    if (choice.priorities.empty()) continue;
    for (const std::string& layer : choice.layers) {
      priorities.emplace(escaped(layer), choice.priorities);
    }
  }
  if (priorities.empty()) return xml;
  std::string result;
  result.reserve(xml.size() + xml.size() / 8);
  constexpr std::string_view layer_tag = "<layer ";
  constexpr std::string_view data_tag = "<data";
  size_t copied = 0;
  for (size_t at = xml.find(layer_tag); at != std::string::npos;
       at = xml.find(layer_tag, at + layer_tag.size())) {
    const std::string_view tag = std::string_view(xml).substr(at, xml.find('>', at) - at);
    const std::string_view type = attribute(tag, "type");
    if (type != "Convolution" && type != "GroupConvolution") continue;
    const auto found = priorities.find(layer_of_node(attribute(tag, "name")));
    if (found == priorities.end()) continue;
    const size_t end = xml.find(data_tag, at) + data_tag.size();
    result.append(xml, copied, end - copied);
    result += concat(" PrimitivesPriority=\"", found->second, "\"");
    copied = end;
  }
  return result.append(xml, copied);
}

std::vector<KernelChoice> choose_kernels(const Graph& graph, const EngineInfo& info, double seconds,
                                         const Progress& progress, const LoadWithKernels& load) {
  return Choosing(graph, info, seconds, progress, load).run();
}

}  // namespace resrt::openvino

#include "backends/openvino/kernels.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <numeric>
#include <optional>
#include <random>
#include <set>
#include <span>
#include <utility>

#include "resrt/error.h"
#include "resrt/log.h"
#include "text.h"

namespace resrt::openvino {
namespace {

using Seconds = std::chrono::duration<double>;

// A set of kernels: the list of names that OpenVINO tries first. It skips those that the processor,
// the type or the shape does not allow, and continues with its own list, which prefers kernels
// named brgconv. With jit_gemm, ResNet50 takes 100 times as long in bf16, and in fp32 OpenVINO
// takes other kernels instead. If none of the names is allowed, it may take its reference kernels:
// in fp16, where no kernel is named jit_avx512, these take hundreds of times as long.
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
// The share of the time for measuring the sets; the rest is for the verification of the choice.
constexpr double kShareOfKinds = 0.7;
// The factor by which the time may be exceeded to complete the fewest rounds, because only the time
// of the inferences can be estimated, not that of other processes.
constexpr double kMargin = 1.3;
// A set that takes so many times as long as OpenVINO's own is given up in its first inference, but
// not before this time: a short inference is easily disturbed.
constexpr double kFarSlower = 4;
constexpr Seconds kLeastLimit(0.5);
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
  Candidate(std::unique_ptr<Executable> executable, const EngineInfo& info, const Now& now)
      : executable_(std::move(executable)), context_(executable_->create_context()), now_(&now) {
    for (const EngineOutput& output : info.outputs) {
      memory_.emplace_back(static_cast<size_t>(output.size() * info.max_batch));
      outputs_.push_back(memory_.back().data());
    }
  }

  // Returns what an inference took, or nothing if it was stopped because it took longer than the
  // limit.
  std::optional<Seconds> infer(const float* images, int batch, Seconds limit) {
    const auto start = (*now_)();
    if (!context_->infer_within(limit, images, batch, outputs_.data())) return std::nullopt;
    return (*now_)() - start;
  }

  void measure(const float* images, int batch) {
    const auto start = (*now_)();
    context_->infer(images, batch, outputs_.data());
    const std::chrono::duration<double, std::milli> taken = (*now_)() - start;
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

  // Forgets what was measured so far.
  void forget() {
    totals_.clear();
    layers_.clear();
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
  const Now* now_;
  std::vector<std::vector<float>> memory_;
  std::vector<float*> outputs_;
  std::map<int, std::vector<double>> totals_;                         // by batch size
  std::map<int, std::map<std::string, std::vector<double>>> layers_;  // then by layer
  std::map<std::string, std::string> kernels_;                        // by layer
};

class Choosing {
 public:
  Choosing(const Graph& graph, const EngineInfo& info, Seconds time, const Progress& progress,
           const LoadWithKernels& load, const Now& now)
      : kinds_(kinds_of(graph)),
        info_(info),
        progress_(progress),
        load_(load),
        now_(now),
        start_(now()),
        time_(time),
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
    std::optional<Candidate> own = load_own();
    if (!own) return without_time();
    candidates.push_back(std::move(*own));
    for (const KernelSet& set : std::span(kKernelSets).subspan(1)) {
      std::optional<Candidate> other = load(all_by(set));
      if (!other) return {};
      candidates.push_back(std::move(*other));
    }
    const Seconds until = std::min(kShareOfKinds * time_, time_ - estimate_of_verification());
    if (!measure(candidates, until)) return without_time();
    std::vector<KernelChoice> choices = choose(candidates);
    const auto is_own = [](const KernelChoice& choice) { return choice.priorities.empty(); };
    if (std::all_of(choices.begin(), choices.end(), is_own)) return {};

    // The kernels of one convolution also determine the memory layout of the next one's input, so
    // that only the whole network shows what the choice is worth.
    candidates.erase(candidates.begin() + 1, candidates.end());
    candidates.front().forget();
    std::optional<Candidate> chosen = load(choices);
    if (!chosen) return {};
    candidates.push_back(std::move(*chosen));
    if (!measure(candidates, time_)) return without_time();
    double ratio = 0;
    for (const int batch : batches_) {
      ratio += candidates[1].total(batch) / candidates[0].total(batch);
    }
    const bool is_faster = ratio / static_cast<double>(batches_.size()) < 1 - kLeastGain;
    return is_faster ? choices : std::vector<KernelChoice>();
  }

 private:
  // Loads the network with OpenVINO's own kernels, and leaves out the largest batch if there is no
  // time to measure it. Returns nothing if there is no time to measure anything.
  std::optional<Candidate> load_own() {
    report(0);
    Candidate own(load_({}), info_, now_);
    loading_ = passed();
    for (const int batch : batches_) {
      constexpr double largest_share = 0.25;
      const Seconds left = kMargin * time_ - passed();
      const bool is_large =
          !first_inference_.empty() && first_inference_.front() * batch > largest_share * left;
      if (is_large || left <= Seconds(0)) break;
      const auto first = own.infer(images_.data(), batch, left);
      const auto second = first ? own.infer(images_.data(), batch, left) : std::nullopt;
      if (!second) break;
      first_inference_.push_back(*first);
      inference_.push_back(*second);
    }
    while (!first_inference_.empty() && passed() + estimate() > kMargin * time_) {
      first_inference_.pop_back();
      inference_.pop_back();
    }
    if (first_inference_.empty()) return std::nullopt;
    batches_.resize(first_inference_.size());
    return own;
  }

  // Loads the network with certain kernels and runs the first inference of each batch size, which
  // takes longer than later ones. Returns nothing if one takes far longer than by OpenVINO's own
  // kernels.
  std::optional<Candidate> load(const std::vector<KernelChoice>& kernels) {
    report(0);
    Candidate candidate(load_(kernels), info_, now_);
    for (size_t i = 0; i < batches_.size(); ++i) {
      const Seconds limit = std::max(kFarSlower * first_inference_[i], kLeastLimit);
      if (!candidate.infer(images_.data(), batches_[i], limit)) return std::nullopt;
    }
    return candidate;
  }

  Seconds passed() const { return now_() - start_; }

  // What the fewest rounds with so many candidates take, and to load one of them before, by the
  // times of OpenVINO's own kernels.
  Seconds estimate_of_rounds(size_t candidates) const {
    const auto rounds = static_cast<double>(kFewestRounds * candidates);
    return rounds * std::accumulate(inference_.begin(), inference_.end(), Seconds());
  }
  Seconds estimate_of_loading() const {
    return std::accumulate(first_inference_.begin(), first_inference_.end(), loading_);
  }
  Seconds estimate_of_verification() const { return estimate_of_loading() + estimate_of_rounds(2); }
  // What is left to do once OpenVINO's own kernels are loaded.
  Seconds estimate() const {
    constexpr auto others = static_cast<double>(kKernelSets.size() - 1);
    return others * estimate_of_loading() + estimate_of_rounds(kKernelSets.size()) +
           estimate_of_verification();
  }

  std::vector<KernelChoice> without_time() const {
    log(LogLevel::info, info_.backend,
        concat("the kernels of ", info_.model, " could not be measured in ", time_.count(),
               " seconds; the engine runs by OpenVINO's default kernels, unless it is built with a "
               "longer time (--tune)"));
    return {};
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

  // Measures all candidates in rounds, in both orders in turn, until so much time has passed since
  // the start. Returns whether the fewest rounds were completed before the time was far exceeded.
  bool measure(std::vector<Candidate>& candidates, Seconds until) const {
    for (int round = 0; round < kRounds; ++round) {
      report(round);
      for (const int batch : batches_) {
        for (Candidate& candidate : candidates) {
          candidate.measure(images_.data(), batch);
          if (round < kFewestRounds && passed() > kMargin * time_) return false;
        }
      }
      std::reverse(candidates.begin(), candidates.end());
      const bool is_in_order = round % 2 == 1;
      if (is_in_order && round + 1 >= kFewestRounds && passed() > until) break;
    }
    return true;
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
  const Now& now_;
  std::chrono::steady_clock::time_point start_;
  Seconds time_;
  std::vector<int> batches_;
  // What OpenVINO's own kernels take: to load the network, for the first inference of each batch
  // size, and for the next.
  Seconds loading_{};
  std::vector<Seconds> first_inference_;
  std::vector<Seconds> inference_;
  std::vector<float> images_;
};

}  // namespace

std::vector<KernelChoice> choose_kernels(const Graph& graph, const EngineInfo& info, double seconds,
                                         const Progress& progress, const LoadWithKernels& load,
                                         const Now& now) {
  return Choosing(graph, info, Seconds(seconds), progress, load, now).run();
}

}  // namespace resrt::openvino

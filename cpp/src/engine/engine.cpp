#include "resrt/engine.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <future>
#include <limits>
#include <memory>
#include <optional>
#include <utility>

#include "backends/backend.h"
#include "choices.h"
#include "engine/engine_file.h"
#include "engine/fork.h"
#include "engine/notes.h"
#include "engine/pool.h"
#include "engine/range.h"
#include "engine/registry.h"
#include "images/normalise.h"
#include "resrt/error.h"
#include "resrt/log.h"
#include "text.h"

namespace resrt {
namespace {

constexpr auto kPrecisions =
    choices<PrecisionError, Precision>("precision", {{Precision::automatic, "auto"},
                                                     {Precision::fp32, "fp32"},
                                                     {Precision::tf32, "tf32"},
                                                     {Precision::bf16, "bf16"},
                                                     {Precision::fp16, "fp16"},
                                                     {Precision::int8, "int8"},
                                                     {Precision::fp8, "fp8"}});

std::string names_of(const std::vector<Precision>& precisions) {
  std::vector<std::string> names;
  for (const Precision precision : precisions) names.emplace_back(to_string(precision));
  return join(names);
}

void require_precision(Precision wanted, const Backend& backend, int device,
                       const std::string& backend_name) {
  const std::vector<Precision> available = backend.precisions(device);
  if (std::find(available.begin(), available.end(), wanted) != available.end()) return;
  throw PrecisionError(concat("backend '", backend_name, "' does not support precision ",
                              to_string(wanted), " natively on this device; choose one of ",
                              names_of(available), ", or 'auto' for the fastest of these"));
}

// Throws InputError unless there is a calibration if, and only if, the precision has 8 bits.
void require_calibration(const BuildOptions& options, Precision precision, const Graph& graph) {
  const bool needs_one = precision == Precision::int8 || precision == Precision::fp8;
  if (needs_one && !options.calibration) {
    throw InputError(concat("precision ", to_string(precision),
                            " requires the ranges of the network's tensors; give a calibration"));
  }
  if (!options.calibration) return;
  if (!needs_one) {
    throw InputError(concat("a calibration is only for the precisions int8 and fp8, not ",
                            to_string(precision), "; omit it, or choose one of these"));
  }
  check_calibration(*options.calibration, graph.name(), options.notes.weights_sha256);
}

void require_batch(int64_t batch) {
  if (batch < 0) throw InputError(concat("the batch size must be at least 0, not ", batch));
}

// Whether the engine targets chosen GPUs, which the one in this machine need not be among.
bool has_chosen_targets(const BuildOptions& options) {
  return options.tensorrt && !options.tensorrt->compute_capabilities.empty();
}

void check_load(const Backend& backend, const LoadOptions& options) {
  if (options.threads < 0) {
    throw InputError(concat("threads must be at least 0, not ", options.threads));
  }
  if (options.threads > 0 && options.optimize_for_throughput) {
    throw InputError(
        "an engine that is optimized for throughput has its own threads; leave out "
        "threads");
  }
  backend.check(options);
}

void require_vector(const Graph& graph) {
  const Shape shape = graph.shape(graph.output());
  if (shape.height != 1 || shape.width != 1) {
    throw ModelError(concat("the last layer of ", graph.name(), ", '",
                            graph.layer(graph.output()).name, "', has an output of shape ",
                            shape.channels, "x", shape.height, "x", shape.width,
                            "; a classifier must end in a vector of logits, as from Linear"));
  }
}

std::vector<EngineOutput> outputs_of(const Graph& graph) {
  std::vector<EngineOutput> outputs;
  for (const auto& [name, tensor] : graph.outputs()) {
    const auto [channels, height, width] = graph.shape(tensor);
    outputs.push_back({name, graph.is_vector(tensor)
                                 ? std::vector<int64_t>{channels}
                                 : std::vector<int64_t>{channels, height, width}});
  }
  return outputs;
}

// Returns the images of a batch that have a value that is NaN, or infinite in a precision.
std::vector<int64_t> find_non_finite(const float* images, int64_t batch, int64_t image_size,
                                     Precision precision) {
  const float overflow = overflow_of(precision);
  std::vector<int64_t> found;
  for (int64_t image = 0; image < batch; ++image) {
    if (!all_below(images + image * image_size, image_size, overflow)) found.push_back(image);
  }
  return found;
}

// The normalised values of pictures, before they are inferred; none if the preprocessing of an
// engine has no mean and standard deviation.
class Normalisation {
 public:
  explicit Normalisation(const EngineInfo& info) : pixels_(info.input.height * info.input.width) {
    const Preprocessing& steps = info.notes.preprocessing;
    for (size_t channel = 0; channel < steps.mean.size(); ++channel) {
      values_.push_back(normalised(steps.mean[channel], steps.std[channel], steps.pipeline));
    }
  }

  bool is_empty() const { return values_.empty(); }

  // Writes `batch` pictures as (batch, channels, height, width).
  void apply(const uint8_t* pictures, PixelLayout layout, int batch, float* output) const {
    const auto channels = static_cast<int64_t>(values_.size());
    const bool interleaved = layout == PixelLayout::nhwc;
    const int64_t step = interleaved ? channels : 1;
    for (int64_t image = 0; image < batch; ++image, pictures += channels * pixels_) {
      for (int64_t channel = 0; channel < channels; ++channel) {
        const std::array<float, 256>& values = values_[static_cast<size_t>(channel)];
        const uint8_t* from = pictures + channel * (interleaved ? 1 : pixels_);
        for (int64_t i = 0; i < pixels_; ++i) *output++ = values[from[i * step]];
      }
    }
  }

 private:
  int64_t pixels_;  // of one channel
  std::vector<std::array<float, 256>> values_;
};

// Runs one inference at a time, with memory of its own.
struct Lane {
  std::unique_ptr<Context> context;
  std::vector<float> images;  // normalised pictures
};

// Memory for all outputs of an engine, for what is only measured.
class Buffers {
 public:
  Buffers(const EngineInfo& info, size_t batch) {
    for (const EngineOutput& output : info.outputs) {
      memory_.emplace_back(batch * static_cast<size_t>(output.size()));
      pointers_.push_back(memory_.back().data());
    }
  }
  float* const* pointers() const { return pointers_.data(); }

 private:
  std::vector<std::vector<float>> memory_;
  std::vector<float*> pointers_;
};

// A plan that is loaded onto its device and ready to run.
struct Loaded {
  explicit Loaded(std::unique_ptr<Executable> made)
      : executable(std::move(made)),
        lanes([this] { return std::make_unique<Lane>(executable->create_context()); },
              static_cast<size_t>(executable->concurrency())) {}

  void warm_up(const EngineInfo& info, const std::vector<int>& sizes);

  std::unique_ptr<Executable> executable;
  Pool<Lane> lanes;
};

// The first inference of each batch size allocates what later ones reuse, in each of the lanes that
// run concurrently.
void Loaded::warm_up(const EngineInfo& info, const std::vector<int>& sizes) {
  if (sizes.empty()) return;
  const auto most = static_cast<size_t>(*std::max_element(sizes.begin(), sizes.end()));
  const std::vector<float> images(most * static_cast<size_t>(info.input.size()));
  const auto run_all_sizes = [&] {
    const Buffers buffers(info, most);
    auto lane = lanes.borrow();
    for (const int batch : sizes) lane->context->infer(images.data(), batch, buffers.pointers());
  };
  std::vector<std::future<void>> others;
  for (int i = 1; i < executable->concurrency(); ++i) {
    others.push_back(std::async(std::launch::async, run_all_sizes));
  }
  run_all_sizes();
  for (std::future<void>& other : others) other.get();
  executable->warmed_up();
}

// Deletes a plan, unless this process is a fork of the one that loaded it. Deleting it would then
// wait for threads that exist only there.
struct DeleteLoaded {
  ProcessMark loaded_in;

  void operator()(Loaded* loaded) const {
    if (loaded_in.is_here()) delete loaded;
  }
};
using LoadedPointer = std::unique_ptr<Loaded, DeleteLoaded>;

}  // namespace

const char* to_string(Precision precision) {
  return kPrecisions.name(precision);
}

Precision parse_precision(const std::string& name) {
  return kPrecisions.value(name);
}

std::vector<std::string> precision_names() {
  return kPrecisions.names();
}

DeviceArray::~DeviceArray() = default;

struct Engine::State {
  void load(Backend& backend, const LoadOptions& options) {
    check_sizes(options);
    LoadedPointer ready(new Loaded(backend.load(plan, info, options)));
    ready->warm_up(info, options.warm_up.value_or(ready->executable->warm_sizes()));
    loaded = std::move(ready);
    is_profiled = options.profile;
  }

  Loaded& get_loaded() const {
    if (loaded != nullptr && loaded.get_deleter().loaded_in.is_here()) return *loaded;
    if (loaded != nullptr) throw BackendError(forked_message("this engine was loaded"));
    throw BackendError(concat("this engine was only built, not loaded: ", why_build_only));
  }

  const DeviceAccess& device_access() const {
    if (const DeviceAccess* access = get_loaded().executable->device_access()) return *access;
    throw InputError(concat("backend '", info.backend,
                            "' cannot read GPU memory; copy the batch to CPU memory, or build the "
                            "engine with a backend that runs on a GPU"));
  }

  void check_sizes(const LoadOptions& options) const {
    const auto check = [&](const char* name, const std::vector<int>& sizes) {
      for (const int size : sizes) {
        if (size >= 1 && size <= info.max_batch) continue;
        throw InputError(concat(name, " must have batch sizes from 1 to ", info.max_batch,
                                ", the engine's max_batch, not ", size));
      }
    };
    check("warm_up", options.warm_up.value_or(std::vector<int>()));
    check("batch_sizes", options.batch_sizes);
  }

  // Splits a batch into parts that the executable runs at once, and calls run(lane, images, size,
  // outputs) for each of them.
  template <class Value, class Run>
  void run_in_parts(const Value* images, int64_t batch, std::span<float* const> outputs,
                    const Run& run) const {
    if (batch == 0) return;
    std::vector<float*> at(outputs.begin(), outputs.end());
    Loaded& ready = get_loaded();
    auto lane = ready.lanes.borrow();
    while (batch > 0) {
      const int size = ready.executable->next_part(batch);
      run(*lane, images, size, at.data());
      batch -= size;
      images += size * info.input.size();
      for (size_t i = 0; i < at.size(); ++i) at[i] += size * info.outputs[i].size();
    }
  }

  // Returns the only output. Throws InputError if there are several.
  const EngineOutput& only_output() const {
    if (info.outputs.size() == 1) return info.outputs.front();
    throw InputError(concat("this engine of ", info.model, " has ", info.outputs.size(),
                            " outputs; give infer a pointer for each of them"));
  }

  void check_outputs(std::span<float* const> outputs) const {
    if (outputs.size() == info.outputs.size()) return;
    throw InputError(concat("this engine of ", info.model, " has ", info.outputs.size(),
                            " outputs, not ", outputs.size()));
  }

  // Throws InputError unless the engine can be profiled with a batch of that size.
  void check_profile(int64_t batch, int repeats) const {
    if (!is_profiled) {
      throw InputError("this engine was loaded without counters; load it with the option profile");
    }
    if (batch < 1) throw InputError(concat("batch must be at least 1, not ", batch));
    if (const int64_t part = get_loaded().executable->next_part(batch); part != batch) {
      throw InputError(
          concat("a profile requires a batch that runs at once, but this engine, as it "
                 "was built and loaded, splits ",
                 batch, " images and begins with ", part, "; choose another batch size"));
    }
    if (repeats < 1) throw InputError(concat("repeats must be at least 1, not ", repeats));
  }

  // Returns the number of images in a batch of that many values. Throws InputError if that is not a
  // whole number, or if there is not room for that many logits.
  int64_t count_images(size_t values, size_t room) const;

  EngineInfo info;
  Plan plan;
  LoadedPointer loaded;  // null if the engine was only built
  std::string why_build_only;
  bool is_profiled = false;
  std::optional<Normalisation> normalisation = {};  // set by Engine's constructor
};

Engine::Engine(std::unique_ptr<State> state) : state_(std::move(state)) {
  state_->normalisation.emplace(state_->info);
}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

Engine Engine::build(const Graph& graph, const Weights& given, const BuildOptions& options,
                     const LoadOptions& load) {
  if (options.max_batch < 1 || options.max_batch > kLargestBatch) {
    throw InputError(
        concat("max_batch must be from 1 to ", kLargestBatch, ", not ", options.max_batch));
  }
  if (const double seconds = options.tuning_seconds.value_or(0);
      !std::isfinite(seconds) || seconds < 0) {
    throw InputError(concat("tuning_seconds must be at least 0, not ", seconds));
  }
  const Weights weights = complete_weights(graph, given);
  check_weights(graph, weights);
  require_vector(graph);
  check_notes(options.notes, graph.input_shape(), graph.classes());
  Backend& backend = use_backend(options.backend);
  backend.check(options);
  check_load(backend, load);
  const int device = load.device.value_or(0);
  Precision precision = options.precision;
  if (precision == Precision::automatic) precision = backend.precisions(device).front();
  require_precision(precision, backend, device, options.backend);
  require_calibration(options, precision, graph);
  EngineInfo info = {
      .model = graph.name(),
      .backend = options.backend,
      .backend_version = backend.version(),
      .precision = precision,
      .input = graph.input_shape(),
      .classes = graph.classes(),
      .outputs = outputs_of(graph),
      .max_batch = options.max_batch,
      .version_compatible = backend.has_portable_plans() ||
                            (options.tensorrt && options.tensorrt->version_compatible),
      .layers = graph.table(),
      .notes = options.notes};
  info.notes.preprocessing.input_height = info.input.height;
  info.notes.preprocessing.input_width = info.input.width;
  Plan plan = backend.build(graph, weights, info, options, device);
  auto state = std::make_unique<State>(State{std::move(info), std::move(plan), nullptr, {}, false});
  if (const auto reason = backend.why_build_only()) {
    state->why_build_only = *reason;
  } else {
    try {
      state->load(backend, load);
    } catch (const BackendError& error) {
      if (!has_chosen_targets(options)) throw;
      state->why_build_only = error.what();
    }
  }
  return Engine(std::move(state));
}

EngineInfo inspect(const std::string& path) {
  return read_engine_file(path).info;
}

Engine Engine::load(const std::string& path, const LoadOptions& options) {
  EngineFile file = read_engine_file(path);
  Backend& backend = use_backend(file.info.backend);
  check_load(backend, options);
  const bool other_version = file.info.backend_version != backend.version();
  const std::string versions =
      concat("the engine file '", path, "' was built with ", file.info.backend, " ",
             file.info.backend_version, ", but version ", backend.version(), " is installed");
  if (other_version && !file.info.version_compatible && !backend.has_portable_plans()) {
    throw EngineFileError(concat(versions, "; build it again"));
  }
  require_precision(file.info.precision, backend, options.device.value_or(0), file.info.backend);
  auto state = std::make_unique<State>(
      State{std::move(file.info), std::move(file.plan), nullptr, {}, false});
  try {
    state->load(backend, options);
  } catch (const BackendError& error) {
    if (!other_version) throw;
    throw EngineFileError(concat(versions, ", which cannot load it (", error.what(),
                                 "); build it again, or install the version that built it"));
  }
  if (other_version) log(LogLevel::info, state->info.backend, versions + "; it was compiled again");
  return Engine(std::move(state));
}

void Engine::save(const std::string& path, const std::function<bool()>& stop) const {
  write_engine_file(path, state_->info, state_->plan, stop);
}

const EngineInfo& Engine::info() const {
  return state_->info;
}

std::string_view Engine::plan() const {
  return state_->plan.bytes.view();
}

void Engine::infer(const float* images, int64_t batch, float* logits) const {
  state_->only_output();
  infer(images, batch, std::span(&logits, 1));
}

void Engine::infer(const uint8_t* pixels, PixelLayout layout, int64_t batch, float* logits) const {
  state_->only_output();
  infer(pixels, layout, batch, std::span(&logits, 1));
}

void Engine::infer(const float* images, int64_t batch, std::span<float* const> outputs) const {
  require_batch(batch);
  state_->check_outputs(outputs);
  // A backend's ReLU may replace NaN by 0. The images are tested before they are inferred, because
  // that costs less: it leaves them in the cache.
  const std::vector<int64_t> non_finite =
      find_non_finite(images, batch, info().input.size(), info().precision);
  state_->run_in_parts(images, batch, outputs,
                       [](Lane& lane, const float* from, int size, float* const* to) {
                         lane.context->infer(from, size, to);
                       });
  for (size_t i = 0; i < outputs.size(); ++i) {
    const int64_t values = info().outputs[i].size();
    for (const int64_t image : non_finite) {
      std::fill_n(outputs[i] + image * values, values, std::numeric_limits<float>::quiet_NaN());
    }
  }
}

void Engine::infer(const uint8_t* pixels, PixelLayout layout, int64_t batch,
                   std::span<float* const> outputs) const {
  require_batch(batch);
  state_->check_outputs(outputs);
  const Normalisation& normalisation = *state_->normalisation;
  if (normalisation.is_empty()) {
    throw InputError(concat("the preprocessing of ", info().model,
                            " has no mean and standard deviation to normalise uint8 with; give "
                            "normalised float32"));
  }
  const auto image_size = static_cast<size_t>(info().input.size());
  state_->run_in_parts(pixels, batch, outputs,
                       [&](Lane& lane, const uint8_t* from, int size, float* const* to) {
                         lane.images.resize(static_cast<size_t>(size) * image_size);
                         normalisation.apply(from, layout, size, lane.images.data());
                         lane.context->infer(lane.images.data(), size, to);
                       });
}

std::vector<StepTime> Engine::profile(const float* images, int64_t batch, int repeats,
                                      const std::function<bool()>& stop) const {
  state_->check_profile(batch, repeats);
  const auto size = static_cast<int>(batch);
  const Buffers buffers(info(), static_cast<size_t>(batch));
  auto lane = state_->get_loaded().lanes.borrow();
  lane->context->infer(images, size, buffers.pointers());
  lane->context->profile(size);
  for (int run = 0; run < repeats; ++run) {
    lane->context->infer(images, size, buffers.pointers());
    if (stop && stop()) break;
  }
  return lane->context->profile(size);
}

std::optional<int> Engine::device() const {
  if (state_->loaded == nullptr) return std::nullopt;
  const DeviceAccess* access = state_->loaded->executable->device_access();
  return access == nullptr ? std::nullopt : std::optional(access->device());
}

int Engine::device_of(const void* pointer) const {
  return state_->device_access().device_of(pointer);
}

void Engine::infer_on_device(const float* images, int64_t batch, float* logits,
                             StreamHandle stream) const {
  require_batch(batch);
  state_->device_access();
  state_->only_output();
  state_->run_in_parts(images, batch, std::span(&logits, 1),
                       [&](Lane& lane, const float* from, int size, float* const* to) {
                         lane.context->infer_on_device({from, size, to[0], stream});
                       });
}

std::unique_ptr<DeviceArray> Engine::infer_on_device(const float* images, int64_t batch,
                                                     StreamHandle stream) const {
  require_batch(batch);
  const int64_t values = state_->only_output().size();
  auto logits = state_->device_access().allocate(static_cast<size_t>(batch * values));
  infer_on_device(images, batch, logits->data(), stream);
  logits->mark_end(stream);
  return logits;
}

int64_t Engine::State::count_images(size_t values, size_t room) const {
  const Shape& input = info.input;
  const auto image = static_cast<size_t>(input.size());
  const EngineOutput& output = only_output();
  const auto expected = static_cast<size_t>(output.size());
  const size_t batch = values / image;
  if (values % image != 0) {
    throw InputError(concat(info.model, " takes images of ", input.channels, "x", input.height, "x",
                            input.width, " = ", image, " values, but got ", values,
                            " values, which is not a multiple of that"));
  }
  if (room != batch * expected) {
    throw InputError(concat("a batch of ", batch, " images has ", batch, "x", expected, " ",
                            output.name, ", but the output has room for ", room));
  }
  return static_cast<int64_t>(batch);
}

void Engine::infer(std::span<const float> images, std::span<float> logits) const {
  infer(images.data(), state_->count_images(images.size(), logits.size()), logits.data());
}

void Engine::infer(std::span<const uint8_t> pixels, PixelLayout layout,
                   std::span<float> logits) const {
  infer(pixels.data(), layout, state_->count_images(pixels.size(), logits.size()), logits.data());
}

std::vector<float> Engine::infer(std::span<const float> images) const {
  const size_t batch = images.size() / static_cast<size_t>(info().input.size());
  std::vector<float> logits(batch * static_cast<size_t>(state_->only_output().size()));
  infer(images, logits);
  return logits;
}

std::vector<float> Engine::infer(std::span<const uint8_t> pixels, PixelLayout layout) const {
  const size_t batch = pixels.size() / static_cast<size_t>(info().input.size());
  std::vector<float> logits(batch * static_cast<size_t>(state_->only_output().size()));
  infer(pixels, layout, logits);
  return logits;
}

}  // namespace resrt

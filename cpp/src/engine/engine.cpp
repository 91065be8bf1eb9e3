#include "resrt/engine.h"

#include <algorithm>
#include <future>
#include <memory>
#include <utility>

#include "backends/backend.h"
#include "choices.h"
#include "engine/engine_file.h"
#include "engine/notes.h"
#include "engine/pool.h"
#include "engine/registry.h"
#include "resrt/error.h"
#include "text.h"

namespace resrt {
namespace {

constexpr auto kPrecisions =
    choices<PrecisionError, Precision>("precision", {{Precision::automatic, "auto"},
                                                     {Precision::fp32, "fp32"},
                                                     {Precision::tf32, "tf32"},
                                                     {Precision::bf16, "bf16"},
                                                     {Precision::fp16, "fp16"}});

std::string names_of(const std::vector<Precision>& precisions) {
  std::vector<std::string> names;
  for (const Precision precision : precisions) names.emplace_back(to_string(precision));
  return join(names);
}

void require_precision(Precision wanted, const Backend& backend, int device,
                       const std::string& backend_name) {
  const std::vector<Precision> available = backend.precisions(device);
  if (std::find(available.begin(), available.end(), wanted) != available.end()) return;
  throw PrecisionError(concat("this device does not compute ", to_string(wanted), " natively in ",
                              backend_name, "; it has ", names_of(available),
                              ", and 'auto' takes the fastest of these"));
}

void require_batch(int64_t batch) {
  if (batch < 0) throw InputError(concat("a batch cannot have ", batch, " images"));
}

// Whether the GPU here need not be one of those that the engine is for.
bool is_for_named_gpus(const BuildOptions& options) {
  return options.tensorrt && !options.tensorrt->compute_capabilities.empty();
}

void require_vector(const Graph& graph) {
  const Shape shape = graph.shape(graph.output());
  if (shape.height != 1 || shape.width != 1) {
    throw ModelError(concat("the last layer of ", graph.name(), ", '",
                            graph.layer(graph.output()).name, "', yields ", shape.channels, "x",
                            shape.height, "x", shape.width,
                            "; a classifier ends in a vector of logits, as Linear yields it"));
  }
}

// A plan on its device, ready to run.
struct Loaded {
  explicit Loaded(std::unique_ptr<Executable> made)
      : executable(std::move(made)),
        batch_sizes(executable->batch_sizes()),
        contexts([this] { return executable->create_context(); },
                 static_cast<size_t>(executable->concurrency())) {}

  void warm_up(const EngineInfo& info);

  std::unique_ptr<Executable> executable;
  std::vector<int> batch_sizes;
  Pool<Context> contexts;
};

// The first inference at a size allocates what the later ones find ready, in each context that runs
// at the same time as others.
void Loaded::warm_up(const EngineInfo& info) {
  const auto most = static_cast<size_t>(info.max_batch);
  const std::vector<float> images(most * static_cast<size_t>(info.input.size()));
  const auto run_all_sizes = [&] {
    std::vector<float> logits(most * static_cast<size_t>(info.classes));
    auto context = contexts.borrow();
    for (const int batch : executable->warm_sizes()) {
      context->infer(images.data(), batch, logits.data());
    }
  };
  std::vector<std::future<void>> others;
  for (int i = 1; i < executable->concurrency(); ++i) {
    others.push_back(std::async(std::launch::async, run_all_sizes));
  }
  run_all_sizes();
  for (std::future<void>& other : others) other.get();
  executable->warmed_up();
}

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
    auto ready = std::make_unique<Loaded>(backend.load(plan, info, options));
    ready->warm_up(info);
    loaded = std::move(ready);
  }

  Loaded& get_loaded() const {
    if (loaded != nullptr) return *loaded;
    throw BackendError(concat("this engine was only built, not loaded: ", why_build_only));
  }

  const DeviceAccess& device_access() const {
    if (const DeviceAccess* access = get_loaded().executable->device_access()) return *access;
    throw InputError(concat("this engine runs on ", info.backend,
                            ", which does not read a GPU's memory; copy the batch to the "
                            "processor's, or build the engine for a GPU's backend"));
  }

  // Calls run(context, images, size, logits) for the parts of a batch, in the sizes that there are.
  template <class Run>
  void run_in_parts(const float* images, int64_t batch, float* logits, const Run& run) const {
    if (batch == 0) return;
    Loaded& ready = get_loaded();
    auto context = ready.contexts.borrow();
    for (const int size : ready.batch_sizes) {
      for (; batch >= size; batch -= size) {
        run(*context, images, size, logits);
        images += size * info.input.size();
        logits += size * int64_t{info.classes};
      }
    }
  }

  EngineInfo info;
  Plan plan;
  std::unique_ptr<Loaded> loaded;  // null where it was only built
  std::string why_build_only;
};

Engine::Engine(std::unique_ptr<State> state) : state_(std::move(state)) {}
Engine::Engine(Engine&&) noexcept = default;
Engine& Engine::operator=(Engine&&) noexcept = default;
Engine::~Engine() = default;

Engine Engine::build(const Graph& graph, const Weights& weights, const BuildOptions& options,
                     const LoadOptions& load) {
  if (options.max_batch < 1 || options.max_batch > kLargestBatch) {
    throw InputError(
        concat("max_batch must be from 1 to ", kLargestBatch, ", not ", options.max_batch));
  }
  check_weights(graph, weights);
  require_vector(graph);
  check_notes(options.notes, graph.input_shape().channels, graph.classes());
  Backend& backend = find_backend(options.backend);
  backend.check(options);
  backend.check(load);
  const int device = load.device.value_or(0);
  Precision precision = options.precision;
  if (precision == Precision::automatic) precision = backend.precisions(device).front();
  require_precision(precision, backend, device, options.backend);
  EngineInfo info = {.model = graph.name(),
                     .backend = options.backend,
                     .backend_version = backend.version(),
                     .precision = precision,
                     .input = graph.input_shape(),
                     .classes = graph.classes(),
                     .max_batch = options.max_batch,
                     .version_compatible = options.tensorrt && options.tensorrt->version_compatible,
                     .layers = graph.table(),
                     .notes = options.notes};
  Plan plan = backend.build(graph, weights, info, options, device);
  auto state = std::make_unique<State>(State{std::move(info), std::move(plan), nullptr, {}});
  if (const auto reason = backend.why_build_only()) {
    state->why_build_only = *reason;
  } else {
    try {
      state->load(backend, load);
    } catch (const BackendError& error) {
      if (!is_for_named_gpus(options)) throw;
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
  Backend& backend = find_backend(file.info.backend);
  backend.check(options);
  if (file.info.backend_version != backend.version() && !file.info.version_compatible) {
    throw EngineFileError(concat("the engine file '", path, "' was built with ", file.info.backend,
                                 " ", file.info.backend_version, "; here is ", backend.version(),
                                 "; build it again"));
  }
  require_precision(file.info.precision, backend, options.device.value_or(0), file.info.backend);
  auto state =
      std::make_unique<State>(State{std::move(file.info), std::move(file.plan), nullptr, {}});
  state->load(backend, options);
  return Engine(std::move(state));
}

void Engine::save(const std::string& path) const {
  write_engine_file(path, state_->info, state_->plan);
}

const EngineInfo& Engine::info() const {
  return state_->info;
}

std::string_view Engine::plan() const {
  return state_->plan.bytes;
}

void Engine::infer(const float* images, int64_t batch, float* logits) const {
  require_batch(batch);
  state_->run_in_parts(images, batch, logits,
                       [](Context& context, const float* from, int size, float* to) {
                         context.infer(from, size, to);
                       });
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
  state_->run_in_parts(images, batch, logits,
                       [&](Context& context, const float* from, int size, float* to) {
                         context.infer_on_device({from, size, to, stream});
                       });
}

std::unique_ptr<DeviceArray> Engine::infer_on_device(const float* images, int64_t batch,
                                                     StreamHandle stream) const {
  require_batch(batch);
  auto logits = state_->device_access().allocate(static_cast<size_t>(batch) *
                                                 static_cast<size_t>(info().classes));
  infer_on_device(images, batch, logits->data(), stream);
  logits->mark_end(stream);
  return logits;
}

void Engine::infer(std::span<const float> images, std::span<float> logits) const {
  const Shape& input = info().input;
  const auto classes = static_cast<size_t>(info().classes);
  const auto image = static_cast<size_t>(input.size());
  const size_t batch = images.size() / image;
  if (images.size() % image != 0) {
    throw InputError(concat(info().model, " takes images of ", input.channels, "x", input.height,
                            "x", input.width, " = ", image, " floats; ", images.size(),
                            " floats are no whole number of them"));
  }
  if (logits.size() != batch * classes) {
    throw InputError(concat("a batch of ", batch, " images has ", batch, "x", classes,
                            " logits; there is room for ", logits.size()));
  }
  infer(images.data(), static_cast<int64_t>(batch), logits.data());
}

std::vector<float> Engine::infer(std::span<const float> images) const {
  const size_t batch = images.size() / static_cast<size_t>(info().input.size());
  std::vector<float> logits(batch * static_cast<size_t>(info().classes));
  infer(images, logits);
  return logits;
}

}  // namespace resrt

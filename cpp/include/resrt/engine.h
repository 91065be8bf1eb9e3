#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "resrt/device_array.h"
#include "resrt/export.h"
#include "resrt/graph.h"
#include "resrt/images.h"
#include "resrt/tensorrt.h"
#include "resrt/weights.h"

namespace resrt {

// The type that activations and weights are computed in. Inputs and logits are float32 always.
// `automatic`: the fastest that the device computes natively. tf32 is an NVIDIA GPU's way to
// multiply fp32, with 10 bits of fraction.
enum class Precision { automatic, fp32, tf32, bf16, fp16 };

// "auto", "fp32", "tf32", "bf16", "fp16", all of them in precision_names; parse_precision throws
// PrecisionError for anything else.
RESRT_API const char* to_string(Precision precision);
RESRT_API Precision parse_precision(const std::string& name);
RESRT_API std::vector<std::string> precision_names();

// What an engine carries beside its network, for those who use it.
struct EngineNotes {
  std::string weights;         // what the weights were: a file's name, or "random"
  std::string weights_sha256;  // of that file or those arrays, in hexadecimal; may be empty
  std::vector<std::string> labels;
  Preprocessing preprocessing;
};

// The largest max_batch: an engine prepares itself for such a batch when it is loaded.
inline constexpr int kLargestBatch = 1024;

// How far a build has come: `done` of the `steps` of a phase, which the library names. Phases may
// lie within each other.
struct BuildStep {
  std::string phase;
  int done;
  int steps;
};

// Told of each step; returns whether to go on. Called from any thread; must not throw.
using Progress = std::function<bool(const BuildStep& step)>;

struct BuildOptions {
  std::string backend = "openvino";
  Precision precision = Precision::automatic;
  int max_batch = 8;  // the largest batch that runs at once; larger ones are run in parts
  EngineNotes notes;
  std::optional<TensorRTOptions> tensorrt;  // only for the backends of TensorRT
  Progress progress;                        // a backend that knows its steps tells of them
};

struct LoadOptions {
  // Processor threads per inference; 0: one for each core. Where they are fewer than the cores, as
  // many inferences run at once as there is room for; further callers wait for their turn.
  int threads = 0;
  // The GPU's number, only for a backend that runs on one; absent: the first.
  std::optional<int> device = {};
  std::optional<TensorRTLoadOptions> tensorrt = {};  // only for the backends of TensorRT
};

// What an engine is.
struct EngineInfo {
  std::string model;
  std::string backend;
  std::string backend_version;
  Precision precision = Precision::automatic;  // never `automatic` in an engine
  Shape input;
  int classes = 0;
  int max_batch = 0;
  bool version_compatible = false;  // whether later versions of the backend load it too
  std::string layers;               // the graph as text: layers, shapes, costs
  EngineNotes notes;
};

// Reads what an engine file is, without the backend that would run it. Throws FileError where there
// is no such file, EngineFileError where it is no engine, or damaged.
RESRT_API EngineInfo inspect(const std::string& path);

// A network that is ready to run. Its const members are safe to call from many threads at once, and
// each caller waits only where all cores are taken. It cannot be copied, but moved; what was moved
// from may be assigned to or destroyed, no more. It holds what it needs: the graph and the weights
// that it was built from may go.
class RESRT_API Engine {
 public:
  // Builds an engine and loads it, or, where it can be built but not run (see BackendStatus) or is
  // for other GPUs (compute_capabilities), only builds it: such an engine can be saved, but not
  // infer. Throws WeightsError where the weights do not fit the graph, PrecisionError where the
  // device lacks the precision, BackendError where the backend is not installed or fails.
  static Engine build(const Graph& graph, const Weights& weights, const BuildOptions& options = {},
                      const LoadOptions& load = {});

  // Loads an engine file and warms it up. Throws FileError where there is no such file,
  // EngineFileError where it is no engine, damaged, or built for something else.
  static Engine load(const std::string& path, const LoadOptions& options = {});

  // Writes the engine file: whole or, where that fails (FileError), not at all.
  void save(const std::string& path) const;

  const EngineInfo& info() const;

  // What the backend made of the network, in the backend's own format; for those of TensorRT what
  // TensorRT itself loads. As long as the engine lives.
  std::string_view plan() const;

  // Classifies `batch` images, float32 (batch, channels, height, width) in row-major order, into
  // `logits`, float32 (batch, classes), both the caller's memory. Any batch from 0 on.
  // Throws InputError for a negative batch, BackendError where the device fails or is not there.
  void infer(const float* images, int64_t batch, float* logits) const;

  // The same, with the batch told by the images' length. Throws InputError also where that is no
  // multiple of info().input.size(), or `logits` has not exactly classes floats for each image.
  void infer(std::span<const float> images, std::span<float> logits) const;
  std::vector<float> infer(std::span<const float> images) const;

  // The number of the GPU that it runs on; none where it runs on the processor or was only built.
  std::optional<int> device() const;

  // Classifies images that lie in its GPU's memory, as `infer` does others, and returns while the
  // GPU still computes: images are read, and logits written, in the order of `stream`. The images'
  // memory must stay until then, and that of `logits`. The first batch of a size takes longer.
  // Throws InputError for a negative batch and where the engine runs on no GPU.
  void infer_on_device(const float* images, int64_t batch, float* logits,
                       StreamHandle stream) const;
  std::unique_ptr<DeviceArray> infer_on_device(const float* images, int64_t batch,
                                               StreamHandle stream) const;

  // The number of the GPU in whose memory a pointer points. Throws InputError where it is in none.
  int device_of(const void* pointer) const;

  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();

 private:
  struct State;
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// A backend that this build of resrt knows of, and whether it can be used here.
struct BackendStatus {
  std::string name;
  std::string version;                 // of its library; empty if unavailable
  std::vector<Precision> precisions;   // that it computes natively here, the fastest first
  std::optional<std::string> why_not;  // why it is unavailable, with what to do
  // Why engines can be built here, but not run.
  std::optional<std::string> why_build_only;
  std::string install;  // the command that installs its library
  bool runs_on_gpu = false;
};

// Opens each of them. May be called from many threads at once.
RESRT_API std::vector<BackendStatus> backends();

// Their names, which opens none of them.
RESRT_API std::vector<std::string> backend_names();

}  // namespace resrt

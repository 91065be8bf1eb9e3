#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "resrt/calibration.h"
#include "resrt/device_array.h"
#include "resrt/export.h"
#include "resrt/graph.h"
#include "resrt/images.h"
#include "resrt/tensorrt.h"
#include "resrt/weights.h"

namespace resrt {

// The type that activations and weights are computed in. Inputs and logits are always float32.
// `automatic` selects the fastest type that the device supports natively. tf32 is a mode of NVIDIA
// GPUs that multiplies fp32 values with 10 bits of mantissa. int8 and fp8 (E4M3) compute the
// convolutions in 8 bits, with ranges from a calibration, and the rest in the fastest native type;
// `automatic` never selects them.
enum class Precision { automatic, fp32, tf32, bf16, fp16, int8, fp8 };

// Convert between a precision and its name: "auto", "fp32", "tf32", "bf16", "fp16",
// "int8" or "fp8".
// precision_names returns all names. parse_precision throws PrecisionError for any other name.
RESRT_API const char* to_string(Precision precision);
RESRT_API Precision parse_precision(const std::string& name);
RESRT_API std::vector<std::string> precision_names();

// Information that an engine carries for its users, in addition to the network.
struct EngineNotes {
  std::string weights;         // where the weights came from: a file name, or "random"
  std::string weights_sha256;  // hash of that file or those arrays, in hexadecimal; may be empty
  std::vector<std::string> labels;
  Preprocessing preprocessing;
  std::string preprocessing_source;  // who says so, for people to read; may be empty
  std::string
      build_key;  // what a cache knows it by: a hash of all that it depends on; may be empty
};

// The largest supported max_batch.
inline constexpr int kLargestBatch = 1024;

// The progress of a build: `done` of `steps` in a phase, which the library names. Phases may be
// nested.
struct BuildStep {
  std::string phase;
  int done;
  int steps;
};

// Called for each step, from any thread. Returns whether to continue the build. Must not throw.
using Progress = std::function<bool(const BuildStep& step)>;

struct BuildOptions {
  std::string backend = "openvino";
  Precision precision = Precision::automatic;
  int max_batch = 8;  // the largest batch that runs at once; larger batches are split
  EngineNotes notes;
  std::optional<Calibration> calibration;   // only for precisions of 8 bits, which require it
  std::optional<TensorRTOptions> tensorrt;  // only for the TensorRT backends
  // How many seconds to measure, about, which kernels are the fastest; 0 takes the backend's
  // default ones. Absent: 10. Only for OpenVINO; TensorRT always measures.
  std::optional<double> tuning_seconds = {};
  Progress progress;  // called by backends that report their steps
};

struct LoadOptions {
  // CPU threads per inference, only for backends that run on one. 0 uses one per core that the
  // process may use: its affinity and a container's CPU quota count. With fewer threads than cores,
  // as many inferences run concurrently as the cores allow, and further callers wait.
  int threads = 0;
  // Whether many callers matter more than the latency of each. On the CPU, as many inferences then
  // run concurrently as there are cores, with one thread each; `threads` must be 0. A GPU always
  // runs several.
  bool optimize_for_throughput = false;
  // Whether each thread stays on one core. Absent lets the library choose. Only for the CPU.
  std::optional<bool> pin_threads = {};
  // The batch sizes to run once before `load` returns, from 1 to max_batch. The first inference of
  // a size takes longer, because it prepares the kernels for that size. Absent runs the sizes that
  // the backend deems best (OpenVINO: 1), an empty list none.
  std::optional<std::vector<int>> warm_up = {};
  // Only for OpenVINO: the batch sizes to compile the network for, from 1 to max_batch. Each takes
  // memory for the weights again, and other batches are put together from these sizes and 1. The
  // default, an empty list, compiles it once for all sizes.
  std::vector<int> batch_sizes = {};
  // Whether to count the time of each layer, for `Engine::profile`. Counting slows inferences down
  // a little, and they run one at a time. Only for OpenVINO.
  bool profile = false;
  // The number of the GPU, only for backends that run on one. Absent means the first GPU.
  std::optional<int> device = {};
  std::optional<TensorRTLoadOptions> tensorrt = {};  // only for the TensorRT backends
};

// The order of the values of a batch of pictures: (batch, channels, height, width) or (batch,
// height, width, channels).
enum class PixelLayout { nchw, nhwc };

// An output of an engine.
struct EngineOutput {
  std::string name;            // "logits", or as select_outputs (models.h) names it
  std::vector<int64_t> shape;  // for one image: channels, or channels, height and width
  // The number of values for one image.
  int64_t size() const {
    return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
  }
  bool operator==(const EngineOutput&) const = default;
};

// The time per inference of all convolutions of a kind, by the chosen kernels and by those that the
// backend would have taken by itself.
struct KernelTime {
  int batch;
  double ms;
  double default_ms;
};

// The kernels that were measured to be the fastest for a kind of convolution.
struct KernelChoice {
  std::string kind;                 // "3x3, stride 2, to 28x28"
  std::vector<std::string> layers;  // the convolutions of that kind
  std::string kernel;               // the backend's name of the kernel
  std::string priorities;           // how the backend is told; empty if it is its own choice
  std::vector<KernelTime> times;    // when they were chosen
};

// A description of an engine.
struct EngineInfo {
  std::string model;
  std::string backend;
  std::string backend_version;
  Precision precision = Precision::automatic;  // an engine's precision is never `automatic`
  Shape input;
  int classes = 0;  // the number of logits, which need not be among the outputs
  std::vector<EngineOutput> outputs;
  int max_batch = 0;
  // The choice for each kind of convolution, and the processor that it was measured on. Other
  // processors use the backend's default kernels. Empty if these are the fastest or nothing was
  // measured.
  std::vector<KernelChoice> kernels;
  std::string kernels_processor;
  bool version_compatible = false;  // whether other versions of the backend can load it too
  std::string layers;               // the graph as text: layers, shapes and costs
  EngineNotes notes;
};

// The time of a step of an inference, by the backend's own counters. Backends compute several
// layers in one step or a layer in several, and have steps that belong to no layer, such as a
// conversion of the memory layout.
struct StepTime {
  std::string name;  // the backend's name of the step
  std::string type;  // and of its type, such as "Convolution"
  std::vector<std::string>
      layers;          // the names of the network's layers that it computes; may be empty
  std::string kernel;  // and of the kernel that computes it, such as "jit_avx512_1x1_f32"
  double ms = 0;       // per batch, the mean over the inferences
};

// Reads the description in an engine file. The backend need not be installed. Throws FileError if
// the file cannot be read, EngineFileError if it is not an engine file or is damaged.
RESRT_API EngineInfo inspect(const std::string& path);

// A network that is ready to run. Its const members are safe to call from many threads at once;
// callers wait only while all cores are busy. Engines can be moved, but not copied; a moved-from
// engine can only be assigned to or destroyed. An engine keeps no reference to the graph and the
// weights that it was built from. In a process that was forked after an engine was built or loaded,
// its members that compute throw BackendError, and so do `build` and `load` for its backend.
class RESRT_API Engine {
 public:
  // Builds an engine and loads it. If engines can be built but not run here (see BackendStatus), or
  // this one targets other GPUs (compute_capabilities), it is only built: such an engine can be
  // saved, but `infer` throws BackendError. Throws WeightsError if the weights do not fit the
  // graph, PrecisionError if the device does not support the precision, InputError if the backend
  // does not support an option, and BackendError if the backend is not installed or fails.
  static Engine build(const Graph& graph, const Weights& weights, const BuildOptions& options = {},
                      const LoadOptions& load = {});

  // Loads an engine file and warms it up. The file is not needed afterwards. Throws FileError if it
  // cannot be read, EngineFileError if it is not an engine file, is damaged or cannot be used by
  // the installed version of the backend, and PrecisionError, InputError and BackendError as
  // `build` does.
  static Engine load(const std::string& path, const LoadOptions& options = {});

  // Writes the engine file. If that fails, it throws FileError and leaves no partial file behind.
  // If `stop` is given, it is called again and again and says whether to fail instead of writing
  // the rest.
  void save(const std::string& path, const std::function<bool()>& stop = {}) const;

  const EngineInfo& info() const;

  // The compiled network in the backend's own format. For the TensorRT backends it is an engine
  // that TensorRT itself can load. Valid as long as the engine exists.
  std::string_view plan() const;

  // Computes the logits of `batch` images. `images` is float32 (batch, channels, height, width) in
  // row-major order, `logits` is float32 (batch, classes); the caller owns both. The batch may have
  // any size, including 0. If an image has a value that is NaN, or infinite in the engine's
  // precision (65520 and more in fp16), all its logits are NaN; the other images are unaffected.
  // Throws InputError if the batch size is negative, BackendError if the device fails or is
  // missing.
  //
  // If the network's outputs were selected by Graph::set_outputs, `logits` is the memory of the
  // only one, float32 (batch, *info().outputs.front().shape). Throws InputError if there are
  // several.
  void infer(const float* images, int64_t batch, float* logits) const;

  // The same for each of info().outputs: `outputs` has a pointer to the memory of each, in their
  // order. Also throws InputError if it has another number of pointers.
  void infer(const float* images, int64_t batch, std::span<float* const> outputs) const;
  void infer(const uint8_t* pixels, PixelLayout layout, int64_t batch,
             std::span<float* const> outputs) const;

  // The same for pictures of the input's size, as uint8: their values are scaled to 0..1 and
  // normalised by the mean and standard deviation of info().notes.preprocessing. Also throws
  // InputError if the preprocessing has no mean and std.
  void infer(const uint8_t* pixels, PixelLayout layout, int64_t batch, float* logits) const;

  // The same, with the batch size given by the length of `images`. Also throws InputError if that
  // is not a multiple of info().input.size(), or if `logits` does not have info().classes floats
  // per image (or, for another output, as many as it has).
  void infer(std::span<const float> images, std::span<float> logits) const;
  void infer(std::span<const uint8_t> pixels, PixelLayout layout, std::span<float> logits) const;
  std::vector<float> infer(std::span<const float> images) const;
  std::vector<float> infer(std::span<const uint8_t> pixels, PixelLayout layout) const;

  // Infers a batch once without and then `repeats` times with measuring, and returns the time of
  // each step, in the order of execution. If `stop` is given, it is called after each inference and
  // says whether to measure no more. Throws InputError if the engine was loaded without
  // LoadOptions::profile, if it does not run a batch of that size at once, or if repeats is
  // below 1.
  std::vector<StepTime> profile(const float* images, int64_t batch, int repeats = 30,
                                const std::function<bool()>& stop = {}) const;

  // The number of the GPU that the engine runs on. Absent if it runs on the CPU or was only built.
  std::optional<int> device() const;

  // Like `infer`, but for images in the GPU's memory, and asynchronous: images are read and logits
  // are written in the order of `stream`, and the function may return before that. The memory of
  // both must stay valid until then. The first batch of each size takes longer. Throws InputError
  // if the batch is negative or the engine does not run on a GPU.
  void infer_on_device(const float* images, int64_t batch, float* logits,
                       StreamHandle stream) const;
  std::unique_ptr<DeviceArray> infer_on_device(const float* images, int64_t batch,
                                               StreamHandle stream) const;

  // Returns the number of the GPU whose memory a pointer points to. Throws InputError if it does
  // not point to GPU memory.
  int device_of(const void* pointer) const;

  Engine(Engine&&) noexcept;
  Engine& operator=(Engine&&) noexcept;
  ~Engine();

 private:
  struct State;
  explicit Engine(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// A backend that this build of resrt supports, and whether it can be used here.
struct BackendStatus {
  std::string name;
  std::string version;                 // version of its library; empty if unavailable
  std::vector<Precision> precisions;   // what it supports natively here, the fastest first
  std::optional<std::string> why_not;  // why it is unavailable, and what to do about it
  // Why engines can be built here, but not run.
  std::optional<std::string> why_build_only;
  std::string install;  // the command that installs its library
  bool runs_on_gpu = false;
  // Whether it loads engines that other versions of its library built, whatever their options.
  bool loads_other_versions = false;
};

// Opens every backend and returns its status. May be called from many threads at once.
RESRT_API std::vector<BackendStatus> backends();

// Returns the names of the backends without opening them.
RESRT_API std::vector<std::string> backend_names();

}  // namespace resrt

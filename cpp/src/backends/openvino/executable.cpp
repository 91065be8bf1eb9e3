#include "backends/openvino/executable.h"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <map>
#include <utility>
#include <vector>

#include <openvino/runtime/exception.hpp>
#include <openvino/runtime/properties.hpp>

#include "backends/openvino/guard.h"
#include "backends/openvino/profile.h"
#include "cpus.h"
#include "resrt/error.h"

namespace resrt::openvino {
namespace {

// The network compiled for one or more batch sizes, by size. OpenVINO repacks the weights once for
// each of these models, so a single model for all sizes takes the least memory.
struct Models {
  std::map<int, ov::CompiledModel> by_size;
  bool any_size;  // whether the only model also runs every smaller batch
};

// The threads that compute an inference: the caller's alone, or those of OpenVINO's stream.
enum class Runs { in_caller, in_stream };

struct Request {
  ov::InferRequest request;
  Counters counters;
};

class Requests : public Context {
 public:
  Requests(Models& models, const EngineInfo& info, Runs runs)
      : runs_(runs),
        image_{0, static_cast<size_t>(info.input.channels), static_cast<size_t>(info.input.height),
               static_cast<size_t>(info.input.width)},
        outputs_(places(models.by_size.begin()->second, info.outputs)) {
    for (auto& [size, model] : models.by_size) {
      requests_.emplace(
          size, Request{guard("prepare an inference", [&] { return model.create_infer_request(); }),
                        Counters()});
    }
  }

  void infer(const float* images, int batch, float* const* outputs) override {
    run(images, batch, outputs, [this](ov::InferRequest& request) {
      if (runs_ == Runs::in_caller) {
        request.infer();
      } else {
        request.start_async();
        request.wait();
      }
      return true;
    });
  }

  bool infer_within(std::chrono::duration<double> limit, const float* images, int batch,
                    float* const* outputs) override {
    return run(images, batch, outputs, [limit](ov::InferRequest& request) {
      using std::chrono::milliseconds;
      constexpr std::chrono::duration<double> longest = std::chrono::hours(24);  // or it overflows
      const auto wait =
          std::max(milliseconds(0), std::chrono::ceil<milliseconds>(std::min(limit, longest)));
      request.start_async();
      if (request.wait_for(wait)) return true;
      request.cancel();
      try {
        request.wait();
        return true;
      } catch (const ov::Cancelled&) {
        return false;
      }
    });
  }

  std::vector<StepTime> profile(int batch) override {
    auto& [request, counters] = requests_.lower_bound(batch)->second;
    return guard("profile an inference", [&] { return counters.read(request); });
  }

 private:
  // Sets the memory of an inference, and computes it by `compute`, whose result it returns.
  template <class Compute>
  bool run(const float* images, int batch, float* const* outputs, const Compute& compute) {
    auto& [request, counters] = requests_.lower_bound(batch)->second;
    image_.front() = static_cast<size_t>(batch);
    const bool is_complete = guard("run an inference", [&] {
      // OpenVINO takes a pointer to mutable memory for inputs, but does not write to it.
      request.set_input_tensor({ov::element::f32, image_, const_cast<float*>(images)});
      for (size_t i = 0; i < outputs_.size(); ++i) {
        Place& place = outputs_[i];
        place.shape.front() = image_.front();
        request.set_output_tensor(place.index, {ov::element::f32, place.shape, outputs[i]});
      }
      return compute(request);
    });
    counters.count_inference();
    return is_complete;
  }

  // Where an output of the engine is among those of OpenVINO's model, and its shape.
  struct Place {
    size_t index;
    ov::Shape shape;  // with room for the batch size
  };

  static std::vector<Place> places(const ov::CompiledModel& model,
                                   const std::vector<EngineOutput>& outputs) {
    std::vector<Place> found;
    for (const EngineOutput& output : outputs) {
      size_t index = 0;
      while (model.output(index).get_node()->get_friendly_name() != output.name) ++index;
      ov::Shape shape = {0};
      shape.insert(shape.end(), output.shape.begin(), output.shape.end());
      found.push_back({index, std::move(shape)});
    }
    return found;
  }

  Runs runs_;
  ov::Shape image_;
  std::vector<Place> outputs_;
  std::map<int, Request> requests_;  // by the largest batch size
};

class CompiledModels : public Executable {
 public:
  CompiledModels(Plan plan, Models models, EngineInfo info, int streams, Runs runs)
      : plan_(std::move(plan)),
        models_(std::move(models)),
        info_(std::move(info)),
        streams_(streams),
        runs_(runs) {}

  int concurrency() const override { return streams_; }

  int next_part(int64_t left) const override {
    const auto most = static_cast<int>(std::min<int64_t>(left, info_.max_batch));
    return models_.any_size ? most : std::prev(models_.by_size.upper_bound(most))->first;
  }

  std::vector<int> warm_sizes() const override {
    if (models_.any_size) return {1};
    std::vector<int> sizes;
    for (const auto& [size, model] : models_.by_size) sizes.push_back(size);
    return sizes;
  }

  std::unique_ptr<Context> create_context() override {
    return std::make_unique<Requests>(models_, info_, runs_);
  }

 private:
  Plan plan_;  // whose memory the models read
  Models models_;
  EngineInfo info_;
  int streams_;
  Runs runs_;
};

Models compile_models(ov::Core& core, const std::shared_ptr<ov::Model>& model,
                      const EngineInfo& info, const LoadOptions& options,
                      const ov::AnyMap& properties) {
  const auto compiled = [&](const ov::Dimension& batch) {
    const std::shared_ptr<ov::Model> shaped = model->clone();
    shaped->reshape(
        ov::PartialShape{batch, info.input.channels, info.input.height, info.input.width});
    return core.compile_model(shaped, "CPU", properties);
  };
  Models models{.by_size = {}, .any_size = options.batch_sizes.empty()};
  if (models.any_size) {
    models.by_size.emplace(info.max_batch, compiled({1, info.max_batch}));
  } else {
    models.by_size.emplace(1, compiled(1));  // from which any batch can be put together
    for (const int size : options.batch_sizes) {
      if (!models.by_size.contains(size)) models.by_size.emplace(size, compiled(size));
    }
  }
  return models;
}

}  // namespace

ov::element::Type to_element(Precision precision) {
  switch (precision) {
    case Precision::fp32: return ov::element::f32;
    case Precision::bf16: return ov::element::bf16;
    case Precision::fp16: return ov::element::f16;
    case Precision::tf32:
    case Precision::int8:
    case Precision::fp8:
    case Precision::automatic: break;
  }
  throw BackendError(concat("precision ", to_string(precision), " is not supported on a CPU"));
}

std::unique_ptr<Executable> compile(ov::Core& core, const std::shared_ptr<ov::Model>& model,
                                    Plan plan, ov::element::Type type, const EngineInfo& info,
                                    const LoadOptions& options) {
  ov::AnyMap properties = {
      ov::hint::inference_precision(type),
      ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
  };
  // A stream runs one inference at a time on its own threads. The default is a single stream with
  // as many threads as OpenVINO chooses for this CPU, unless a quota allows fewer.
  int streams = 1;
  const int cpus = usable_cpus();
  const int threads = options.optimize_for_throughput ? 1 : options.threads;
  if (threads > 0) {
    // A profile cannot tell the streams apart.
    streams = options.profile ? 1 : std::max(1, cpus / threads);
    properties.insert(ov::inference_num_threads(streams * threads));
  } else if (cpus < allowed_cpus()) {
    properties.insert(ov::inference_num_threads(cpus));
  }
  properties.insert(ov::num_streams(streams));
  if (options.profile) properties.insert(ov::enable_profiling(true));
  if (options.pin_threads) {
    properties.insert(ov::hint::enable_cpu_pinning(*options.pin_threads));
  }
  Models models = compile_models(core, model, info, options, properties);
  // OpenVINO's infer() runs in the calling thread and keeps a task arena for each such thread. If
  // worker threads help, the tasks that they take too late on a busy processor pile up in those
  // arenas: some 39 KB with each inference, without bound. A stream's own thread has a single
  // arena, which does not grow. A single thread has no helpers, and infer() saves it a switch.
  const Runs runs = threads == 1 ? Runs::in_caller : Runs::in_stream;
  return std::make_unique<CompiledModels>(std::move(plan), std::move(models), info, streams, runs);
}

}  // namespace resrt::openvino

#include "backends/openvino/executable.h"

#include <algorithm>
#include <map>
#include <thread>
#include <utility>
#include <vector>

#include <openvino/runtime/properties.hpp>

#include "backends/openvino/guard.h"
#include "resrt/error.h"

namespace resrt::openvino {
namespace {

// The model compiled for a fixed batch size. A dynamic batch size is several per cent slower at
// batch 1, because each inference then computes shapes and memory again.
struct Compiled {
  int batch;
  ov::CompiledModel model;
};

// 1, 2, 4, ..., and the largest, which comes first.
std::vector<int> sizes_up_to(int max_batch) {
  std::vector<int> sizes = {max_batch};
  for (int size = 1; size <= max_batch / 2; size *= 2) sizes.push_back(size);
  std::sort(sizes.rbegin(), sizes.rend());
  return sizes;
}

// The threads that compute an inference: the caller's alone, or those of OpenVINO's stream.
enum class Runs { in_caller, in_stream };

class Requests : public Context {
 public:
  Requests(std::vector<Compiled>& models, const EngineInfo& info, Runs runs)
      : runs_(runs),
        image_{0, static_cast<size_t>(info.input.channels), static_cast<size_t>(info.input.height),
               static_cast<size_t>(info.input.width)},
        classes_(static_cast<size_t>(info.classes)) {
    for (Compiled& compiled : models) {
      requests_.emplace(compiled.batch, guard("prepare an inference", [&] {
                          return compiled.model.create_infer_request();
                        }));
    }
  }

  void infer(const float* images, int batch, float* logits) override {
    ov::InferRequest& request = requests_.at(batch);
    image_.front() = static_cast<size_t>(batch);
    guard("run an inference", [&] {
      // OpenVINO takes a pointer to mutable memory for inputs, but does not write to it.
      request.set_input_tensor({ov::element::f32, image_, const_cast<float*>(images)});
      request.set_output_tensor({ov::element::f32, {image_.front(), classes_}, logits});
      if (runs_ == Runs::in_caller) {
        request.infer();
      } else {
        request.start_async();
        request.wait();
      }
    });
  }

 private:
  Runs runs_;
  ov::Shape image_;
  size_t classes_;
  std::map<int, ov::InferRequest> requests_;  // by batch size
};

class CompiledModels : public Executable {
 public:
  CompiledModels(std::vector<Compiled> models, EngineInfo info, int streams, Runs runs)
      : models_(std::move(models)), info_(std::move(info)), streams_(streams), runs_(runs) {}

  int concurrency() const override { return streams_; }

  std::vector<int> batch_sizes() const override {
    std::vector<int> sizes;
    for (const Compiled& compiled : models_) sizes.push_back(compiled.batch);
    return sizes;
  }

  std::unique_ptr<Context> create_context() override {
    return std::make_unique<Requests>(models_, info_, runs_);
  }

 private:
  std::vector<Compiled> models_;
  EngineInfo info_;
  int streams_;
  Runs runs_;
};

}  // namespace

ov::element::Type to_element(Precision precision) {
  switch (precision) {
    case Precision::fp32: return ov::element::f32;
    case Precision::bf16: return ov::element::bf16;
    case Precision::fp16: return ov::element::f16;
    case Precision::tf32:
    case Precision::automatic: break;
  }
  throw BackendError(concat("precision ", to_string(precision), " is not supported on a CPU"));
}

std::unique_ptr<Executable> compile(ov::Core& core, const std::shared_ptr<ov::Model>& model,
                                    const EngineInfo& info, const LoadOptions& options) {
  ov::AnyMap properties = {
      ov::hint::inference_precision(to_element(info.precision)),
      ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY),
  };
  // A stream runs one inference at a time on its own threads. The default is a single stream with
  // as many threads as OpenVINO chooses for this CPU.
  int streams = 1;
  if (options.threads > 0) {
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    streams = std::max(1, cores / options.threads);
    properties.insert(ov::inference_num_threads(streams * options.threads));
  }
  properties.insert(ov::num_streams(streams));
  // With few threads a batch takes as long as its images one by one, so larger sizes than 1 are not
  // worth their memory and compile time.
  const std::vector<int> sizes = streams > 1 ? std::vector{1} : sizes_up_to(info.max_batch);
  std::vector<Compiled> models;
  for (const int batch : sizes) {
    const std::shared_ptr<ov::Model> fixed = model->clone();
    fixed->reshape({batch, info.input.channels, info.input.height, info.input.width});
    models.push_back({batch, core.compile_model(fixed, "CPU", properties)});
  }
  // OpenVINO's infer() runs in the calling thread and keeps a task arena for each such thread. If
  // worker threads help, the tasks that they take too late on a busy processor pile up in those
  // arenas: some 39 KB with each inference, without bound. A stream's own thread has a single
  // arena, which does not grow. A single thread has no helpers, and infer() saves it a switch.
  const Runs runs = options.threads == 1 ? Runs::in_caller : Runs::in_stream;
  return std::make_unique<CompiledModels>(std::move(models), info, streams, runs);
}

}  // namespace resrt::openvino

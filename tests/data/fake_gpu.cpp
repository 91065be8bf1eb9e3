// A fake backend that uses the CPU as GPU number 3. It reports its calls on stdout. A logit of an
// image is the first value of the image plus the number of the class.

#include <cstdio>
#include <memory>
#include <vector>

#include "backends/backend.h"
#include "resrt/export.h"

namespace {

using namespace resrt;

constexpr int kDevice = 3;

template <class... Values>
void report(const char* format, Values... values) {
  std::printf(format, values...);
  std::fflush(stdout);
}

class Memory : public DeviceLogits {
 public:
  explicit Memory(size_t floats) : floats_(floats, -1.0F) { report("allocate %zu\n", floats); }
  ~Memory() override { report("free\n"); }
  float* data() const override { return const_cast<float*>(floats_.data()); }
  void mark_end(StreamHandle stream) override { report("end in %zu\n", stream); }
  void make_wait(StreamHandle stream) const override { report("%zu waits\n", stream); }

 private:
  std::vector<float> floats_;
};

class Session : public Context {
 public:
  explicit Session(const EngineInfo& info) : info_(info) {}
  void infer(const float* images, int batch, float* const* outputs) override {
    for (int n = 0; n < batch; ++n) {
      for (int c = 0; c < info_.classes; ++c) {
        outputs[0][n * info_.classes + c] = images[n * info_.input.size()] + static_cast<float>(c);
      }
    }
  }
  void infer_on_device(const DeviceBatch& batch) override {
    report("infer %d in %zu\n", batch.batch, batch.stream);
    infer(batch.images, batch.batch, &batch.logits);
  }

 private:
  EngineInfo info_;
};

class Loaded : public Executable, public DeviceAccess {
 public:
  explicit Loaded(const EngineInfo& info) : info_(info) {}
  int next_part(int64_t left) const override { return left < 2 ? 1 : 2; }
  std::vector<int> warm_sizes() const override { return {1, 2}; }
  int concurrency() const override { return 1; }
  std::unique_ptr<Context> create_context() override { return std::make_unique<Session>(info_); }
  const DeviceAccess* device_access() const override { return this; }
  int device() const override { return kDevice; }
  int device_of(const void*) const override { return kDevice; }
  std::unique_ptr<DeviceLogits> allocate(size_t floats) const override {
    return std::make_unique<Memory>(floats);
  }

 private:
  EngineInfo info_;
};

class FakeBackend : public Backend {
 public:
  std::string version() const override { return "1.0.0"; }
  void check(const BuildOptions&) const override {}
  void check(const LoadOptions&) const override {}
  std::vector<Precision> precisions(int) const override { return {Precision::fp32}; }
  Plan build(const Graph&, const Weights&, EngineInfo&, const BuildOptions&, int) override {
    return {};
  }
  std::unique_ptr<Executable> load(const Plan&, const EngineInfo& info,
                                   const LoadOptions&) override {
    return std::make_unique<Loaded>(info);
  }
};

}  // namespace

extern "C" RESRT_API resrt::Backend* resrt_create_backend() {
  return new FakeBackend();
}

#include "backends/backend.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <sstream>
#include <streambuf>

#include <openvino/core/version.hpp>
#include <openvino/pass/serialize.hpp>
#include <openvino/runtime/core.hpp>
#include <openvino/runtime/properties.hpp>

#include "backends/openvino/cpu.h"
#include "backends/openvino/executable.h"
#include "backends/openvino/guard.h"
#include "backends/openvino/kernels.h"
#include "backends/openvino/lower.h"
#include "backends/openvino/model_xml.h"
#include "cpus.h"
#include "passes/passes.h"
#include "passes/quantise.h"
#include "resrt/error.h"
#include "resrt/export.h"
#include "resrt/log.h"
#include "text.h"

namespace resrt::openvino {
namespace {

// A stream that writes to memory of a fixed size; without memory it only counts.
class Sink : public std::streambuf {
 public:
  explicit Sink(std::span<char> memory = {}) : memory_(memory) {}
  size_t size() const { return size_; }

 private:
  std::streamsize xsputn(const char* bytes, std::streamsize count) override {
    const auto size = static_cast<size_t>(count);
    if (!memory_.empty()) {
      if (size > memory_.size() - size_) return 0;
      std::memcpy(memory_.data() + size_, bytes, size);
    }
    size_ += size;
    return count;
  }
  int_type overflow(int_type character) override {
    const char byte = traits_type::to_char_type(character);
    return xsputn(&byte, 1) == 1 ? character : traits_type::eof();
  }
  pos_type seekoff(off_type, std::ios_base::seekdir, std::ios_base::openmode) override {
    return static_cast<off_type>(size_);  // serialisation asks for the position only
  }

  std::span<char> memory_;
  size_t size_ = 0;
};

// A plan is the length of the model's XML (u64), the XML, padded so that the constants are aligned,
// and the constants that it refers to.
Plan serialise(const std::shared_ptr<ov::Model>& model) {
  // The XML refers to the constants by their offsets, so it is known before they are written.
  std::ostringstream xml;
  Sink counting;
  std::ostream nowhere(&counting);
  ov::pass::Serialize(xml, nowhere).run_on_model(model);
  std::string head(sizeof(uint64_t), '\0');
  head += std::move(xml).str();
  head.resize((head.size() + Bytes::kAlignment - 1) / Bytes::kAlignment * Bytes::kAlignment, ' ');
  const uint64_t length = head.size() - sizeof length;
  std::memcpy(head.data(), &length, sizeof length);

  Plan plan{Bytes(head.size() + counting.size())};
  std::memcpy(plan.bytes.data(), head.data(), head.size());
  Sink sink({plan.bytes.data() + head.size(), counting.size()});
  std::ostream constants(&sink);
  std::ostringstream same;
  ov::pass::Serialize(same, constants).run_on_model(model);
  if (!constants || sink.size() != counting.size()) {
    throw BackendError("OpenVINO serialised the network in two different ways");
  }
  return plan;
}

// Returns the model of a plan, with the chosen kernels. Its constants use the plan's memory.
std::shared_ptr<ov::Model> read(ov::Core& core, Plan& plan,
                                const std::vector<KernelChoice>& kernels) {
  uint64_t length = 0;
  if (plan.bytes.size() < sizeof length) {
    throw BackendError("the plan is empty; build the engine again");
  }
  std::memcpy(&length, plan.bytes.data(), sizeof length);
  const size_t left = plan.bytes.size() - sizeof length;
  if (length > left) throw BackendError("the plan is cut short; build the engine again");
  const std::string xml =
      with_kernels(std::string(plan.bytes.view().substr(sizeof length, length)), kernels);
  const ov::Shape size = {left - length};
  ov::Tensor constants(ov::element::u8, size, plan.bytes.data() + sizeof length + length);
  if ((sizeof length + length) % Bytes::kAlignment != 0) {  // built by resrt 0.1
    ov::Tensor aligned(ov::element::u8, size);
    constants.copy_to(aligned);
    return core.read_model(xml, aligned);
  }
  return core.read_model(xml, constants);
}

class OpenVino : public Backend {
 public:
  std::string version() const override { return RESRT_OPENVINO_VERSION; }
  bool has_portable_plans() const override { return true; }

  void check(const BuildOptions& options) const override {
    if (options.tensorrt) {
      throw InputError("backend 'openvino' does not support TensorRT options; leave out tensorrt");
    }
  }
  void check(const LoadOptions& options) const override {
    if (options.device) {
      throw InputError("backend 'openvino' does not run on a GPU; leave out device");
    }
    if (options.tensorrt) {
      throw InputError(
          "backend 'openvino' does not support TensorRT options; leave out runtime_cache");
    }
  }

  std::vector<Precision> precisions(int) const override {
    return guard("list the supported precisions", [&] {
      std::vector<Precision> all = native_precisions();
      all.push_back(Precision::int8);
      return all;
    });
  }
  Plan build(const Graph& graph, const Weights& weights, EngineInfo& info,
             const BuildOptions& options, int) override {
    return guard("build the network", [&] {
      Network network = fold_batch_norm({graph, weights});
      check_range(network, info.precision);
      if (options.calibration) {
        network.graph = quantise(network.graph, *options.calibration,
                                 {.weight_bits = multiplies_8_bits() ? 8 : 7});
      }
      network.graph = fuse_add_relu(network.graph);
      Plan plan = serialise(lower(network));
      constexpr double default_seconds = 10;
      if (const double seconds = options.tuning_seconds.value_or(default_seconds); seconds > 0) {
        info.kernels =
            choose_kernels(network.graph, info, seconds, options.progress,
                           [&](const std::vector<KernelChoice>& kernels) {
                             return compile(core_, read(core_, plan, kernels), plan,
                                            type_of_floats(info), info, {.profile = true});
                           });
        if (!info.kernels.empty()) info.kernels_processor = processor();
      }
      return plan;
    });
  }

  std::unique_ptr<Executable> load(const Plan& plan, const EngineInfo& info,
                                   const LoadOptions& options) override {
    return guard("load the plan", [&] {
      Plan shared = plan;  // the same memory
      const bool is_tuned_here = info.kernels_processor == processor();
      if (!info.kernels.empty() && !is_tuned_here) {
        log(LogLevel::info, info.backend,
            concat("the engine of ", info.model,
                   " was tuned on another processor; on this one it runs by OpenVINO's default "
                   "kernels"));
      }
      const auto& kernels = is_tuned_here ? info.kernels : std::vector<KernelChoice>();
      return compile(core_, read(core_, shared, kernels), shared, type_of_floats(info), info,
                     options);
    });
  }

 private:
  // The type of what is not in 8 bits.
  ov::element::Type type_of_floats(const EngineInfo& info) const {
    return to_element(info.precision == Precision::int8 ? native_precisions().front()
                                                        : info.precision);
  }

  // The types of floating point, the fastest first.
  std::vector<Precision> native_precisions() const {
    const auto capabilities = core_.get_property("CPU", ov::device::capabilities);
    const auto has = [&](const char* name) {
      return std::find(capabilities.begin(), capabilities.end(), name) != capabilities.end();
    };
    // bf16 comes before fp16: on CPUs that have both they are equally fast, and bf16 does not
    // overflow.
    std::vector<Precision> precisions;
    if (computes_16_bits()) {
      if (has(ov::device::capability::BF16) && has_native_bf16()) {
        precisions.push_back(Precision::bf16);
      }
      if (has(ov::device::capability::FP16)) precisions.push_back(Precision::fp16);
    }
    precisions.push_back(Precision::fp32);
    return precisions;
  }

  mutable ov::Core core_;
};

}  // namespace
}  // namespace resrt::openvino

extern "C" RESRT_API resrt::Backend* resrt_create_backend() {
  return resrt::openvino::guard("start", [] { return new resrt::openvino::OpenVino(); });
}

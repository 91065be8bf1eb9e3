#include "backends/backend.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <cstring>
#include <sstream>

#include <openvino/core/version.hpp>
#include <openvino/pass/serialize.hpp>
#include <openvino/runtime/core.hpp>
#include <openvino/runtime/properties.hpp>

#include "backends/openvino/executable.h"
#include "backends/openvino/guard.h"
#include "backends/openvino/lower.h"
#include "passes/passes.h"
#include "resrt/error.h"
#include "resrt/export.h"

namespace resrt::openvino {
namespace {

// Whether the processor has instructions for bf16. OpenVINO lists it as a capability wherever it
// can emulate it, which is slower than fp32.
bool has_native_bf16() {
#if defined(__x86_64__)
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
  const bool has_amx = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (d & (1U << 22U)) != 0;
  const bool has_leaf = __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0;
  const bool has_avx512 = has_leaf && (a & (1U << 5U)) != 0;
  const bool has_avx_convert = has_leaf && (d & (1U << 5U)) != 0;
  return has_amx || has_avx512 || has_avx_convert;
#else
  return true;
#endif
}

// The plan: the length of the model's XML (u64), the XML, and the constants that it refers to.
class OpenVino : public Backend {
 public:
  std::string version() const override { return RESRT_OPENVINO_VERSION; }

  void check(const BuildOptions& options) const override {
    if (options.tensorrt) {
      throw InputError("backend 'openvino' takes no options of TensorRT");
    }
  }
  void check(const LoadOptions& options) const override {
    if (options.device) throw InputError("backend 'openvino' runs on no GPU; leave out device");
    if (options.tensorrt) {
      throw InputError("backend 'openvino' takes no options of TensorRT; leave out runtime_cache");
    }
  }

  std::vector<Precision> precisions(int) const override {
    return guard("be asked for its precisions", [&] { return native_precisions(); });
  }
  Plan build(const Graph& graph, const Weights& weights, const EngineInfo&, const BuildOptions&,
             int) override {
    return guard("build the network", [&] {
      Network network = fold_batch_norm({graph, weights});
      network.graph = fuse_add_relu(network.graph);
      std::ostringstream xml;
      std::ostringstream constants;
      ov::pass::Serialize(xml, constants).run_on_model(lower(network));
      const std::string text = std::move(xml).str();
      const uint64_t length = text.size();
      Plan plan;
      plan.bytes.append(reinterpret_cast<const char*>(&length), sizeof length);
      plan.bytes += text;
      plan.bytes += constants.view();
      return plan;
    });
  }

  std::unique_ptr<Executable> load(const Plan& plan, const EngineInfo& info,
                                   const LoadOptions& options) override {
    return guard("load the plan", [&] {
      uint64_t length = 0;
      if (plan.bytes.size() < sizeof length)
        throw BackendError("the plan is empty; build it again");
      std::memcpy(&length, plan.bytes.data(), sizeof length);
      const size_t left = plan.bytes.size() - sizeof length;
      if (length > left) throw BackendError("the plan is cut short; build it again");
      const std::string xml = plan.bytes.substr(sizeof length, length);
      ov::Tensor constants(ov::element::u8, {left - length});
      std::memcpy(constants.data(), plan.bytes.data() + sizeof length + length, left - length);
      return compile(core_, core_.read_model(xml, constants), info, options);
    });
  }

 private:
  std::vector<Precision> native_precisions() const {
    const auto capabilities = core_.get_property("CPU", ov::device::capabilities);
    const auto has = [&](const char* name) {
      return std::find(capabilities.begin(), capabilities.end(), name) != capabilities.end();
    };
    // bf16 before fp16: where a processor has both they are as fast, and bf16 cannot overflow.
    std::vector<Precision> precisions;
    if (has(ov::device::capability::BF16) && has_native_bf16()) {
      precisions.push_back(Precision::bf16);
    }
    if (has(ov::device::capability::FP16)) precisions.push_back(Precision::fp16);
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

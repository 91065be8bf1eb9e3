#include "backends/backend.h"

#include <algorithm>
#include <cstring>
#include <sstream>

#include <openvino/core/version.hpp>
#include <openvino/pass/serialize.hpp>
#include <openvino/runtime/core.hpp>
#include <openvino/runtime/properties.hpp>

#include "backends/openvino/executable.h"
#include "backends/openvino/lower.h"
#include "passes/passes.h"
#include "resrt/error.h"
#include "resrt/export.h"
#include "text.h"

namespace resrt::openvino {
namespace {

template <class Work>
auto guard(const char* what, Work work) {
  try {
    return work();
  } catch (const ov::Exception& error) {
    throw BackendError(concat("OpenVINO could not ", what, ": ", error.what()));
  }
}

// The plan: the length of the model's XML (u64), the XML, and the constants that it refers to.
class OpenVino : public Backend {
 public:
  std::string version() const override { return RESRT_OPENVINO_VERSION; }

  std::vector<Precision> precisions() const override {
    const auto capabilities = core_.get_property("CPU", ov::device::capabilities);
    const auto has = [&](const char* name) {
      return std::find(capabilities.begin(), capabilities.end(), name) != capabilities.end();
    };
    std::vector<Precision> precisions;
    if (has(ov::device::capability::BF16)) precisions.push_back(Precision::bf16);
    if (has(ov::device::capability::FP16)) precisions.push_back(Precision::fp16);
    precisions.push_back(Precision::fp32);
    return precisions;
  }

  Plan build(const Graph& graph, const Weights& weights, const EngineInfo&) override {
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
  mutable ov::Core core_;
};

}  // namespace
}  // namespace resrt::openvino

extern "C" RESRT_API resrt::Backend* resrt_create_backend() {
  return new resrt::openvino::OpenVino();
}

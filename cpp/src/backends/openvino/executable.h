#pragma once

#include <memory>

#include <openvino/runtime/core.hpp>

#include "backends/backend.h"

namespace resrt::openvino {

ov::element::Type to_element(Precision precision);

// Compiles the model, whose constants use the plan's memory. Floating point is computed in `type`.
std::unique_ptr<Executable> compile(ov::Core& core, const std::shared_ptr<ov::Model>& model,
                                    Plan plan, ov::element::Type type, const EngineInfo& info,
                                    const LoadOptions& options);

}  // namespace resrt::openvino

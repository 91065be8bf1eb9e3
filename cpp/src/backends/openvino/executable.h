#pragma once

#include <memory>

#include <openvino/runtime/core.hpp>

#include "backends/backend.h"

namespace resrt::openvino {

ov::element::Type to_element(Precision precision);

std::unique_ptr<Executable> compile(ov::Core& core, const std::shared_ptr<ov::Model>& model,
                                    const EngineInfo& info, const LoadOptions& options);

}  // namespace resrt::openvino

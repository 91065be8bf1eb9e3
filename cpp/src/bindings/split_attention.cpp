#include <pybind11/stl.h>

#include "backends/tensorrt/plugin/geometry.h"
#include "bindings/bindings.h"

namespace py = pybind11;

namespace resrt {

void bind_split_attention(py::module_& module) {
  using namespace plugin;
  module.def(
      "_split_attention_geometry",
      [](int channels, int radix, int cardinality, int hidden, int batch, int pixels, bool half,
         bool channels_last) {
        const Geometry g = divide({{channels, radix, cardinality, hidden},
                                   half ? Element::fp16 : Element::fp32,
                                   channels_last ? Layout::channels_last : Layout::planes,
                                   batch,
                                   pixels});
        std::vector<std::map<std::string, int64_t>> launches;
        for (int i = 0; i < g.launch_count; ++i) {
          const auto& [kernel, grid, shared_memory, steps, traffic] =
              g.launches.at(static_cast<size_t>(i));
          launches.push_back({{"blocks", int64_t{grid.x} * grid.y * grid.z},
                              {"steps", steps},
                              {"u", traffic.u},
                              {"y", traffic.y},
                              {"sums", traffic.sums},
                              {"products", traffic.products}});
        }
        return launches;
      },
      "The launches of the split-attention kernels, and the bytes that they read and write. Used "
      "by benchmarks/gpu_model.py.");
}

}  // namespace resrt

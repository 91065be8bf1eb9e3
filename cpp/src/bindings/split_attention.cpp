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
        return std::map<std::string, int64_t>{{"launches", g.launch_count},
                                              {"u", g.traffic.u},
                                              {"y", g.traffic.y},
                                              {"sums", g.traffic.sums},
                                              {"products", g.traffic.products}};
      },
      "The launches of the split-attention kernels, and the bytes that they read and write. Used "
      "by benchmarks/gpu_model.py.");
}

}  // namespace resrt

#include <map>
#include <string>
#include <vector>

#include <pybind11/stl.h>

#include "backends/tensorrt/plugin/geometry.h"
#include "bindings/bindings.h"

namespace py = pybind11;

namespace resrt {

void bind_split_attention(py::module_& module) {
  using namespace plugin;
  module.def(
      "_split_attention_geometry",
      [](int channels, int radix, int cardinality, int hidden, int batch, int height, int width,
         bool pooled, const std::string& variant, int compute_capability, int processors,
         int shared_memory, int largest_cluster) {
        const Problem problem = {{channels, radix, cardinality, hidden},
                                 Element::fp16,
                                 Layout::channels_last,
                                 batch,
                                 height,
                                 width,
                                 pooled ? Pooling::padded : Pooling::none};
        const Gpu gpu = {compute_capability, processors, static_cast<size_t>(shared_memory),
                         largest_cluster};
        const Variant wanted = variant == "cluster"   ? Variant::cluster
                               : variant == "tickets" ? Variant::tickets
                                                      : Variant::passes;
        std::vector<std::map<std::string, int64_t>> launches;
        if (!supports(problem, wanted, gpu)) return launches;
        const Geometry g = divide(problem, wanted, gpu);
        for (int i = 0; i < g.launch_count; ++i) {
          const LaunchShape& launch = g.launches.at(static_cast<size_t>(i));
          launches.push_back({{"blocks", int64_t{launch.grid.x} * launch.grid.y * launch.grid.z},
                              {"steps", launch.steps},
                              {"u", launch.traffic.u},
                              {"y", launch.traffic.y},
                              {"sums", launch.traffic.sums},
                              {"products", launch.traffic.products}});
        }
        return launches;
      },
      "The launches of the split-attention kernels in fp16, channels last, and the bytes that they "
      "read and write; empty if the GPU does not support the variant. Used by "
      "benchmarks/gpu_model.py.");
}

}  // namespace resrt

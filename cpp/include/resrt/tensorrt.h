#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace resrt {

// Which other GPUs a TensorRT engine runs on, besides the kind that built it. An engine that runs
// on more kinds of GPU may be slower.
enum class HardwareCompatibility { none, ampere_plus, same_compute_capability };

// Options for building an engine with TensorRT. The names of trtexec's equivalent options are in
// brackets. The defaults are TensorRT's own.
struct TensorRTOptions {
  // Scratch memory that a layer may use, in MiB. 0 allows all of the GPU's memory.
  // [--memPoolSize=workspace:N]
  int64_t workspace = 0;
  // From 0, the fastest build, to 5, the longest search. [--builderOptimizationLevel]
  int optimization_level = 3;
  // The batch size that kernels are optimised for, from 1 to max_batch. 0 means max_batch.
  // [--optShapes]
  int optimum_batch = 0;
  // A file of kernel timings, which makes the next build faster. It is read if it exists and
  // written after the build. Empty means no file. Not supported by TensorRT for RTX, which does not
  // time kernels. [--timingCacheFile]
  std::string timing_cache;
  // Not supported by TensorRT for RTX, whose engines run on all GPUs that they target.
  // [--hardwareCompatibilityLevel]
  HardwareCompatibility hardware_compatibility = HardwareCompatibility::none;
  // Whether later versions of TensorRT can load the engine too. Not supported by TensorRT for RTX.
  // [--versionCompatible]
  bool version_compatible = false;
  // The GPUs that the engine targets, as compute capabilities times ten: 75 for Turing, 80 and 86
  // for Ampere, 89 for Ada, 120 and 121 for Blackwell. Empty means the library's default, which is
  // Ampere and later. Only supported by TensorRT for RTX. [--computeCapabilities]
  std::vector<int> compute_capabilities;
  // Whether to compute split attention with resrt's plugin instead of TensorRT's own layers. The
  // engine then contains the plugin. Not supported by TensorRT for RTX, which has no plugins.
  // [--dynamicPlugins]
  bool split_attention_plugin = false;
  // Other ways to lower some layers, which compute the same and may be faster: "split", "dense",
  // "merged", "pooled", "windows" and "matrix". docs/gpu.md describes them.
  std::vector<std::string> lowering;
};

// Options for loading a TensorRT engine.
struct TensorRTLoadOptions {
  // A file of the kernels that TensorRT for RTX compiles for the GPU when it loads an engine, which
  // makes the next load faster. It is read if it exists and belongs to this GPU, and written if
  // other kernels were compiled. Empty means no file. Only supported by TensorRT for RTX.
  // [--runtimeCacheFile]
  std::string runtime_cache;
};

}  // namespace resrt

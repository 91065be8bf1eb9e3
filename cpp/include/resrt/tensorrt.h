#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace resrt {

// On which other GPUs an engine of TensorRT runs besides the kind that built it. The wider, the
// slower it may be.
enum class HardwareCompatibility { none, ampere_plus, same_compute_capability };

// How TensorRT builds: what trtexec's users know as its options, under trtexec's names in brackets.
// Defaults are TensorRT's own.
struct TensorRTOptions {
  // Scratch memory that a layer may use, in MiB; 0: all of the GPU's. [--memPoolSize=workspace:N]
  int64_t workspace = 0;
  // From 0, the fastest build, to 5, the longest search. [--builderOptimizationLevel]
  int optimization_level = 3;
  // The batch size that kernels are chosen for, of 1 to max_batch; 0: max_batch. [--optShapes]
  int optimum_batch = 0;
  // A file of kernels' timings, read if it exists and written after the build, so that the next one
  // is faster; empty: none. Not with TensorRT for RTX, which times nothing. [--timingCacheFile]
  std::string timing_cache;
  // Not with TensorRT for RTX, whose engines run on all GPUs of their targets.
  // [--hardwareCompatibilityLevel]
  HardwareCompatibility hardware_compatibility = HardwareCompatibility::none;
  // Whether later versions of TensorRT, too, load the engine. Not with TensorRT for RTX.
  // [--versionCompatible]
  bool version_compatible = false;
  // The GPUs that an engine of TensorRT for RTX is for, as compute capabilities times ten: 75 for
  // Turing, 80 and 86 for Ampere, 89 for Ada, 120 and 121 for Blackwell; empty: as the library
  // chooses, which is Ampere and later. Only with TensorRT for RTX. [--computeCapabilities]
  std::vector<int> compute_capabilities;
  // Whether split attention is computed by resrt's plugin, which the engine then carries, instead
  // of TensorRT's own layers. Not with TensorRT for RTX, which takes no plugins. [--dynamicPlugins]
  bool split_attention_plugin = false;
};

// How TensorRT loads an engine.
struct TensorRTLoadOptions {
  // A file of the kernels that TensorRT for RTX compiles for the GPU while it loads an engine: read
  // if it exists and is of this GPU, and written where others were compiled, so that the next
  // loading is faster; empty: none. Only with TensorRT for RTX. [--runtimeCacheFile]
  std::string runtime_cache;
};

}  // namespace resrt

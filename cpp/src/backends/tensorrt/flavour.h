#pragma once

#include <NvInferVersion.h>
#include <array>

// The headers decide which flavour of TensorRT this is compiled for. What differs between flavours
// stands here, except for calls that only some of them have.
namespace resrt::tensorrt {

#if defined(TRT_MAJOR_RTX)
inline constexpr bool kRtx = true;
inline constexpr const char* kBackend = "tensorrt_rtx";
inline constexpr const char* kProduct = "TensorRT for RTX";
inline constexpr const char* kLibrary = "libtensorrt_rtx.so.";
inline constexpr const char* kInstall = "pip install 'resrt[tensorrt-rtx]'";
// The wheels that carry the library, and their folders within site-packages.
inline constexpr std::array kWheels = {"tensorrt_rtx_libs", "onnxruntime_ep_nv_tensorrt_rtx"};
#else
inline constexpr bool kRtx = false;
inline constexpr const char* kBackend = "tensorrt";
inline constexpr const char* kProduct = "TensorRT";
inline constexpr const char* kLibrary = "libnvinfer.so.";
inline constexpr const char* kInstall = "pip install 'resrt[tensorrt]'";
inline constexpr std::array kWheels = {"tensorrt_libs"};
#endif

}  // namespace resrt::tensorrt

#pragma once

#include <NvInferVersion.h>

// The headers decide which flavour of TensorRT this is compiled for. What differs between flavours
// stands here, except for calls that only some of them have.
namespace resrt::tensorrt {

#if defined(TRT_MAJOR_RTX)
inline constexpr bool kRtx = true;
inline constexpr const char* kBackend = "tensorrt_rtx";
inline constexpr const char* kProduct = "TensorRT for RTX";
inline constexpr const char* kLibrary = "libtensorrt_rtx.so.";
#else
inline constexpr bool kRtx = false;
inline constexpr const char* kBackend = "tensorrt";
inline constexpr const char* kProduct = "TensorRT";
inline constexpr const char* kLibrary = "libnvinfer.so.";
#endif

}  // namespace resrt::tensorrt

#pragma once

#include <cstdint>

// The structures of DLPack (https://dmlc.github.io/dlpack), which libraries use to exchange arrays.
// These are of its first version, which all libraries support.
namespace resrt::dlpack {

inline constexpr const char* kCapsule = "dltensor";
inline constexpr const char* kUsedCapsule = "used_dltensor";  // a consumer renames the capsule

inline constexpr int32_t kCuda = 2;   // a Device::type
inline constexpr uint8_t kFloat = 2;  // a Type::code

struct Device {
  int32_t type;
  int32_t id;
};

struct Type {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};

struct Tensor {
  void* data;
  Device device;
  int32_t rank;
  Type type;
  int64_t* shape;
  int64_t* strides;  // in elements; null if contiguous
  uint64_t byte_offset;
};

struct ManagedTensor {
  Tensor tensor;
  void* owner;
  void (*deleter)(ManagedTensor* self);
};

}  // namespace resrt::dlpack

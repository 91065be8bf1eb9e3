#pragma once

#include <cstdint>

// The structures of DLPack (https://dmlc.github.io/dlpack), by which libraries hand each other
// arrays: of its first version, which all of them know.
namespace resrt::dlpack {

inline constexpr const char* kCapsule = "dltensor";
inline constexpr const char* kUsedCapsule = "used_dltensor";  // whoever took it over renames it

inline constexpr int32_t kCuda = 2;   // of Device::type
inline constexpr uint8_t kFloat = 2;  // of Type::code

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
  int64_t* strides;  // in elements; null: contiguous
  uint64_t byte_offset;
};

struct ManagedTensor {
  Tensor tensor;
  void* owner;
  void (*deleter)(ManagedTensor* self);
};

}  // namespace resrt::dlpack

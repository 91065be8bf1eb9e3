#pragma once

namespace resrt::openvino {

// Whether the CPU has bf16 instructions. OpenVINO also lists bf16 as a capability if it can only
// emulate it, which is slower than fp32.
bool has_native_bf16();

// Whether ONEDNN_MAX_CPU_ISA, the environment variable that limits the instructions that OpenVINO
// uses, allows those for bf16 and fp16.
bool computes_16_bits();

// Whether the CPU adds products of 8-bit integers up in 32 bits (VNNI, AMX), and the environment
// allows it. Without, AVX2 adds two of them up in 16 bits, where the largest overflow.
bool multiplies_8_bits();

}  // namespace resrt::openvino

#include "backends/openvino/cpu.h"

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace resrt::openvino {
namespace {

#if defined(__x86_64__)
struct Registers {
  unsigned a = 0;
  unsigned b = 0;
  unsigned c = 0;
  unsigned d = 0;
};

// Returns what CPUID says in a part of leaf 7, zeros if it has no such part.
Registers extended_features(unsigned part) {
  Registers found;
  if (__get_cpuid_count(7, part, &found.a, &found.b, &found.c, &found.d) == 0) return {};
  return found;
}

bool has_bit(unsigned value, unsigned bit) {
  return (value >> bit & 1U) != 0;
}

// Whether the environment limits OpenVINO's kernels to one of these sets of instructions.
bool is_limited_to(std::initializer_list<std::string_view> sets) {
  for (const char* name : {"ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"}) {
    if (const char* const limit = std::getenv(name)) {
      return std::find(sets.begin(), sets.end(), limit) != sets.end();
    }
  }
  return false;
}
#endif

}  // namespace

bool has_native_bf16() {
#if defined(__x86_64__)
  const bool has_amx = has_bit(extended_features(0).d, 22);
  const bool has_avx512 = has_bit(extended_features(1).a, 5);
  const bool has_avx_convert = has_bit(extended_features(1).d, 5);
  return has_amx || has_avx512 || has_avx_convert;
#else
  return true;
#endif
}

bool computes_16_bits() {
#if defined(__x86_64__)
  return !is_limited_to({"SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI"});
#else
  return true;
#endif
}

bool multiplies_8_bits() {
#if defined(__x86_64__)
  const bool has_avx512_vnni = has_bit(extended_features(0).c, 11);
  const bool has_avx_vnni = has_bit(extended_features(1).a, 4);
  return (has_avx512_vnni || has_avx_vnni) &&
         !is_limited_to({"SSE41", "AVX", "AVX2", "AVX512_CORE"});
#else
  return true;
#endif
}

}  // namespace resrt::openvino

// Which Highway targets the panel kernels are compiled for: include it before any of Highway's
// headers. Other than the rest of this room they gain from AVX3_DL, the AVX-512 with VNNI (Ice
// Lake, Zen 4 and later).

#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS \
  (HWY_SSSE3 | HWY_SSE4 | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#define HWY_WANT_AVX3_DL

// SPDX-License-Identifier: Apache-2.0
// Vec<C>: one native register of C on the compiler's vectors, with the vocabulary of core/math.h.
// Included by kernels.cc alone, once per instruction set.
//
// A vector wider than the register is scalarised by GCC 12 (10x slower), so nothing here is.
#ifndef LOWBIT_CPU_VEC_H_
#define LOWBIT_CPU_VEC_H_

#if defined(__SSE2__)
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the undefined operands of its own AVX-512 intrinsics for a mistake.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>
#pragma GCC diagnostic pop
#else
#include <immintrin.h>
#endif
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "core/convert.h"
#include "core/math.h"
#include "core/packed.h"

namespace lowbit::LOWBIT_ISA {

#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64;
#elif defined(__AVX2__)
constexpr int kRegisterBytes = 32;
#else
constexpr int kRegisterBytes = 16;
#endif

// GCC drops a dependent vector_size in a class that uses it, hence a struct of its own.
template <typename E, int kLanes>
struct VectorOf {
  typedef E Type __attribute__((vector_size(kLanes * sizeof(E))));
};

// MAXPS returns its second operand if either is NaN or both are zeros.
#if defined(__AVX512F__)
LOWBIT_HD auto Larger(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
LOWBIT_HD auto Larger(__m512d a, __m512d b) { return _mm512_max_pd(a, b); }
#elif defined(__AVX2__)
LOWBIT_HD auto Larger(__m256 a, __m256 b) { return _mm256_max_ps(a, b); }
LOWBIT_HD auto Larger(__m256d a, __m256d b) { return _mm256_max_pd(a, b); }
#elif defined(__SSE4_1__)
LOWBIT_HD auto Larger(__m128 a, __m128 b) { return _mm_max_ps(a, b); }
LOWBIT_HD auto Larger(__m128d a, __m128d b) { return _mm_max_pd(a, b); }
#elif defined(__aarch64__)
// FMAX returns NaN if either is, and +0 of two zeros, whose sign its rounding keeps.
LOWBIT_HD auto Larger(float32x4_t a, float32x4_t b) { return vmaxq_f32(a, b); }
LOWBIT_HD auto Larger(float64x2_t a, float64x2_t b) { return vmaxq_f64(a, b); }
#else
template <class Vector>
LOWBIT_HD Vector Larger(Vector a, Vector b) {
  return a > b ? a : b;
}
#endif

#if defined(__AVX512F__)
LOWBIT_HD auto Truncate(__m512 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_ZERO); }
LOWBIT_HD auto Truncate(__m512d a) { return _mm512_roundscale_pd(a, _MM_FROUND_TO_ZERO); }
#elif defined(__AVX2__)
LOWBIT_HD auto Truncate(__m256 a) { return _mm256_round_ps(a, _MM_FROUND_TO_ZERO); }
LOWBIT_HD auto Truncate(__m256d a) { return _mm256_round_pd(a, _MM_FROUND_TO_ZERO); }
#elif defined(__SSE4_1__)
LOWBIT_HD auto Truncate(__m128 a) { return _mm_round_ps(a, _MM_FROUND_TO_ZERO); }
LOWBIT_HD auto Truncate(__m128d a) { return _mm_round_pd(a, _MM_FROUND_TO_ZERO); }
#elif !defined(__aarch64__)
// Adding and taking away 2^23 (2^52) rounds to an integer; what exceeds a goes down by one.
template <class Vector>
LOWBIT_HD Vector Truncate(Vector a) {
  const Vector integers = Vector{} + (sizeof a[0] == 4 ? 0x1p23f : 0x1p52);
  const Vector nearest = (a + integers) - integers;
  const Vector whole = nearest > a ? nearest - 1 : nearest;
  return a < integers ? whole : a;
}
#endif

// For a >= +0.
#if defined(__aarch64__)
LOWBIT_HD auto RoundedHalfUp(float32x4_t a) { return vrndaq_f32(a); }
LOWBIT_HD auto RoundedHalfUp(float64x2_t a) { return vrndaq_f64(a); }
#else
// The addend is the largest number below a half: a half itself would lift 0.49999997, whose sum
// rounds to 1. From a half up the sum rounds to the next integer all the same.
template <class Vector>
LOWBIT_HD auto RoundedHalfUp(Vector a) {
  const Vector below_half = Vector{} + (sizeof a[0] == 4 ? 0x1.fffffep-2f : 0x1.fffffffffffffp-2);
  return Truncate(a + below_half);
}
#endif

template <typename C>
struct Vec {
  static constexpr int kLanes = kRegisterBytes / sizeof(C);
  using Vector = typename VectorOf<C, kLanes>::Type;
  using Bits = std::conditional_t<sizeof(C) == 4, int32_t, int64_t>;
  using Mask = typename VectorOf<Bits, kLanes>::Type;

  Vector v;

  Vec() = default;
  LOWBIT_HD Vec(Vector vector) : v(vector) {}
  // x - 0 is x for every x, -0 too, so that nothing but a broadcast is left of it.
  LOWBIT_HD explicit Vec(C x) : v(x - Vector{}) {}
  LOWBIT_HD explicit Vec(int x) : Vec(static_cast<C>(x)) {}

  LOWBIT_HD friend Vec operator+(Vec a, Vec b) { return a.v + b.v; }
  LOWBIT_HD friend Vec operator-(Vec a, Vec b) { return a.v - b.v; }
  LOWBIT_HD friend Vec operator*(Vec a, Vec b) { return a.v * b.v; }
  LOWBIT_HD friend Vec operator-(Vec a) { return -a.v; }
  LOWBIT_HD friend Mask operator<(Vec a, Vec b) { return a.v < b.v; }
  LOWBIT_HD friend Mask operator>(Vec a, Vec b) { return a.v > b.v; }
  LOWBIT_HD friend Mask operator<=(Vec a, Vec b) { return a.v <= b.v; }
  LOWBIT_HD friend Mask operator>=(Vec a, Vec b) { return a.v >= b.v; }
  LOWBIT_HD friend Mask operator==(Vec a, Vec b) { return a.v == b.v; }
  LOWBIT_HD friend Mask operator!=(Vec a, Vec b) { return a.v != b.v; }
  LOWBIT_HD friend Vec Select(Mask mask, Vec yes, Vec no) { return mask ? yes.v : no.v; }

  LOWBIT_HD friend Vec Abs(Vec a) {
    constexpr Bits kMagnitude = sizeof(C) == 4 ? Bits{0x7fffffff} : Bits(0x7fffffffffffffff);
    return reinterpret_cast<Vector>(reinterpret_cast<Mask>(a.v) & kMagnitude);
  }

  LOWBIT_HD friend Vec AtLeast(Vec low, Vec x) { return Larger(low.v, x.v); }
  LOWBIT_HD friend Vec Max(Vec a, Vec b) { return Select(IsNan(a), a, Vec(Larger(a.v, b.v))); }

  LOWBIT_HD friend Vec RoundHalfUp(Vec a) { return RoundedHalfUp(a.v); }
};

// A mask as a number of a bit a lane.
#if defined(__AVX512F__)
LOWBIT_HD Word BitsOfMask(Vec<float>::Mask mask) {
  return _mm512_cmplt_epi32_mask(reinterpret_cast<__m512i>(mask), _mm512_setzero_si512());
}
LOWBIT_HD Word BitsOfMask(Vec<double>::Mask mask) {
  return _mm512_cmplt_epi64_mask(reinterpret_cast<__m512i>(mask), _mm512_setzero_si512());
}
#elif defined(__AVX2__)
LOWBIT_HD Word BitsOfMask(Vec<float>::Mask mask) {
  return _mm256_movemask_ps(reinterpret_cast<__m256>(mask));
}
LOWBIT_HD Word BitsOfMask(Vec<double>::Mask mask) {
  return _mm256_movemask_pd(reinterpret_cast<__m256d>(mask));
}
#elif defined(__SSE2__)
LOWBIT_HD Word BitsOfMask(Vec<float>::Mask mask) {
  return _mm_movemask_ps(reinterpret_cast<__m128>(mask));
}
LOWBIT_HD Word BitsOfMask(Vec<double>::Mask mask) {
  return _mm_movemask_pd(reinterpret_cast<__m128d>(mask));
}
#else
template <class Mask>
LOWBIT_HD Word BitsOfMask(Mask mask) {
  Word bits = 0;
  for (unsigned lane = 0; lane < sizeof mask / sizeof mask[0]; ++lane) {
    bits |= (mask[lane] & Word{1}) << lane;
  }
  return bits;
}
#endif

// The other way round; bits behind the last lane are of no account.
template <typename C>
LOWBIT_HD typename Vec<C>::Mask MaskOfBits(Word bits) {
  typename Vec<C>::Mask of_lane;
  for (int lane = 0; lane < Vec<C>::kLanes; ++lane) of_lane[lane] = 1 << lane;
  return (of_lane & static_cast<typename Vec<C>::Bits>(bits)) != 0;
}

// Loads widen to Compute<T>, stores narrow from it. `stream` bypasses the cache and wants a store
// address aligned to the size of the store.
LOWBIT_HD Vec<float> Load(const float* p) {
  Vec<float> x;
  __builtin_memcpy(&x.v, p, sizeof x.v);
  return x;
}

LOWBIT_HD Vec<double> Load(const double* p) {
  Vec<double> x;
  __builtin_memcpy(&x.v, p, sizeof x.v);
  return x;
}

template <bool stream, typename Vector>
LOWBIT_HD void StoreVector(void* p, Vector v) {
#if defined(__AVX512F__)
  if constexpr (stream && sizeof v == 64) {
    return _mm512_stream_si512(static_cast<__m512i*>(p), reinterpret_cast<__m512i>(v));
  }
#endif
#if defined(__AVX2__)
  if constexpr (stream && sizeof v == 32) {
    return _mm256_stream_si256(static_cast<__m256i*>(p), reinterpret_cast<__m256i>(v));
  }
#endif
#if defined(__SSE4_1__)
  if constexpr (stream && sizeof v == 16) {
    return _mm_stream_si128(static_cast<__m128i*>(p), reinterpret_cast<__m128i>(v));
  }
#endif
  __builtin_memcpy(p, &v, sizeof v);
}

template <bool stream>
LOWBIT_HD void Store(float* p, Vec<float> x) {
  StoreVector<stream>(p, x.v);
}

template <bool stream>
LOWBIT_HD void Store(double* p, Vec<double> x) {
  StoreVector<stream>(p, x.v);
}

// Makes streamed stores visible to other threads.
LOWBIT_HD void StreamFence() {
#if defined(__SSE4_1__)
  _mm_sfence();
#endif
}

constexpr int kFloats = Vec<float>::kLanes;
using HalfBits = VectorOf<uint16_t, kFloats>::Type;
using FloatBits = VectorOf<uint32_t, kFloats>::Type;

// Words of 16 bits as the upper halves of 32. GCC 12 takes up to five instructions for what
// __builtin_convertvector says, each way, and bfloat16 a third more time.
LOWBIT_HD FloatBits LoadUpper(const void* p) {
#if defined(__AVX512F__)
  const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(static_cast<const __m256i*>(p)));
  return reinterpret_cast<FloatBits>(_mm512_slli_epi32(words, 16));
#elif defined(__AVX2__)
  const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  return reinterpret_cast<FloatBits>(_mm256_slli_epi32(words, 16));
#elif defined(__SSE2__)
  const __m128i words = _mm_loadl_epi64(static_cast<const __m128i*>(p));
  return reinterpret_cast<FloatBits>(_mm_unpacklo_epi16(_mm_setzero_si128(), words));
#elif defined(__aarch64__)
  return vshll_n_u16(vld1_u16(static_cast<const uint16_t*>(p)), 16);
#else
  HalfBits words;
  __builtin_memcpy(&words, p, sizeof words);
  return __builtin_convertvector(words, FloatBits) << 16;
#endif
}

template <bool stream>
LOWBIT_HD void StoreUpper(void* p, FloatBits bits) {
#if defined(__AVX512F__)
  const auto words = reinterpret_cast<__m512i>(bits >> 16);
  StoreVector<stream>(p, _mm512_cvtepi32_epi16(words));
#elif defined(__AVX2__)
  const auto words = reinterpret_cast<__m256i>(bits >> 16);
  StoreVector<stream>(
      p, _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
#elif defined(__SSE2__)
  const __m128i words = _mm_srai_epi32(reinterpret_cast<__m128i>(bits), 16);
  StoreVector<stream>(p, _mm_cvtsi128_si64(_mm_packs_epi32(words, words)));
#else
  StoreVector<stream>(p, __builtin_convertvector(bits >> 16, HalfBits));
#endif
}

LOWBIT_HD Vec<float> Load(const Bfloat16* p) {
  return reinterpret_cast<Vec<float>::Vector>(LoadUpper(p));
}

template <bool stream>
LOWBIT_HD void Store(Bfloat16* p, Vec<float> x) {
  const FloatBits bits = reinterpret_cast<FloatBits>(x.v);
  const FloatBits rounded = bits + 0x7fffu + (bits >> 16 & 1u);
  StoreUpper<stream>(p, x.v != x.v ? bits | 0x400000u : rounded);
}

// What the compiler cannot look through. Clang moves comparisons and selections before the widening
// of a half, where no instruction does them: 4 to 46 times slower.
template <class Vector>
LOWBIT_HD Vector Opaque(Vector v) {
#if defined(__clang__) && defined(__x86_64__)
  asm("" : "+v"(v));
#elif defined(__clang__) && defined(__aarch64__)
  asm("" : "+w"(v));
#endif
  return v;
}

LOWBIT_HD Vec<float> Load(const Half* p) {
#if defined(__AVX512F__)
  return Opaque(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#elif defined(__F16C__)
  return Opaque(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
#elif defined(__aarch64__)
  return Opaque(vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits))));
#else
  Vec<float> x;
  for (int lane = 0; lane < kFloats; ++lane) x.v[lane] = Widen(p[lane]);
  return x;
#endif
}

template <bool stream>
LOWBIT_HD void Store(Half* p, Vec<float> x) {
#if defined(__AVX512F__)
  StoreVector<stream>(p, _mm512_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  StoreVector<stream>(p, _mm256_cvtps_ph(x.v, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__aarch64__)
  StoreVector<stream>(p, vcvt_f16_f32(x.v));
#else
  for (int lane = 0; lane < kFloats; ++lane) p[lane] = Narrow<Half>(x.v[lane]);
#endif
}

// What a load or store covers: all lanes, or the first `count` (a load puts zeros behind them).
struct WholeVec {};

template <typename T>
LOWBIT_HD Vec<Compute<T>> Load(const T* p, WholeVec) {
  return Load(p);
}

template <bool stream, typename T>
LOWBIT_HD void Store(T* p, WholeVec, Vec<Compute<T>> x) {
  Store<stream>(p, x);
}

template <typename T>
LOWBIT_HD Vec<Compute<T>> Load(const T* p, int64_t count) {
  T lanes[Vec<Compute<T>>::kLanes] = {};
  __builtin_memcpy(lanes, p, count * sizeof(T));
  return Load(lanes);
}

template <bool stream, typename T>
LOWBIT_HD void Store(T* p, int64_t count, Vec<Compute<T>> x) {
  T lanes[Vec<Compute<T>>::kLanes];
  Store<false>(lanes, x);
  __builtin_memcpy(p, lanes, count * sizeof(T));
}

// The two halves of a float vector as doubles.
struct Widened {
  Vec<double> low;
  Vec<double> high;
};

LOWBIT_HD Widened ToDouble(Vec<float> x) {
#if defined(__AVX512F__)
  return {_mm512_cvtps_pd(_mm512_castps512_ps256(x.v)),
          _mm512_cvtps_pd(_mm512_extractf32x8_ps(x.v, 1))};
#elif defined(__AVX2__)
  return {_mm256_cvtps_pd(_mm256_castps256_ps128(x.v)),
          _mm256_cvtps_pd(_mm256_extractf128_ps(x.v, 1))};
#elif defined(__SSE4_1__)
  return {_mm_cvtps_pd(x.v), _mm_cvtps_pd(_mm_movehl_ps(x.v, x.v))};
#elif defined(__aarch64__)
  return {vcvt_f64_f32(vget_low_f32(x.v)), vcvt_high_f64_f32(x.v)};
#else
  constexpr int kHalf = Vec<double>::kLanes;
  Widened wide;
  for (int lane = 0; lane < kHalf; ++lane) {
    wide.low.v[lane] = x.v[lane];
    wide.high.v[lane] = x.v[kHalf + lane];
  }
  return wide;
#endif
}

}  // namespace lowbit::LOWBIT_ISA

#endif  // LOWBIT_CPU_VEC_H_

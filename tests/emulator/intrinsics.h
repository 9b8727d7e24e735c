// SPDX-License-Identifier: Apache-2.0
// CUDA's device functions: barriers, warp exchange, atomics, cached accesses, bit casts.
#ifndef LOWBIT_EMULATOR_INTRINSICS_H_
#define LOWBIT_EMULATOR_INTRINSICS_H_

#include <cstring>
#include <type_traits>

#include "emulator/builtins.h"

namespace lowbit::emulator {

// Gives `value` to the warp and returns that of lane `from`.
template <class T>
T Shuffle(unsigned mask, T value, int from, const char* function, Source source) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = Exchange(mask, bits, from, function, source);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Lanes form groups of `width`, a power of two, and see no other group.
inline int FirstOfGroup(int width) { return Lane() & ~(width - 1); }

inline int InGroup(int lane, int width) {
  const int first = FirstOfGroup(width);
  return lane >= first && lane < first + width ? lane : Lane();
}

template <class T>
struct Identity {
  using type = T;
};
template <class T>
using NotDeduced = typename Identity<T>::type;

// Replaces *p by f(*p); returns what it was. Relaxed, as on a GPU: ordering needs __threadfence().
template <class T, class F>
T AtomicUpdate(T* p, F f) {
  T old, next;
  __atomic_load(p, &old, __ATOMIC_RELAXED);
  do {
    next = f(old);
  } while (!__atomic_compare_exchange(p, &old, &next, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
  return old;
}

}  // namespace lowbit::emulator

using LowbitSource = lowbit::emulator::Source;

inline void __syncthreads(LowbitSource source = LowbitSource::Here()) {
  lowbit::emulator::SyncBlock("__syncthreads", source);
}

inline void __syncwarp(unsigned mask = 0xffffffffu, LowbitSource source = LowbitSource::Here()) {
  lowbit::emulator::SyncWarp(mask, "__syncwarp", source);
}

inline void __threadfence_block() { lowbit::emulator::FenceBlock(); }
inline void __threadfence() { lowbit::emulator::FenceDevice(); }

template <class T>
T __shfl_sync(unsigned mask, T value, int lane, int width = warpSize,
              LowbitSource source = LowbitSource::Here()) {
  const int from = lowbit::emulator::FirstOfGroup(width) + (lane & (width - 1));
  return lowbit::emulator::Shuffle(mask, value, from, "__shfl_sync", source);
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize,
                  LowbitSource source = LowbitSource::Here()) {
  const int from = lowbit::emulator::InGroup(lowbit::emulator::Lane() ^ bits, width);
  return lowbit::emulator::Shuffle(mask, value, from, "__shfl_xor_sync", source);
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                   LowbitSource source = LowbitSource::Here()) {
  const int lane = lowbit::emulator::Lane() + static_cast<int>(delta);
  const int from = lowbit::emulator::InGroup(lane, width);
  return lowbit::emulator::Shuffle(mask, value, from, "__shfl_down_sync", source);
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize,
                 LowbitSource source = LowbitSource::Here()) {
  const int lane = lowbit::emulator::Lane() - static_cast<int>(delta);
  const int from = lowbit::emulator::InGroup(lane, width);
  return lowbit::emulator::Shuffle(mask, value, from, "__shfl_up_sync", source);
}

inline unsigned __ballot_sync(unsigned mask, int predicate,
                              LowbitSource source = LowbitSource::Here()) {
  return lowbit::emulator::Vote(mask, predicate != 0, "__ballot_sync", source);
}

inline int __any_sync(unsigned mask, int predicate, LowbitSource source = LowbitSource::Here()) {
  return lowbit::emulator::Vote(mask, predicate != 0, "__any_sync", source) != 0;
}

inline int __all_sync(unsigned mask, int predicate, LowbitSource source = LowbitSource::Here()) {
  return lowbit::emulator::Vote(mask, predicate == 0, "__all_sync", source) == 0;
}

// Only the types that CUDA has: int64_t, a long, is none of them.
template <class T>
T atomicAdd(T* p, lowbit::emulator::NotDeduced<T> value) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned> ||
                std::is_same_v<T, unsigned long long> || std::is_same_v<T, float> ||
                std::is_same_v<T, double>);
  return lowbit::emulator::AtomicUpdate(p, [=](T old) {
    if constexpr (std::is_same_v<T, int>) {  // wraps around, without signed overflow
      return static_cast<int>(static_cast<unsigned>(old) + static_cast<unsigned>(value));
    } else {
      return static_cast<T>(old + value);
    }
  });
}

template <class T>
T atomicMax(T* p, lowbit::emulator::NotDeduced<T> value) {
  static_assert(std::is_integral_v<T> && sizeof(T) >= 4 && !std::is_same_v<T, long> &&
                !std::is_same_v<T, unsigned long>);
  return lowbit::emulator::AtomicUpdate(p, [=](T old) { return old < value ? value : old; });
}

inline unsigned atomicInc(unsigned* p, unsigned last) {
  return lowbit::emulator::AtomicUpdate(p, [=](unsigned old) { return old >= last ? 0 : old + 1; });
}

template <class T>
T atomicCAS(T* p, lowbit::emulator::NotDeduced<T> expected, lowbit::emulator::NotDeduced<T> value) {
  static_assert(std::is_same_v<T, int> || std::is_same_v<T, unsigned> ||
                std::is_same_v<T, unsigned long long> || std::is_same_v<T, unsigned short>);
  __atomic_compare_exchange(p, &expected, &value, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}

// Hints for a GPU's caches.
#define LOWBIT_LOAD(name)                           \
  template <class T>                                \
  T name(const T* p) {                              \
    static_assert(std::is_trivially_copyable_v<T>); \
    return *p;                                      \
  }
#define LOWBIT_STORE(name)                                 \
  template <class T>                                       \
  void name(T* p, lowbit::emulator::NotDeduced<T> value) { \
    static_assert(std::is_trivially_copyable_v<T>);        \
    *p = value;                                            \
  }
LOWBIT_LOAD(__ldg)
LOWBIT_LOAD(__ldca)
LOWBIT_LOAD(__ldcg)
LOWBIT_LOAD(__ldcs)
LOWBIT_LOAD(__ldlu)
LOWBIT_LOAD(__ldcv)
LOWBIT_STORE(__stwb)
LOWBIT_STORE(__stcg)
LOWBIT_STORE(__stcs)
LOWBIT_STORE(__stwt)
#undef LOWBIT_LOAD
#undef LOWBIT_STORE

#endif  // LOWBIT_EMULATOR_INTRINSICS_H_

// SPDX-License-Identifier: Apache-2.0
// The random choices of a case: all of them follow from its seed and number.
#ifndef LOWBIT_TESTS_FUZZ_RANDOM_H_
#define LOWBIT_TESTS_FUZZ_RANDOM_H_

#include <cstdint>
#include <iterator>

namespace lowbit::fuzz {

// SplitMix64: neighbouring seeds have sequences that have nothing in common.
class Random {
 public:
  Random(uint64_t seed, uint64_t number) : state_(seed * 0xd1342543de82ef95u + number) { Bits(); }

  uint64_t Bits() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }

  // Both ends included.
  int64_t Between(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(Bits() % (static_cast<uint64_t>(high - low) + 1));
  }

  bool OneIn(int64_t n) { return Between(1, n) == 1; }

  // In [0, 1).
  double Unit() { return static_cast<double>(Bits() >> 11) * 0x1p-53; }

  // In (-4, 4), most of it near zero.
  double Value() {
    const double u = 2 * Unit() - 1;
    return u * u * u * 4;
  }

  template <class Array>
  auto Pick(const Array& choices) {
    return choices[Between(0, static_cast<int64_t>(std::size(choices)) - 1)];
  }

 private:
  uint64_t state_;
};

}  // namespace lowbit::fuzz

#endif  // LOWBIT_TESTS_FUZZ_RANDOM_H_

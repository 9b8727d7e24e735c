// SPDX-License-Identifier: Apache-2.0
// Runs every op on fixed data, in every dtype, and prints a hash of the outputs' bits: what
// tests/kernels/test_arm64.py compares between processors.
#include <cinttypes>
#include <cstdio>
#include <iterator>
#include <list>
#include <utility>
#include <vector>

#include "core/call.h"
#include "core/convert.h"
#include "cpu/dispatch.h"
#include "cpu/thread_runtime.h"

namespace lowbit {
namespace {

const char* const kDtypes[] = {"float16", "bfloat16", "float32", "float64"};

constexpr Layout kLayouts[] = {{1, 1, 0},     {1, 1, 1},   {1, 1, 37},    {1, 1, 4099},
                               {1, 1, 70001}, {9, 5, 1},   {576, 64, 1},  {3, 5000, 1},
                               {9, 16, 2},    {5, 3, 256}, {2, 3, 20001}, {0, 5, 3}};

// The generator of Numerical Recipes: its upper bits are as good as this needs.
class Random {
 public:
  // In [-4, 4), most of it near zero.
  double Next() {
    const double u = static_cast<int32_t>(NextWord()) * 0x1p-31;
    return u * u * u * 4;
  }
  uint32_t NextWord() { return state_ = state_ * 1664525u + 1013904223u; }

 private:
  uint32_t state_ = 1;
};

// NaN, infinities, zeros and subnormals of every dtype, among ordinary values.
constexpr double kSpecial[] = {__builtin_nan(""),
                               __builtin_inf(),
                               -__builtin_inf(),
                               -0.0,
                               0.0,
                               6e-8,
                               -1e-40,
                               -4.9e-324,
                               0.35,
                               0.7,
                               1,
                               -1,
                               65504,
                               3.3e38,
                               1e300};

template <typename T>
std::vector<T> Tensor(Random& random, int64_t size, bool special) {
  std::vector<T> x(size);
  for (int64_t i = 0; i < size; ++i) {
    const bool take = special && i % 3 == 0;
    const double value = take ? kSpecial[i / 3 % std::size(kSpecial)] : random.Next();
    x[i] = Narrow<T>(static_cast<Compute<T>>(value));
  }
  return x;
}

bool IsNanIn(Word) { return false; }
template <typename T>
bool IsNanIn(T x) {
  return IsNan(Widen(x));
}

// FNV-1a. Every NaN counts as the same one: processors make different ones.
template <typename E>
void Hash(const std::vector<E>& x, uint64_t& hash) {
  for (const E& element : x) {
    unsigned char bytes[sizeof(E)] = {0xff};
    if (!IsNanIn(element)) __builtin_memcpy(bytes, &element, sizeof bytes);
    for (unsigned char byte : bytes) hash = (hash ^ byte) * 1099511628211u;
  }
}

// Answers an op's Bind with arrays.
template <typename T>
class Arrays {
 public:
  Arrays(const Layout& layout, bool special) : layout_(layout), special_(special) {}

  const T* Tensor(const char*) { return In(lowbit::Tensor<T>(random_, layout_.size(), special_)); }
  const T* Scalar(const char*) { return In(lowbit::Tensor<T>(random_, 1, false)); }
  const Word* Packed(const char*, int planes) {
    auto& words = packed_.emplace_back(planes * WordsOf(layout_.size()));
    for (Word& word : words) word = random_.NextWord();
    return words.data();
  }
  Word* PackedOutput(const char*, int planes) {
    return packed_outputs_.emplace_back(planes * WordsOf(layout_.size())).data();
  }
  T* TensorOutput(const char*) { return Out(layout_.size()); }
  T* ScalarOutput(const char*) { return Out(1); }
  Compute<T>* NumberOutput(const char*) { return numbers_.emplace_back(1).data(); }
  int Bit(const char*) { return 3; }
  Compute<T> MaxValue(const char*) { return static_cast<Compute<T>>(0.7); }
  double Threshold(const char*, double) { return 0.7; }
  template <int n>
  int Choice(const char*, const char* const (&)[n]) {
    return 0;
  }
  PerTensor TensorLayout() { return PerTensor(layout_.size()); }
  Layout ChannelLayout(const char*) { return layout_; }
  Layout ChannelLayoutIf(const char*, const char*) { return layout_; }

  uint64_t HashOfOutputs() const {
    uint64_t hash = 14695981039346656037u;
    for (const auto& output : outputs_) Hash(output, hash);
    for (const auto& number : numbers_) Hash(number, hash);
    for (const auto& words : packed_outputs_) Hash(words, hash);
    return hash;
  }

 private:
  const T* In(std::vector<T> x) {
    inputs_.push_back(std::move(x));
    return inputs_.back().data();
  }
  T* Out(int64_t size) {
    outputs_.emplace_back(size);
    return outputs_.back().data();
  }

  const Layout layout_;
  const bool special_;
  Random random_;
  std::list<std::vector<T>> inputs_;
  std::list<std::vector<T>> outputs_;
  std::list<std::vector<Compute<T>>> numbers_;
  std::list<std::vector<Word>> packed_;
  std::list<std::vector<Word>> packed_outputs_;
};

template <class Op, typename T>
bool Print(const char* op, int dtype, const Layout& layout, bool special) {
  Arrays<T> arrays(layout, special);
  ThreadRuntime one_thread(1);
  const bool ok = LaunchCpu(Op::template Bind<T>(arrays), one_thread.runtime());
  std::printf("%s %s [%" PRId64 ", %" PRId64 ", %" PRId64 "]%s: %016" PRIx64 "\n", op,
              kDtypes[dtype], layout.outer, layout.channels, layout.inner,
              special ? " special" : "", arrays.HashOfOutputs());
  return ok;
}

template <class Op>
bool PrintAll(const char* op) {
  bool ok = true;
  for (const Layout& layout : kLayouts) {
    for (bool special : {false, true}) {
      ok = ok && Print<Op, Half>(op, kHalf, layout, special) &&
           Print<Op, Bfloat16>(op, kBfloat16, layout, special) &&
           Print<Op, float>(op, kFloat, layout, special) &&
           Print<Op, double>(op, kDouble, layout, special);
    }
  }
  return ok;
}

bool PrintAll() {
  bool ok = true;
#define LOWBIT_OP(Op) ok = ok && PrintAll<Op>(#Op);
#include "core/kernels.inc"
  return ok;
}

}  // namespace
}  // namespace lowbit

int main() {
  std::printf("%s\n", lowbit::ActiveIsa());
  return lowbit::PrintAll() ? 0 : 1;
}

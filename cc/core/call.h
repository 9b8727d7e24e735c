// SPDX-License-Identifier: Apache-2.0
// A call of an op on plain memory, by a caller that has checked the arguments: how lowbit_numpy and
// the tests get from the name of an op to its recipe.
#ifndef LOWBIT_CORE_CALL_H_
#define LOWBIT_CORE_CALL_H_

#include <cstring>

#include "core/kernels.inc"
#include "core/packed.h"

namespace lowbit {

// As lowbit_numpy's _DTYPES and tests/support/kernels.py number them.
enum Dtype { kHalf, kBfloat16, kFloat, kDouble };

// Values in a row, of which some may be left over.
template <typename V>
class Values {
 public:
  Values(const V* first, size_t count) : next_(first), end_(first + count) {}

  // The next one; of none there are, V() and an exhausted row.
  V Next() {
    exhausted_ = exhausted_ || next_ == end_;
    return exhausted_ ? V() : *next_++;
  }
  bool exhausted() const { return exhausted_; }

 private:
  const V* next_;
  const V* const end_;
  bool exhausted_ = false;
};

// What an op takes and gives, each in the op's order.
struct Call {
  Values<const void*> inputs;  // tensors and scalars of the dtype, packed bits
  Values<void*> outputs;       // numbers of the compute type
  Values<double> numbers;      // bit, max_value, threshold
  Values<int> choices;         // attributes that are one of a few words, as indices
  Layout layout;               // of the tensors; an op of one channel takes its size alone
};

// Answers an op's Bind.
template <typename T>
class CallArguments {
 public:
  explicit CallArguments(const Call& call) : left_(call) {}

  // Whether there was as much as the op takes.
  bool ok() const {
    return !left_.inputs.exhausted() && !left_.outputs.exhausted() && !left_.numbers.exhausted() &&
           !left_.choices.exhausted();
  }

  const T* Tensor(const char*) { return static_cast<const T*>(left_.inputs.Next()); }
  const T* Scalar(const char* name) { return Tensor(name); }
  const Word* Packed(const char*, int) { return static_cast<const Word*>(left_.inputs.Next()); }
  Word* PackedOutput(const char*, int) { return static_cast<Word*>(left_.outputs.Next()); }
  T* TensorOutput(const char*) { return static_cast<T*>(left_.outputs.Next()); }
  T* ScalarOutput(const char* name) { return TensorOutput(name); }
  Compute<T>* NumberOutput(const char*) { return static_cast<Compute<T>*>(left_.outputs.Next()); }

  int Bit(const char*) { return static_cast<int>(left_.numbers.Next()); }
  Compute<T> MaxValue(const char*) { return static_cast<Compute<T>>(left_.numbers.Next()); }
  double Threshold(const char*, double) { return left_.numbers.Next(); }

  template <int n>
  int Choice(const char*, const char* const (&)[n]) {
    return left_.choices.Next();
  }
  PerTensor TensorLayout() const { return PerTensor(left_.layout.size()); }
  Layout ChannelLayout(const char*) const { return left_.layout; }
  Layout ChannelLayoutIf(const char*, const char*) const { return left_.layout; }

 private:
  Call left_;
};

// body(T()) for the dtype; false where there is no such dtype.
template <class Body>
bool WithDtype(int dtype, const Body& body) {
  switch (dtype) {
    case kHalf:
      body(Half());
      return true;
    case kBfloat16:
      body(Bfloat16());
      return true;
    case kFloat:
      body(float());
      return true;
    case kDouble:
      body(double());
      return true;
  }
  return false;
}

// body(recipe) for the call of an op; false where there is no op of that name, no such dtype, or
// the op takes more.
template <class Body>
bool WithRecipe(const char* op, int dtype, const Call& call, const Body& body) {
#define LOWBIT_OP(Op)                                             \
  if (std::strcmp(op, #Op) == 0) {                                \
    bool ok = true;                                               \
    const auto bind = [&](auto element) {                         \
      CallArguments<decltype(element)> arguments(call);           \
      const auto recipe = Op::Bind<decltype(element)>(arguments); \
      ok = arguments.ok();                                        \
      if (ok) body(recipe);                                       \
    };                                                            \
    return WithDtype(dtype, bind) && ok;                          \
  }
#include "core/kernels.inc"
  return false;
}

}  // namespace lowbit

#endif  // LOWBIT_CORE_CALL_H_

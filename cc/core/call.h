// SPDX-License-Identifier: Apache-2.0
// A call of an op on plain memory, by a caller that has checked the arguments: how lowbit_numpy and
// the tests get from the name of an op to its recipe.
#ifndef LOWBIT_CORE_CALL_H_
#define LOWBIT_CORE_CALL_H_

#include <cstring>

#include "core/kernels.inc"

namespace lowbit {

// As lowbit_numpy's _DTYPES and tests/kernels.py number them.
enum Dtype { kHalf, kBfloat16, kFloat, kDouble };

// What an op takes and gives, each in the op's order.
struct Call {
  const void* const* inputs;  // tensors and scalars of the dtype
  void* const* outputs;
  const double* numbers;  // bit, max_value, threshold
  const int* choices;     // attributes that are one of a few words, as indices
  Layout layout;          // of the tensors; an op of one channel takes its size alone
};

// Answers an op's Bind.
template <typename T>
class CallArguments {
 public:
  explicit CallArguments(const Call& call) : left_(call) {}

  const T* Tensor(const char*) { return static_cast<const T*>(*left_.inputs++); }
  const T* Scalar(const char* name) { return Tensor(name); }
  T* TensorOutput(const char*) { return static_cast<T*>(*left_.outputs++); }
  T* ScalarOutput(const char* name) { return TensorOutput(name); }

  int Bit(const char*) { return static_cast<int>(*left_.numbers++); }
  Compute<T> MaxValue(const char*) { return static_cast<Compute<T>>(*left_.numbers++); }
  double Threshold(const char*, double) { return *left_.numbers++; }

  template <int n>
  int Choice(const char*, const char* const (&)[n]) {
    return *left_.choices++;
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

// body(recipe) for the call of an op; false where there is no op of that name, or no such dtype.
template <class Body>
bool WithRecipe(const char* op, int dtype, const Call& call, const Body& body) {
#define LOWBIT_OP(Op)                                   \
  if (std::strcmp(op, #Op) == 0) {                      \
    return WithDtype(dtype, [&](auto element) {         \
      CallArguments<decltype(element)> arguments(call); \
      body(Op::Bind<decltype(element)>(arguments));     \
    });                                                 \
  }
#include "core/kernels.inc"
  return false;
}

}  // namespace lowbit

#endif  // LOWBIT_CORE_CALL_H_

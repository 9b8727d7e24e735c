// SPDX-License-Identifier: Apache-2.0
// The attributes of an op, read once, when a kernel of it is made.
#ifndef LOWBIT_TF_ATTRIBUTES_H_
#define LOWBIT_TF_ATTRIBUTES_H_

#include <string>
#include <vector>

#include "core/types.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace lowbit {

// Answers an op's Bind with nothing: for those who ask for some of its arguments only.
struct NoArguments {
  const float* Tensor(const char*) { return nullptr; }
  const float* Scalar(const char*) { return nullptr; }
  float* TensorOutput(const char*) { return nullptr; }
  float* ScalarOutput(const char*) { return nullptr; }
  int Bit(const char*) { return 1; }
  float MaxValue(const char*) { return 1; }
  double Threshold(const char*, double) { return 0; }
  template <int n>
  int Choice(const char*, const char* const (&)[n]) {
    return 0;
  }
  PerTensor TensorLayout() { return PerTensor(0); }
  Layout ChannelLayout(const char*) { return {}; }
  Layout ChannelLayoutIf(const char*, const char*) { return {}; }
};

// The values of an op's attributes, in the order of its Bind: flags, axes, indices of choices.
class Attributes : public NoArguments {
 public:
  template <class Op>
  static Attributes Of(tensorflow::OpKernelConstruction* c) {
    Attributes attributes(c);
    Op::template Bind<float>(attributes);
    return attributes;
  }

  const int* values() const { return values_.data(); }

  template <int n>
  int Choice(const char* name, const char* const (&choices)[n]) {
    const auto given = Get<std::string>(name);
    int choice = 0;
    while (choice + 1 < n && given != choices[choice]) ++choice;
    values_.push_back(choice);
    return choice;
  }
  Layout ChannelLayout(const char* axis) {
    values_.push_back(Get<int>(axis));
    return {};
  }
  Layout ChannelLayoutIf(const char* flag, const char* axis) {
    values_.push_back(Get<bool>(flag));
    return ChannelLayout(axis);
  }

 private:
  explicit Attributes(tensorflow::OpKernelConstruction* c) : c_(c) {}

  template <typename V>
  V Get(const char* name) const {
    V value{};
    const absl::Status status = c_->GetAttr(name, &value);
    if (!status.ok()) c_->CtxFailure(status);
    return value;
  }

  tensorflow::OpKernelConstruction* const c_;  // while it lives
  std::vector<int> values_;
};

}  // namespace lowbit

#endif  // LOWBIT_TF_ATTRIBUTES_H_

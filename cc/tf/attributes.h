// SPDX-License-Identifier: Apache-2.0
// The attributes of an op, read once, when a kernel of it is made.
#ifndef LOWBIT_TF_ATTRIBUTES_H_
#define LOWBIT_TF_ATTRIBUTES_H_

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/packed.h"
#include "tensorflow/core/framework/op_kernel.h"

namespace lowbit {

// Answers an op's Bind with nothing: for those who ask for some of its arguments only.
struct NoArguments {
  const float* Tensor(const char*) { return nullptr; }
  const float* Scalar(const char*) { return nullptr; }
  const Word* Packed(const char*, int) { return nullptr; }
  float* TensorOutput(const char*) { return nullptr; }
  float* ScalarOutput(const char*) { return nullptr; }
  float* NumberOutput(const char*) { return nullptr; }
  Word* PackedOutput(const char*, int) { return nullptr; }
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
using Attributes = std::vector<int>;

// Answers an op's Bind by reading its attributes.
class AttributeReader : public NoArguments {
 public:
  explicit AttributeReader(tensorflow::OpKernelConstruction* c) : c_(c) {}

  const Attributes& attributes() const { return attributes_; }

  template <int n>
  int Choice(const char* name, const char* const (&choices)[n]) {
    const auto given = Get<std::string>(name);
    int choice = 0;
    while (choice < n && given != choices[choice]) ++choice;
    if (choice == n) c_->CtxFailure(absl::InvalidArgumentError(absl::StrCat(name, ": ", given)));
    attributes_.push_back(choice);
    return choice;
  }
  Layout ChannelLayout(const char* axis) {
    attributes_.push_back(Get<int>(axis));
    return {};
  }
  Layout ChannelLayoutIf(const char* flag, const char* axis) {
    attributes_.push_back(Get<bool>(flag));
    return ChannelLayout(axis);
  }

 private:
  template <typename V>
  V Get(const char* name) const {
    V value{};
    const absl::Status status = c_->GetAttr(name, &value);
    if (!status.ok()) c_->CtxFailure(status);
    return value;
  }

  tensorflow::OpKernelConstruction* const c_;
  Attributes attributes_;
};

template <class Op>
Attributes ReadAttributes(tensorflow::OpKernelConstruction* c) {
  AttributeReader reader(c);
  Op::template Bind<float>(reader);
  return reader.attributes();
}

}  // namespace lowbit

#endif  // LOWBIT_TF_ATTRIBUTES_H_

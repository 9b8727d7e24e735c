// SPDX-License-Identifier: Apache-2.0
// What an op's Bind says, as text: one object of JSON an op, whose lists are in the op's order.
#ifndef LOWBIT_TESTS_DESCRIBE_H_
#define LOWBIT_TESTS_DESCRIBE_H_

#include <sstream>
#include <string>

#include "core/kernels.inc"

namespace lowbit {

// Answers an op's Bind by writing down the questions.
class Description {
 public:
  explicit Description(const char* op) { text_ << "{\"name\": \"" << op << '"'; }

  const float* Tensor(const char* name) { return Write(name, "tensor"); }
  const float* Scalar(const char* name) { return Write(name, "scalar"); }
  const Word* Packed(const char* name, int) { return Write(name, "packed"), nullptr; }
  Word* PackedOutput(const char* name, int) { return Write(name, "packed output"), nullptr; }
  float* TensorOutput(const char* name) { return Write(name, "tensor output"); }
  float* ScalarOutput(const char* name) { return Write(name, "scalar output"); }
  float* NumberOutput(const char* name) { return Write(name, "number output"); }

  int Bit(const char* name) { return Write(name, "bit"), 0; }
  float MaxValue(const char* name) { return Write(name, "max_value"), 0; }
  double Threshold(const char* name, double limit) {
    Write(name, limit == kUnlimited ? "threshold" : "threshold below 1");
    return 0;
  }

  template <int n>
  int Choice(const char* name, const char* const (&choices)[n]) {
    std::string kind = "choice";
    for (const char* choice : choices) (kind += ' ') += choice;
    Write(name, kind);
    return 0;
  }
  PerTensor TensorLayout() const { return PerTensor(0); }
  Layout ChannelLayout(const char* axis) {
    Write(axis, "axis");
    return {};
  }
  Layout ChannelLayoutIf(const char* flag, const char* axis) {
    Write(flag, "flag");
    return ChannelLayout(axis);
  }

  std::string Text() const { return text_.str() + "]}"; }

 private:
  float* Write(const char* name, const std::string& kind) {
    text_ << (first_ ? ", \"arguments\": [" : ", ") << "[\"" << name << "\", \"" << kind << "\"]";
    first_ = false;
    return nullptr;
  }

  std::ostringstream text_;
  bool first_ = true;
};

// Of all ops.
inline std::string DescribeOps() {
  std::string all;
  const auto add = [&](const std::string& one) { all += (all.empty() ? "[" : ",\n") + one; };
#define LOWBIT_OP(Op)             \
  {                               \
    Description description(#Op); \
    Op::Bind<float>(description); \
    add(description.Text());      \
  }
#define LOWBIT_STRAIGHT_THROUGH(Op) add("{\"name\": \"" #Op "\", \"straight_through\": true}");
#include "core/kernels.inc"
  return all + "]";
}

}  // namespace lowbit

#endif  // LOWBIT_TESTS_DESCRIBE_H_

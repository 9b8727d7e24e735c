// SPDX-License-Identifier: Apache-2.0
// The inputs and outputs of an op that XLA compiles.
#ifndef LOWBIT_TF_XLA_ARGUMENTS_H_
#define LOWBIT_TF_XLA_ARGUMENTS_H_

#include <deque>
#include <limits>

#include "tensorflow/compiler/tf2xla/shape_util.h"
#include "tensorflow/compiler/tf2xla/xla_compiler.h"
#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"
#include "tf/arguments.h"
#include "tf/attributes.h"
#include "tf_xla/packed.h"
#include "tf_xla/symbol.h"

namespace lowbit {

// What a ProgramArguments<T> does whatever T is. Arguments are checked as far as they are known
// when the program is written. What only the program will know cannot raise an error any more: a
// wrong number there makes all outputs NaN.
class UntypedProgramArguments {
 public:
  UntypedProgramArguments(tensorflow::XlaOpKernelContext* c, const Attributes& attributes)
      : c_(c), attribute_(attributes.data()) {}

  const absl::Status& status() const { return status_; }

  Symbol<int> Bit(const char* name) { return Number<int>(name, &GetBit, &IsBit<Symbol<int>>); }

  Symbol<double> Threshold(const char* name, double limit) {
    return Number<double>(
        name,
        [limit](const tensorflow::Tensor& given, double* value) {
          return GetThreshold(given, limit, value);
        },
        [limit](const Symbol<double>& given) { return IsThreshold(given, limit); });
  }

  template <int n>
  int Choice(const char*, const char* const (&)[n]) {
    return *attribute_++;
  }

  HloLayout TensorLayout() const { return {}; }

  HloLayout ChannelLayout(const char*) {
    int axis = 0;
    Check(GetChannelAxis(shape_.dims(), first_name_, *attribute_++, &axis));
    // A tensor without elements has no channels to tell apart, however many there are.
    if (shape_.num_elements() == 0) return {};
    return {axis};
  }

  HloLayout ChannelLayoutIf(const char*, const char* axis) {
    if (*attribute_++) return ChannelLayout(axis);
    ++attribute_;
    return TensorLayout();
  }

 protected:
  xla::XlaOp NextTensor(const char* name) {
    const tensorflow::TensorShape shape = ShapeOf(inputs_);
    if (first_name_ == nullptr) {
      first_name_ = name;
      shape_ = shape;
    } else {
      Check(CheckSameShape(shape_, first_name_, shape, name));
    }
    return c_->Input(inputs_++);
  }

  xla::XlaOp NextScalar(const char* name) {
    Check(CheckScalar(ShapeOf(inputs_), name));
    return c_->Input(inputs_++);
  }

  xla::XlaOp NextPacked(const char* name, int planes) {
    Check(CheckPacked(ShapeOf(inputs_), name, {planes, WordsOf(shape_.num_elements()) / 2},
                      first_name_));
    return c_->Input(inputs_++);
  }

  // A number that is known by now has to pass `get`, any other `is_valid`.
  template <typename E, class Get, class IsValid>
  Symbol<E> Number(const char* name, const Get& get, const IsValid& is_valid) {
    const int input = inputs_;
    const xla::XlaOp op = NextScalar(name);
    if (!status_.ok()) return E(1);
    const auto constant = c_->InputExpression(input).ResolveConstant(c_->compiler()->client());
    Check(constant.status());
    if (!status_.ok()) return E(1);
    if (constant->has_value()) {
      E value = 1;
      Check(get(**constant, &value));
      return value;
    }
    if constexpr (std::is_same_v<E, int>) {
      const Symbol<int> given(op);
      valid_ = valid_ & is_valid(given);
      return given;
    } else if (c_->input_type(input) == tensorflow::DT_FLOAT) {
      const Symbol<float> given(op);
      valid_ = valid_ & is_valid(Widened(given));
      // A float stays as it is.
      if constexpr (std::is_same_v<E, float>) {
        return given;
      } else {
        return Widened(given);
      }
    } else {
      const Symbol<double> given(op);
      valid_ = valid_ & is_valid(given);
      if constexpr (std::is_same_v<E, float>) {
        return Narrowed(given);
      } else {
        return given;
      }
    }
  }

  // `value`, or NaN if some number turns out to be wrong.
  template <typename C>
  Symbol<C> IfValid(const Symbol<C>& value) const {
    if (valid_.known()) return value;
    return Select(valid_, value, Symbol<C>(std::numeric_limits<C>::quiet_NaN()));
  }

  // Packed bits, or ones if some number turns out to be wrong.
  xla::XlaOp IfValid(const HloWords& words) const {
    if (valid_.known()) return words.op;
    return Select(valid_, Symbol<int64_t>(words.op), Symbol<int64_t>(-1)).In(c_->builder());
  }

  tensorflow::XlaOpKernelContext* const c_;

 protected:
  void Check(const absl::Status& status) { status_.Update(status); }

 private:
  tensorflow::TensorShape ShapeOf(int input) {
    tensorflow::TensorShape shape;
    const auto given = c_->InputXlaShape(input);
    Check(given.status());
    if (given.ok()) Check(tensorflow::XLAShapeToTensorShape(*given, &shape));
    return shape;
  }

  const int* attribute_;  // the next one
  absl::Status status_;
  Symbol<bool> valid_ = true;
  int inputs_ = 0;
  const char* first_name_ = nullptr;  // of the first tensor
  tensorflow::TensorShape shape_;
};

// Answers an op's Bind with tensors of the program. What it answers after the first error is of no
// use.
template <typename T>
class ProgramArguments : public UntypedProgramArguments {
 public:
  using UntypedProgramArguments::UntypedProgramArguments;

  const Traced<T>* Tensor(const char* name) { return &inputs_.emplace_back(NextTensor(name)); }
  const Traced<T>* Scalar(const char* name) { return &inputs_.emplace_back(NextScalar(name)); }
  const HloWords* Packed(const char* name, int planes) {
    return &words_.emplace_back(HloWords{NextPacked(name, planes)});
  }
  HloWords* PackedOutput(const char*, int) { return &packed_outputs_.emplace_back(); }
  Traced<T>* TensorOutput(const char*) { return &outputs_.emplace_back(); }
  Traced<T>* ScalarOutput(const char*) { return &outputs_.emplace_back(); }

  // All of an op come after its tensors and scalars, and packed bits behind those.
  Symbol<Compute<T>>* NumberOutput(const char* name) {
    const int output = static_cast<int>(outputs_.size() + numbers_.size());
    constexpr auto kDtype = tensorflow::DataTypeToEnum<Compute<T>>::value;
    Check(CheckNumberType(c_->expected_output_dtype(output), kDtype, name));
    return &numbers_.emplace_back();
  }

  Symbol<Compute<T>> MaxValue(const char* name) {
    using C = Compute<T>;
    return Number<C>(name, &GetMaxValue<C>, &IsMaxValue<C, Symbol<double>>);
  }

  // Once the recipe has run.
  void SetOutputs() const {
    int output = 0;
    for (const Traced<T>& value : outputs_) {
      const xla::XlaOp wide = IfValid(Widen(value)).In(c_->builder());
      c_->SetOutput(output++, xla::ConvertElementType(wide, kHloType<T>));
    }
    for (const auto& value : numbers_) c_->SetOutput(output++, IfValid(value).In(c_->builder()));
    for (const HloWords& words : packed_outputs_) c_->SetOutput(output++, IfValid(words));
  }

 private:
  // Elements stay where they are: recipes have pointers to them.
  std::deque<Traced<T>> inputs_;
  std::deque<Traced<T>> outputs_;
  std::deque<Symbol<Compute<T>>> numbers_;
  std::deque<HloWords> words_;
  std::deque<HloWords> packed_outputs_;
};

}  // namespace lowbit

#endif  // LOWBIT_TF_XLA_ARGUMENTS_H_

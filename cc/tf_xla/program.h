// SPDX-License-Identifier: Apache-2.0
// The program that XLA compiles an op to: its inputs, its recipe, its outputs.
#ifndef LOWBIT_TF_XLA_PROGRAM_H_
#define LOWBIT_TF_XLA_PROGRAM_H_

#include <limits>
#include <optional>

#include "tensorflow/compiler/tf2xla/shape_util.h"
#include "tensorflow/compiler/tf2xla/xla_compiler.h"
#include "tensorflow/compiler/tf2xla/xla_op_kernel.h"
#include "tf/arguments.h"
#include "tf_xla/device.h"

namespace lowbit {

// Arguments are checked as far as they are known when the program is written. What only the program
// will know cannot raise an error any more: a wrong number there makes all outputs NaN.
class Program {
 public:
  explicit Program(tensorflow::XlaOpKernelContext* c) : c_(c) {}

  template <typename T>
  Traced<T> Tensor(int input) const {
    return Traced<T>(c_->Input(input));
  }

  absl::Status CheckSameShape(int input, absl::string_view name, int like,
                              absl::string_view like_name) const {
    tensorflow::TensorShape shape, like_shape;
    TF_RETURN_IF_ERROR(GetShape(input, &shape));
    TF_RETURN_IF_ERROR(GetShape(like, &like_shape));
    return lowbit::CheckSameShape(shape, name, like_shape, like_name);
  }

  absl::Status GetChannelAxis(int input, absl::string_view name, int axis,
                              int* channel_axis) const {
    tensorflow::TensorShape shape;
    TF_RETURN_IF_ERROR(GetShape(input, &shape));
    return lowbit::GetChannelAxis(shape.dims(), name, axis, channel_axis);
  }

  template <typename T>
  absl::Status GetScalar(int input, absl::string_view name, Traced<T>* value) const {
    TF_RETURN_IF_ERROR(CheckIsScalar(input, name));
    *value = Tensor<T>(input);
    return absl::OkStatus();
  }

  absl::Status GetBit(int input, Symbol<int>* bit) {
    return GetNumber<int>(input, "bit", &lowbit::GetBit, &IsBit<Symbol<int>>, bit);
  }

  template <typename C>
  absl::Status GetMaxValue(int input, Symbol<C>* max_value) {
    return GetNumber<C>(input, "max_value", &lowbit::GetMaxValue<C>, &IsMaxValue<C, Symbol<double>>,
                        max_value);
  }

  absl::Status GetThreshold(int input, double limit, Symbol<double>* threshold) {
    return GetNumber<double>(
        input, "threshold",
        [limit](const tensorflow::Tensor& given, double* value) {
          return lowbit::GetThreshold(given, limit, value);
        },
        [limit](const Symbol<double>& given) { return IsThreshold(given, limit); }, threshold);
  }

  template <class Recipe>
  void Run(const Recipe& recipe, std::optional<int64_t> axis = std::nullopt) const {
    HloDevice device(c_->builder(), IsEmpty(0) ? std::nullopt : axis);
    typename Recipe::Stats stats;
    recipe.Run(device, &stats);
  }

  template <typename T>
  void SetOutput(int output, const Traced<T>& y) const {
    using C = Symbol<Compute<T>>;
    const C nan(std::numeric_limits<Compute<T>>::quiet_NaN());
    const C value = valid_.known() ? Widen(y) : Select(valid_, Widen(y), nan);
    c_->SetOutput(output, xla::ConvertElementType(value.In(c_->builder()), kHloType<T>));
  }

 private:
  absl::Status GetShape(int input, tensorflow::TensorShape* shape) const {
    const auto given = c_->InputXlaShape(input);
    TF_RETURN_IF_ERROR(given.status());
    return tensorflow::XLAShapeToTensorShape(*given, shape);
  }

  // A tensor without elements has no channels to tell apart, however many there are.
  bool IsEmpty(int input) const {
    tensorflow::TensorShape shape;
    return GetShape(input, &shape).ok() && shape.num_elements() == 0;
  }

  absl::Status CheckIsScalar(int input, absl::string_view name) const {
    tensorflow::TensorShape shape;
    TF_RETURN_IF_ERROR(GetShape(input, &shape));
    return CheckScalar(shape, name);
  }

  // A number that is known by now has to pass `get`, any other `is_valid`.
  template <typename E, class Get, class IsValid>
  absl::Status GetNumber(int input, absl::string_view name, const Get& get, const IsValid& is_valid,
                         Symbol<E>* number) {
    TF_RETURN_IF_ERROR(CheckIsScalar(input, name));
    const auto constant = c_->InputExpression(input).ResolveConstant(c_->compiler()->client());
    TF_RETURN_IF_ERROR(constant.status());
    if (constant->has_value()) {
      E value;
      TF_RETURN_IF_ERROR(get(**constant, &value));
      *number = value;
      return absl::OkStatus();
    }
    if constexpr (std::is_same_v<E, int>) {
      *number = Symbol<int>(c_->Input(input));
      valid_ = valid_ & is_valid(*number);
    } else if (c_->input_type(input) == tensorflow::DT_FLOAT) {
      const Symbol<float> given(c_->Input(input));
      valid_ = valid_ & is_valid(Widened(given));
      // A float stays as it is.
      if constexpr (std::is_same_v<E, float>) {
        *number = given;
      } else {
        *number = Widened(given);
      }
    } else {
      const Symbol<double> given(c_->Input(input));
      valid_ = valid_ & is_valid(given);
      if constexpr (std::is_same_v<E, float>) {
        *number = Narrowed(given);
      } else {
        *number = given;
      }
    }
    return absl::OkStatus();
  }

  tensorflow::XlaOpKernelContext* const c_;
  Symbol<bool> valid_ = true;
};

}  // namespace lowbit

#endif  // LOWBIT_TF_XLA_PROGRAM_H_

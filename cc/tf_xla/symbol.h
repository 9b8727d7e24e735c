// SPDX-License-Identifier: Apache-2.0
// The vocabulary of the formulas (core/math.h) for values of a program that XLA compiles: a formula
// of symbols computes nothing, it writes the program.
#ifndef LOWBIT_TF_XLA_SYMBOL_H_
#define LOWBIT_TF_XLA_SYMBOL_H_

#include <cstdint>
#include <cstring>
#include <optional>
#include <type_traits>

#include "core/math.h"
#include "tf_xla/builder.h"

namespace lowbit {

template <typename E>
constexpr xla::PrimitiveType kHloType = xla::PRIMITIVE_TYPE_INVALID;
template <>
inline constexpr xla::PrimitiveType kHloType<bool> = xla::PRED;
template <>
inline constexpr xla::PrimitiveType kHloType<int> = xla::S32;
template <>
inline constexpr xla::PrimitiveType kHloType<int64_t> = xla::S64;
template <>
inline constexpr xla::PrimitiveType kHloType<uint32_t> = xla::U32;
template <>
inline constexpr xla::PrimitiveType kHloType<uint64_t> = xla::U64;
template <>
inline constexpr xla::PrimitiveType kHloType<float> = xla::F32;
template <>
inline constexpr xla::PrimitiveType kHloType<double> = xla::F64;
template <>
inline constexpr xla::PrimitiveType kHloType<Half> = xla::F16;
template <>
inline constexpr xla::PrimitiveType kHloType<Bfloat16> = xla::BF16;

// A scalar or tensor with elements of type E. What is known when the program is written stays a
// number: the factors of a constant max_value are computed here, with the bits of the CPU's.
template <typename E>
class Symbol {
 public:
  using Element = E;

  Symbol() : Symbol(E()) {}
  Symbol(E value) : value_(value) {}  // implicit: a symbol takes numbers beside it
  explicit Symbol(xla::XlaOp op) : op_(op), value_() {}
  template <typename From>
  explicit Symbol(const Symbol<From>& x);

  // Whether it is a number; else it is an op of the program.
  bool known() const { return op_.IsUninitialized(); }
  E value() const { return value_; }
  xla::XlaBuilder* builder() const { return known() ? nullptr : op_.builder(); }
  xla::XlaOp In(xla::XlaBuilder* builder) const {
    return known() ? xla::ConstantR0<E>(builder, value_) : op_;
  }

 private:
  xla::XlaOp op_;
  E value_;
};

// compute(numbers...) where all are known, else emit(ops...).
template <typename R, class Compute, class Emit, typename... E>
Symbol<R> Write(const Compute& compute, const Emit& emit, const Symbol<E>&... x) {
  if ((x.known() && ...)) return compute(x.value()...);
  xla::XlaBuilder* builder = nullptr;
  ((builder = builder == nullptr ? x.builder() : builder), ...);
  return Symbol<R>(emit(x.In(builder)...));
}

template <typename E>
template <typename From>
Symbol<E>::Symbol(const Symbol<From>& x)
    : Symbol(Write<E>([](From value) { return static_cast<E>(value); },
                      [](xla::XlaOp op) { return xla::ConvertElementType(op, kHloType<E>); }, x)) {}

// The second argument may also be a number.
#define LOWBIT_TAKES_NUMBER(symbol, R)                                           \
  template <typename E>                                                          \
  Symbol<R> operator symbol(const Symbol<E>& a, typename Symbol<E>::Element b) { \
    return a symbol Symbol<E>(b);                                                \
  }
#define LOWBIT_OPERATOR(symbol, R, Hlo)                                               \
  template <typename E>                                                               \
  Symbol<R> operator symbol(const Symbol<E>& a, const Symbol<E>& b) {                 \
    return Write<R>([](E x, E y) { return static_cast<R>(x symbol y); },              \
                    [](xla::XlaOp x, xla::XlaOp y) { return xla::Hlo(x, y); }, a, b); \
  }                                                                                   \
  LOWBIT_TAKES_NUMBER(symbol, R)
LOWBIT_OPERATOR(+, E, Add)
LOWBIT_OPERATOR(-, E, Sub)
LOWBIT_OPERATOR(*, E, Mul)
LOWBIT_OPERATOR(&, E, And)
LOWBIT_OPERATOR(==, bool, Eq)
LOWBIT_OPERATOR(!=, bool, Ne)
LOWBIT_OPERATOR(<, bool, Lt)
LOWBIT_OPERATOR(<=, bool, Le)
LOWBIT_OPERATOR(>, bool, Gt)
LOWBIT_TAKES_NUMBER(>=, bool)
#undef LOWBIT_OPERATOR
#undef LOWBIT_TAKES_NUMBER

// Nothing is at least NaN, and what is known to be false need not be in the program: XLA on a CPU
// gives a loop with more than one step for each byte to further threads, however small it is.
template <typename E>
Symbol<bool> operator>=(const Symbol<E>& a, const Symbol<E>& b) {
  if (b.known() && b.value() != b.value()) return false;
  return Write<bool>([](E x, E y) { return x >= y; },
                     [](xla::XlaOp x, xla::XlaOp y) { return xla::Ge(x, y); }, a, b);
}

inline Symbol<bool> operator|(const Symbol<bool>& a, const Symbol<bool>& b) {
  if (b.known() && !b.value()) return a;
  return Write<bool>([](bool x, bool y) { return x || y; },
                     [](xla::XlaOp x, xla::XlaOp y) { return xla::Or(x, y); }, a, b);
}

// The barrier keeps XLA from turning a division by a constant into a multiplication. It cannot have
// a size that only the program knows, nor is such a vector constant.
inline xla::XlaOp Divisor(xla::XlaOp x) {
  const auto shape = x.builder()->GetShape(x);
  return shape.ok() && shape->is_static() ? xla::OptimizationBarrier(x) : x;
}

template <typename E>
Symbol<E> operator/(const Symbol<E>& a, const Symbol<E>& b) {
  return Write<E>([](E x, E y) { return x / y; },
                  [](xla::XlaOp x, xla::XlaOp y) { return x / Divisor(y); }, a, b);
}

template <typename E>
Symbol<E> operator-(typename Symbol<E>::Element a, const Symbol<E>& b) {
  return Symbol<E>(a) - b;
}

template <typename E>
Symbol<E> operator-(const Symbol<E>& x) {
  return Write<E>([](E value) { return -value; }, [](xla::XlaOp op) { return xla::Neg(op); }, x);
}

template <typename E>
Symbol<E> Abs(const Symbol<E>& x) {
  return Write<E>([](E value) { return Abs(value); }, [](xla::XlaOp op) { return xla::Abs(op); },
                  x);
}

template <typename E>
Symbol<E> RoundHalfUp(const Symbol<E>& x) {
  return Write<E>([](E value) { return RoundHalfUp(value); },
                  [](xla::XlaOp op) { return xla::Round(op); }, x);
}

template <typename E>
Symbol<E> Select(const Symbol<bool>& mask, const Symbol<E>& yes, const Symbol<E>& no) {
  return Write<E>([](bool m, E a, E b) { return m ? a : b; },
                  [](xla::XlaOp m, xla::XlaOp a, xla::XlaOp b) { return xla::Select(m, a, b); },
                  mask, yes, no);
}

// XLA's programs on a CPU take subnormal numbers for zeros, but not their bits, which for positive
// numbers have the order of the numbers.
template <typename E>
using Bits = std::conditional_t<sizeof(E) == sizeof(uint32_t), uint32_t, uint64_t>;
template <typename E>
constexpr Bits<E> kSignBit = Bits<E>{1} << (8 * sizeof(E) - 1);
template <typename E>
constexpr Bits<E> kInfinityBits = sizeof(E) == sizeof(float) ? 0x7f800000u : 0x7ff0000000000000u;

template <typename To, typename From>
Symbol<To> BitCast(const Symbol<From>& x) {
  const auto compute = [](From value) {
    To same;
    std::memcpy(&same, &value, sizeof same);
    return same;
  };
  const auto emit = [](xla::XlaOp op) { return xla::BitcastConvertType(op, kHloType<To>); };
  return Write<To>(compute, emit, x);
}

template <typename E>
Symbol<Bits<E>> BitsOf(const Symbol<E>& x) {
  return BitCast<Bits<E>>(x);
}

template <typename E>
Symbol<Bits<E>> BitsOfAbs(const Symbol<E>& x) {
  return BitsOf(x) & (kSignBit<E> - 1);
}

template <typename E>
constexpr Bits<E> kLeastNormalBits = sizeof(E) == sizeof(float) ? 0x00800000u : 0x0010000000000000u;

// kScale * x, for x >= 0, subnormal or not. A subnormal number has as many of the smallest ones as
// its bits say.
template <typename E>
Symbol<E> ScaledUp(const Symbol<E>& x) {
  constexpr double kLeast = sizeof(E) == sizeof(float) ? 0x1p-149 : 0x1p-1074;
  const E scale = static_cast<E>(kLeast * kScale);
  return Select(BitsOf(x) < kLeastNormalBits<E>, Symbol<E>(BitsOf(x)) * scale, x * E(kScale));
}

// A double >= 0 as a float, subnormal or not.
inline Symbol<float> Narrowed(const Symbol<double>& x) {
  const auto rounded =
      Write<double>([](double value) { return __builtin_rint(value); },
                    [](xla::XlaOp op) { return xla::RoundNearestEven(op); }, x * 0x1p149);
  return Select(x < 0x1p-126, BitCast<float>(Symbol<uint32_t>(rounded)), Symbol<float>(x));
}

// A float as a double, subnormal or not.
inline Symbol<double> Widened(const Symbol<float>& x) {
  const auto bits = BitsOfAbs(x);
  const auto magnitude = Symbol<double>(bits) * 0x1p-149;
  const auto subnormal = Select(BitsOf(x) < kSignBit<float>, magnitude, -magnitude);
  return Select(bits < kLeastNormalBits<float>, subnormal, Symbol<double>(x));
}

// Of x >= 0. XLA makes one of two constant factors, even past a barrier, but not past a selection.
template <typename E>
Symbol<E> TimesPower(const Symbol<E>& x, const Symbol<E>& power) {
  return power.known() ? AtLeast(Symbol<E>(0), x) * power : x * power;
}

template <typename E>
Symbol<bool> IsPositive(const Symbol<E>& x) {
  return BitsOf(x) - 1 < kInfinityBits<E>;
}

template <typename E>
Symbol<bool> IsNegative(const Symbol<E>& x) {
  return BitsOf(x) - (kSignBit<E> + 1) < kInfinityBits<E>;
}

template <typename E>
Symbol<bool> IsInside(const Symbol<E>& x, const Symbol<E>& end) {
  return BitsOf(x) - 1 < BitsOf(end) - 1;
}

// The sign of infinity - |x|, which only NaN has, in all bits. A select would need a mask, and XLA
// unrolls the loop around it so often that those of two selects do not fit the registers.
template <typename E>
Symbol<E> NanPart(const Symbol<E>& x) {
  using B = Bits<E>;
  const auto spread = [](B bits) { return bits & kSignBit<E> ? ~B(0) : B(0); };
  const auto emit = [](xla::XlaOp bits) {
    const auto places = xla::ConstantR0<B>(bits.builder(), 8 * sizeof(E) - 1);
    return xla::ShiftRightArithmetic(bits, places);
  };
  return BitCast<E>(Write<B>(spread, emit, Symbol<B>(kInfinityBits<E>) - BitsOfAbs(x)));
}

template <typename E>
Symbol<E> Clipped(const Symbol<E>& x, const Symbol<E>& end) {
  const auto is_above = BitsOf(x) - BitsOf(end) <= Symbol<Bits<E>>(kInfinityBits<E>) - BitsOf(end);
  return Select(IsInside(x, end), x, Select(is_above, end, NanPart(x)));
}

template <typename E>
Symbol<bool> IsWithin(const Symbol<E>& x, const Symbol<E>& limit) {
  const Symbol<Bits<E>> nowhere(0);
  return BitsOfAbs(x) < Select(IsNan(limit), nowhere, BitsOfAbs(limit) + 1);
}

inline Symbol<double> PowerOfTwo(const Symbol<int>& exponent) {
  return Write<double>([](int e) { return PowerOfTwo(e); },
                       [](xla::XlaOp e) {
                         const auto one = xla::ConstantR0<int64_t>(e.builder(), 1);
                         const auto shift = xla::ConvertElementType(e, xla::S64);
                         return xla::ConvertElementType(xla::ShiftLeft(one, shift), xla::F64);
                       },
                       exponent);
}

// A tensor in place of an element of storage type T: where a recipe has a pointer to the elements,
// it is a pointer to the tensor. Holds the widened values; they are narrowed in the program's
// inputs and outputs.
template <typename T>
class Traced {
 public:
  Traced() = default;
  explicit Traced(const Symbol<Compute<T>>& wide) : wide_(wide) {}
  explicit Traced(xla::XlaOp stored)
      : wide_(xla::ConvertElementType(stored, kHloType<Compute<T>>)) {}

  friend const Symbol<Compute<T>>& Widen(const Traced& x) { return x.wide_; }

 private:
  Symbol<Compute<T>> wide_;
};

template <typename T>
struct ComputeOf<Traced<T>> {
  using type = Symbol<Compute<T>>;
};
template <typename E, typename T>
struct ScalarOf<E, Traced<T>> {
  using type = Symbol<E>;
};
template <typename E, typename C>
struct ScalarOf<E, Symbol<C>> {
  using type = Symbol<E>;
};

// All that a program says of a layout: the shapes of its tensors say the rest.
struct HloLayout {
  std::optional<int64_t> channel_axis;  // none: one channel
};
template <typename T>
struct LayoutsOf<Traced<T>> {
  using Tensor = HloLayout;
  using Channels = HloLayout;
};

inline bool MayBe(const Symbol<bool>& condition) { return !condition.known() || condition.value(); }

// dev.Map by one of two formulas, the condition perhaps known to the compiled program alone.
template <class Yes, class No>
struct Either {
  Symbol<bool> condition;
  Yes yes;
  No no;

  template <class S, class... V>
  auto operator()(const S& s, const V&... x) const {
    return Select(condition, yes(s, x...), no(s, x...));
  }
};

template <class Device, class Yes, class No, class... Arguments>
void MapEither(Device& dev, const Symbol<bool>& condition, const Yes& yes, const No& no,
               Arguments... arguments) {
  dev.Map(Either<Yes, No>{condition, yes, no}, arguments...);
}

}  // namespace lowbit

#endif  // LOWBIT_TF_XLA_SYMBOL_H_

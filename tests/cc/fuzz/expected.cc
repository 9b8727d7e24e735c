// SPDX-License-Identifier: Apache-2.0
#include "expected.h"

#include <cmath>
#include <limits>
#include <optional>
#include <sstream>

#include "numbers.h"

namespace lowbit::fuzz {
namespace {

// Sums beyond it may overflow in one order of additions and not in another.
constexpr long double kLargestSum = 1e308L;

class Check {
 public:
  Check(const Case& c, const TestCall& call)
      : case_(c), call_(call), size_(c.layout.size()), dtype_(c.dtype) {}

  std::string Result() {
    if (size_ == 0) {
      CheckEmpty();
      return message_;
    }
    switch (case_.kernel) {
      case kLinear:
        Linear();
        break;
      case kLinearGrad:
        LinearGrad();
        break;
      case kBinary:
        ForChannels([this](int64_t c) { Binary(c); });
        break;
      case kTtq:
        Ttq();
        break;
      case kTtqGrad:
        TtqGrad();
        break;
      case kTwn:
        ForChannels([this](int64_t c) { Twn(c); });
        break;
      case kAbsmean:
        ForChannels([this](int64_t c) { Absmean(c); });
        break;
      case kPactGrad:
        PactGrad();
        break;
      case kMask:
        Mask();
        break;
      case kMaskGrad:
      case kPactMaskGrad:
        MaskGrad();
        break;
      default:
        Fail("no formula is known");
    }
    return message_;
  }

 private:
  double In(int input, int64_t i) const { return Get(dtype_, call_.input[input], i); }
  double Out(int output, int64_t i) const {
    return Get(DtypeOf(case_.kernel, output, dtype_), call_.output[output], i);
  }
  double C(double value) const { return Computed(dtype_, value); }
  double T(double value) const { return RoundTo(dtype_, value); }

  // The first one is told.
  template <class... Parts>
  void Fail(const Parts&... parts) {
    if (!message_.empty()) return;
    std::ostringstream text;
    text.precision(17);
    (text << ... << parts);
    message_ = text.str();
  }

  void Exact(int output, int64_t i, double expected) {
    const double right = T(expected);
    const double got = Out(output, i);
    if (!Same(got, right)) {
      Fail("element ", i, " of output ", output, " must be ", right, ", got ", got);
    }
  }

  void CheckEmpty() {
    for (int output = 1; output < kOutputs[case_.kernel]; ++output) {
      if (Out(output, 0) != 0) Fail("output ", output, " must be 0, got ", Out(output, 0));
    }
  }

  template <class Body>
  void ForChannels(const Body& body) {
    for (int64_t c = 0; c < call_.channels; ++c) body(c);
  }

  template <class Body>
  void ForChannel(int64_t channel, const Body& body) const {
    for (int64_t o = 0; o < call_.outer; ++o) {
      const int64_t begin = (o * call_.channels + channel) * call_.inner;
      for (int64_t i = begin; i < begin + call_.inner; ++i) body(i);
    }
  }

  void Linear() {
    const double max = C(case_.hyper);
    const double n = std::ldexp(1.0, case_.bit) - 1;
    const double per_unit = C(n / max);
    const double step = C(max / n);
    for (int64_t i = 0; i < size_; ++i) {
      const double x = In(0, i);
      const double clipped = x > max ? max : x > 0 ? x : 0;
      const double level = std::round(C(clipped * per_unit));
      double y = level >= C(n) || clipped == max ? max : C(level * step);
      if (case_.bit == 32) y = clipped;
      if (std::isnan(x)) y = x;
      if (std::isinf(per_unit) && case_.bit < 32 && clipped < max && !std::isnan(x)) {
        TinyStep(i, clipped, max, n);
      } else {
        Exact(0, i, y);
      }
    }
  }

  // Where n / max_value exceeds the largest number, no more is promised than the formula, ties and
  // what is near them aside; of many levels all are near.
  void TinyStep(int64_t i, double clipped, double max, double n) {
    const long double exact = static_cast<long double>(clipped) / max * n;
    const long double from_tie = std::fabs(exact - std::floor(exact) - 0.5L);
    if (from_tie < exact * 0x1p-21L + 1e-6L) return;
    const long double level = std::floor(exact + 0.5L);
    const auto right = static_cast<double>(level * max / n);
    const double ulps = 4 * std::ldexp(right, dtype_ == kDouble ? -52 : -23);
    const double got = Out(0, i);
    if (!Near(dtype_, got, T(right), ulps)) {
      Fail("element ", i, " must be level ", level, ", ", right, ", got ", got);
    }
  }

  void LinearGrad() {
    const double max = C(case_.hyper);
    for (int64_t i = 0; i < size_; ++i) {
      const double x = In(1, i);
      Exact(0, i, std::isnan(x) ? x : x > 0 && x < max ? In(0, i) : 0);
    }
  }

  void PactGrad() {
    const double max = C(case_.hyper);
    long double sum = 0;
    long double magnitudes = 0;
    for (int64_t i = 0; i < size_; ++i) {
      const double dy = In(0, i);
      const double x = In(1, i);
      const double above = std::isnan(x) ? x : x >= max ? dy : 0;
      Exact(0, i, std::isnan(x) ? x : x > 0 && x < max ? dy : 0);
      sum += above;
      magnitudes += FiniteMagnitude(above);
    }
    CheckSum(1, sum, magnitudes);
  }

  bool Bit(const void* planes, int plane, int64_t i) const {
    const Word* words = static_cast<const Word*>(planes) + plane * WordsOf(size_);
    return words[i / kWordBits] >> i % kWordBits & 1;
  }

  void Mask() {
    const double max = C(case_.hyper);
    for (int64_t i = 0; i < WordsOf(size_) * kWordBits; ++i) {
      const double x = i < size_ ? In(0, i) : 0;
      const bool right[] = {std::isnan(x) || (x > 0 && x < max), x >= max};
      for (int plane : {0, 1}) {
        if (Bit(call_.output[0], plane, i) != right[plane]) {
          Fail("bit ", i, " of plane ", plane, " must be ", right[plane]);
        }
      }
    }
  }

  void MaskGrad() {
    long double sum = 0;
    long double magnitudes = 0;
    for (int64_t i = 0; i < size_; ++i) {
      const double dy = In(0, i);
      Exact(0, i, Bit(call_.input[1], 0, i) ? dy : 0);
      if (case_.kernel != kPactMaskGrad || !Bit(call_.input[1], 1, i)) continue;
      sum += dy;
      magnitudes += FiniteMagnitude(dy);
    }
    if (case_.kernel == kPactMaskGrad) CheckSum(1, sum, magnitudes);
  }

  // Of the magnitudes in a channel; nothing where their sum may overflow or not.
  std::optional<double> Mean(int64_t channel) const {
    long double sum = 0;
    ForChannel(channel, [&](int64_t i) { sum += std::fabs(In(0, i)); });
    if (std::isfinite(sum) && sum > kLargestSum) return std::nullopt;
    return static_cast<double>(sum / (call_.outer * call_.inner));
  }

  void Binary(int64_t channel) {
    const auto mean = Mean(channel);
    if (!mean) return;
    CheckScale(channel, T(C(*mean)), [&](int64_t i) { return In(0, i) < 0 ? -1 : 1; });
  }

  // Every element must be the scale times its sign, and all have one scale.
  template <class Sign>
  void CheckScale(int64_t channel, double scale, const Sign& sign) {
    double common = std::numeric_limits<double>::quiet_NaN();
    ForChannel(channel, [&](int64_t i) {
      const double got = Out(0, i);
      const int s = sign(i);
      const bool first = std::isnan(common);
      if (s != 0 && first) common = std::fabs(got);
      const bool right =
          s == 0 ? Same(got, 0)
                 : Near(dtype_, got, s * scale) && (first || Same(got, std::copysign(common, s)));
      if (!right) {
        Fail("element ", i, " must be ", s, " times ", scale, ", got ", got,
             "; the first of its channel is ", common);
      }
    });
  }

  // NaN if a weight is.
  double LargestMagnitude(int input) const {
    double largest = 0;
    for (int64_t i = 0; i < size_; ++i) {
      const double w = std::fabs(In(input, i));
      if (std::isnan(w) || w > largest) largest = w;
      if (std::isnan(largest)) break;
    }
    return largest;
  }

  // Nothing exceeds 0 times infinity.
  double Threshold(double statistic) const {
    const double t = case_.hyper * statistic;
    return C(std::isnan(t) ? statistic : t);
  }

  void Ttq() {
    const double t = Threshold(LargestMagnitude(0));
    for (int64_t i = 0; i < size_; ++i) {
      const double w = In(0, i);
      const double ternary = std::fabs(w) <= t ? 0 : w > 0 ? In(1, 0) : -In(2, 0);
      Exact(0, i, std::isnan(t) ? t : ternary);
    }
  }

  void TtqGrad() {
    const double t = Threshold(LargestMagnitude(1));
    long double sums[2] = {0, 0};
    long double magnitudes[2] = {0, 0};
    for (int64_t i = 0; i < size_; ++i) {
      const double dy = In(0, i);
      const double w = In(1, i);
      const int region = std::fabs(w) <= t ? 0 : w > 0 ? 1 : 2;
      if (region > 0) {
        sums[region - 1] += dy;
        magnitudes[region - 1] += FiniteMagnitude(dy);
      }
      const double dw = region == 0 ? dy : C(dy * In(1 + region, 0));
      Exact(0, i, std::isnan(t) ? t : dw);
    }
    if (!case_.paper) sums[1] = -sums[1];
    for (int k : {0, 1}) CheckSum(1 + k, std::isnan(t) ? t : sums[k], magnitudes[k]);
  }

  static double FiniteMagnitude(double x) { return std::isfinite(x) ? std::fabs(x) : 0; }

  // `magnitudes` is the sum of those of the finite terms. Where some of them may overflow, an
  // infinity among the terms may meet one of the other sign.
  void CheckSum(int output, long double sum, long double magnitudes) {
    if (magnitudes > kLargestSum) return;
    const int dtype = DtypeOf(case_.kernel, output, dtype_);
    const double right = RoundTo(dtype, C(static_cast<double>(sum)));
    const double got = Out(output, 0);
    const double relative = dtype == kDouble ? 1e-14 : 0x1p-46;
    if (!Near(dtype, got, right, static_cast<double>(magnitudes * relative))) {
      Fail("output ", output, " must be ", right, ", got ", got);
    }
  }

  // -1, 0 or 1. An element within a few ulp of the threshold may be on either side.
  int Level(int64_t i, double t) const {
    double margin = dtype_ == kDouble ? t * 1e-13 : t * 0x1p-22 + 0x1p-148;
    if (std::isinf(t)) margin = 0;
    const double w = std::fabs(In(0, i));
    const bool is_kept = std::fabs(w - t) <= margin ? Out(0, i) != 0 : w > t;
    return !is_kept ? 0 : In(0, i) < 0 ? -1 : 1;
  }

  void AllNan(int64_t channel) {
    ForChannel(channel, [&](int64_t i) { Exact(0, i, std::numeric_limits<double>::quiet_NaN()); });
  }

  // The scale must be the mean of those that are not zero.
  void Twn(int64_t channel) {
    const auto mean = Mean(channel);
    if (!mean) return;
    const double t = Threshold(*mean);
    if (std::isnan(t)) return AllNan(channel);
    long double kept = 0;
    int64_t count = 0;
    ForChannel(channel, [&](int64_t i) {
      if (Level(i, t) != 0) kept += std::fabs(In(0, i)), ++count;
    });
    const double scale = count > 0 ? T(C(static_cast<double>(kept / count))) : 0;
    CheckScale(channel, scale, [&](int64_t i) { return Level(i, t); });
  }

  void Absmean(int64_t channel) {
    const auto mean = Mean(channel);
    if (!mean) return;
    if (std::isnan(*mean)) return AllNan(channel);
    CheckScale(channel, T(C(*mean)), [&](int64_t i) { return Level(i, C(*mean / 2)); });
  }

  const Case& case_;
  const TestCall& call_;
  const int64_t size_;
  const int dtype_;
  std::string message_;
};

}  // namespace

std::string Wrong(const Case& c, const TestCall& call) { return Check(c, call).Result(); }

}  // namespace lowbit::fuzz

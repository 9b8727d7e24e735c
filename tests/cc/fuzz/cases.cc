// SPDX-License-Identifier: Apache-2.0
#include "cases.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "core/plan.h"

namespace lowbit::fuzz {
namespace {

constexpr int64_t kTask = kBlocks * kRows * kLanes;
constexpr int64_t kWidths[] = {512, 1024, 2048};  // lanes of a task, on a CPU or a GPU
constexpr int64_t kSerial = 262144;               // elements that one thread computes
constexpr int64_t kMostElements = 700000;

// Around a multiple of `unit`.
int64_t Around(Random& random, int64_t unit, int64_t most_units) {
  return std::max<int64_t>(0, unit * random.Between(0, most_units) + random.Between(-2, 2));
}

int64_t Size(Random& random) {
  switch (random.Between(0, 4)) {
    case 0:
      return random.Between(0, 70);
    case 1:
      return Around(random, kLanes, 20);
    case 2:
      return Around(random, kRows * kLanes, 5);
    case 3:
      return random.Between(0, 5000);
    default:
      return Around(random, kTask, 3);
  }
}

// Of `row` elements side by side, of which `copies` make a run: whole runs around a task's, and a
// ragged rest.
int64_t Outer(Random& random, int64_t row, bool threaded) {
  int64_t copies = 1;
  while (copies * row < kLanes) copies *= 2;
  constexpr int64_t kTaskRuns = kBlocks * kRows;
  const int64_t most = threaded ? kMostElements / (copies * row) : 3 * kTaskRuns;
  const int64_t least = threaded ? kSerial / (copies * row) + 1 : 0;
  constexpr int64_t kNear[] = {-1, 0, 1, 1, 1, 2, kRows - 1, kRows, kRows + 1};
  const int64_t around = random.Between(least, std::max(least, most)) / kTaskRuns * kTaskRuns;
  const int64_t runs = std::max<int64_t>(0, std::max(least, around) + random.Pick(kNear));
  return runs * copies + random.Between(0, copies - 1);
}

// How many channels of `inner` elements; rows fit the widest task, or take some of them.
int64_t Channels(Random& random, int64_t inner) {
  const int64_t tile = random.Pick(kWidths) / inner;
  constexpr int64_t kUsual[] = {2, 3, 4, 8, 16, 32, 64, 65, 96, 127, 128, 129, 255, 256, 257, 512};
  switch (random.Between(0, 3)) {
    case 0:
      return random.Between(2, std::max<int64_t>(3, kLanes / inner + 1));
    case 1:
      return random.Pick(kUsual);
    case 2:
      return std::max<int64_t>(2, Around(random, tile, 3));
    default:
      return random.Between(2, tile + 2);
  }
}

Layout Columns(Random& random, bool threaded) {
  constexpr int64_t kInner[] = {1, 1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 100, 255};
  const int64_t inner = random.OneIn(4) ? random.Between(1, kLanes - 1) : random.Pick(kInner);
  const int64_t channels = Channels(random, inner);
  const int64_t row = channels * inner;
  const int64_t most = (threaded ? kMostElements : random.OneIn(8) ? 80000 : 20000) / row;
  return {std::min(Outer(random, row, threaded), std::max<int64_t>(1, most)), channels, inner};
}

Layout Segments(Random& random, bool threaded) {
  const int64_t channels = random.Between(1, 6);
  const int64_t outer = random.Between(1, 4);
  const int64_t least = threaded ? kSerial / (channels * outer) + 1 : kLanes;
  const int64_t inner = std::max(Size(random), least);
  const int64_t most = threaded ? kMostElements : 40000;
  return {outer, channels,
          std::max(kLanes + random.Between(0, 3), std::min(inner, most / (channels * outer)))};
}

// Empty, and as large otherwise as a shape may be.
Layout Empty(Random& random) {
  int64_t sizes[] = {0, random.Between(0, 3), random.Between(0, 3)};
  if (random.OneIn(2)) {
    sizes[1] = int64_t{1} << random.Between(0, 62);
    sizes[1] += random.OneIn(2) ? random.Between(-1, 1) : sizes[1] / random.Between(2, 16);
    if (random.OneIn(2)) sizes[2] = random.Between(0, 0x7fffffffffffffff / (sizes[1] + 1));
  }
  for (int i : {2, 1}) std::swap(sizes[i], sizes[random.Between(0, i)]);
  return {sizes[0], sizes[1], sizes[2]};
}

Layout RandomLayout(Random& random, int kernel, bool threaded) {
  const bool has_channels = kernel == kBinary || kernel == kTwn || kernel == kAbsmean;
  if (!threaded && random.OneIn(30)) return Empty(random);
  if (!has_channels || random.OneIn(4)) {
    const int64_t size = threaded ? kSerial + 1 + random.Between(0, 20) * 7777 : Size(random);
    return {1, 1, size};
  }
  return random.OneIn(4) ? Segments(random, threaded) : Columns(random, threaded);
}

double RandomHyper(Random& random, const Case& c) {
  constexpr double kTernary[] = {0, 0.05, 0.5, 0.7, 0.9999, 1e-30};
  if (c.kernel == kTtq || c.kernel == kTtqGrad) return random.Pick(kTernary);
  if (c.kernel == kTwn) {
    constexpr double kLarge[] = {1, 1.5, 100, 1e30, 3e38};
    return random.OneIn(4) ? random.Pick(kLarge) : random.Pick(kTernary);
  }
  constexpr double kMax[] = {1, 2, 6, 0.1, 0.3, 255, 3e38, 1e-20, 65504, 1e-37, 2e-307};
  const double max = random.OneIn(2) ? random.Pick(kMax) : std::fabs(random.Value()) + 0.01;
  const double computed = Computed(c.dtype, max);
  return computed > 0 ? computed : Computed(c.dtype, 1e-38);
}

enum class Values { kUsual, kBits, kSpecial, kTies, kConstant, kZeros, kTiny, kHuge, kSteps };

// Where the formula changes its mind.
double Edge(Random& random, const Case& c) {
  constexpr double kNear[] = {0, 1, -1, 0.5, 2};
  if (c.kernel == kLinear || c.kernel == kLinearGrad || c.kernel == kPactGrad ||
      c.kernel == kMask) {
    const double n = std::ldexp(1.0, c.bit) - 1;
    const double step = c.hyper / n;
    return step *
           (std::floor(random.Unit() * (n + 2)) + 0.5 * static_cast<double>(random.OneIn(2)));
  }
  return random.Pick(kNear) * (c.hyper + 1) * (random.OneIn(2) ? 1 : -1);
}

double RandomValue(Random& random, const Case& c, Values values) {
  constexpr double kSpecial[] = {0.0,   -0.0,   6e-8,   -6e-8,   1e-40, -1e-40, 5e-324, -5e-324,
                                 65504, -65504, 3.3e38, -3.3e38, 1e300, -1e300, 1.0,    -1.0};
  switch (values) {
    case Values::kSpecial:
      return random.OneIn(2) ? random.Value() : random.Pick(kSpecial);
    case Values::kTies:
      return Edge(random, c);
    case Values::kTiny:
      return random.Value() * std::ldexp(1.0, random.OneIn(2) ? -126 : -1060);
    case Values::kHuge:
      return random.Value() * (c.dtype == kHalf ? 2e4 : c.dtype == kDouble ? 1e300 : 1e38);
    case Values::kSteps:
      return std::round(random.Value());
    default:
      return random.Value();
  }
}

void Fill(Random& random, const Case& c, Bytes& tensor, int64_t size) {
  constexpr Values kValues[] = {Values::kUsual,   Values::kUsual, Values::kBits, Values::kTies,
                                Values::kSpecial, Values::kTies,  Values::kTiny, Values::kConstant,
                                Values::kZeros,   Values::kHuge,  Values::kSteps};
  const Values values = random.Pick(kValues);
  const double constant = values == Values::kZeros ? 0 : random.Value();
  const bool same = values == Values::kConstant || values == Values::kZeros;
  // Of large tensors, values repeat: to make them takes longer than the kernel.
  const int64_t period = size > 20000 ? 4099 : size;
  for (int64_t i = 0; i < std::min(period, size); ++i) {
    uint64_t bits = random.Bits();
    if (values != Values::kBits) {
      bits = Encode(c.dtype, same ? constant : RandomValue(random, c, values));
    }
    Put(c.dtype, tensor.data(), i, bits);
  }
  const int64_t item = kItemSize[c.dtype];
  for (int64_t i = period; i < size; i += period) {
    std::copy_n(tensor.data(), std::min(period, size - i) * item, tensor.data() + i * item);
  }
}

// Now and then one element that is not finite, at either end more often than within.
void Spoil(Random& random, const Case& c, Bytes& tensor, int64_t size) {
  constexpr double kSpoilt[] = {__builtin_nan(""), __builtin_inf(), -__builtin_inf()};
  if (size == 0 || !random.OneIn(6)) return;
  const int64_t near_end = std::max<int64_t>(0, size - random.Between(1, 40));
  const int64_t at = random.OneIn(2) ? near_end : random.Between(0, size - 1);
  Put(c.dtype, tensor.data(), at, Encode(c.dtype, random.Pick(kSpoilt)));
}

}  // namespace

Case RandomCase(Random& random, int64_t threaded) {
  Case c{};
  c.kernel = static_cast<int>(random.Between(0, kKernels - 1));
  c.dtype = static_cast<int>(random.Between(0, 3));
  c.layout = RandomLayout(random, c.kernel, random.OneIn(threaded));
  constexpr int kBits[] = {1, 2, 3, 4, 8, 16, 24, 31, 32};
  c.bit = random.Pick(kBits);
  c.paper = random.OneIn(2);
  c.hyper = RandomHyper(random, c);
  for (int i = 0; i < kInputs[c.kernel]; ++i) {
    c.input[i].resize(c.bytes(i));
    if (i < kTensors[c.kernel]) {
      Fill(random, c, c.input[i], c.elements(i));
      Spoil(random, c, c.input[i], c.elements(i));
    } else if (c.is_mask(i)) {
      // What lies behind the last element is nobody's.
      for (unsigned char& byte : c.input[i]) byte = static_cast<unsigned char>(random.Bits());
    } else {
      const uint64_t bits = random.OneIn(8) ? random.Bits() : Encode(c.dtype, random.Value());
      Put(c.dtype, c.input[i].data(), 0, bits);
    }
  }
  return c;
}

std::string Describe(const Case& c) {
  std::ostringstream text;
  text << kKernelNames[c.kernel] << " " << kDtypeNames[c.dtype] << " [" << c.layout.outer << ", "
       << c.layout.channels << ", " << c.layout.inner << "] bit " << c.bit << " hyper " << c.hyper
       << (c.paper ? " paper" : "");
  return text.str();
}

}  // namespace lowbit::fuzz

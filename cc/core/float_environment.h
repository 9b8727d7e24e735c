// SPDX-License-Identifier: Apache-2.0
// IEEE arithmetic, whatever the calling thread has set up for itself.
#ifndef LOWBIT_CORE_FLOAT_ENVIRONMENT_H_
#define LOWBIT_CORE_FLOAT_ENVIRONMENT_H_

#if defined(__SSE__)
#include <xmmintrin.h>
#else
#include <cfenv>
#endif

#include "core/types.h"

namespace lowbit {

// While it lives, this thread rounds to nearest and keeps subnormals. TensorFlow's threads flush
// them to zero, which would give -1e-40 the sign of +0.
class FloatEnvironment {
#if defined(__SSE__)
  // The vector unit's register alone. <cfenv> saves that of the x87 as well, ten times as slow:
  // twice a pass, 6 % of the binary quantizer of 37 K elements.
 public:
  LOWBIT_HD FloatEnvironment() : saved_(_mm_getcsr()) { _mm_setcsr(kDefault); }
  LOWBIT_HD ~FloatEnvironment() { _mm_setcsr(saved_); }

 private:
  static constexpr unsigned kDefault = 0x1f80;  // nothing flushed, to nearest, no exception traps
  unsigned saved_;
#else
 public:
  LOWBIT_HD FloatEnvironment() {
    std::fegetenv(&saved_);
    std::fesetenv(FE_DFL_ENV);
  }
  LOWBIT_HD ~FloatEnvironment() { std::fesetenv(&saved_); }

 private:
  std::fenv_t saved_;
#endif
};

}  // namespace lowbit

#endif  // LOWBIT_CORE_FLOAT_ENVIRONMENT_H_

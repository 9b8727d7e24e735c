// SPDX-License-Identifier: Apache-2.0
// What a kernel must give, in doubles, by the formulas of docs/numerics.md.
#ifndef LOWBIT_TESTS_FUZZ_EXPECTED_H_
#define LOWBIT_TESTS_FUZZ_EXPECTED_H_

#include <string>

#include "cases.h"

namespace lowbit::fuzz {

// What is wrong with the outputs of a case's call, whose arrays hold its inputs and outputs; "" if
// nothing is.
std::string Wrong(const Case& c, const TestCall& call);

}  // namespace lowbit::fuzz

#endif  // LOWBIT_TESTS_FUZZ_EXPECTED_H_

// SPDX-License-Identifier: Apache-2.0
// The recipes of kernels.inc.
#ifndef LOWBIT_CORE_RECIPES_H_
#define LOWBIT_CORE_RECIPES_H_

#include "core/binary.h"
#include "core/mid_tread.h"
#include "core/ttq.h"
#include "core/twn.h"

#endif  // LOWBIT_CORE_RECIPES_H_

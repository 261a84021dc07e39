// SPDX-License-Identifier: GPL-2.0
#include "rules.h"
struct port0_rules port0_rules;

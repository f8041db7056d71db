/* Products of weights in int4 and int6 (int4_order.h) with a few rows of x, which are brought to eight bits. */
#pragma once

#include "formats/table.h"

FORMAT_FUNCTIONS(int4);

/* The table of weight formats. */
#include "formats/table.h"

#include "formats/gguf.h"
#include "formats/grouped.h"
#include "formats/grouped_int4.h"
#include "formats/int4.h"
#include "linear/plain.h"

#define FUNCTIONS(name, scaled) {name##_line, name##_row_size, name##_pack_row, name##_sums, scaled}

const FormatFunctions FORMATS[] = {
    [BFLOAT16] = FUNCTIONS(plain, false),
    [INT8] = FUNCTIONS(plain, true),
    [FLOAT32] = FUNCTIONS(plain, false),
    [FLOAT16] = FUNCTIONS(plain, false),
    [WIDE_BFLOAT16] = FUNCTIONS(plain, false),
    [INT4] = FUNCTIONS(int4, true),
    [INT6] = FUNCTIONS(int4, true),
    [Q8_0] = FUNCTIONS(gguf, false),
    [Q4_K] = FUNCTIONS(gguf, false),
    [Q6_K] = FUNCTIONS(gguf, false),
    [GGUF_MXFP4] = FUNCTIONS(gguf, false),
    [GROUPED_INT4] = FUNCTIONS(grouped_int4, false),
    [MXFP4] = FUNCTIONS(grouped, false),
    [NVFP4] = FUNCTIONS(grouped, false),
    [FP8] = FUNCTIONS(grouped, false),
};

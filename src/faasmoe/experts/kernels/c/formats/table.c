/* The table of weight formats. */
#include "formats/table.h"

#include "formats/gguf.h"
#include "formats/grouped.h"
#include "formats/grouped_int4.h"
#include "formats/int4.h"
#include "linear/plain.h"

#define FUNCTIONS(name) {name##_line, name##_row_size, name##_pack_row, name##_sums}

const FormatFunctions FORMATS[] = {
    [BFLOAT16] = FUNCTIONS(plain),
    [INT8] = FUNCTIONS(plain),
    [FLOAT32] = FUNCTIONS(plain),
    [FLOAT16] = FUNCTIONS(plain),
    [WIDE_BFLOAT16] = FUNCTIONS(plain),
    [INT4] = FUNCTIONS(int4),
    [Q8_0] = FUNCTIONS(gguf),
    [Q4_K] = FUNCTIONS(gguf),
    [Q6_K] = FUNCTIONS(gguf),
    [GROUPED_INT4] = FUNCTIONS(grouped_int4),
    [MXFP4] = FUNCTIONS(grouped),
    [NVFP4] = FUNCTIONS(grouped),
    [FP8] = FUNCTIONS(grouped),
};

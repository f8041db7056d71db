/* A block of experts over any number of rows, in one call.
 *
 * Gather, gate, router weight and sum happen between the linear layers. Python is entered once a call, not once a step
 * of the arithmetic: for one row these steps take as long as reading a third of an expert.
 */
#include "expert/fused.h"

#include "expert/gate.h"
#include "linear/matvec.h"
#include "base/scratch.h"
#include "linear/transposed.h"

enum {
    MOST_SLOTS = 12 * MOST_ROWS, /* rows of an expert at once: enough that the time is that of arithmetic */
    KEPT = 2 << 20, /* bytes that a thread keeps until its next call, which may not come for long */
};

/* The first layer is one matrix or two of one format: gate and up, whose weights are NULL if there is none. The second
 * layer may have another format that has rows in the same dtype.
 */
typedef struct {
    Matrix first[2], down;
} Expert;

struct Block {
    const Expert *experts;
    int64_t count, hidden, inner;
    int64_t outs; /* of each matrix of the first layer: inner, or twice that if gate and up are in one */
    Gate gate;
    int32_t transposed;  /* whether weights are [ins, outs], of floats */
    int32_t interleaved; /* whether gate and up alternate in one matrix, instead of following each other */
    int32_t rounded;     /* whether what the gate gives is rounded to bfloat16, though rows are float32 */
};

/* The slots of a call: slot s sends row `row[s]` to expert `expert[s]`; they are counted, and in order, by expert. */
typedef struct {
    const char *rows;      /* [*, hidden] in float32 if the weights' format is `wide`, else bfloat16 */
    const int32_t *picked; /* which of `rows` are meant, or NULL: all */
    const int32_t *row, *expert;
    const float *weight;
    float *sums; /* [*, hidden] */
} Slots;

/* Memory for one expert's rows. */
typedef struct {
    int32_t *order, *ends; /* slots by expert; where each expert's end */
    char *x, *gated;       /* as the kernels of the layers' formats read them */
    float *first;          /* what the first layer gives, [MOST_SLOTS, its width] */
    void *line;            /* [inner] in the dtype of rows */
} Room;

typedef struct {
    Sink sink;
    float *to;
    int64_t stride;
} Storing;

typedef struct {
    Sink sink;
    const Slots *slots;
    const int32_t *which;
    int64_t hidden;
} Adding;

static void take_first(const Sink *sink, const float *values, int64_t stride, int64_t row, int64_t rows, int64_t out,
                       int64_t outs)
{
    const Storing *storing = (const Storing *)sink;
    for (int64_t i = 0; i < rows; i++)
        memcpy(storing->to + storing->stride * (row + i) + out, values + stride * i, sizeof *values * outs);
}

static void add_weighted(const Sink *sink, const float *values, int64_t stride, int64_t row, int64_t rows, int64_t out,
                         int64_t outs)
{
    const Adding *adding = (const Adding *)sink;
    for (int64_t i = 0; i < rows; i++) {
        int32_t slot = adding->which[row + i];
        float *to = adding->slots->sums + adding->hidden * adding->slots->row[slot] + out;
        for (int64_t place = 0; place < outs; place++)
            to[place] += adding->slots->weight[slot] * values[stride * i + place];
    }
}

/* Numbers of a row that the first layer gives. */
static int64_t first_width(const Block *block)
{
    return block->gate.kind == NO_GATE ? block->inner : 2 * block->inner;
}

static Format first_format(const Block *block)
{
    return block->experts->first[0].format;
}

static Format second_format(const Block *block)
{
    return block->experts->down.format;
}

/* Bytes of so many rows of x for weights of the block in a format. */
static int64_t rows_size(const Block *block, Format format, int64_t rows, int64_t ins)
{
    return block->transposed ? rows * ins * (int64_t)sizeof(float) : rows * row_size(format, ins);
}

static void lay_row(const Block *block, Format format, const void *x, char *to, int64_t rows, int64_t row, int64_t ins)
{
    float *line = (float *)to + ins * row;
    if (!block->transposed)
        pack_row(format, x, to, rows, row, ins);
    else if (wide(format))
        memcpy(line, x, sizeof *line * ins);
    else
        for (int64_t i = 0; i < ins; i++)
            line[i] = widen(((const bfloat16 *)x)[i]);
}

static void multiply(const Block *block, const Matrix *matrix, const char *x, int64_t rows, int64_t ins, int64_t outs,
                     const Sink *sink)
{
    if (block->transposed)
        transposed_products(matrix, (const float *)x, rows, ins, outs, sink);
    else
        products(matrix, x, rows, ins, 0, outs, sink);
}

/* One expert on the slots `which` [rows]. */
static void run_expert(const Block *block, const Expert *expert, const Slots *slots, const int32_t *which,
                       int64_t rows, const Room *room)
{
    int64_t hidden = block->hidden, inner = block->inner, width = first_width(block);
    Format format = first_format(block);
    int64_t row_bytes = numbers_size(format, hidden);
    Kept kept = !wide(format) ? IN_BFLOAT16 : block->rounded ? ROUNDED_FLOAT32 : IN_FLOAT32;
    for (int64_t i = 0; i < rows; i++) {
        int64_t row = slots->row[which[i]], source = slots->picked ? slots->picked[row] : row;
        lay_row(block, format, slots->rows + row_bytes * source, room->x, rows, i, hidden);
    }
    for (int i = 0; i < 2 && expert->first[i].weights; i++) {
        Storing storing = {{take_first}, room->first + inner * i, width};
        multiply(block, &expert->first[i], room->x, rows, hidden, block->outs, &storing.sink);
    }
    for (int64_t i = 0; i < rows; i++) {
        const float *gate = room->first + width * i, *up = gate + (block->interleaved ? 1 : inner);
        apply_gate(&block->gate, gate, up, block->interleaved ? 2 : 1, kept, room->line, inner);
        lay_row(block, second_format(block), room->line, room->gated, rows, i, inner);
    }
    Adding adding = {{add_weighted}, slots, which, hidden};
    multiply(block, &expert->down, room->gated, rows, inner, hidden, &adding.sink);
}

/* `at` moved on by `size` bytes, to a multiple of 64. */
static uintptr_t after(uintptr_t at, int64_t size)
{
    return (at + size + 63) / 64 * 64;
}

/* Lay out a room for `rows` rows at once from the address `at` on. Returns its end. */
static uintptr_t lay_out(Room *room, uintptr_t at, const Block *block, int64_t slots, int64_t rows)
{
    room->order = (int32_t *)at;
    at = after(at, sizeof *room->order * slots);
    room->ends = (int32_t *)at;
    at = after(at, sizeof *room->ends * (block->count + 1));
    room->x = (char *)at;
    at = after(at, rows_size(block, first_format(block), rows, block->hidden));
    room->gated = (char *)at;
    at = after(at, rows_size(block, second_format(block), rows, block->inner));
    room->first = (float *)at;
    at = after(at, sizeof *room->first * rows * first_width(block));
    room->line = (void *)at;
    return after(at, sizeof(float) * (block->inner + LANES));
}

/* Fill the room's `order` and `ends`. */
static void sort_slots(const Slots *slots, int64_t count, int64_t experts, Room *room)
{
    memset(room->ends, 0, sizeof *room->ends * (experts + 1));
    for (int64_t slot = 0; slot < count; slot++)
        room->ends[slots->expert[slot] + 1]++;
    for (int64_t expert = 0; expert < experts; expert++)
        room->ends[expert + 1] += room->ends[expert];
    for (int64_t slot = 0; slot < count; slot++) /* moves each beginning to the end */
        room->order[room->ends[slots->expert[slot]]++] = slot;
}

EXPORT bool experts_forward(const Block *block, const char *rows, const int32_t *picked, const int32_t *row,
                            const int32_t *expert, const float *weight, int64_t count, float *sums)
{
    Slots slots = {rows, picked, row, expert, weight, sums};
    Room room;
    int64_t most = count < MOST_SLOTS ? count : MOST_SLOTS;
    void *memory = scratch(lay_out(&room, 0, block, count, most));
    if (!memory)
        return false;
    lay_out(&room, (uintptr_t)memory, block, count, most);
    sort_slots(&slots, count, block->count, &room);
    for (int64_t number = 0, first = 0; number < block->count; number++)
        for (int64_t last = room.ends[number]; first < last;) {
            int64_t rows_now = last - first < most ? last - first : most;
            run_expert(block, block->experts + number, &slots, room.order + first, rows_now, &room);
            first += rows_now;
        }
    trim_scratch(KEPT);
    return true;
}

/* A block of experts over any number of rows, in one call.
 *
 * Gather, gate, router weight and sum happen between the linear layers. Python is entered once a call, not once a step
 * of the arithmetic: for one row these steps take as long as reading a third of an expert.
 */
#include "gate.h"
#include "matvec.h"
#include "scratch.h"

enum { MOST_SLOTS = 12 * MOST_ROWS }; /* rows of an expert at once: enough that the time is that of arithmetic */

/* Matrices [inner, hidden], [inner, hidden] and [hidden, inner]; those of `up` are NULL without a gate. */
typedef struct {
    Matrix gate, up, down;
} Expert;

typedef struct {
    const Expert *experts;
    int64_t count, hidden, inner;
    Gate gate;
} Block;

/* The slots of a call: slot s sends row `row[s]` to expert `expert[s]`; they are counted, and in order, by expert. */
typedef struct {
    const bfloat16 *rows;  /* [*, hidden] */
    const int32_t *picked; /* which of `rows` are meant, or NULL: all */
    const int32_t *row, *expert;
    const float *weight;
    float *sums; /* [*, hidden] */
} Slots;

/* Memory for one expert's rows. */
typedef struct {
    int32_t *order, *ends; /* slots by expert; where each expert's end */
    char *x, *gated;       /* as tiles read them */
    float *first[2];       /* gate and up, [MOST_SLOTS, inner] */
    bfloat16 *line;        /* [inner] */
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

static void take_first(const Sink *sink, const float *values, int64_t row, int64_t rows, int64_t out, int64_t outs)
{
    const Storing *storing = (const Storing *)sink;
    for (int64_t i = 0; i < rows; i++)
        memcpy(storing->to + storing->stride * (row + i) + out, values + CHUNK * i, sizeof *values * outs);
}

static void add_weighted(const Sink *sink, const float *values, int64_t row, int64_t rows, int64_t out, int64_t outs)
{
    const Adding *adding = (const Adding *)sink;
    for (int64_t i = 0; i < rows; i++) {
        int32_t slot = adding->which[row + i];
        float *to = adding->slots->sums + adding->hidden * adding->slots->row[slot] + out;
        for (int64_t place = 0; place < outs; place++)
            to[place] += adding->slots->weight[slot] * values[CHUNK * i + place];
    }
}

/* One expert on the slots `which` [rows]. */
static void run_expert(const Block *block, const Expert *expert, const Slots *slots, const int32_t *which,
                       int64_t rows, const Room *room)
{
    const Matrix *firsts[2] = {&expert->gate, &expert->up};
    int64_t hidden = block->hidden, inner = block->inner;
    for (int64_t i = 0; i < rows; i++) {
        int64_t row = slots->row[which[i]], source = slots->picked ? slots->picked[row] : row;
        pack_row(format_of(&expert->gate), slots->rows + hidden * source, room->x, rows, i, hidden);
    }
    for (int i = 0; i < 2 && firsts[i]->weights; i++) {
        Storing storing = {{take_first}, room->first[i], inner};
        products(firsts[i], room->x, rows, hidden, 0, inner, &storing.sink);
    }
    for (int64_t i = 0; i < rows; i++) {
        apply_gate(&block->gate, room->first[0] + inner * i, room->first[1] + inner * i, room->line, inner);
        pack_row(format_of(&expert->down), room->line, room->gated, rows, i, inner);
    }
    Adding adding = {{add_weighted}, slots, which, hidden};
    products(&expert->down, room->gated, rows, inner, 0, hidden, &adding.sink);
}

/* `at` moved on by `size` bytes, to a multiple of 64. */
static uintptr_t after(uintptr_t at, int64_t size)
{
    return (at + size + 63) / 64 * 64;
}

/* Lay out a room for `rows` rows at once from the address `at` on. Returns its end. */
static uintptr_t lay_out(Room *room, uintptr_t at, const Block *block, int64_t slots, int64_t rows)
{
    Format format = format_of(&block->experts->down);
    room->order = (int32_t *)at;
    at = after(at, sizeof *room->order * slots);
    room->ends = (int32_t *)at;
    at = after(at, sizeof *room->ends * (block->count + 1));
    room->x = (char *)at;
    at = after(at, packed_size(format, rows, block->hidden));
    room->gated = (char *)at;
    at = after(at, packed_size(format, rows, block->inner));
    for (int i = 0; i < 2; i++) {
        room->first[i] = (float *)at;
        at = after(at, sizeof(float) * rows * block->inner);
    }
    room->line = (bfloat16 *)at;
    return after(at, sizeof *room->line * block->inner);
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

/* Add each slot's weighted result to its row of float32 `sums`. Every index must be in range. False: no memory. */
EXPORT bool experts_forward(const Block *block, const bfloat16 *rows, const int32_t *picked, const int32_t *row,
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
    return true;
}

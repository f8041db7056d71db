/* A function's whole answer to a call: from one envelope to another (experts/payload.py), without Python.
 *
 * What is unusual is left to the handler in Python, which finds it again and names it: an envelope that is not whole or
 * not for this function, and sums that are not finite.
 */
#define _POSIX_C_SOURCE 200809L /* clocks */
#include "expert/fused.h"

#include <stdatomic.h>

#include "base/clock.h"
#include "serving/calls.h"

enum { ENVELOPE_VERSION = 2, SLOT_BYTES = 12, MOST_WIDTH = 1 << 24, OK = 0 };

bool all_finite(const uint32_t *bits, int64_t count);

typedef struct {
    char magic[4];
    uint16_t version;
    uint8_t dtype, shared;
    uint32_t layer, tokens, width, slots;
} RequestEnvelope;

typedef struct {
    char magic[4];
    uint16_t version;
    uint8_t status, cold;
    uint32_t tokens, width;
    uint32_t queue[2], load[2], compute[2]; /* nanoseconds, numbers of 64 bits */
} ReplyEnvelope;

_Static_assert(sizeof(RequestEnvelope) == 24 && sizeof(ReplyEnvelope) == 40, "envelopes of another layout");

/* A function's block of experts (experts/compiled_function.py). */
typedef struct {
    const Block *block;
    int64_t experts, width, layer, load_ns;
    int32_t dtype;         /* of rows, as an envelope has it: 0 float32, 1 bfloat16 */
    _Atomic int32_t first; /* whether no call was answered yet */
} ExpertFunction;

/* A request whose every index is in range. */
typedef struct {
    int64_t tokens, slots;
    const char *rows;
    const int32_t *picked, *row, *expert;
    const float *weight;
} Request;

static bool all_below(const int32_t *values, int64_t count, int64_t bound)
{
    bool below = true;
    for (int64_t i = 0; i < count; i++)
        below &= values[i] >= 0 && values[i] < bound;
    return below;
}

/* Decode a call's envelope. False if anything is wrong with it, or it has no slot. */
static bool decode(const ExpertFunction *function, const Call *call, Request *request)
{
    RequestEnvelope head;
    if (call->length < (int64_t)sizeof head)
        return false;
    memcpy(&head, call->payload, sizeof head);
    if (memcmp(head.magic, "FMoQ", 4) != 0 || head.version != ENVELOPE_VERSION || head.dtype != function->dtype ||
        head.shared > 1 || head.layer != function->layer || head.width != function->width || head.slots == 0)
        return false;
    int64_t row_bytes = function->width * (function->dtype ? sizeof(bfloat16) : sizeof(float));
    int64_t rows = head.shared ? (int64_t)sizeof(int32_t) : row_bytes, tokens = head.tokens, slots = head.slots;
    rows = (tokens * rows + 3) / 4 * 4;
    if (call->length != (int64_t)sizeof head + rows + SLOT_BYTES * slots)
        return false;
    const char *at = call->payload + sizeof head;
    *request = (Request){.tokens = tokens, .slots = slots, .rows = at};
    if (head.shared) {
        if (!call->shared || call->shared_length % row_bytes)
            return false;
        request->rows = call->shared;
        request->picked = (const int32_t *)at;
        if (!all_below(request->picked, tokens, call->shared_length / row_bytes))
            return false;
    }
    request->row = (const int32_t *)(at + rows);
    request->expert = request->row + slots;
    request->weight = (const float *)(request->expert + slots);
    return all_below(request->row, slots, tokens) && all_below(request->expert, slots, function->experts);
}

/* Write the header of a reply whose sums are behind it. */
static void seal(ExpertFunction *function, const Call *call, char *reply, int64_t tokens, int64_t began)
{
    int32_t cold = atomic_exchange(&function->first, 0);
    int64_t load = cold ? function->load_ns : 0, compute = now_ns() - began;
    ReplyEnvelope head = {{'F', 'M', 'o', 'A'}, ENVELOPE_VERSION, OK, cold, tokens, function->width, {0}, {0}, {0}};
    memcpy(head.queue, &call->waited, sizeof head.queue);
    memcpy(head.load, &load, sizeof head.load);
    memcpy(head.compute, &compute, sizeof head.compute);
    memcpy(reply, &head, sizeof head);
}

/* A `Function` of serving/calls.h, whose context is an `ExpertFunction`. */
EXPORT int64_t answer_experts(void *context, const Call *call, Caller *caller, Reserve *reserve)
{
    ExpertFunction *function = context;
    Request request;
    int64_t began = now_ns();
    if (function->width > MOST_WIDTH || !decode(function, call, &request))
        return -1;
    int64_t numbers = request.tokens * function->width;
    int64_t length = sizeof(ReplyEnvelope) + (int64_t)sizeof(float) * numbers;
    char *reply = reserve(caller, length);
    if (!reply)
        return -1;
    float *sums = (float *)(reply + sizeof(ReplyEnvelope));
    memset(sums, 0, sizeof *sums * numbers);
    if (!experts_forward(function->block, request.rows, request.picked, request.row, request.expert, request.weight,
                         request.slots, sums) ||
        !all_finite((const uint32_t *)sums, numbers))
        return -1;
    seal(function, call, reply, request.tokens, began);
    return length;
}

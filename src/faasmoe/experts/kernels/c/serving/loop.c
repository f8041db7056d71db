/* Serves one connection to an instance: takes calls, has them run, and replies, without Python as long as it can.
 *
 * The thread of a connection stays in here from one call to the next while a compiled function answers them. All else
 * returns to Python: a function that is not compiled, a call that the compiled one leaves to its handler, segments that
 * must be mapped, the end.
 */
#include "serving/calls.h"

/* Room for a reply: in the frame if it fits, else in shared memory if the caller foresaw it. NULL: there is none. */
static char *reserve(Caller *caller, int64_t size)
{
    if (size <= MAX_INLINE)
        return caller->reply + HEADER;
    return (uint64_t)size <= caller->call.room.size ? caller->call.room.memory : NULL;
}

/* Answer a call that has begun: `length` bytes are in their place. False: the connection is lost. */
EXPORT bool finish_call(Instance *instance, Caller *caller, int32_t status, int64_t length)
{
    bool crowded;
    int64_t busy = end_call(instance, caller, &crowded); /* before the reply: whoever has it finds the call counted */
    bool sent = send_reply(caller, status, crowded, length, busy);
    caller_has_reply(instance);
    return sent;
}

/* Tell the caller that its call is not run. False: the connection is lost. */
static bool refuse(Instance *instance, Caller *caller)
{
    bool sent = send_reply(caller, DRAINING, false, 0, 0);
    caller_has_reply(instance);
    return sent;
}

/* Serve calls until Python is needed.
 *
 * Returns CALLED for a call that has begun and that Python must answer by `finish_call`; SEGMENTS if it must map
 * `descriptors` and call again; CLOSED, or why the connection must be closed.
 */
EXPORT int32_t next_call(Instance *instance, Caller *caller)
{
    for (;;) {
        if (!caller->received) {
            Outcome outcome = receive_call(caller);
            if (outcome != CALLED)
                return outcome;
            caller->received = true;
            if (caller->descriptors[0] != NO_DESCRIPTOR)
                return SEGMENTS;
        }
        caller->received = false;
        if (!locate_call(caller))
            return OUTSIDE;
        caller_waits(instance);
        if (!begin_call(instance, caller)) {
            if (!refuse(instance, caller))
                return SYSTEM;
            continue;
        }
        int64_t length = -1;
        if (instance->function)
            length = instance->function(instance->context, &caller->call, caller, reserve);
        if (length < 0)
            return CALLED;
        if (!finish_call(instance, caller, length <= MAX_INLINE ? ANSWERED : STORED, length))
            return SYSTEM;
    }
}

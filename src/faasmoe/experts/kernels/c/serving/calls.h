/* The calls that an instance runs: its slots, its record, and when it may end (instance/instance.py). */
#pragma once

#include <stdatomic.h>

#include "serving/frame.h"

/* The beginning of protocol/stats_page.py's InstanceStats. Times are nanoseconds of CLOCK_MONOTONIC. */
typedef struct {
    uint32_t in_flight, draining;
    _Atomic uint32_t report;
    uint64_t invocations, busy, last_used, busy_since, activated, forked, mapped, touched, first_call;
    uint64_t latency[]; /* calls by bucket */
} Record;

typedef struct Instance Instance;

/* What a compiled function gets room for its reply of, like `ServerConnection.reserve`. NULL: there is none. */
typedef char *Reserve(Caller *caller, int64_t size);

/* A compiled function. Returns the bytes of the reply that it wrote into room that it reserved; -1, with nothing
 * changed, if its handler in Python has to answer the call.
 */
typedef int64_t Function(void *context, const Call *call, Caller *caller, Reserve *reserve);

struct Instance {
    Record *record;
    const double *bounds; /* [buckets] nanoseconds: the longest of each bucket */
    int64_t buckets;
    Function *function; /* or NULL */
    void *context;      /* its first argument */
    int64_t concurrency; /* most calls that run side by side */
    int32_t lifeline;    /* over which the daemon is told that a call has ended */
    _Atomic uint32_t lock; /* of the record and of all below: 1 if it is held, 2 if others wait for it */
    _Atomic uint32_t freed; /* how often a slot became free that somebody may have waited for */
    _Atomic uint32_t waiting; /* connections whose caller waits for a reply */
    _Atomic uint32_t draining; /* no more calls are run */
    int64_t in_flight, running;
    int64_t each, changed; /* `BusyTime`: the share of a call that has always run; when the number of calls changed */
};

/* Note a call, and wait until it may run. False if it must not, because the instance drains. */
bool begin_call(Instance *instance, Caller *caller);

/* Count a call that has run. Returns its part of the busy time; `crowded`: whether more were here than can run. */
int64_t end_call(Instance *instance, const Caller *caller, bool *crowded);

/* A caller waits for a reply from now on; or no more. */
void caller_waits(Instance *instance);
void caller_has_reply(Instance *instance);

/* Counts calls, and lets no more run than may. */
#define _GNU_SOURCE /* syscall */
#include "serving/calls.h"

#include "base/clock.h"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FUTEX_WAIT = 128, FUTEX_WAKE = 129, FREE = 0, HELD = 1, WANTED = 2 }; /* of one process; linux/futex.h */

/* Sleep until somebody wakes those who sleep for `word`, for a time at most, unless it is not `seen` any more. */
static void sleep_for(_Atomic uint32_t *word, uint32_t seen, const struct timespec *most)
{
    syscall(SYS_futex, word, FUTEX_WAIT, seen, most, NULL, 0);
}

static void wake(_Atomic uint32_t *word, int most)
{
    syscall(SYS_futex, word, FUTEX_WAKE, most, NULL, NULL, 0);
}

/* The third mutex of "Futexes are tricky" (Drepper, 2011): without a system call when nobody else wants it. */
static void lock(Instance *instance)
{
    uint32_t state = FREE;
    if (atomic_compare_exchange_strong(&instance->lock, &state, HELD))
        return;
    if (state != WANTED)
        state = atomic_exchange(&instance->lock, WANTED);
    while (state != FREE) {
        sleep_for(&instance->lock, WANTED, NULL);
        state = atomic_exchange(&instance->lock, WANTED);
    }
}

static void unlock(Instance *instance)
{
    if (atomic_exchange(&instance->lock, FREE) == WANTED)
        wake(&instance->lock, 1);
}

/* Bring `each` up to date (platforms/busy_time.py). */
static void advance(Instance *instance, int64_t now)
{
    if (instance->running)
        instance->each += (now - instance->changed) / instance->running;
    instance->changed = now;
}

bool begin_call(Instance *instance, Caller *caller)
{
    lock(instance);
    if (instance->draining) {
        unlock(instance);
        return false;
    }
    int64_t now = now_ns();
    caller->arrived = now;
    if (!instance->in_flight)
        instance->record->busy_since = now;
    instance->record->in_flight = ++instance->in_flight;
    while (instance->running >= instance->concurrency) {
        uint32_t seen = instance->freed;
        unlock(instance);
        sleep_for(&instance->freed, seen, NULL);
        lock(instance);
        now = now_ns();
    }
    advance(instance, now);
    instance->running++;
    caller->share = instance->each;
    caller->call.waited = now - caller->arrived;
    unlock(instance);
    return true;
}

/* The first bucket that a duration is not too long for (platforms/latency.py). */
static int64_t bucket_of(const Instance *instance, int64_t nanoseconds)
{
    int64_t low = 0, high = instance->buckets - 1;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (instance->bounds[middle] < nanoseconds)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int64_t end_call(Instance *instance, const Caller *caller, bool *crowded)
{
    Record *record = instance->record;
    lock(instance);
    int64_t now = now_ns(), took = now - caller->arrived;
    advance(instance, now);
    int64_t busy = instance->each - caller->share;
    record->busy += busy;
    if (!record->invocations) {
        record->touched = now;
        record->first_call = took;
    }
    record->invocations++;
    record->latency[bucket_of(instance, took)]++;
    record->last_used = now;
    instance->running--;
    *crowded = instance->in_flight > instance->concurrency;
    record->in_flight = --instance->in_flight;
    if (*crowded)
        instance->freed++;
    unlock(instance);
    if (*crowded)
        wake(&instance->freed, 1);
    return busy;
}

static void tell_daemon(Instance *instance)
{
    send(instance->lifeline, "d", 1, MSG_DONTWAIT | MSG_NOSIGNAL); /* if that fails, the daemon is going; so are we */
}

void caller_waits(Instance *instance)
{
    instance->waiting++;
}

void caller_has_reply(Instance *instance)
{
    if (--instance->waiting == 0 && instance->draining)
        wake(&instance->waiting, 1);
    if (instance->record->report)
        tell_daemon(instance);
}

/* Run no more calls, tell the daemon so, and wait until nobody waits for a reply, for so many nanoseconds at most. */
EXPORT void drain_calls(Instance *instance, int64_t most)
{
    lock(instance);
    instance->draining = instance->record->draining = 1;
    unlock(instance);
    tell_daemon(instance);
    int64_t until = now_ns() + most, left;
    for (uint32_t seen; (seen = instance->waiting) && (left = until - now_ns()) > 0;)
        sleep_for(&instance->waiting, seen, &(struct timespec){left / SECOND_NS, left % SECOND_NS});
}

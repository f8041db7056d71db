/* The planner's simulation of steps (planner/simulation.py), which says what the numbers mean. */
#include <math.h>

#include "base/kernels.h"

struct requests {
    int64_t count;
    double *times;
    const int64_t *after, *then, *engine;
    int64_t *left_prompt, *left_answer; /* tokens */
    int64_t *chunk;                     /* of its prompt in this step; -1: it takes no part */
    double *first, *end;
};

struct curves {
    int64_t count;
    const double *grid, *functions, *together, *alike, *experts, *busiest; /* [count] */
};

struct costs {
    double split, layers, fixed, expert, token, wire, call, sequence, cold_alone, cold_serial, cores;
};

struct limits {
    int64_t sequences, step_tokens, prompt_tokens;
    double keep_alive, window;
};

struct step { /* a row of the result */
    double end, tokens, calls, cold, read, seconds;
};

struct room { /* for the result, and memory to work in */
    int64_t steps, sequences; /* at most */
    struct step *step;        /* [steps] */
    double *cumulative;       /* [steps + 1]: tokens before each */
    int64_t *running;         /* [sequences] */
};

struct running {
    int64_t *requests; /* in order of arrival */
    int64_t count;
};

/* The curve through (x, y) at `at`, straight between points and level beyond them, as numpy.interp has it. */
INLINE double interpolate(double at, const double *x, const double *y, int64_t count)
{
    int64_t low = 0, high = count;
    if (at >= x[count - 1])
        return y[count - 1];
    if (at < x[0])
        return y[0];
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (at >= x[middle])
            low = middle;
        else
            high = middle;
    }
    return (y[low + 1] - y[low]) / (x[low + 1] - x[low]) * (at - x[low]) + y[low];
}

/* The engine after `turn`, in a circle, that has work. */
INLINE int64_t next_engine(const struct running *running, const int64_t *engines, int64_t turn)
{
    int64_t after = -1, lowest = -1;
    for (int64_t i = 0; i < running->count; i++) {
        int64_t engine = engines[running->requests[i]];
        if (lowest < 0 || engine < lowest)
            lowest = engine;
        if (engine > turn && (after < 0 || engine < after))
            after = engine;
    }
    return after >= 0 ? after : lowest;
}

INLINE int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Says in `chunk` who takes part in a step of `engine`. Returns its decodes; adds up its tokens of prompts. */
INLINE int64_t fill(const struct requests *requests, const struct running *running, const struct limits *limits,
                    int64_t engine, int64_t *prompt_tokens)
{
    int64_t members = 0, decodes = 0;
    for (int64_t i = 0; i < running->count; i++) {
        int64_t request = running->requests[i];
        requests->chunk[request] = -1;
        if (requests->engine[request] == engine && members < limits->sequences) {
            members++;
            requests->chunk[request] = 0;
            decodes += requests->left_prompt[request] == 0;
        }
    }
    int64_t room = decodes ? least(limits->step_tokens - decodes, limits->prompt_tokens) : limits->step_tokens;
    for (int64_t i = 0; i < running->count; i++) {
        int64_t request = running->requests[i];
        if (requests->chunk[request] == 0) {
            requests->chunk[request] = least(room - *prompt_tokens, requests->left_prompt[request]);
            *prompt_tokens += requests->chunk[request];
        }
    }
    return decodes;
}

/* What a step costs after `recent` tokens within keep-alive. Its end is left for later. */
INLINE struct step cost(double decodes, double prompt_tokens, double recent, const struct curves *curves,
                        const struct costs *costs)
{
    const double *grid = curves->grid, *together = curves->together;
    int64_t n = curves->count;
    double tokens = decodes + prompt_tokens;
    double apart = decodes + interpolate(prompt_tokens, grid, curves->alike, n);
    double touched = curves->functions[0] - interpolate(apart, grid, curves->functions, n);
    double read = curves->experts[0] - interpolate(apart, grid, curves->experts, n);
    double busiest = curves->busiest[0] - interpolate(apart, grid, curves->busiest, n);
    double fresh = together[0] - interpolate(tokens, grid, together, n);
    double missing = interpolate(recent, grid, together, n) - interpolate(recent + tokens, grid, together, n);
    double calls = touched * costs->split, cold = touched * missing / fresh;
    double seconds = costs->fixed + fmax(busiest * costs->expert, tokens * costs->token) + tokens * costs->wire;
    seconds += calls * costs->call / fmax(1, fmin(costs->cores, calls / costs->layers));
    seconds += fmax(0, decodes - 1) * costs->sequence;
    double any_cold = 1 - exp(-cold / costs->layers); /* in a layer */
    double more = fmax(0, cold / costs->layers - any_cold);
    seconds += costs->layers * (any_cold * costs->cold_alone + more * costs->cold_serial);
    return (struct step){0, tokens, calls, cold, read, seconds};
}

/* A step has ended for `request`. Returns who goes on in its place; -1: nobody. */
INLINE int64_t advance_one(const struct requests *requests, int64_t request, double now)
{
    int64_t *prompt = &requests->left_prompt[request], *answer = &requests->left_answer[request];
    int64_t chunk = requests->chunk[request];
    if (chunk >= 0 && (chunk > 0 || *prompt == 0)) {
        bool decoded = *prompt == 0;
        *prompt -= chunk;
        if (*prompt == 0) {
            if (!decoded)
                requests->first[request] = now;
            --*answer;
        }
    }
    if (*prompt || *answer)
        return request;
    requests->end[request] = now;
    int64_t then = requests->then[request];
    if (then >= 0)
        requests->times[then] = now;
    return then;
}

/* A step has ended. Leaves those that go on, in order. */
INLINE void advance(const struct requests *requests, struct running *running, double now)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < running->count; i++) {
        int64_t request = advance_one(requests, running->requests[i], now);
        if (request >= 0)
            running->requests[kept++] = request;
    }
    running->count = kept;
}

/* Adds those that have come by `now`. Returns false if there is no room for them. */
INLINE bool admit(const struct requests *requests, struct running *running, int64_t most, int64_t *arrived, double now)
{
    for (; *arrived < requests->count; ++*arrived) {
        bool comes = requests->after[*arrived] < 0; /* else it takes the place of another */
        if (comes && requests->times[*arrived] > now)
            break;
        if (running->count == most)
            return false;
        if (comes)
            running->requests[running->count++] = *arrived;
    }
    return true;
}

/* Serves all requests. Returns how many steps it took: fewer than needed if there is no room for them or for those that
 * run at once.
 */
EXPORT int64_t simulate(const struct requests *requests, const struct curves *curves, const struct costs *costs,
                        const struct limits *limits, const struct room *room)
{
    struct running running = {room->running, 0};
    int64_t arrived = 0, taken = 0, old = 0, turn = -1;
    double now = 0, *cumulative = room->cumulative;
    cumulative[0] = 0;
    while (taken < room->steps && admit(requests, &running, room->sequences, &arrived, now)) {
        if (running.count == 0) {
            if (arrived == requests->count)
                break;
            now = requests->times[arrived];
            continue;
        }
        turn = next_engine(&running, requests->engine, turn);
        int64_t prompt_tokens = 0, decodes = fill(requests, &running, limits, turn, &prompt_tokens);
        while (old < taken && room->step[old].end < now - limits->keep_alive)
            old++;
        double recent = fmin(cumulative[taken] - cumulative[old], limits->window);
        struct step step = cost((double)decodes, (double)prompt_tokens, recent, curves, costs);
        step.end = now += step.seconds;
        advance(requests, &running, now);
        cumulative[taken + 1] = cumulative[taken] + step.tokens;
        room->step[taken++] = step;
    }
    return taken;
}

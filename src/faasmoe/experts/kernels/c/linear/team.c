/* Threads that share one group of linear layers after the other.
 *
 * A group takes less than a millisecond, about what it takes to wake a thread twice. So the helpers look for work for a
 * moment after each group, and sleep only then or when they are told to: between two layers of one step they are
 * awake, while experts run elsewhere they leave their cores to them. Work is claimed in pieces, so that a helper that
 * wakes late or loses its core is not waited for.
 */
#define _POSIX_C_SOURCE 200809L /* clocks and signals */

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

#include "linear/matvec.h"

enum { LINE = 128, LOOKS = 64 }; /* bytes that caches move at once; looks for work between two at the clock */
static const int64_t AWAKE_NS = 1000000;  /* for which a helper looks for work before it sleeps */
static const int64_t NONE = 0, REST = -1; /* in the place of a job's number: none now, none soon */

/* A row of `Layers.table`. */
typedef struct {
    Matrix matrix;
    int64_t outs, before; /* the outs of the layers before */
    int64_t first_piece, piece; /* the number of the layer's first piece; outs of a piece */
} Layer;

typedef struct {
    const char *x; /* as tiles read it */
    char *y;       /* layer after layer [rows, outs] */
    const Layer *layers;
    int64_t count, rows, ins, pieces;
} Job;

typedef struct {
    _Alignas(LINE) _Atomic int64_t open;     /* the number of the job that is open, NONE or REST */
    _Alignas(LINE) _Atomic int64_t inside;   /* how many helpers are at it */
    _Alignas(LINE) _Atomic int64_t next;     /* the piece to claim next */
    _Alignas(LINE) _Atomic int64_t sleeping; /* how many helpers sleep or are about to */
    _Alignas(LINE) sem_t alarm;              /* on which they do */
    Job job;
    int64_t jobs; /* how many there have been */
} Team;

INLINE void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * (int64_t)1000000000 + now.tv_nsec;
}

static void take_pieces(const Job *job, _Atomic int64_t *next)
{
    int64_t layer = 0, number;
    while ((number = atomic_fetch_add(next, 1)) < job->pieces) {
        while (layer + 1 < job->count && number >= job->layers[layer + 1].first_piece)
            layer++;
        const Layer *its = &job->layers[layer];
        int64_t first = (number - its->first_piece) * its->piece, last = first + its->piece;
        char *y = job->y + numbers_size(its->matrix.format, job->rows * its->before);
        last = last < its->outs ? last : its->outs;
        linear_part(&its->matrix, job->x, y, job->rows, its->outs, job->ins, first, last);
    }
}

/* Whether a job opens that is not `seen`, before it is time to sleep. */
static bool look(Team *team, int64_t seen)
{
    int64_t until = now_ns() + AWAKE_NS;
    do {
        for (int i = 0; i < LOOKS; i++) {
            int64_t job = atomic_load(&team->open);
            if (job > NONE && job != seen)
                return true;
            if (job == REST)
                return false;
            relax();
        }
    } while (now_ns() < until);
    return false;
}

/* Take part in every job, without end. */
static void *help(void *argument)
{
    Team *team = argument;
    int64_t seen = NONE, job;
    for (;;) {
        if (!look(team, seen)) {
            atomic_fetch_add(&team->sleeping, 1);
            job = atomic_load(&team->open);
            if (job <= NONE || job == seen) /* a job that opens after this look finds us counted */
                while (sem_wait(&team->alarm) != 0)
                    ; /* interrupted by a debugger */
            continue;
        }
        job = atomic_load(&team->open);
        atomic_fetch_add(&team->inside, 1);
        if (job > NONE && atomic_load(&team->open) == job) { /* else it has closed, and another may be written */
            take_pieces(&team->job, &team->next);
            seen = job;
        }
        atomic_fetch_sub(&team->inside, 1);
    }
    return NULL;
}

/* Start so many helpers, which are there until the process ends. NULL if the system has no memory or thread for one. */
EXPORT Team *team_start(int64_t helpers)
{
    Team *team = aligned_alloc(LINE, sizeof *team);
    if (!team)
        return NULL;
    memset(team, 0, sizeof *team);
    sem_init(&team->alarm, 0, 0);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for other threads than ours */
    bool started = true;
    for (int64_t i = 0; started && i < helpers; i++) {
        pthread_t thread;
        started = pthread_create(&thread, NULL, help, team) == 0;
        if (started)
            pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started ? team : NULL; /* helpers that did start sleep, and keep it */
}

/* Run layers on the calling thread and, unless it does so `alone`, all helpers. One call at a time.
 *
 * x is [rows, ins], y layer after layer [rows, outs], both of the dtype that all layers' formats have them in. False if
 * there is no memory.
 */
EXPORT bool team_run(Team *team, const void *x, void *y, const Layer *layers, int64_t count, int64_t pieces,
                     int64_t rows, int64_t ins, bool alone)
{
    const char *packed = pack_rows(layers->matrix.format, x, rows, ins);
    if (!packed)
        return false;
    team->job = (Job){packed, y, layers, count, rows, ins, pieces};
    atomic_store(&team->next, 0);
    if (!alone) {
        atomic_store(&team->open, ++team->jobs);
        for (int64_t sleeping = atomic_exchange(&team->sleeping, 0); sleeping > 0; sleeping--)
            sem_post(&team->alarm);
    }
    take_pieces(&team->job, &team->next);
    if (!alone) {
        atomic_store(&team->open, NONE);
        while (atomic_load(&team->inside) > 0)
            relax();
    }
    return true;
}

/* Send the helpers to sleep until the next layers. */
EXPORT void team_rest(Team *team)
{
    atomic_store(&team->open, REST);
}

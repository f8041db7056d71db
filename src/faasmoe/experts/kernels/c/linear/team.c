/* Threads that share one group of linear layers after the other.
 *
 * A group takes less than a millisecond, about what it takes to wake a thread twice. So the helpers look for work for a
 * moment after each group, and sleep only then or when they are told to: between two layers of one step they are
 * awake, while experts run elsewhere they leave their cores to them. As long as they are awake they read the weights of
 * the next group ahead, so that memory is not idle while the caller does what lies between two groups. Work is claimed
 * in pieces, so that a helper that wakes late or loses its core is not waited for.
 *
 * Layers that can run long before their results are needed are begun and ended in two calls. In between helpers work on
 * them alone, but while they rest.
 */
#define _POSIX_C_SOURCE 200809L /* clocks and signals */

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "linear/ahead.h"

enum { LINE = 128, LOOKS = 64 }; /* bytes that caches move at once; looks for work between two at the clock */
static const int64_t AWAKE_NS = 1000000;  /* for which a helper looks for work before it sleeps */
static const int64_t NONE = 0, REST = -1; /* in the place of a job's number: none now, none soon */
static const int64_t NO_PIECE = (int64_t)1 << 62; /* beyond those of any job */

typedef struct {
    const char *x; /* as tiles read it */
    char *y;       /* layer after layer [rows, outs] */
    int64_t rows;
    Group group;
    Ahead ahead; /* for helpers to read when they have no more pieces */
} Job;

typedef struct {
    _Alignas(LINE) _Atomic int64_t open;     /* the number of the job that is open, NONE or REST */
    _Alignas(LINE) _Atomic int64_t inside;   /* how many helpers are at it */
    _Alignas(LINE) _Atomic int64_t next;     /* the piece to claim next */
    _Alignas(LINE) _Atomic int64_t sleeping; /* how many helpers sleep or are about to */
    _Alignas(LINE) sem_t alarm;              /* on which they do */
    Job job;
    int64_t jobs, helpers;    /* how many there have been, and are */
    _Atomic int64_t numbered; /* helpers that have a number */
    bool begun, paused;       /* the job is to be ended by a later call; helpers rest until then */
    int64_t unclaimed;        /* while it is paused: its next piece */
    char *rows;               /* x of a job that is begun, as tiles read it */
    int64_t room;             /* bytes there */
} Team;

INLINE void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void take_pieces(const Job *job, _Atomic int64_t *next)
{
    int64_t layer = 0, number;
    const Group *group = &job->group;
    while ((number = atomic_fetch_add(next, 1)) < group->pieces) {
        while (layer + 1 < group->count && number >= group->layers[layer + 1].first_piece)
            layer++;
        const Layer *its = &group->layers[layer];
        int64_t first = (number - its->first_piece) * its->piece, last = first + its->piece;
        char *y = job->y + numbers_size(its->matrix.format, job->rows * its->before);
        last = last < its->outs ? last : its->outs;
        linear_part(&its->matrix, job->x, y, job->rows, its->outs, group->ins, first, last);
    }
}

/* Whether a job opens that is not `seen`, before it is time to sleep. */
static bool look(Team *team, int64_t seen, Ahead *ahead)
{
    int64_t until = now_ns() + AWAKE_NS;
    do {
        for (int i = 0; i < LOOKS; i++) {
            int64_t job = atomic_load(&team->open);
            if (job > NONE && job != seen)
                return true;
            if (job == REST)
                return false;
            if (!read_ahead(ahead))
                relax();
        }
    } while (now_ns() < until);
    return false;
}

/* Take part in every job, without end. */
static void *help(void *argument)
{
    Team *team = argument;
    int64_t seen = NONE, job, number = atomic_fetch_add(&team->numbered, 1);
    Ahead ahead = {0};
    for (;;) {
        if (!look(team, seen, &ahead)) {
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
            ahead = share_of(&team->job.ahead, number, team->helpers);
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
    team->helpers = helpers;
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

/* Have helpers work on the team's job. */
static void open_job(Team *team)
{
    atomic_store(&team->open, ++team->jobs);
    for (int64_t sleeping = atomic_exchange(&team->sleeping, 0); sleeping > 0; sleeping--)
        sem_post(&team->alarm);
}

/* Wait until no helper is at the team's job any more. They look for another, `NONE`, or `REST`. */
static void close_job(Team *team, int64_t then)
{
    atomic_store(&team->open, then);
    while (atomic_load(&team->inside) > 0)
        relax();
}

/* Give up a job that was begun, if there is one. */
EXPORT void team_drop(Team *team)
{
    if (!team->begun)
        return;
    atomic_store(&team->next, NO_PIECE);
    close_job(team, NONE);
    team->begun = false;
}

/* Run layers on the calling thread and, unless it does so `alone`, all helpers. One call at a time.
 *
 * x is [rows, ins], y layer after layer [rows, outs], both of the dtype that all layers' formats have them in. False if
 * there is no memory.
 */
EXPORT bool team_run(Team *team, const Group *group, const void *x, void *y, int64_t rows, bool alone)
{
    const char *packed = pack_rows(group->layers->matrix.format, x, rows, group->ins);
    if (!packed)
        return false;
    Job job = {packed, y, rows, *group, ahead_of(group->next)};
    if (alone) {
        _Atomic int64_t next = 0;
        take_pieces(&job, &next);
        return true;
    }
    team_drop(team);
    team->job = job;
    atomic_store(&team->next, 0);
    open_job(team);
    take_pieces(&team->job, &team->next);
    close_job(team, NONE);
    return true;
}

/* As `team_run`, but by the helpers alone, until `team_end` is called with the same. False if there is no memory. */
EXPORT bool team_begin(Team *team, const Group *group, const void *x, void *y, int64_t rows)
{
    Format format = group->layers->matrix.format;
    int64_t size = rows * row_size(format, group->ins);
    team_drop(team);
    if (size > team->room) {
        free(team->rows);
        team->room = (size / LINE + 1) * LINE;
        team->rows = aligned_alloc(LINE, (size_t)team->room);
    }
    if (!team->rows) {
        team->room = 0;
        return false;
    }
    pack_into(format, x, rows, group->ins, team->rows);
    team->job = (Job){team->rows, y, rows, *group, ahead_of(group->next)};
    team->begun = true;
    team->paused = false;
    atomic_store(&team->next, 0);
    open_job(team);
    return true;
}

static void go_on(Team *team)
{
    team->paused = false;
    atomic_store(&team->next, team->unclaimed);
}

/* What `team_run` does, of which helpers may have done a part since `team_begin`. */
EXPORT bool team_end(Team *team, const Group *group, const void *x, void *y, int64_t rows, bool alone)
{
    const Job *job = &team->job;
    if (!team->begun || job->y != y || job->rows != rows || job->group.layers != group->layers)
        return team_run(team, group, x, y, rows, alone); /* another job has come between */
    if (team->paused) {
        go_on(team);
        if (!alone)
            open_job(team);
    }
    take_pieces(job, &team->next);
    close_job(team, alone ? REST : NONE);
    team->begun = false;
    return true;
}

/* Send the helpers to sleep until the next layers, or until `team_resume`. */
EXPORT void team_rest(Team *team)
{
    if (team->begun && !team->paused) {
        team->unclaimed = atomic_exchange(&team->next, NO_PIECE);
        team->paused = true;
    }
    atomic_store(&team->open, REST);
}

/* Wake the helpers for layers that are begun. */
EXPORT void team_resume(Team *team)
{
    if (team->begun && team->paused) {
        go_on(team);
        open_job(team);
    }
}

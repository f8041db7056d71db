/* Memory that a thread keeps from one call to the next. */
#define _DEFAULT_SOURCE /* madvise */
#include "base/scratch.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifdef __aarch64__
enum { PAGE = 64 << 10 }; /* the largest that a kernel may have; `madvise` takes whole ones, and what lies in the last */
#else
enum { PAGE = 4096 };
#endif
static _Thread_local struct {
    void *memory;
    size_t size, used; /* bytes; since the last trim at most `used` of them were needed */
} kept;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key; /* has `free` called with a thread's memory when it ends */
static bool has_key;

static void make_key(void)
{
    has_key = pthread_key_create(&key, free) == 0;
}

void *scratch(size_t size)
{
    size = (size / PAGE + 1) * PAGE;
    kept.used = size > kept.used ? size : kept.used;
    if (kept.memory && size <= kept.size)
        return kept.memory;
    if (pthread_once(&once, make_key) != 0 || !has_key)
        return NULL;
    free(kept.memory);
    kept.memory = aligned_alloc(PAGE, size);
    kept.size = kept.memory ? size : 0;
    return pthread_setspecific(key, kept.memory) == 0 ? kept.memory : NULL;
}

void trim_scratch(size_t most)
{
    if (kept.memory && kept.used > most) {
        madvise((char *)kept.memory + most, kept.size - most, MADV_DONTNEED);
        kept.used = most;
    }
}

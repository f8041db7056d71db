/* Memory that a thread keeps from one call to the next. */
#pragma once

#include <stddef.h>

/* At least `size` bytes at a multiple of 64, the same ones at every call of a thread; NULL if there is no memory.
 *
 * What they held is lost at the next call that needs more. They are freed when the thread ends.
 */
void *scratch(size_t size);

/* Give the memory beyond `most` bytes, a multiple of a page, back to the system until a call needs it again. */
void trim_scratch(size_t most);

/* What the kernels were compiled from (hatch_build.py), so that a test can tell that they are those of the sources. */
#include "base/kernels.h"

EXPORT const char *digest(void)
{
    return DIGEST;
}

/* Products of weights in GGUF's formats, read as they lie in files, with a few rows of x. */
#pragma once

#include "formats/table.h"

FORMAT_FUNCTIONS(gguf);

/* Kernels that a list of steps runs (`steps.c`). */
#pragma once

#include "base/kernels.h"

struct norm;
struct turn;

void normalise(const struct norm *norm, const bfloat16 *x, bfloat16 *y, int64_t rows);
void turn_halves(const struct turn *turn);
bool team_run(void *team, const void *group, const void *x, void *y, int64_t rows, bool alone);

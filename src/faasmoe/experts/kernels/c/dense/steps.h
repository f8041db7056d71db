/* Kernels that a list of steps runs (`steps.c`). */
#pragma once

#include "base/kernels.h"

struct norm;
struct turn;
struct attention;
struct latent;
struct place;

void normalise(const struct norm *norm, const bfloat16 *x, bfloat16 *y, int64_t rows);
void turn_halves(const struct turn *turn);
void attend(const struct attention *task, const struct place *places, int64_t count);
void attend_latent(const struct latent *task, const struct place *places, int64_t count);
bool team_run(void *team, const void *group, const void *x, void *y, int64_t rows, bool alone);
bool team_begin(void *team, const void *group, const void *x, void *y, int64_t rows);
bool team_end(void *team, const void *group, const void *x, void *y, int64_t rows, bool alone);

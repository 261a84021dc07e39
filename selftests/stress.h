/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared by the tests that try to break the module: how long they run, and threads
 * that make their calls at the same moment.
 *
 * By default they are short. With PORT0_LONG=1 in the environment they run in their
 * long form.
 */
#ifndef PORT0_STRESS_H
#define PORT0_STRESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "module.h"
#include "port0_test.h"

#define STRESS_TIMEOUT_SEC	7200
#define NEWS_SEC		60

static inline bool is_long_run(void)
{
	const char *text = getenv("PORT0_LONG");

	return text && atoi(text);
}

static inline long scaled(long quick, long thorough)
{
	return is_long_run() ? thorough : quick;
}

/* Logs the progress of a long run, at most once in NEWS_SEC seconds. */
static inline void tell(struct __test_metadata *_metadata, const char *what,
			long count, double *last)
{
	if (now() - *last < NEWS_SEC)
		return;
	TH_LOG("%ld %s so far", count, what);
	*last = now();
}

static inline void nap_ms(long ms)
{
	struct timespec ts = { .tv_sec = ms / 1000,
			       .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

/* The seed of the random numbers: PORT0_SEED, to repeat a run, or the time. */
static inline unsigned int seed(void)
{
	const char *text = getenv("PORT0_SEED");

	return text ? strtoul(text, NULL, 0) : (unsigned int)time(NULL);
}

static inline unsigned int next_random(unsigned int *state)
{
	/* xorshift32 */
	*state ^= *state << 13;
	*state ^= *state >> 17;
	*state ^= *state << 5;
	return *state;
}

#endif /* PORT0_STRESS_H */

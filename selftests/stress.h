/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests share that try to break the module: how long to try, and
 * threads that meet.
 *
 * They are short by default. PORT0_LONG=1 in the environment gives them the
 * time they want.
 */
#ifndef PORT0_STRESS_H
#define PORT0_STRESS_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>

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

static inline double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* Where each takes seconds, all of them take an hour. */
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

/* A number from a file, or -1 if there is none. */
static inline long read_number(const char *path)
{
	FILE *file = fopen(path, "re");
	long number = -1;

	if (!file)
		return -1;
	if (fscanf(file, "%ld", &number) != 1)
		number = -1;
	fclose(file);
	return number;
}

/* How many sockets keep the module, besides calls under way; -1: not loaded. */
static inline long module_users(void)
{
	return read_number("/sys/module/port0/refcnt");
}

/*
 * A socket that was closed may be given up a little later, and what a test has
 * left goes with its namespace.
 */
static inline long wait_for_users(long want)
{
	double deadline = now() + IO_TIMEOUT_SEC;
	long users;

	while ((users = module_users()) > want && now() < deadline)
		nap_ms(10);
	return users;
}

/* From the file that PORT0_KO names. */
static inline int module_load(const char *args)
{
	int fd = open(getenv("PORT0_KO"), O_RDONLY | O_CLOEXEC);
	int err = rc(syscall(SYS_finit_module, fd, args, 0));

	close(fd);
	return err;
}

static inline int module_unload(void)
{
	return rc(syscall(SYS_delete_module, "port0", O_NONBLOCK));
}

/* The parameters it was loaded with, for loading it like that again. */
static inline void module_args(char *args, size_t size)
{
	static const char *const names[] = { "hook", "getname" };
	char path[64], value[32];
	FILE *file;
	size_t i;

	*args = 0;
	for (i = 0; i < sizeof(names) / sizeof(*names); i++) {
		snprintf(path, sizeof(path), "/sys/module/port0/parameters/%s",
			 names[i]);
		file = fopen(path, "re");
		if (!file)
			continue;
		if (fscanf(file, "%31s", value) == 1)
			snprintf(args + strlen(args), size - strlen(args),
				 "%s=%s ", names[i], value);
		fclose(file);
	}
}

/* close() leaves no TIME_WAIT, to be in the next socket's way. */
static inline void reset_on_close(int fd)
{
	struct linger linger = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* Random numbers that a test can be repeated with: PORT0_SEED. */
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

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The module itself: its reference count, unloading and loading it; and the modules that
 * the tests need.
 *
 * PORT0_KO in the environment is the file that it is loaded from.
 */
#ifndef PORT0_MODULE_H
#define PORT0_MODULE_H

#include <libgen.h>
#include <limits.h>
#include <sys/syscall.h>
#include <time.h>

#include "net.h"

/* Loads a module from modules/ beside the program. */
static inline int test_module_load(const char *name)
{
	char program[PATH_MAX] = "", path[2 * PATH_MAX];
	int fd, err;

	if (readlink("/proc/self/exe", program, PATH_MAX - 1) < 0)
		return -errno;
	snprintf(path, sizeof(path), "%s/modules/%s.ko", dirname(program), name);
	fd = rc(open(path, O_RDONLY | O_CLOEXEC));
	if (fd < 0)
		return fd;
	err = rc(syscall(SYS_finit_module, fd, "", 0));
	close(fd);
	return err;
}

static inline void test_module_unload(const char *name)
{
	syscall(SYS_delete_module, name, O_NONBLOCK);
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

/*
 * The number of sockets and running calls that hold a reference; -1: not loaded
 */
static inline long module_users(void)
{
	return read_number("/sys/module/port0/refcnt");
}

/*
 * A closed socket, or one whose namespace is removed, may drop its reference a
 * little later. Waits until at most @want are left, and returns how many are.
 */
static inline long wait_for_users(long want)
{
	const struct timespec nap = { .tv_nsec = 10 * 1000 * 1000 };
	long users, tries = IO_TIMEOUT_SEC * 100;

	while ((users = module_users()) > want && tries--)
		nanosleep(&nap, NULL);
	return users;
}

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

/* The state of the module before the test */
struct module_state {
	bool loaded;
	char args[128];
};

static inline struct module_state module_found(void)
{
	struct module_state state = { .loaded = module_users() >= 0 };

	module_args(state.args, sizeof(state.args));
	return state;
}

/* Unloads it if it is loaded. */
static inline int module_take_out(void)
{
	return wait_for_users(0) < 0 ? 0 : module_unload();
}

/* Loads it or not, as before the test. */
static inline int module_bring_back(const struct module_state *state)
{
	struct module_state now = module_found();
	int err;

	if (now.loaded == state->loaded && !strcmp(now.args, state->args))
		return 0;
	err = module_take_out();
	return err || !state->loaded ? err : module_load(state->args);
}

#endif /* PORT0_MODULE_H */

// SPDX-License-Identifier: GPL-2.0
/*
 * Keeps programs that COMMAND starts under port0-run, even if it changes the
 * environment: nginx starts the new program with an environment of its own, sudo and
 * env -i with a nearly empty one. Missing settings are added when the program is
 * started. A program that cannot load the library is started nevertheless, and a
 * message is printed.
 *
 * All of this may run between fork(), or vfork(), and exec(): no memory is
 * allocated.
 */
#define _GNU_SOURCE
#include <alloca.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <wordexp.h>

#include "libport0.h"
#include "program.h"
#include "refusal.h"
#include "settings.h"

static const char *const names[] = {
	PORT0_ENV_MAP, PORT0_ENV_TO, PORT0_ENV_FIRST, PORT0_ENV_FROM, PORT0_ENV_CLIENT,
	PORT0_ENV_KEEP, PORT0_ENV_STDERR,
};

#define NAMES		(sizeof(names) / sizeof(names[0]))
/* the settings, LD_PRELOAD, the sockets, and the final NULL */
#define MORE		(NAMES + 3)
#define PRELOAD		"LD_PRELOAD"
#define SOCKETS		PORT0_ENV_SOCKETS "="

/*
 * NAME=VALUE strings, copied, since programs overwrite their environment's
 * memory
 */
static char kept[3 * PORT0_SET_HEX];
static char *settings_of[NAMES];
static char library[PATH_MAX];

static int (*next_execvpe)(const char *file, char *const argv[], char *const envp[]);
static int (*next_posix_spawn)(pid_t *pid, const char *path,
			       const posix_spawn_file_actions_t *actions,
			       const posix_spawnattr_t *attr, char *const argv[],
			       char *const envp[]);
static int (*next_posix_spawnp)(pid_t *pid, const char *file,
				const posix_spawn_file_actions_t *actions,
				const posix_spawnattr_t *attr, char *const argv[],
				char *const envp[]);
static typeof(next_posix_spawn) next_pidfd_spawn;
static typeof(next_posix_spawnp) next_pidfd_spawnp;
static int (*next_system)(const char *command);
static FILE *(*next_popen)(const char *command, const char *mode);
static int (*next_wordexp)(const char *words, wordexp_t *result, int flags);

/* The environment ------------------------------------------------------------ */

/*
 * Find the library in the list LD_PRELOAD; returns the length of its name, or
 * 0.
 */
static size_t find_library(const char *list, const char **where)
{
	static const size_t own = sizeof(PORT0_LIBRARY) - 1;

	while (list && *list) {
		size_t len = strcspn(list, " :");

		if (len > own && list[len - own - 1] == '/' &&
		    !strncmp(list + len - own, PORT0_LIBRARY, own)) {
			*where = list;
			return len;
		}
		list += len + !!list[len];
	}
	return 0;
}

/**
 * exec_settings_read - keep what the next program needs to know
 */
void exec_settings_read(void)
{
	const char *where;
	size_t len = find_library(getenv(PRELOAD), &where);
	char *to = kept;

	if (len && len < sizeof(library))
		memcpy(library, where, len);
	for (size_t n = 0; n < NAMES; n++) {
		const char *value = getenv(names[n]);
		size_t room = (size_t)(kept + sizeof(kept) - to);

		if (!value || strlen(names[n]) + strlen(value) + 2 > room)
			continue;
		settings_of[n] = to;
		to = stpcpy(stpcpy(stpcpy(to, names[n]), "="), value) + 1;
	}
	next_execvpe = (typeof(next_execvpe))dlsym(RTLD_NEXT, "execvpe");
	next_posix_spawn = (typeof(next_posix_spawn))dlsym(RTLD_NEXT, "posix_spawn");
	next_posix_spawnp = (typeof(next_posix_spawnp))dlsym(RTLD_NEXT, "posix_spawnp");
	next_pidfd_spawn = (typeof(next_pidfd_spawn))dlsym(RTLD_NEXT, "pidfd_spawn");
	next_pidfd_spawnp = (typeof(next_pidfd_spawnp))dlsym(RTLD_NEXT, "pidfd_spawnp");
	next_system = (typeof(next_system))dlsym(RTLD_NEXT, "system");
	next_popen = (typeof(next_popen))dlsym(RTLD_NEXT, "popen");
	next_wordexp = (typeof(next_wordexp))dlsym(RTLD_NEXT, "wordexp");
}

/* The value in "NAME=VALUE" if the name is that, else NULL */
static char *value_of(char *entry, const char *name)
{
	size_t len = strlen(name);

	return entry && !strncmp(entry, name, len) && entry[len] == '=' ? entry + len + 1 : NULL;
}

/* Of several entries with that name, the first one: getenv() uses that. */
static size_t find(char *const envp[], size_t count, const char *name)
{
	for (size_t n = 0; n < count; n++) {
		if (value_of(envp[n], name))
			return n;
	}
	return count;
}

/* Of several LD_PRELOAD, the last one: the dynamic linker uses that. */
static size_t find_preload(char *const envp[], size_t count)
{
	for (size_t n = count; n > 0; n--) {
		if (value_of(envp[n - 1], PRELOAD))
			return n - 1;
	}
	return count;
}

/*
 * Tell whether the environment can be read, or the kernel will refuse it with EFAULT. Pages
 * are looked at once if entries follow each other, as they mostly do.
 */
static bool is_readable_list(char *const envp[])
{
	uintptr_t page = UINTPTR_MAX, text_page = UINTPTR_MAX;

	for (; envp; envp++) {
		if (((uintptr_t)(envp + 1) - 1) / 4096 != page && !is_readable(envp, sizeof(*envp)))
			return false;
		page = ((uintptr_t)(envp + 1) - 1) / 4096;
		if (!*envp)
			break;
		if ((uintptr_t)*envp / 4096 != text_page && !is_readable(*envp, 1))
			return false;
		text_page = (uintptr_t)*envp / 4096;
	}
	return true;
}

static size_t length(char *const envp[])
{
	size_t count = 0;

	while (envp && envp[count])
		count++;
	return count;
}

/* The most memory that LD_PRELOAD needs */
static size_t preload_size(char *const envp[])
{
	size_t count = length(envp), n = find_preload(envp, count);

	return (n < count ? strlen(envp[n]) : 0) + strlen(library) + sizeof(PRELOAD) + 3;
}

/*
 * @envp with what is missing, in @into, which has MORE entries more; @preload and
 * @sockets, of @size bytes, are memory for two of them. A setting that is in @envp already
 * is that of an inner port0-run, which has added to ours. @without: the program would not
 * start with the library.
 */
static char *const *complete(char *const envp[], char **into, char *preload, char *sockets,
			     size_t size, bool without)
{
	size_t all = length(envp), last = find_preload(envp, all), count = 0, n;
	const char *where, *others = NULL;
	bool changed;

	if (!*library)
		return envp;
	/* No LD_PRELOAD but the one that counts: others mislead getenv(), and the library. */
	for (n = 0; n < all; n++) {
		if (n == last || !value_of(envp[n], PRELOAD))
			into[count++] = envp[n];
	}
	changed = count < all;
	n = find(into, count, PRELOAD);
	if (n < count)
		others = value_of(into[n], PRELOAD);
	if (without) {
		size_t len = find_library(others, &where);

		if (len) {
			char *end = mempcpy(stpcpy(preload, PRELOAD "="), others,
					    (size_t)(where - others));

			strcpy(end, where + len + !!where[len]);
			into[n] = preload;
			changed = true;
		}
	} else if (!find_library(others, &where)) {
		char *end = stpcpy(stpcpy(preload, PRELOAD "="), library);

		if (others && *others)
			stpcpy(stpcpy(end, ":"), others);
		into[n] = preload;
		count += n == count;
		changed = true;
	}
	for (size_t k = 0; k < NAMES; k++) {
		if (!settings_of[k] || find(into, count, names[k]) < count)
			continue;
		into[count++] = settings_of[k];
		changed = true;
	}
	strcpy(sockets, SOCKETS);
	n = strlen(sockets);
	if (held_write(sockets + n, size - n)) {
		n = find(into, count, PORT0_ENV_SOCKETS);
		into[n] = sockets;
		count += n == count;
		changed = true;
	}
	into[count] = NULL;
	return changed ? into : envp;
}

/*
 * A macro, since the memory has to stay on the caller's stack until exec(). That stack may
 * be small: crash handlers run other programs from the stack of sigaltstack().
 */
#define COMPLETE(envp, without)						\
	(!is_readable_list(envp) ? (envp) : ({				\
		char **into = alloca((length(envp) + MORE) * sizeof(*into)); \
		char *preload = alloca(preload_size(envp));		\
		size_t size = sizeof(SOCKETS) + held_size();		\
		char *sockets = alloca(size);				\
									\
		complete(envp, into, preload, sockets, size, without);	\
	}))

/* The program ---------------------------------------------------------------- */

/* Not inlined, so that its buffer is on the stack only if it is needed. */
static __attribute__((noinline)) void warn(const char *name, const char *obstacle)
{
	char reason[REFUSAL_SIZE] = "it ";

	text_add(reason, sizeof(reason), obstacle);
	text_add(reason, sizeof(reason), ": it runs with the ports that it asks for, not on port 0");
	report(name, reason);
}

/*
 * These tell the user which program will not be on port 0. They return true if it would
 * not even start with the library: another C library than ours may stop if it does not
 * find all symbols.
 */
static bool warn_fd(int fd, const char *name, int depth)
{
	struct program program;

	program_inspect(fd, &program);
	if (program.obstacle) {
		warn(name, program.obstacle);
	} else if (*program.interpreter && depth) {
		fd = open(program.interpreter, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd >= 0) {
			program.other_libc = warn_fd(fd, program.interpreter, depth - 1);
			close(fd);
		}
	}
	return program.other_libc;
}

static bool warn_open(int fd, const char *name)
{
	int cancel = hold_cancel();
	bool other_libc = warn_fd(fd, name, 4);

	allow_cancel(cancel);
	return other_libc;
}

/* errno is not changed. */
static bool warn_at(int dir, const char *path)
{
	bool other_libc = false;
	int err = errno, cancel = hold_cancel(), fd;

	if (*library && path && !faccessat(dir, path, X_OK, 0)) {
		fd = openat(dir, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0)
			fd = openat(dir, path, O_PATH | O_CLOEXEC);
		if (fd >= 0) {
			other_libc = warn_fd(fd, path, 4);
			close(fd);
		}
	}
	allow_cancel(cancel);
	errno = err;
	return other_libc;
}

static bool warn_file(const char *file)
{
	const char *dirs = getenv("PATH") ?: "/bin:/usr/bin";
	size_t size = strlen(dirs) + strlen(file) + 2;
	struct stat st;

	if (strchr(file, '/'))
		return warn_at(AT_FDCWD, file);
	if (size > PATH_MAX)
		size = PATH_MAX;

	char path[size];

	for (;;) {
		size_t len = strcspn(dirs, ":");

		if (len + strlen(file) + 2 <= size) {
			memcpy(path, dirs, len);
			strcpy(stpcpy(path + len, len ? "/" : ""), file);
			if (!access(path, X_OK) && !stat(path, &st) && S_ISREG(st.st_mode))
				return warn_at(AT_FDCWD, path);
		}
		if (!dirs[len])
			return false;
		dirs += len + 1;
	}
}

/* exec() --------------------------------------------------------------------- */

EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
	bool without;

	settings_read();
	without = warn_at(AT_FDCWD, path);
	return (int)syscall(SYS_execve, path, argv, COMPLETE(envp, without));
}

EXPORT int execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
	int err = errno;
	bool without;

	settings_read();
	without = warn_file(file);
	if (!next_execvpe) {
		errno = ENOSYS;
		return -1;
	}
	errno = err;
	return next_execvpe(file, argv, COMPLETE(envp, without));
}

EXPORT int execvp(const char *file, char *const argv[])
{
	return execvpe(file, argv, environ);
}

EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
	bool without;

	settings_read();
	without = warn_open(fd, "fexecve");
	return (int)syscall(SYS_execveat, fd, "", argv, COMPLETE(envp, without), AT_EMPTY_PATH);
}

/* Since glibc 2.34; older headers do not declare it. */
int execveat(int dir, const char *path, char *const argv[], char *const envp[], int flags);

EXPORT int execveat(int dir, const char *path, char *const argv[], char *const envp[], int flags)
{
	bool without;

	settings_read();
	if (flags & AT_EMPTY_PATH && is_readable(path, 1) && !*path)
		without = warn_open(dir, "execveat");
	else
		without = warn_at(dir, path);
	return (int)syscall(SYS_execveat, dir, path, argv, COMPLETE(envp, without), flags);
}

/* Collect the arguments after @first, which end with NULL. */
#define COUNT(count, first, args)					\
	do {								\
		va_start(args, first);					\
		for (count = 1; va_arg(args, char *); count++)		\
			;						\
		va_end(args);						\
	} while (0)

#define COLLECT(argv, count, first, args)				\
	do {								\
		argv[0] = (char *)first;				\
		va_start(args, first);					\
		for (size_t n = 1; n <= count; n++)			\
			argv[n] = va_arg(args, char *);			\
	} while (0)

/* The variants whose arguments are a list: collect them, then make the call. */
#define EXEC_LIST(name, call)						\
EXPORT int name(const char *file, const char *first, ...)		\
{									\
	size_t count;							\
	va_list args;							\
									\
	COUNT(count, first, args);					\
	char *argv[count + 1];						\
									\
	COLLECT(argv, count, first, args);				\
	va_end(args);							\
	return call(file, argv, environ);				\
}

EXEC_LIST(execl, execve)
EXEC_LIST(execlp, execvpe)

EXPORT int execle(const char *path, const char *first, ...)
{
	char *const *envp;
	size_t count;
	va_list args;

	COUNT(count, first, args);
	char *argv[count + 1];

	COLLECT(argv, count, first, args);
	envp = va_arg(args, char *const *);
	va_end(args);
	return execve(path, argv, envp);
}

/* Since glibc 2.39 also with a pidfd; older headers do not declare these. */
int pidfd_spawn(int *pidfd, const char *path, const posix_spawn_file_actions_t *actions,
		const posix_spawnattr_t *attr, char *const argv[], char *const envp[]);
int pidfd_spawnp(int *pidfd, const char *file, const posix_spawn_file_actions_t *actions,
		 const posix_spawnattr_t *attr, char *const argv[], char *const envp[]);

#define SPAWN(name, type, warn)						\
EXPORT int name(type *child, const char *file,				\
		const posix_spawn_file_actions_t *actions,		\
		const posix_spawnattr_t *attr, char *const argv[],	\
		char *const envp[])					\
{									\
	bool without;							\
									\
	settings_read();						\
	without = warn;							\
	if (!next_##name)						\
		return ENOSYS;						\
	return next_##name(child, file, actions, attr, argv, COMPLETE(envp, without)); \
}

SPAWN(posix_spawn, pid_t, warn_at(AT_FDCWD, file))
SPAWN(posix_spawnp, pid_t, warn_file(file))
SPAWN(pidfd_spawn, int, warn_at(AT_FDCWD, file))
SPAWN(pidfd_spawnp, int, warn_file(file))

/*
 * system(), popen() and wordexp() run a shell with the environment of this process, which
 * other threads may use meanwhile. So missing variables are set with setenv(), and stay
 * set. None of these functions may be called from a signal handler, so allocating memory is
 * allowed.
 */
static void complete_own(void)
{
	const char *others = getenv(PRELOAD), *where, *old;
	size_t size = held_size();
	char *sockets = alloca(size);

	if (!*library)
		return;
	if (!find_library(others, &where)) {
		char *list = alloca(strlen(library) + (others ? strlen(others) : 0) + 2);
		char *end = stpcpy(list, library);

		if (others && *others)
			stpcpy(stpcpy(end, ":"), others);
		setenv(PRELOAD, list, 1);
	}
	for (size_t n = 0; n < NAMES; n++) {
		if (settings_of[n])
			setenv(names[n], settings_of[n] + strlen(names[n]) + 1, 0);
	}
	if (held_write(sockets, size)) {
		old = getenv(PORT0_ENV_SOCKETS);
		if (!old || strcmp(old, sockets))
			setenv(PORT0_ENV_SOCKETS, sockets, 1);
	}
}

EXPORT int system(const char *command)
{
	settings_read();
	if (!next_system)
		return -1;
	complete_own();
	return next_system(command);
}

EXPORT FILE *popen(const char *command, const char *mode)
{
	settings_read();
	if (!next_popen)
		return NULL;
	complete_own();
	return next_popen(command, mode);
}

EXPORT int wordexp(const char *words, wordexp_t *result, int flags)
{
	settings_read();
	if (!next_wordexp)
		return WRDE_NOSPACE;
	complete_own();
	return next_wordexp(words, result, flags);
}

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Two sides to compare. A side is a network namespace in which an experiment is
 * made on one port: by unmarked sockets on an ordinary port on the left, and by
 * marked sockets on port 0 on the right. Any difference is a fault of port 0.
 */
#ifndef PORT0_SIDES_H
#define PORT0_SIDES_H

#include <sys/fsuid.h>

#include "kselftest.h"
#include "netns.h"

/* Linux 5.10's kselftest.h has none of these. */
#ifndef ARRAY_SIZE
#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))
#endif
#ifndef ksft_finished
#define ksft_finished()							\
	ksft_exit(ksft_plan == ksft_cnt.ksft_pass + ksft_cnt.ksft_xfail +	\
		  ksft_cnt.ksft_xskip)
#endif

/* An ordinary port to compare with CONTROL_PORT. */
#define SECOND_CONTROL_PORT	8

struct side {
	const char *name;
	__u16 port;
	bool marked;
	int netns;
};

/* Ends the program if a call that prepares the experiment has failed. */
static inline int must(int result, const char *what)
{
	if (result < 0)
		ksft_exit_fail_msg("%s: %s\n", what, strerror(-result));
	return result;
}

/* With @control, both are ordinary ports: this tests the test, without the module. */
static inline void sides_choose(struct side *left, struct side *right, bool control)
{
	*left = (struct side){ .name = "ordinary", .port = CONTROL_PORT };
	*right = (struct side){ .name = "port 0", .marked = true };
	if (control)
		*right = (struct side){ .name = "control", .port = SECOND_CONTROL_PORT };
}

/* Makes its namespace, and moves the caller there. */
static inline void side_open(struct side *side)
{
	must(new_netns(), "a network namespace (run as root)");
	side->netns = must(rc(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC)),
			   "/proc/thread-self/ns/net");
}

static inline void side_enter(const struct side *side)
{
	must(rc(setns(side->netns, CLONE_NEWNET)), "setns");
}

static inline void side_mark(const struct side *side, int fd)
{
	if (side->marked)
		must(set_mark(fd, 1), "IP_BIND_PORT_ZERO (is the port0 module loaded?)");
}

/* Tell whether this socket is bound to the port of the side. */
static inline bool side_holds(const struct side *side, int fd)
{
	return local_port(fd) == side->port && (!side->marked || holds_zero(fd) == 1);
}

/* A socket that @uid owns: the kernel takes the owner from the inode. */
static inline int socket_of(uid_t uid, int family, int type)
{
	int fd;

	if (!uid)
		return rc(socket(family, type, 0));
	setfsuid(uid);
	fd = rc(socket(family, type, 0));
	setfsuid(0);
	return fd;
}

static inline const char *errno_name(int error)
{
	static char number[12];

#if __GLIBC_PREREQ(2, 32)
	const char *name = strerrorname_np(error);

	if (name)
		return name;
#endif
	snprintf(number, sizeof(number), "%d", error);
	return number;
}

#endif /* PORT0_SIDES_H */

// SPDX-License-Identifier: GPL-2.0
/*
 * The time to load the module, to arm the hooks that are armed on demand, and to unload
 * the module.
 *
 * Prints for each step, in nanoseconds, the CPU time that this program used and the
 * time that passed, most of which it waits until no task can be in a hook.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "port0.h"

static const char *path;
static int fd;

static void do_load(void)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);

	if (file < 0 || syscall(SYS_finit_module, file, "", 0))
		err(1, "cannot load %s", path);
	close(file);
}

static void do_mark(void)
{
	int one = 1;

	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0 || setsockopt(fd, SOL_IP, IP_BIND_PORT_ZERO, &one,
				 sizeof(one)))
		err(1, "cannot mark a socket");
}

static struct sockaddr_in addr = { .sin_family = AF_INET };

static void bind_zero(void)
{
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)))
		err(1, "cannot bind to port 0");
}

static void send_zero(void)
{
	if (sendto(fd, "", 0, 0, (struct sockaddr *)&addr, sizeof(addr)))
		err(1, "cannot send to port 0");
}

/* The same calls again: no hook has to be armed any more. */
static void again(void)
{
	close(fd);
	do_mark();
	bind_zero();
	send_zero();
	close(fd);
}

static void do_unload(void)
{
	/* A socket that was just closed may not have released its port yet. */
	while (syscall(SYS_delete_module, "port0", O_NONBLOCK)) {
		if (errno != EAGAIN && errno != EBUSY)
			err(1, "cannot unload");
		usleep(1000);
	}
}

static struct step {
	const char *name;
	void (*run)(void);
	uint64_t cpu[2], elapsed[2];	/* least, most */
} steps[] = {
	{ .name = "load", .run = do_load },
	{ .name = "first_mark", .run = do_mark },
	{ .name = "first_bind", .run = bind_zero },
	{ .name = "first_send", .run = send_zero },
	{ .name = "all_again", .run = again },
	{ .name = "unload", .run = do_unload },
};

static uint64_t now(clockid_t id)
{
	struct timespec t;

	clock_gettime(id, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void note(uint64_t range[2], uint64_t value)
{
	if (!range[0] || value < range[0])
		range[0] = value;
	if (value > range[1])
		range[1] = value;
}

int main(int argc, char **argv)
{
	int rounds, i;
	unsigned int s;

	if (argc != 3)
		errx(2, "usage: load MODULE ROUNDS");
	path = argv[1];
	rounds = atoi(argv[2]);
	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

	/* The first round fills caches. */
	for (i = -1; i < rounds; i++) {
		for (s = 0; s < sizeof(steps) / sizeof(*steps); s++) {
			uint64_t cpu = now(CLOCK_PROCESS_CPUTIME_ID);
			uint64_t start = now(CLOCK_MONOTONIC);

			steps[s].run();
			if (i < 0)
				continue;
			note(steps[s].elapsed, now(CLOCK_MONOTONIC) - start);
			note(steps[s].cpu,
			     now(CLOCK_PROCESS_CPUTIME_ID) - cpu);
		}
		sleep(1);
	}
	for (s = 0; s < sizeof(steps) / sizeof(*steps); s++) {
		printf("cpu %s %llu %llu\n", steps[s].name,
		       (unsigned long long)steps[s].cpu[0],
		       (unsigned long long)steps[s].cpu[1]);
		printf("elapsed %s %llu %llu\n", steps[s].name,
		       (unsigned long long)steps[s].elapsed[0],
		       (unsigned long long)steps[s].elapsed[1]);
	}
	return 0;
}

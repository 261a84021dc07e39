// SPDX-License-Identifier: GPL-2.0
/*
 * binder HOW PORT - bind a TCP socket from an awkward place, and print the port
 * that it got and whether the module says that this is literal port 0.
 */
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "port0.h"

static struct sockaddr_in addr = { .sin_family = AF_INET };
static volatile sig_atomic_t result = -1;
static int fd = -1;

static void do_bind(void)
{
	int before = errno = 4711;

	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)))
		result = errno;
	else
		result = errno == before ? 0 : 9999;
}

static void on_alarm(int number)
{
	(void)number;
	do_bind();
}

/* The allocator's lock is held when the signal comes, as likely as not. */
static void from_signal(void)
{
	struct itimerval soon = { .it_value.tv_usec = 50000 };

	signal(SIGALRM, on_alarm);
	setitimer(ITIMER_REAL, &soon, NULL);
	while (result < 0)
		free(malloc(1000));
}

static void from_vfork(void)
{
	pid_t pid = vfork();

	if (!pid) {
		do_bind();
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

static void *in_thread(void *unused)
{
	do_bind();
	return unused;
}

static void from_thread(void)
{
	pthread_t thread;

	pthread_create(&thread, NULL, in_thread, NULL);
	pthread_join(thread, NULL);
}

int main(int argc, char **argv)
{
	socklen_t len = sizeof(addr);
	int literal = 0;

	if (argc != 3)
		return 2;
	addr.sin_port = htons((unsigned short)atoi(argv[2]));
	fd = socket(AF_INET, SOCK_STREAM, 0);
	if (!strcmp(argv[1], "signal"))
		from_signal();
	else if (!strcmp(argv[1], "vfork"))
		from_vfork();
	else if (!strcmp(argv[1], "thread"))
		from_thread();
	else
		do_bind();
	if (result) {
		printf("failed %s\n", strerror(result));
		return 1;
	}
	getsockname(fd, (struct sockaddr *)&addr, &len);
	len = sizeof(literal);
	getsockopt(fd, SOL_IP, IP_BOUND_PORT_ZERO, &literal, &len);
	printf("%u %d\n", ntohs(addr.sin_port), literal);
	return 0;
}

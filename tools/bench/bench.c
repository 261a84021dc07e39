// SPDX-License-Identifier: GPL-2.0
/*
 * What calls on sockets cost.
 *
 * Client and server are one thread, so that nothing but the work itself is
 * counted: over loopback and over veth everything that a packet sets off has
 * happened when the call that sent it returns. Meant for a guest in which one
 * instruction is one nanosecond.
 *
 * Prints one line for each kind of work: its name, the least and the greatest
 * cost over the rounds, in nanoseconds for one piece of work.
 */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "port0.h"

#define MESSAGE	64
#define BULK	(64 * 1024)
#define MAX_TIMES	10000

static const char *progname = "bench";
static struct sockaddr_in server = { .sin_family = AF_INET };
static bool marked;
static int rounds = 9;
static char buffer[BULK];

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

#define must(call) ({							\
	__auto_type __ret = (call);					\
	if (__ret < 0)							\
		err(1, "%s:%d: %s", progname, __LINE__, #call);		\
	__ret; })

static int new_socket(int type)
{
	return must(socket(AF_INET, type, 0));
}

static int new_server_socket(int type)
{
	int fd = new_socket(type), one = 1;

	if (marked)
		must(setsockopt(fd, SOL_IP, IP_BIND_PORT_ZERO, &one,
				sizeof(one)));
	return fd;
}

static void bind_to(int fd, const struct sockaddr_in *addr)
{
	must(bind(fd, (struct sockaddr *)addr, sizeof(*addr)));
}

static void connect_to(int fd, const struct sockaddr_in *addr)
{
	must(connect(fd, (struct sockaddr *)addr, sizeof(*addr)));
}

/* Connections are reset, so that none is left in TIME_WAIT. */
static void close_hard(int fd)
{
	struct linger linger = { .l_onoff = 1 };

	must(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)));
	must(close(fd));
}

static void send_all(int fd, size_t len)
{
	if (must(send(fd, buffer, len, 0)) != (ssize_t)len)
		errx(1, "short send");
}

static void receive_all(int fd, size_t len)
{
	if (must(recv(fd, buffer, len, MSG_WAITALL)) != (ssize_t)len)
		errx(1, "short receive");
}

/* What most kinds of work stand on, made before the clock starts. */
static struct {
	int listener;
	int client;
	int child;
	struct sockaddr_in client_addr;
} at = { -1, -1, -1 };

static void tcp_listener(void)
{
	int one = 1;

	at.listener = new_server_socket(SOCK_STREAM);
	must(setsockopt(at.listener, SOL_SOCKET, SO_REUSEADDR, &one,
			sizeof(one)));
	bind_to(at.listener, &server);
	must(listen(at.listener, 128));
}

static void tcp_pair(void)
{
	int one = 1, size = 4 * BULK;

	tcp_listener();
	must(setsockopt(at.listener, SOL_SOCKET, SO_RCVBUF, &size,
			sizeof(size)));
	at.client = new_socket(SOCK_STREAM);
	must(setsockopt(at.client, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)));
	connect_to(at.client, &server);
	at.child = must(accept(at.listener, NULL, NULL));
	must(setsockopt(at.client, SOL_TCP, TCP_NODELAY, &one, sizeof(one)));
	must(setsockopt(at.child, SOL_TCP, TCP_NODELAY, &one, sizeof(one)));
}

static void udp_pair(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET,
				   .sin_addr = server.sin_addr };
	socklen_t len = sizeof(at.client_addr);

	at.child = new_server_socket(SOCK_DGRAM);
	bind_to(at.child, &server);
	at.client = new_socket(SOCK_DGRAM);
	bind_to(at.client, &any);
	must(getsockname(at.client, (struct sockaddr *)&at.client_addr, &len));
	/* A marked client can send to port 0 without being connected. */
	if (!server.sin_port) {
		int one = 1;

		must(setsockopt(at.client, SOL_IP, IP_BIND_PORT_ZERO, &one,
				sizeof(one)));
	}
}

static void teardown(void)
{
	int *fds[] = { &at.client, &at.child, &at.listener };
	unsigned int i;

	for (i = 0; i < sizeof(fds) / sizeof(*fds); i++) {
		if (*fds[i] >= 0)
			close_hard(*fds[i]);
		*fds[i] = -1;
	}
}

static void do_tcp_bind(void)
{
	int fd = new_server_socket(SOCK_STREAM);

	bind_to(fd, &server);
	close(fd);
}

static void do_tcp_bind_any(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET };
	int fd = new_socket(SOCK_STREAM);

	bind_to(fd, &any);
	close(fd);
}

static void do_udp_bind(void)
{
	int fd = new_server_socket(SOCK_DGRAM);

	bind_to(fd, &server);
	close(fd);
}

static void do_udp_bind_any(void)
{
	struct sockaddr_in any = { .sin_family = AF_INET };
	int fd = new_socket(SOCK_DGRAM);

	bind_to(fd, &any);
	close(fd);
}

static void do_tcp_listen(void)
{
	int fd = new_server_socket(SOCK_STREAM);

	bind_to(fd, &server);
	must(listen(fd, 8));
	close(fd);
}

static void do_getsockname(void)
{
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);

	must(getsockname(at.client, (struct sockaddr *)&addr, &len));
}

static void do_getpeername(void)
{
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);

	must(getpeername(at.client, (struct sockaddr *)&addr, &len));
}

static void do_tcp_connection(void)
{
	int client = new_socket(SOCK_STREAM), child;

	connect_to(client, &server);
	child = must(accept(at.listener, NULL, NULL));
	close_hard(client);
	must(close(child));
}

static void do_tcp_request(void)
{
	send_all(at.client, MESSAGE);
	receive_all(at.child, MESSAGE);
	send_all(at.child, MESSAGE);
	receive_all(at.client, MESSAGE);
}

static void do_tcp_bulk(void)
{
	send_all(at.client, BULK);
	receive_all(at.child, BULK);
}

static void do_udp_send(void)
{
	must(sendto(at.client, buffer, MESSAGE, 0, (struct sockaddr *)&server,
		    sizeof(server)));
	receive_all(at.child, MESSAGE);
}

/* Request by sendto(), answer by sendto() to where it came from. */
static void do_udp_echo(void)
{
	struct sockaddr_in from;
	socklen_t len = sizeof(from);

	must(sendto(at.client, buffer, MESSAGE, 0, (struct sockaddr *)&server,
		    sizeof(server)));
	must(recvfrom(at.child, buffer, MESSAGE, 0, (struct sockaddr *)&from,
		      &len));
	must(sendto(at.child, buffer, MESSAGE, 0, (struct sockaddr *)&from,
		    len));
	receive_all(at.client, MESSAGE);
}

static const struct work {
	const char *name;
	void (*setup)(void);
	void (*once)(void);
	int times;
	int pieces;	/* how many pieces of work one time is */
} works[] = {
	{ "tcp_bind", NULL, do_tcp_bind, 2000, 1 },
	{ "tcp_bind_any", NULL, do_tcp_bind_any, 1000, 1 },
	{ "udp_bind", NULL, do_udp_bind, 2000, 1 },
	{ "udp_bind_any", NULL, do_udp_bind_any, 2000, 1 },
	{ "tcp_listen", NULL, do_tcp_listen, 1000, 1 },
	{ "getsockname", tcp_pair, do_getsockname, 10000, 1 },
	{ "getpeername", tcp_pair, do_getpeername, 10000, 1 },
	{ "tcp_connection", tcp_listener, do_tcp_connection, 500, 1 },
	{ "tcp_request", tcp_pair, do_tcp_request, 1000, 1 },
	{ "tcp_bulk", tcp_pair, do_tcp_bulk, 100, BULK / 1024 },
	{ "udp_send", udp_pair, do_udp_send, 2000, 1 },
	{ "udp_echo", udp_pair, do_udp_echo, 1000, 1 },
};

static int compare(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void measure(const struct work *work)
{
	double least = 0, most = 0;
	int round, i;

	if (work->setup)
		work->setup();
	for (round = -1; round < rounds; round++) {
		static uint32_t samples[MAX_TIMES];
		double cost;

		for (i = 0; i < work->times; i++) {
			uint64_t start = now();

			work->once();
			samples[i] = now() - start;
		}
		qsort(samples, work->times, sizeof(*samples), compare);
		if (getenv("DIST")) {
			printf("# %s:", work->name);
			for (i = 0; i < 20; i++)
				printf(" %u", samples[work->times * i / 20]);
			printf("\n");
		}
		cost = (double)samples[work->times / 2] / work->pieces;
		/* The first round fills caches. */
		if (round < 0)
			continue;
		if (!round || cost < least)
			least = cost;
		if (!round || cost > most)
			most = cost;
	}
	teardown();
	printf("%s %.1f %.1f\n", work->name, least, most);
	fflush(stdout);
}

static bool wanted(const char *name, char **names)
{
	for (; *names; names++)
		if (!strcmp(*names, name))
			return true;
	return false;
}

static void usage(void)
{
	fprintf(stderr, "usage: bench [-a ADDRESS] [-p PORT] [-m] [-r ROUNDS] [WORK...]\n"
		"  -m  mark the server's sockets, so that -p 0 is literal\n");
	exit(2);
}

int main(int argc, char **argv)
{
	unsigned int i;
	int opt;

	server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	server.sin_port = htons(80);
	while ((opt = getopt(argc, argv, "a:p:mr:")) != -1) {
		switch (opt) {
		case 'a':
			if (inet_pton(AF_INET, optarg, &server.sin_addr) != 1)
				errx(1, "%s is no IPv4 address", optarg);
			break;
		case 'p':
			server.sin_port = htons(atoi(optarg));
			break;
		case 'm':
			marked = true;
			break;
		case 'r':
			rounds = atoi(optarg);
			break;
		default:
			usage();
		}
	}
	argv += optind;
	for (i = 0; i < sizeof(works) / sizeof(*works); i++)
		if (!*argv || wanted(works[i].name, argv))
			measure(&works[i]);
	return 0;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * The cost of calls on sockets
 *
 * Client and server are one thread, so that only the work itself is counted: over
 * loopback and veth, all effects of a packet have happened when the call that sent it
 * returns. Meant for a guest in which one instruction is one nanosecond.
 *
 * Prints one line for each kind of work: its name, the least and the greatest
 * cost over the rounds, in nanoseconds for one piece of work.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "port0.h"

#define MESSAGE	64
#define BULK	(64 * 1024)
#define MAX_TIMES	1000

/* The addresses of the server and of clients, and the options of sockets */
static struct sockaddr_in server = { .sin_family = AF_INET };
static struct sockaddr_in target = { .sin_family = AF_INET };
static bool marked, transparent;
static int steering = -1;
static int server_netns = -1, own_netns = -1;
static int rounds = 9;
static int connections;
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
		err(1, "line %d: %s", __LINE__, #call);			\
	__ret; })

static void set_option(int fd, int level, int name, int value)
{
	must(setsockopt(fd, level, name, &value, sizeof(value)));
}

static int new_socket(int type)
{
	return must(socket(AF_INET, type, 0));
}

static int new_server_socket(int type)
{
	int fd;

	if (server_netns >= 0)
		must(setns(server_netns, CLONE_NEWNET));
	fd = new_socket(type);
	if (server_netns >= 0)
		must(setns(own_netns, CLONE_NEWNET));
	if (marked)
		set_option(fd, SOL_IP, IP_BIND_PORT_ZERO, 1);
	if (transparent)
		set_option(fd, SOL_IP, IP_TRANSPARENT, 1);
	return fd;
}

/* Put the server's socket where the sk_lookup program of steer.c finds it. */
static void steer(int fd, uint32_t slot)
{
	uint64_t value = fd;
	union bpf_attr attr = {
		.map_fd = steering,
		.key = (uintptr_t)&slot,
		.value = (uintptr_t)&value,
	};

	if (steering >= 0)
		must(syscall(SYS_bpf, BPF_MAP_UPDATE_ELEM, &attr, sizeof(attr)));
}

static void open_steering(const char *path)
{
	union bpf_attr attr = { .pathname = (uintptr_t)path };

	steering = must(syscall(SYS_bpf, BPF_OBJ_GET, &attr, sizeof(attr)));
}

static void bind_to(int fd, const struct sockaddr_in *addr)
{
	must(bind(fd, (struct sockaddr *)addr, sizeof(*addr)));
}

static void connect_to(int fd, const struct sockaddr_in *addr)
{
	must(connect(fd, (struct sockaddr *)addr, sizeof(*addr)));
}

/* A connection is reset, so that it is not left in TIME_WAIT. */
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

/* What most kinds of work need, prepared before the clock starts */
static int listener = -1, client = -1, child = -1;

/* Live connections on the server's port, and its listeners by SO_REUSEPORT. */
static int *live, *group;
static int live_count, group_count;

static void tcp_listener(void)
{
	listener = new_server_socket(SOCK_STREAM);
	set_option(listener, SOL_SOCKET, SO_REUSEADDR, 1);
	bind_to(listener, &server);
	must(listen(listener, 128));
	steer(listener, 0);
}

static void tcp_pair(void)
{
	tcp_listener();
	set_option(listener, SOL_SOCKET, SO_RCVBUF, 4 * BULK);
	client = new_socket(SOCK_STREAM);
	set_option(client, SOL_SOCKET, SO_SNDBUF, 4 * BULK);
	connect_to(client, &target);
	child = must(accept(listener, NULL, NULL));
	set_option(client, SOL_TCP, TCP_NODELAY, 1);
	set_option(child, SOL_TCP, TCP_NODELAY, 1);
}

static void udp_server(void)
{
	child = new_server_socket(SOCK_DGRAM);
	bind_to(child, &server);
	steer(child, 1);
	client = new_socket(SOCK_DGRAM);
}

/* Only a marked client may send to port 0 without being connected to it. */
static void udp_pair(void)
{
	udp_server();
	if (!target.sin_port)
		set_option(client, SOL_IP, IP_BIND_PORT_ZERO, 1);
}

static void udp_connected_pair(void)
{
	udp_server();
	connect_to(client, &target);
}

/*
 * Connections in groups of a thousand, each from its own address, so that the ephemeral
 * ports suffice
 */
static void tcp_many(void)
{
	struct sockaddr_in from = { .sin_family = AF_INET };
	int i;

	tcp_listener();
	live = calloc(2 * connections, sizeof(*live));
	for (i = 0; i < connections; i++) {
		live[2 * i] = new_socket(SOCK_STREAM);
		from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 256 +
					     i / 1000);
		set_option(live[2 * i], SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1);
		bind_to(live[2 * i], &from);
		connect_to(live[2 * i], &target);
		live[2 * i + 1] = must(accept(listener, NULL, NULL));
	}
	live_count = 2 * connections;
}

static void new_member(void)
{
	child = new_server_socket(SOCK_STREAM);
	set_option(child, SOL_SOCKET, SO_REUSEPORT, 1);
	must(fcntl(child, F_SETFL, O_NONBLOCK));
}

static void tcp_group(void)
{
	group = calloc(connections, sizeof(*group));
	for (group_count = 0; group_count < connections; group_count++) {
		new_member();
		bind_to(child, &server);
		must(listen(child, 8));
		group[group_count] = child;
	}
	child = -1;
}

static void put(int *fd)
{
	if (*fd >= 0)
		close_hard(*fd);
	*fd = -1;
}

static void teardown(void)
{
	put(&client);
	put(&child);
	put(&listener);
	while (live_count)
		put(&live[--live_count]);
	while (group_count)
		put(&group[--group_count]);
	free(live);
	free(group);
	live = NULL;
	group = NULL;
}

/* socket(), bind(), close() */

static void do_bind(int type, bool any, int backlog)
{
	static const struct sockaddr_in anywhere = { .sin_family = AF_INET };
	int fd = any ? new_socket(type) : new_server_socket(type);

	bind_to(fd, any ? &anywhere : &server);
	if (backlog)
		must(listen(fd, backlog));
	must(close(fd));
}

static void do_tcp_bind(void)
{
	do_bind(SOCK_STREAM, false, 0);
}

static void do_tcp_bind_any(void)
{
	do_bind(SOCK_STREAM, true, 0);
}

static void do_tcp_listen(void)
{
	do_bind(SOCK_STREAM, false, 8);
}

static void do_udp_bind(void)
{
	do_bind(SOCK_DGRAM, false, 0);
}

static void do_udp_bind_any(void)
{
	do_bind(SOCK_DGRAM, true, 0);
}

static void do_getsockname(void)
{
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);

	must(getsockname(client, (struct sockaddr *)&addr, &len));
}

static void do_getpeername(void)
{
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);

	must(getpeername(client, (struct sockaddr *)&addr, &len));
}

static void do_connect(void)
{
	client = new_socket(SOCK_STREAM);
	connect_to(client, &target);
}

static void do_accept(void)
{
	child = must(accept(listener, NULL, NULL));
}

static void do_connect_and_accept(void)
{
	do_connect();
	do_accept();
}

static void do_close_child(void)
{
	must(close(child));
	child = -1;
}

static void do_close_both(void)
{
	put(&client);
	if (child >= 0)
		do_close_child();
}

static void do_tcp_connection(void)
{
	do_connect_and_accept();
	do_close_both();
}

static void do_tcp_request(void)
{
	send_all(client, MESSAGE);
	receive_all(child, MESSAGE);
	send_all(child, MESSAGE);
	receive_all(client, MESSAGE);
}

static void do_tcp_bulk(void)
{
	send_all(client, BULK);
	receive_all(child, BULK);
}

static void do_udp_send(void)
{
	must(sendto(client, buffer, MESSAGE, 0, (struct sockaddr *)&target,
		    sizeof(target)));
	receive_all(child, MESSAGE);
}

/* The answer goes by sendto() to where the request came from. */
static void do_udp_echo(void)
{
	struct sockaddr_in from;
	socklen_t len = sizeof(from);

	send_all(client, MESSAGE);
	must(recvfrom(child, buffer, MESSAGE, 0, (struct sockaddr *)&from,
		      &len));
	must(sendto(child, buffer, MESSAGE, 0, (struct sockaddr *)&from, len));
	receive_all(client, MESSAGE);
}

static void new_child(void)
{
	child = new_server_socket(SOCK_STREAM);
}

static void do_bind_child(void)
{
	bind_to(child, &server);
}

/* A server is restarted while its old connections are alive. */
static void restarted_server(void)
{
	if (listener >= 0)
		put(&listener);
	new_child();
	set_option(child, SOL_SOCKET, SO_REUSEADDR, 1);
}

/*
 * bind() of another address, without sharing options: every socket of the port could
 * conflict.
 */
static void do_bind_beside(void)
{
	struct sockaddr_in addr = server;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
	bind_to(child, &addr);
}

/* Which listener has the connection is the kernel's choice. */
static void drain_group(void)
{
	int i, fd;

	put(&client);
	for (i = 0; i < group_count; i++) {
		fd = accept(group[i], NULL, NULL);
		if (fd >= 0)
			must(close(fd));
	}
}

static const struct work {
	const char *name;
	void (*setup)(void);
	void (*before)(void);	/* not timed */
	void (*once)(void);
	void (*after)(void);	/* not timed */
	int times;
	int pieces;		/* how many pieces of work one time is */
	bool chosen;		/* only if asked for by name */
} works[] = {
	{ .name = "tcp_bind", .once = do_tcp_bind, .times = 500 },
	{ .name = "tcp_bind_any", .once = do_tcp_bind_any, .times = 500 },
	{ .name = "tcp_listen", .once = do_tcp_listen, .times = 500 },
	{ .name = "udp_bind", .once = do_udp_bind, .times = 500 },
	{ .name = "udp_bind_any", .once = do_udp_bind_any, .times = 500 },
	{ .name = "getsockname", tcp_pair, .once = do_getsockname,
	  .times = 1000 },
	{ .name = "getpeername", tcp_pair, .once = do_getpeername,
	  .times = 1000 },
	{ .name = "tcp_connection", tcp_listener, .once = do_tcp_connection,
	  .times = 500 },
	{ .name = "tcp_request", tcp_pair, .once = do_tcp_request,
	  .times = 500 },
	{ .name = "tcp_bulk", tcp_pair, .once = do_tcp_bulk, .times = 100,
	  .pieces = BULK / 1024 },
	{ .name = "udp_send", udp_pair, .once = do_udp_send, .times = 500 },
	{ .name = "udp_echo", udp_connected_pair, .once = do_udp_echo,
	  .times = 500 },

	/* with -n: so many live connections on the port */
	{ .name = "many_accept", tcp_many, do_connect, do_accept,
	  do_close_both, .times = 200, .chosen = true },
	{ .name = "many_close", NULL, do_connect_and_accept, do_close_child,
	  do_close_both, .times = 200, .chosen = true },
	{ .name = "many_bind_beside", NULL, new_child, do_bind_beside,
	  do_close_child, .times = 200, .chosen = true },
	{ .name = "many_rebind", NULL, restarted_server, do_bind_child,
	  do_close_child, .times = 21, .chosen = true },

	/* with -n: so many listeners */
	{ .name = "group_bind", tcp_group, new_member, do_bind_child,
	  do_close_child, .times = 100, .chosen = true },
	{ .name = "group_connect", NULL, NULL, do_connect, drain_group,
	  .times = 100, .chosen = true },
};

static int port_of(int fd, int (*get)(int, struct sockaddr *, socklen_t *))
{
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);

	return get(fd, (struct sockaddr *)&addr, &len) ? -1 :
						ntohs(addr.sin_port);
}

/* The ports that both ends see; the request proves that the connection works. */
static void show_features(void)
{
	static const struct timeval patience = { .tv_sec = 1 };
	struct sockaddr_in addr = target;
	socklen_t len = sizeof(addr);
	int fd;

	tcp_pair();
	do_tcp_request();
	printf("@listener %d\n", port_of(listener, getsockname));
	printf("@child %d\n", port_of(child, getsockname));
	printf("@peer %d\n", port_of(client, getpeername));

	/* Whether the server can be reached on another port as well. */
	addr.sin_port = htons(80);
	fd = new_socket(SOCK_STREAM);
	printf("@exposed %d\n", target.sin_port != addr.sin_port &&
	       !connect(fd, (struct sockaddr *)&addr, sizeof(addr)));
	put(&fd);
	teardown();

	/* Which port an answer comes from. */
	udp_connected_pair();
	must(setsockopt(child, SOL_SOCKET, SO_RCVTIMEO, &patience,
			sizeof(patience)));
	must(setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience,
			sizeof(patience)));
	send_all(client, MESSAGE);
	if (recvfrom(child, buffer, MESSAGE, 0, (struct sockaddr *)&addr,
		     &len) == MESSAGE &&
	    sendto(child, buffer, MESSAGE, 0, (struct sockaddr *)&addr,
		   len) == MESSAGE &&
	    recvfrom(client, buffer, MESSAGE, 0, (struct sockaddr *)&addr,
		     &len) == MESSAGE)
		printf("@udp_reply %d\n", ntohs(addr.sin_port));
	else
		printf("@udp_reply -1\n");
	teardown();
}

/* In all slab caches, once deferred frees have been done. */
static double slab_bytes(void)
{
	FILE *f = fopen("/proc/slabinfo", "re");
	unsigned long objects, size;
	double bytes = 0;
	char line[256];

	if (!f)
		err(1, "/proc/slabinfo");
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%*s %lu %*u %lu", &objects, &size) == 2)
			bytes += (double)objects * size;
	fclose(f);
	return bytes;
}

static void many_sockets(bool bound)
{
	struct sockaddr_in addr = server;

	live = calloc(connections, sizeof(*live));
	for (live_count = 0; live_count < connections; live_count++) {
		live[live_count] = new_server_socket(SOCK_STREAM);
		addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + live_count);
		if (bound)
			bind_to(live[live_count], &addr);
	}
}

static void many_unbound(void)
{
	many_sockets(false);
}

static void many_bound(void)
{
	many_sockets(true);
}

/* The kernel's memory for each of many sockets, or pairs of connected sockets */
static void show_memory(void)
{
	static const struct {
		const char *name;
		void (*make)(void);
	} kinds[] = {
		{ "memory_socket", many_unbound },
		{ "memory_bound", many_bound },
		{ "memory_connection", tcp_many },
	};
	double bytes;
	unsigned int i;

	for (i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
		/* A first time for the caches, which grow and do not shrink again */
		kinds[i].make();
		teardown();
		sleep(2);
		bytes = slab_bytes();
		kinds[i].make();
		sleep(2);
		bytes = (slab_bytes() - bytes) / connections;
		printf("%s %.1f %.1f\n", kinds[i].name, bytes, bytes);
		teardown();
	}
}

static int compare(const void *a, const void *b)
{
	const uint32_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/*
 * The median of single measurements: timer ticks, deferred frees and new slabs are no
 * part of the work, and hit only some of them.
 */
static double measure_round(const struct work *work)
{
	static uint32_t samples[MAX_TIMES];
	int i;

	for (i = 0; i < work->times; i++) {
		uint64_t start;

		if (work->before)
			work->before();
		start = now();
		work->once();
		samples[i] = now() - start;
		if (work->after)
			work->after();
	}
	qsort(samples, work->times, sizeof(*samples), compare);
	return (double)samples[work->times / 2] / (work->pieces ?: 1);
}

/* Work without a setup of its own uses what the previous one has left. */
static void measure(const struct work *work)
{
	double cost, least, most;
	int i;

	if (work->setup || !work->chosen)
		teardown();
	if (work->setup)
		work->setup();
	/* The first round fills caches. */
	measure_round(work);
	least = measure_round(work);
	most = least;
	for (i = 1; i < rounds; i++) {
		cost = measure_round(work);
		if (cost < least)
			least = cost;
		if (cost > most)
			most = cost;
	}
	printf("%s %.1f %.1f\n", work->name, least, most);
	fflush(stdout);
}

static bool wanted(const struct work *work, char **names)
{
	if (!*names)
		return !work->chosen;
	for (; *names; names++)
		if (!strcmp(*names, work->name))
			return true;
	return false;
}

static void use_netns(const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), "/run/netns/%s", name);
	server_netns = must(open(path, O_RDONLY | O_CLOEXEC));
	own_netns = must(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
}

static void show_usage(void)
{
	fprintf(stderr, "usage: bench [OPTION...] [WORK...]\n"
		"  -a ADDRESS  the server's (default 127.0.0.1)\n"
		"  -p PORT     what the server binds (default 80)\n"
		"  -c PORT     where clients connect to (default the same)\n"
		"  -m          mark the server's sockets\n"
		"  -t          IP_TRANSPARENT on the server's sockets\n"
		"  -s NETNS    the server is in that network namespace\n"
		"  -n COUNT    live connections, or listeners\n"
		"  -r ROUNDS   (default 9)\n"
		"  -l PATH     the pinned map of a steering program\n"
		"  -f          show what both ends see, and nothing else\n"
		"  -k          show what the kernel keeps, and nothing else\n");
	exit(2);
}

int main(int argc, char **argv)
{
	int port = 80, connect_port = -1, opt;
	void (*show)(void) = NULL;
	unsigned int i;

	server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	while ((opt = getopt(argc, argv, "a:p:c:mts:n:r:l:fk")) != -1) {
		switch (opt) {
		case 'a':
			if (inet_pton(AF_INET, optarg, &server.sin_addr) != 1)
				errx(1, "%s is no IPv4 address", optarg);
			break;
		case 'p':
			port = atoi(optarg);
			break;
		case 'c':
			connect_port = atoi(optarg);
			break;
		case 'm':
			marked = true;
			break;
		case 't':
			transparent = true;
			break;
		case 's':
			use_netns(optarg);
			break;
		case 'n':
			connections = atoi(optarg);
			break;
		case 'r':
			rounds = atoi(optarg);
			break;
		case 'l':
			open_steering(optarg);
			break;
		case 'f':
			show = show_features;
			break;
		case 'k':
			show = show_memory;
			break;
		default:
			show_usage();
		}
	}
	server.sin_port = htons(port);
	target = server;
	if (connect_port >= 0)
		target.sin_port = htons(connect_port);

	argv += optind;
	if (show) {
		show();
		return 0;
	}
	for (i = 0; i < sizeof(works) / sizeof(*works); i++)
		if (wanted(&works[i], argv))
			measure(&works[i]);
	teardown();
	return 0;
}

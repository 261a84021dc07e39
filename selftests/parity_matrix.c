// SPDX-License-Identifier: GPL-2.0
/*
 * parity_matrix: may a second socket bind beside a first one, and then listen?
 *
 * Every ordered pair of sockets over addresses, SO_REUSEADDR and SO_REUSEPORT, device
 * and owner is tried on an ordinary port and on port 0, for each state of the first
 * socket. The results must be equal.
 */
#define _GNU_SOURCE
#include <time.h>

#include "sides.h"

#define OTHER_UID	1
#define PATIENCE_MS	10000

enum state { BOUND, LISTENING, CHILDREN, TIME_WAIT, CONNECTED };

static const char * const state_name[] = {
	[BOUND]		= "bound",
	[LISTENING]	= "listening",
	[CHILDREN]	= "children",
	[TIME_WAIT]	= "time-wait",
	[CONNECTED]	= "connected",
};

static const struct {
	int type;
	enum state state;
} phase[] = {
	{ SOCK_STREAM, BOUND },
	{ SOCK_STREAM, LISTENING },
	{ SOCK_STREAM, CHILDREN },
	{ SOCK_STREAM, TIME_WAIT },
	{ SOCK_DGRAM, BOUND },
	{ SOCK_DGRAM, CONNECTED },
};

/* reach: where a client on this host finds a listener on that address */
static const struct place {
	const char *name, *ip, *reach;
	bool v6only;
} place[] = {
	{ "0.0.0.0", "0.0.0.0", "127.0.0.1", false },
	{ "127.0.0.1", "127.0.0.1", "127.0.0.1", false },
	{ "127.0.0.2", "127.0.0.2", "127.0.0.2", false },
	{ "::", "::", "::1", false },
	{ "::1", "::1", "::1", false },
	{ SECOND_IP6, SECOND_IP6, SECOND_IP6, false },
	{ "::ffff:0.0.0.0", "::ffff:0.0.0.0", "127.0.0.1", false },
	{ "::ffff:127.0.0.1", "::ffff:127.0.0.1", "127.0.0.1", false },
	{ "::ffff:127.0.0.2", "::ffff:127.0.0.2", "127.0.0.2", false },
	{ "::/v6only", "::", "::1", true },
	{ "::1/v6only", "::1", "::1", true },
};

enum { REUSEADDR = 1, REUSEPORT = 2, REUSES = 4 };

static const char * const reuse_name[REUSES] = {
	"none", "reuseaddr", "reuseport", "both",
};

/* The second device carries no traffic, so only a second socket is put on it. */
static const char * const device[] = { NULL, "lo", "veth-parity" };

#define FIRST_DEVICES	2
#define SECOND_DEVICES	3

struct config {
	unsigned int place, reuse, device;
	uid_t uid;
};

#define CONFIGS		(ARRAY_SIZE(place) * REUSES * SECOND_DEVICES * 2)
#define FIRSTS		(REUSES * FIRST_DEVICES)

static struct config config_of(unsigned int index)
{
	struct config config;

	config.uid = index % 2 ? OTHER_UID : 0;
	index /= 2;
	config.device = index % SECOND_DEVICES;
	index /= SECOND_DEVICES;
	config.reuse = index % REUSES;
	config.place = index / REUSES;
	return config;
}

/* The results of one pair, compared byte by byte */
struct answer {
	__u8 first, bind, listen, late_listen;
	__u8 first_holds, second_holds;
};

struct first {
	int fd, client, child;
	struct addr server_addr, client_addr;
};

static int open_config(const struct side *side, int type, const struct config *c)
{
	int fd = must(socket_of(c->uid, family_of(place[c->place].ip), type | SOCK_NONBLOCK),
		      "socket");

	side_mark(side, fd);
	if (place[c->place].v6only)
		must(set_int(fd, SOL_IPV6, IPV6_V6ONLY, 1), "IPV6_V6ONLY");
	if (c->reuse & REUSEADDR)
		must(set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1), "SO_REUSEADDR");
	if (c->reuse & REUSEPORT)
		must(set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1), "SO_REUSEPORT");
	if (device[c->device])
		must(set_device(fd, device[c->device]), device[c->device]);
	return fd;
}

static int bind_config(const struct side *side, int fd, const struct config *c)
{
	return -bind_to(fd, place[c->place].ip, side->port);
}

/*
 * The effects of packets over loopback may take a moment, see fence_open(): callers
 * repeat a test until it succeeds or this returns true.
 */
static bool patience_ends(unsigned int *tries)
{
	static const struct timespec pause = { .tv_nsec = 1000 * 1000 };

	if (++*tries > PATIENCE_MS)
		return true;
	/* On the first try, letting ksoftirqd run is usually enough. */
	if (*tries > 1)
		nanosleep(&pause, NULL);
	else
		sched_yield();
	return false;
}

static void connect_child(const struct side *side, const struct config *c, struct first *first)
{
	const char *reach = place[c->place].reach;
	struct addr *own = &first->client_addr;
	unsigned int tries = 0;

	first->server_addr = addr_of(reach, side->port);
	first->client = must(rc(socket(family_of(reach), SOCK_STREAM, 0)), "a client's socket");
	must(connect_to(first->client, reach, side->port), reach);
	own->len = sizeof(own->v6);
	must(rc(getsockname(first->client, &own->sa, &own->len)), "getsockname of a client");
	while ((first->child = accept(first->fd, NULL, NULL)) < 0)
		if (errno != EAGAIN || patience_ends(&tries))
			ksft_exit_fail_msg("%s: accept on %s: %s\n", side->name, reach,
					   strerror(errno));
	close(first->fd);
	first->fd = -1;
}

static void time_wait_begins(const struct side *side)
{
	unsigned int tries = 0;

	while (time_waits() != 1)
		if (patience_ends(&tries))
			ksft_exit_fail_msg("%s: %d sockets in TIME_WAIT instead of 1\n",
					   side->name, time_waits());
}

/*
 * Waits for the peer's FIN, since both ends would be in TIME_WAIT if they closed at
 * once.
 */
static void peer_has_closed(const struct side *side, int fd)
{
	unsigned int tries = 0;
	char byte;

	while (recv(fd, &byte, 1, MSG_DONTWAIT))
		if (errno != EAGAIN || patience_ends(&tries))
			ksft_exit_fail_msg("%s: closed connection: %s\n", side->name,
					   strerror(errno));
}

/*
 * Waits until the port is free. A bind bucket's fastreuse depends on all sockets that
 * were in it since it was empty, so each case starts with an empty one.
 */
static void port_empties(const struct side *side, int type)
{
	static const struct config widest = { .place = 3 };
	unsigned int tries = 0;
	int fd, error;

	do {
		fd = open_config(side, type, &widest);
		error = bind_config(side, fd, &widest);
		close(fd);
		if (error && patience_ends(&tries))
			ksft_exit_fail_msg("%s: port still in use: %s\n", side->name,
					   strerror(error));
	} while (error);
}

static int first_open(const struct side *side, int type, enum state state,
		      const struct config *c, struct first *first)
{
	int error;

	first->client = -1;
	first->child = -1;
	first->fd = open_config(side, type, c);
	error = bind_config(side, first->fd, c);
	if (error)
		return error;
	switch (state) {
	case BOUND:
		break;
	case CONNECTED:
		return -connect_to(first->fd, place[c->place].reach, OTHER_PORT);
	case LISTENING:
		if (listen(first->fd, 1))
			return errno;
		break;
	case CHILDREN:
	case TIME_WAIT:
		if (listen(first->fd, 1))
			return errno;
		connect_child(side, c, first);
		if (state == CHILDREN)
			break;
		close(first->child);
		peer_has_closed(side, first->client);
		close(first->client);
		first->client = -1;
		first->child = -1;
		time_wait_begins(side);
	}
	return 0;
}

/*
 * Ends a TIME_WAIT: a SYN from the same address and port makes that socket send an
 * ACK, and the closed peer answers it with a reset.
 */
static void time_wait_kill(const struct first *first)
{
	const struct addr *from = &first->client_addr, *to = &first->server_addr;
	int fd = must(rc(socket(from->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK, 0)), "socket");
	unsigned int tries = 0;

	must(set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1), "SO_REUSEADDR");
	/* The peer's first socket stays until it receives the last ACK. */
	while (bind(fd, &from->sa, from->len))
		if (errno != EADDRINUSE || patience_ends(&tries))
			ksft_exit_fail_msg("TIME_WAIT reset, bind: %s\n", strerror(errno));
	if (connect(fd, &to->sa, to->len) && errno != EINPROGRESS)
		ksft_exit_fail_msg("TIME_WAIT reset, connect: %s\n", strerror(errno));
	close(fd);
}

static void first_close(const struct side *side, int type, enum state state,
			struct first *first)
{
	if (first->client >= 0) {
		reset_on_close(first->client);
		close(first->client);
		close(first->child);
	}
	if (first->fd >= 0)
		close(first->fd);
	else if (state == TIME_WAIT)
		time_wait_kill(first);
	if (state == CHILDREN || state == TIME_WAIT)
		port_empties(side, type);
}

static void second_try(const struct side *side, int type, enum state state,
		       const struct first *first, const struct config *c,
		       struct answer *answer)
{
	int fd = open_config(side, type, c);

	answer->bind = bind_config(side, fd, c);
	answer->second_holds = !answer->bind && side_holds(side, fd);
	if (!answer->bind && type == SOCK_STREAM) {
		answer->listen = listen(fd, 1) ? errno : 0;
		if (state == BOUND)
			answer->late_listen = listen(first->fd, 1) ? errno : 0;
	}
	close(fd);
}

static void play(const struct side *side, int type, enum state state,
		 const struct config *one, struct answer *answers)
{
	struct first first;
	__u8 error = 0, holds = 0;
	bool fresh = false;
	unsigned int i;

	for (i = 0; i < CONFIGS; i++) {
		struct config two = config_of(i);
		struct answer *answer = &answers[i];

		if (!fresh) {
			error = first_open(side, type, state, one, &first);
			holds = first.fd < 0 ? side_holds(side, first.child) :
					       side_holds(side, first.fd);
		}
		memset(answer, 0, sizeof(*answer));
		answer->first = error;
		answer->first_holds = holds;
		second_try(side, type, state, &first, &two, answer);
		/* A bind that failed leaves the port as it was. */
		fresh = answer->bind;
		if (!fresh)
			first_close(side, type, state, &first);
	}
	if (fresh)
		first_close(side, type, state, &first);
}

static void show_config(char *to, size_t size, const struct config *c)
{
	snprintf(to, size, "%s,%s,%s,uid%u", place[c->place].name, reuse_name[c->reuse],
		 device[c->device] ? device[c->device] : "nodev", c->uid);
}

static void show_answer(const struct side *side, const struct answer *a)
{
	printf("%s: ", side->name);
	if (a->first)
		printf("first=%s ", errno_name(a->first));
	printf("first_holds=%u bind=%s holds=%u ", a->first_holds, errno_name(a->bind),
	       a->second_holds);
	printf("listen=%s ", errno_name(a->listen));
	printf("late_listen=%s", errno_name(a->late_listen));
}

static void show_difference(const struct side *left, const struct answer *l,
			    const struct side *right, const struct answer *r,
			    int type, enum state state,
			    const struct config *one, const struct config *two)
{
	char first[64], second[64];

	show_config(first, sizeof(first), one);
	show_config(second, sizeof(second), two);
	printf("# case %s %s first=%s second=%s | ",
	       type == SOCK_STREAM ? "tcp" : "udp", state_name[state], first, second);
	show_answer(left, l);
	printf(" | ");
	show_answer(right, r);
	printf("\n");
}

static unsigned int cases, binds;

/* One group: one protocol, one state, one address of the first socket. */
static void group(const struct side *left, const struct side *right,
		  int type, enum state state, unsigned int where)
{
	static struct answer answers[2][FIRSTS][CONFIGS];
	const struct side * const side[] = { left, right };
	unsigned int differences = 0, held = 0, refused = 0, first, i, s;

	for (s = 0; s < 2; s++) {
		side_enter(side[s]);
		for (first = 0; first < FIRSTS; first++) {
			struct config one = {
				.place = where,
				.reuse = first % REUSES,
				.device = first / REUSES,
			};

			play(side[s], type, state, &one, answers[s][first]);
		}
		port_empties(side[s], type);
	}
	for (first = 0; first < FIRSTS; first++)
		for (i = 0; i < CONFIGS; i++) {
			const struct answer *l = &answers[0][first][i];
			const struct answer *r = &answers[1][first][i];
			struct config one = {
				.place = where,
				.reuse = first % REUSES,
				.device = first / REUSES,
			};
			struct config two = config_of(i);

			held += r->second_holds;
			refused += r->bind == EADDRINUSE;
			if (!memcmp(l, r, sizeof(*l)))
				continue;
			differences++;
			show_difference(left, l, right, r, type, state, &one, &two);
		}
	cases += FIRSTS * CONFIGS;
	binds += held;
	/* Some second sockets must bind and some be refused, or nothing was tested. */
	ksft_test_result(!differences && held && refused,
			 "%s %s first on %s: %u cases, %u differences\n",
			 type == SOCK_STREAM ? "tcp" : "udp", state_name[state],
			 place[where].name, (unsigned int)(FIRSTS * CONFIGS), differences);
}

int main(int argc, char **argv)
{
	bool control = argc == 2 && !strcmp(argv[1], "--control");
	struct side left, right;
	unsigned int p, where;

	if (argc > 1 && !control) {
		fprintf(stderr, "usage: %s [--control]\n", argv[0]);
		return KSFT_FAIL;
	}
	ksft_print_header();
	ksft_set_plan(ARRAY_SIZE(phase) * ARRAY_SIZE(place));
	sides_choose(&left, &right, control);
	must(pin_to_this_cpu(), "sched_setaffinity");
	side_open(&left);
	must(add_veth(device[2]), device[2]);
	side_open(&right);
	must(add_veth(device[2]), device[2]);
	for (p = 0; p < ARRAY_SIZE(phase); p++)
		for (where = 0; where < ARRAY_SIZE(place); where++)
			group(&left, &right, phase[p].type, phase[p].state, where);
	ksft_print_msg("%u cases on both sides; %u second binds held %s\n",
		       cases, binds, right.name);
	ksft_finished();
}

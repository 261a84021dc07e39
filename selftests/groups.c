// SPDX-License-Identifier: GPL-2.0
/*
 * Three and more sockets on one port: which can share it, and which receive.
 *
 * A play opens sockets of several kinds, one after the other, and records the
 * result of each call and which socket got what was sent. It is run on an
 * ordinary port and on port 0, and the records must be equal. All ordered
 * triples of kinds are played, and random sequences of binds, listens,
 * shutdowns and closes.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <linux/filter.h>

#include "port0_test.h"

#define FOREIGN_UID		65534	/* a second owner of sockets */
#define VETH		"port0a"
#define MEMBERS		12	/* sockets in a play, at most */
#define SENDERS		4	/* clients of each address */

/* The options of a socket before it binds */
enum { REUSE = 1, SHARE = 2, ONLY6 = 4, FOREIGN = 8, PROGRAM = 16 };

static const struct kind {
	const char *host;
	int wants;
	const char *device;
} kinds[] = {
	{ "0.0.0.0", 0, NULL },
	{ "0.0.0.0", REUSE, NULL },
	{ "0.0.0.0", SHARE, NULL },
	{ "0.0.0.0", SHARE | FOREIGN, NULL },
	{ "0.0.0.0", SHARE, "lo" },
	{ "0.0.0.0", 0, VETH },
	{ "127.0.0.1", 0, NULL },
	{ "127.0.0.1", REUSE, NULL },
	{ "127.0.0.1", SHARE, NULL },
	{ "127.0.0.1", SHARE | FOREIGN, NULL },
	{ "127.0.0.1", REUSE | SHARE, "lo" },
	{ "127.0.0.2", REUSE, NULL },
	{ "127.0.0.2", SHARE, NULL },
	{ "127.0.0.2", SHARE | FOREIGN, NULL },
	{ "::", REUSE, NULL },
	{ "::", SHARE, NULL },
	{ "::", SHARE | ONLY6, NULL },
	{ "::", ONLY6, NULL },
	{ "::1", REUSE, NULL },
	{ "::1", SHARE, NULL },
	{ "::1", SHARE | FOREIGN, NULL },
	{ "::ffff:127.0.0.1", SHARE, NULL },
	{ "::ffff:0.0.0.0", SHARE, NULL },
	{ "127.0.0.1", SHARE | PROGRAM, NULL },
	{ "::", SHARE | PROGRAM, NULL },
	/* only in combinations[] */
	{ "127.0.0.1", REUSE | SHARE, NULL },
	{ "127.0.0.1", REUSE | SHARE | FOREIGN, NULL },
	{ "224.0.0.251", SHARE, NULL },
	{ "ff05::fb", SHARE, NULL },
};

#define KINDS	((int)ARRAY_SIZE(kinds) - 4)

static const char * const dests[] = { "127.0.0.1", "127.0.0.2", "::1", "fd00::2" };

/* Clients are kept, since opening one for each datagram takes too long. */
struct clients {
	int fd[ARRAY_SIZE(dests)][SENDERS];
};

struct play {
	int type, port;
	const struct clients *clients;
	int fd[MEMBERS], kind[MEMBERS];
	int members;
	char text[4096];
	size_t length;
};

static void note(struct play *play, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	play->length += vsnprintf(play->text + play->length,
				  sizeof(play->text) - play->length, format,
				  args);
	va_end(args);
	if (play->length >= sizeof(play->text))
		play->length = sizeof(play->text) - 1;
}

static const char *wants_text(int wants)
{
	static char text[64];

	snprintf(text, sizeof(text), "%s%s%s%s%s", wants & REUSE ? " reuse" : "",
		 wants & SHARE ? " share" : "", wants & ONLY6 ? " v6only" : "",
		 wants & FOREIGN ? " foreign" : "",
		 wants & PROGRAM ? " program" : "");
	return text;
}

/* A program that always chooses the first member of a group */
static struct sock_filter choose_first[] = { { BPF_RET | BPF_K, 0, 0, 0 } };
static const struct sock_fprog first = { 1, choose_first };

/* Open a socket of this kind and bind it; if refused, it is closed. */
static void join(struct __test_metadata *_metadata, struct play *play, int kind)
{
	const struct kind *is = &kinds[kind];
	int fd = socket_for(_metadata, is->host, play->type, play->port), err;

	if (is->wants & REUSE)
		set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (is->wants & SHARE)
		set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (is->wants & ONLY6)
		set_int(fd, SOL_IPV6, IPV6_V6ONLY, 1);
	if (is->wants & PROGRAM)
		ASSERT_EQ(0, rc(setsockopt(fd, SOL_SOCKET,
					   SO_ATTACH_REUSEPORT_CBPF, &first,
					   sizeof(first))));
	if (is->wants & FOREIGN)
		ASSERT_EQ(0, rc(fchown(fd, FOREIGN_UID, -1)));
	if (is->device)
		ASSERT_EQ(0, set_device(fd, is->device));
	err = bind_to(fd, is->host, play->port);
	note(play, "%s%s%s%s: %d; ", is->host, wants_text(is->wants),
	     is->device ? " " : "", is->device ?: "", err);
	if (err) {
		close(fd);
		return;
	}
	expect_port(_metadata, fd, play->port);
	play->fd[play->members] = fd;
	play->kind[play->members++] = kind;
}

static void listen_on(struct __test_metadata *_metadata, struct play *play,
		      int nth)
{
	int err = rc(listen(play->fd[nth], 8));

	note(play, "listen %d: %d; ", nth, err);
	expect_port(_metadata, play->fd[nth], play->port);
}

/* Sets or clears SO_REUSEADDR or SO_REUSEPORT on a bound socket. */
static void change(struct play *play, int nth, int option)
{
	int fd = play->fd[nth], value = !get_int(fd, SOL_SOCKET, option);

	note(play, "%s %d to %d: %d; ",
	     option == SO_REUSEADDR ? "reuse" : "share", nth, value,
	     set_int(fd, SOL_SOCKET, option, value));
}

static void leave(struct play *play, int nth)
{
	close(play->fd[nth]);
	play->members--;
	memmove(play->fd + nth, play->fd + nth + 1,
		(play->members - nth) * sizeof(int));
	memmove(play->kind + nth, play->kind + nth + 1,
		(play->members - nth) * sizeof(int));
	note(play, "close %d; ", nth);
}

/*
 * The member that has received something; the number of members if the client has
 * received something instead; -1: none
 */
static int who_has(const struct play *play, int client)
{
	struct pollfd polls[MEMBERS + 1];
	int i, n = play->members;

	for (i = 0; i < n; i++)
		polls[i] = (struct pollfd){ .fd = play->fd[i], .events = POLLIN };
	polls[n] = (struct pollfd){ .fd = client, .events = POLLIN };
	while (poll(polls, n + 1, IO_TIMEOUT_SEC * 1000) > 0) {
		for (i = 0; i < n; i++) {
			/*
			 * poll() reports a hang-up for a socket that neither
			 * listens nor is connected, at once and every time.
			 */
			if (polls[i].revents & POLLHUP)
				polls[i].fd = -1;
			else if (polls[i].revents & POLLIN)
				return i;
		}
		if (polls[n].revents)
			return n;
	}
	return -1;
}

/* Record which kinds of members receive something; within a group, chance decides. */
static void datagrams_to(struct __test_metadata *_metadata, struct play *play,
			 size_t dest)
{
	unsigned int got = 0;
	char byte;
	int i;

	for (i = 0; i < SENDERS; i++) {
		int client = play->clients->fd[dest][i], who;

		if (rc(send(client, "x", 1, 0)) != 1)
			ASSERT_EQ(1, rc(send(client, "x", 1, 0)));
		who = who_has(play, client);
		ASSERT_LE(0, who);
		if (who == play->members) {
			EXPECT_EQ(-ECONNREFUSED, rc(recv(client, &byte, 1, 0)));
			continue;
		}
		ASSERT_EQ(1, rc(recv(play->fd[who], &byte, 1, MSG_DONTWAIT)));
		got |= 1u << play->kind[who];
	}
	note(play, "%s: got by %x; ", dests[dest], got);
}

static void connections_to(struct __test_metadata *_metadata, struct play *play,
			   size_t dest)
{
	unsigned int got = 0;
	int i, err = 0;

	for (i = 0; i < SENDERS && !err; i++) {
		int client = new_socket(_metadata, dests[dest], SOCK_STREAM);
		int who, child;

		reset_on_close(client);
		err = connect_to(client, dests[dest], play->port);
		if (!err) {
			who = who_has(play, -1);
			ASSERT_LE(0, who);
			ASSERT_GT(play->members, who);
			child = rc(accept(play->fd[who], NULL, NULL));
			ASSERT_LE(0, child);
			expect_port(_metadata, child, play->port);
			/* Both give the port up at once. */
			reset_on_close(child);
			close(client);
			close(child);
			got |= 1u << play->kind[who];
		} else {
			close(client);
		}
	}
	note(play, "%s: %d, got by %x; ", dests[dest], err, got);
}

static void receive(struct __test_metadata *_metadata, struct play *play)
{
	size_t dest;

	for (dest = 0; dest < ARRAY_SIZE(dests); dest++) {
		if (play->type == SOCK_DGRAM)
			datagrams_to(_metadata, play, dest);
		else
			connections_to(_metadata, play, dest);
	}
}

static void end(struct play *play)
{
	while (play->members)
		leave(play, play->members - 1);
}

/* Compare the records of both ports, and print how they differ. */
static bool compare(struct __test_metadata *_metadata, const struct play *control,
		    const struct play *zero, const char *which, unsigned int nth)
{
	bool same = !strcmp(control->text, zero->text);

	EXPECT_TRUE(same) {
		TH_LOG("%s %u on port %d: %s", which, nth, CONTROL_PORT,
		       control->text);
		TH_LOG("%s %u on port 0: %s", which, nth, zero->text);
	}
	return same;
}

FIXTURE(groups) {
	struct clients clients[2];
};

FIXTURE_VARIANT(groups) {
	int type;
};

FIXTURE_VARIANT_ADD(groups, tcp) { .type = SOCK_STREAM };
FIXTURE_VARIANT_ADD(groups, udp) { .type = SOCK_DGRAM };

FIXTURE_SETUP(groups)
{
	size_t dest;
	int i, side;

	if (!have_family_of("::1"))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
	stay_on_one_cpu(_metadata);
	ASSERT_EQ(0, system("ip link add " VETH " type veth peer name port0b &&"
			    " ip link set " VETH " up"));
	if (variant->type != SOCK_DGRAM)
		return;
	for (side = 0; side < 2; side++)
		for (dest = 0; dest < ARRAY_SIZE(dests); dest++)
			for (i = 0; i < SENDERS; i++) {
				int fd = new_socket(_metadata, dests[dest],
						    SOCK_DGRAM);

				ASSERT_EQ(0, connect_to(fd, dests[dest],
							side ? 0 : CONTROL_PORT));
				self->clients[side].fd[dest][i] = fd;
			}
}

FIXTURE_TEARDOWN(groups) {}

#define PLAY(side)							\
	{ .type = variant->type, .port = (side) ? 0 : CONTROL_PORT,	\
	  .clients = &self->clients[side] }

/*
 * @early: each socket listens as soon as it is bound, before the next one is
 * bound; otherwise they listen when all are bound.
 */
static void play_triple(struct __test_metadata *_metadata, struct play *play,
			const int *of, bool early, bool check)
{
	int i;

	for (i = 0; i < 3; i++) {
		int before = play->members;

		join(_metadata, play, of[i]);
		if (play->type == SOCK_STREAM && early && play->members > before)
			listen_on(_metadata, play, before);
	}
	for (i = 0; i < play->members; i++)
		if (play->type == SOCK_STREAM && !early)
			listen_on(_metadata, play, i);
	if (check && play->members > 1)
		receive(_metadata, play);
	end(play);
}

/*
 * A slow kernel, such as one with sanitizers, plays as many of all combinations as it can
 * in this time. They are played in steps of STRIDE, a prime number, so that these are
 * spread over all.
 */
#define MAX_SEC		200
#define STRIDE		7919

TEST_F_TIMEOUT(groups, triples, 1200)
{
	const unsigned int all = KINDS * KINDS * KINDS;
	double start = now();
	unsigned int i;

	for (i = 0; i < all && now() - start < MAX_SEC; i++) {
		unsigned int nth = i * STRIDE % all;
		const int of[] = { nth / KINDS / KINDS, nth / KINDS % KINDS,
				   nth % KINDS };
		struct play control = PLAY(0), zero = PLAY(1);
		/* To test each time who receives would take minutes. */
		bool early = nth & 1, check = nth % 7 == 0;

		if (i == all / 2)
			get_watched(_metadata);
		play_triple(_metadata, &control, of, early, check);
		play_triple(_metadata, &zero, of, early, check);
		if (!compare(_metadata, &control, &zero, "triple", nth))
			break;
	}
	TH_LOG("%u of %u triples", i, all);
}

/*
 * The kernel's buckets store the options that their sockets had when they were bound, and
 * when they began to listen.
 */
TEST_F_TIMEOUT(groups, options_that_change, 1200)
{
	bool listens = variant->type == SOCK_STREAM;
	const unsigned int all = KINDS * KINDS * (listens ? 4 : 2);
	double start = now();
	unsigned int n;
	int side, i;

	for (n = 0; n < all && now() - start < MAX_SEC; n++) {
		unsigned int nth = n * STRIDE % all;
		int first = nth / KINDS % KINDS, second = nth % KINDS;
		int how = nth / KINDS / KINDS;
		struct play plays[2] = { PLAY(0), PLAY(1) };

		for (side = 0; side < 2; side++) {
			struct play *play = &plays[side];

			join(_metadata, play, first);
			change(play, 0, how & 1 ? SO_REUSEADDR : SO_REUSEPORT);
			if (how & 2)
				listen_on(_metadata, play, 0);
			join(_metadata, play, second);
			join(_metadata, play, first);
			for (i = 0; i < play->members; i++)
				if (listens)
					listen_on(_metadata, play, i);
			end(play);
		}
		if (!compare(_metadata, &plays[0], &plays[1], "pair", nth))
			break;
	}
	TH_LOG("%u of %u pairs", n, all);
}

static unsigned int next_random(unsigned int *state)
{
	*state = *state * 1103515245 + 12345;
	return *state >> 16;
}

static void play_random(struct __test_metadata *_metadata, struct play *play,
			unsigned int seed)
{
	unsigned int state = seed, step;

	for (step = 0; step < 24; step++) {
		unsigned int what = next_random(&state) % 17;
		unsigned int which = next_random(&state);

		if (what < 9 || !play->members) {
			/* Kinds that share the port are chosen more often. */
			unsigned int kind = which % KINDS;

			if (!(kinds[kind].wants & SHARE))
				kind = next_random(&state) % KINDS;
			if (play->members < MEMBERS)
				join(_metadata, play, kind);
			continue;
		}
		which %= play->members;
		if (what < 11) {
			leave(play, which);
		} else if (what > 15) {
			/*
			 * With SO_REUSEPORT, different kinds would receive by
			 * chance.
			 */
			change(play, which, SO_REUSEADDR);
		} else if (play->type == SOCK_DGRAM) {
			if (what == 15)
				receive(_metadata, play);
		} else if (what < 14) {
			listen_on(_metadata, play, which);
		} else {
			note(play, "shutdown %u: %d; ", which,
			     rc(shutdown(play->fd[which], SHUT_RDWR)));
			expect_port(_metadata, play->fd[which], play->port);
		}
	}
	receive(_metadata, play);
	end(play);
}

TEST_F_TIMEOUT(groups, random, 1200)
{
	double start = now();
	unsigned int seed;

	for (seed = 1; seed <= 300 && now() - start < MAX_SEC; seed++) {
		struct play control = PLAY(0), zero = PLAY(1);

		if (seed == 151)
			get_watched(_metadata);
		write_file("/proc/sys/net/ipv4/tcp_migrate_req",
			   seed & 1 ? "1" : "0");
		play_random(_metadata, &control, seed);
		play_random(_metadata, &zero, seed);
		if (!compare(_metadata, &control, &zero, "seed", seed))
			break;
	}
}

/* Some combinations where the third socket matters */
enum {
	ANY, ANY_REUSE, ANY_SHARE, ANY_FOREIGN, ANY_LO, ANY_VETH,
	HOME, HOME_REUSE, HOME_SHARE, HOME_FOREIGN, HOME_LO,
	SECOND_REUSE, SECOND_SHARE, SECOND_FOREIGN,
	ANY6_REUSE, ANY6_SHARE, ONLY6_SHARE, ONLY6_ALONE,
	HOME6_REUSE, HOME6_SHARE, HOME6_FOREIGN, MAPPED_SHARE, MAPPED_ANY_SHARE,
	HOME_PROGRAM, ANY6_PROGRAM, HOME_BOTH, HOME_BOTH_FOREIGN, MULTICAST_SHARE,
	MULTICAST6_SHARE,
};

static const struct {
	const char *what;
	int of[6];
	int count;
} combinations[] = {
	{ "a bucket with sockets of two users: FASTREUSEPORT_STRICT",
	  { HOME_SHARE, SECOND_FOREIGN, HOME_FOREIGN, SECOND_FOREIGN, HOME_SHARE,
	    SECOND_SHARE }, 6 },
	{ "a socket without SO_REUSEPORT: FASTREUSEPORT_STRICT",
	  { SECOND_REUSE, HOME_SHARE, SECOND_SHARE, HOME_SHARE }, 4 },
	{ "FASTREUSEPORT_STRICT: address and v6only are compared",
	  { SECOND_REUSE, ONLY6_SHARE, SECOND_SHARE, HOME6_SHARE, HOME_SHARE,
	    ONLY6_SHARE }, 6 },
	{ "FASTREUSEPORT_STRICT: sk_rcv_saddr is compared",
	  { HOME_REUSE, MULTICAST_SHARE, HOME_SHARE, MULTICAST_SHARE }, 4 },
	{ "FASTREUSEPORT_STRICT: the IPv6 address is compared",
	  { HOME_REUSE, HOME6_SHARE, HOME_SHARE, HOME6_FOREIGN, HOME6_SHARE }, 5 },
	{ "a wildcard between two specific addresses",
	  { HOME_REUSE, ANY_REUSE, SECOND_REUSE }, 3 },
	{ "a group beside a specific address",
	  { ANY_SHARE, ANY_SHARE, HOME_SHARE, HOME_SHARE, ANY_SHARE }, 5 },
	{ "two groups of :: side by side",
	  { ANY6_SHARE, ONLY6_SHARE, ANY6_SHARE, ONLY6_SHARE, ANY_SHARE,
	    ANY_SHARE }, 6 },
	{ "the same address by two families",
	  { MAPPED_SHARE, HOME_SHARE, MAPPED_SHARE, HOME_SHARE, ANY_SHARE,
	    MAPPED_ANY_SHARE }, 6 },
	{ "the fast path ignores a conflict",
	  { ANY_VETH, ANY_LO, HOME_SHARE, SECOND_SHARE }, 4 },
	{ "no fast path for a wildcard",
	  { SECOND_REUSE, HOME_SHARE, ANY_SHARE }, 3 },
	{ "a socket with a program has a group already",
	  { HOME_SHARE, HOME_PROGRAM, ANY6_SHARE, ANY6_PROGRAM }, 4 },
	{ "sockets join the group of one with a program",
	  { HOME_PROGRAM, HOME_SHARE, ANY6_PROGRAM, ANY6_SHARE, HOME_SHARE }, 5 },
	{ "SO_REUSEADDR alone makes no group",
	  { HOME_REUSE, HOME_BOTH }, 2 },
	{ "a group has sockets of one user",
	  { HOME_BOTH, HOME_BOTH_FOREIGN, HOME_BOTH, HOME_BOTH_FOREIGN }, 4 },
	{ "a multicast address, which is no source address",
	  { MULTICAST6_SHARE, HOME6_REUSE, MULTICAST6_SHARE, MULTICAST_SHARE,
	    HOME_REUSE }, 5 },
	{ "sockets on a device and on an address",
	  { ANY_LO, ANY_SHARE, ANY_LO, HOME_SHARE, HOME_LO, ANY_SHARE }, 6 },
};

static void play_combinations(struct __test_metadata *_metadata, struct play *plays)
{
	size_t nth;
	int side, i;

	for (nth = 0; nth < ARRAY_SIZE(combinations); nth++) {
		for (side = 0; side < 2; side++) {
			struct play *play = &plays[side];

			play->length = 0;
			for (i = 0; i < combinations[nth].count; i++)
				join(_metadata, play, combinations[nth].of[i]);
			for (i = 0; i < play->members; i++)
				if (play->type == SOCK_STREAM)
					listen_on(_metadata, play, i);
			receive(_metadata, play);
			end(play);
		}
		compare(_metadata, &plays[0], &plays[1], combinations[nth].what, nth);
	}
}

TEST_F(groups, combinations)
{
	struct play plays[2] = { PLAY(0), PLAY(1) };

	play_combinations(_metadata, plays);
	get_watched(_metadata);
	play_combinations(_metadata, plays);
}

/*
 * A hash chain of the kernel has all ports that differ by a multiple of its table's
 * size. Sockets on other ports of the chain must not count, however many there are.
 */
FIXTURE(chain) {};

FIXTURE_VARIANT(chain) {
	const char *home, *any;
	int type, port;
};

FIXTURE_SETUP(chain)
{
	if (!have_family_of(variant->home))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(chain) {}

ON_BOTH_PORTS(chain, tcp4, .home = "127.0.0.1", .any = "0.0.0.0", .type = SOCK_STREAM);
ON_BOTH_PORTS(chain, udp4, .home = "127.0.0.1", .any = "0.0.0.0", .type = SOCK_DGRAM);
ON_BOTH_PORTS(chain, tcp6, .home = "::1", .any = "::", .type = SOCK_STREAM);
ON_BOTH_PORTS(chain, udp6, .home = "::1", .any = "::", .type = SOCK_DGRAM);

static int share_on(struct __test_metadata *_metadata, const char *host, int type,
		    int port, int *err)
{
	int fd = socket_for(_metadata, host, type, port);

	ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1));
	*err = bind_to(fd, host, port);
	return fd;
}

/* Expect that a socket can bind the port, and that after that no other can. */
static void expect_free_for(struct __test_metadata *_metadata, const char *host,
			    const char *rival, int type, int port)
{
	int fd = bound_socket(_metadata, host, type, port), second;

	second = socket_for(_metadata, rival, type, port);
	EXPECT_EQ(-EADDRINUSE, bind_to(second, rival, port));
	close(second);
	if (type == SOCK_STREAM) {
		EXPECT_EQ(0, rc(listen(fd, 1)));
		expect_port(_metadata, fd, port);
	}
	close(fd);
}

/* For all sizes of the tables, from 256 to 32768 chains */
#define CHAIN_STEP	256
#define CHAIN_PORTS	(65536 / CHAIN_STEP)

TEST_F(chain, other_ports)
{
	const char *hosts[] = { variant->any, variant->home };
	int others[CHAIN_PORTS], type = variant->type, port = variant->port;
	int fd, err, i, first, second;
	size_t host;

	if (type == SOCK_DGRAM && !udp_checks_wildcard(_metadata))
		SKIP(return, NO_WILDCARD_CHECK);
	for (host = 0; host < ARRAY_SIZE(hosts); host++) {
		for (i = 1; i < CHAIN_PORTS; i++) {
			int other = port + i * CHAIN_STEP;

			others[i] = socket_for(_metadata, hosts[host], type, 1);
			ASSERT_EQ(0, bind_to(others[i], hosts[host], other));
			fd = share_on(_metadata, variant->home, type, other,
				      &err);
			ASSERT_EQ(-EADDRINUSE, err);
			close(fd);
		}
		expect_free_for(_metadata, variant->any, variant->home, type,
				port);
		expect_free_for(_metadata, variant->home, variant->any, type,
				port);
		expect_free_for(_metadata, variant->home, variant->home, type,
				port);
		first = share_on(_metadata, variant->home, type, port, &err);
		EXPECT_EQ(0, err);
		second = share_on(_metadata, variant->home, type, port, &err);
		EXPECT_EQ(0, err);
		expect_port(_metadata, first, port);
		expect_port(_metadata, second, port);
		close(first);
		close(second);
		for (i = 1; i < CHAIN_PORTS; i++)
			close(others[i]);
	}
}

/* A socket that sets SO_REUSEPORT after bind() gets a group with the next one that binds. */
TEST_F(chain, sharing_after_bind)
{
	int group[2], shares[2], watched, err, i;

	stay_on_one_cpu(_metadata);
	for (watched = 0; watched < 2; watched++) {
		if (watched)
			get_watched(_metadata);
		group[0] = bound_socket(_metadata, variant->home, variant->type,
					variant->port);
		ASSERT_EQ(0, set_int(group[0], SOL_SOCKET, SO_REUSEPORT, 1));
		group[1] = share_on(_metadata, variant->home, variant->type, variant->port,
				    &err);
		EXPECT_EQ(0, err);
		if (variant->type == SOCK_STREAM)
			for (i = 0; i < 2; i++)
				ASSERT_EQ(0, rc(listen(group[i], GROUP_CLIENTS)));
		count_shares(_metadata, variant->home, variant->type, variant->port, group, 2,
			     shares);
		for (i = 0; i < 2; i++) {
			EXPECT_LT(0, shares[i]);
			close(group[i]);
		}
		settle(_metadata);
	}
}

/* @mine gets whatever is sent to the port, and no other socket does. */
static void expect_all(struct __test_metadata *_metadata, const char *host,
		       int type, int port, int mine, int rounds)
{
	int client, fd;
	char byte;

	while (rounds--) {
		client = new_socket(_metadata, host, type);
		ASSERT_EQ(0, connect_to(client, host, port));
		if (type == SOCK_STREAM) {
			fd = rc(accept(mine, NULL, NULL));
			ASSERT_LE(0, fd);
			close(client);
			close(fd);
		} else {
			ASSERT_EQ(1, rc(send(client, "x", 1, 0)));
			ASSERT_EQ(1, rc(recv(mine, &byte, 1, 0)));
			close(client);
		}
	}
}

/* A group of one, which listens if it can. */
static int group_of_one(struct __test_metadata *_metadata, const char *host,
			int type, int port)
{
	int err, fd = share_on(_metadata, host, type, port, &err);

	ASSERT_EQ(0, err);
	if (type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(fd, 16)));
	return fd;
}

/* Groups on other ports of the same chain are separate groups. */
TEST_F(chain, other_groups)
{
	int port, err, mine;

	for (port = 256; port < 65536; port += 256)
		share_on(_metadata, variant->home, variant->type,
			 variant->port + port, &err);
	mine = group_of_one(_metadata, variant->home, variant->type,
			    variant->port);
	expect_all(_metadata, variant->home, variant->type, variant->port, mine,
		   8);
}

/* And so are groups on the same port of other namespaces. */
TEST_F_TIMEOUT(chain, groups_of_other_namespaces, 600)
{
	int round, mine;

	for (round = 0; round < 150; round++) {
		enter_netns(_metadata);
		mine = group_of_one(_metadata, variant->home, variant->type,
				    variant->port);
		expect_all(_metadata, variant->home, variant->type,
			   variant->port, mine, 4);
	}
}

/* So many namespaces that some of them have the same chain. */
TEST_F_TIMEOUT(chain, other_namespaces, 600)
{
	int round, fd, err;

	for (round = 0; round < 150; round++) {
		ASSERT_EQ(0, rc(unshare(CLONE_NEWNET)));
		fd = socket_for(_metadata, variant->any, variant->type, variant->port);
		ASSERT_EQ(0, bind_to(fd, variant->any, variant->port)) {
			TH_LOG("in namespace %d", round);
		}
		fd = share_on(_metadata, variant->any, variant->type,
			      variant->port, &err);
		ASSERT_EQ(-EADDRINUSE, err);
		close(fd);
		/* With one more of these, the second table is searched, too. */
		if (variant->type == SOCK_STREAM)
			continue;
		fd = share_on(_metadata, variant->any, variant->type, OTHER_PORT,
			      &err);
		ASSERT_EQ(0, err);
	}
}

/* Members of a group are closed, with tcp_migrate_req and without. */
FIXTURE(closed) {};

FIXTURE_VARIANT(closed) {
	const char *home;
	const char *migrate;
	int port;
};

FIXTURE_SETUP(closed)
{
	if (!have_family_of(variant->home))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
	stay_on_one_cpu(_metadata);
	ASSERT_EQ(0, write_file("/proc/sys/net/ipv4/tcp_migrate_req",
				variant->migrate));
}

FIXTURE_TEARDOWN(closed) {}

ON_BOTH_PORTS(closed, ip4, .home = "127.0.0.1", .migrate = "0");
ON_BOTH_PORTS(closed, ip6, .home = "::1", .migrate = "0");
ON_BOTH_PORTS(closed, ip4_migrate, .home = "127.0.0.1", .migrate = "1");
ON_BOTH_PORTS(closed, ip6_migrate, .home = "::1", .migrate = "1");

/* So many that chance does not give them all to one of two listeners */
#define WAITING	16

static int group_listener(struct __test_metadata *_metadata, const char *host,
			  int port)
{
	int err, fd = share_on(_metadata, host, SOCK_STREAM, port, &err);

	ASSERT_EQ(0, err);
	ASSERT_EQ(0, rc(listen(fd, 2 * WAITING)));
	return fd;
}

TEST_F(closed, listens_again)
{
	int first = group_listener(_metadata, variant->home, variant->port);
	int second = group_listener(_metadata, variant->home, variant->port);
	int round, fd, client, err;

	for (round = 0; round < 3; round++) {
		ASSERT_EQ(0, rc(shutdown(first, SHUT_RDWR)));
		expect_port(_metadata, first, variant->port);
		EXPECT_EQ(0, rc(listen(first, 8)));
		expect_port(_metadata, first, variant->port);
	}
	/* A new member can join, and a socket of another user cannot. */
	ASSERT_EQ(0, rc(shutdown(first, SHUT_RDWR)));
	fd = share_on(_metadata, variant->home, SOCK_STREAM, variant->port, &err);
	EXPECT_EQ(0, err);
	EXPECT_EQ(0, rc(listen(fd, 8)));
	EXPECT_EQ(-EADDRINUSE,
		  bind_to(socket_for(_metadata, variant->home, SOCK_STREAM,
				     variant->port), variant->home, variant->port));
	EXPECT_EQ(0, rc(listen(first, 8)));
	close(fd);
	close(second);
	client = new_socket(_metadata, variant->home, SOCK_STREAM);
	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	EXPECT_LE(0, rc(accept(first, NULL, NULL)));
}

/*
 * How many of the connections that wait for a closed member the rest of the group gets.
 */
static int left_to_the_group(struct __test_metadata *_metadata, const char *home, int port)
{
	int first = group_listener(_metadata, home, port);
	int second = group_listener(_metadata, home, port);
	int clients[WAITING], got = 0, held = 0, i;

	for (i = 0; i < WAITING; i++) {
		clients[i] = new_socket(_metadata, home, SOCK_STREAM);
		ASSERT_EQ(0, connect_to(clients[i], home, port));
	}
	settle(_metadata);
	ASSERT_EQ(0, rc(shutdown(first, SHUT_RDWR)));
	ASSERT_EQ(0, rc(fcntl(second, F_SETFL, O_NONBLOCK)));
	settle(_metadata);
	while (rc(accept(second, NULL, NULL)) >= 0)
		got++;
	for (i = 0; i < WAITING; i++)
		held += peer_port(clients[i]) == port;
	EXPECT_EQ(held, got);
	return got;
}

/*
 * Connections in the queue of a closed listener go to the others, all of them if
 * tcp_migrate_req is set.
 */
TEST_F(closed, leaves_its_queue_to_the_group)
{
	bool all = *variant->migrate == '1';
	int got;

	/* On Debian's 5.10 the setting exists but has no effect. */
	if (all && left_to_the_group(_metadata, variant->home, OTHER_PORT) < WAITING)
		SKIP(return, "tcp_migrate_req does nothing in this kernel");
	got = left_to_the_group(_metadata, variant->home, variant->port);
	if (all)
		EXPECT_EQ(WAITING, got);
}

TEST_HARNESS_MAIN

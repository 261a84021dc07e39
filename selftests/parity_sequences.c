// SPDX-License-Identifier: GPL-2.0
/*
 * parity_sequences: random sequences of socket calls
 *
 * Each sequence is played on an ordinary port in one network namespace and on
 * port 0 in another, and the two transcripts are compared line by line. A
 * difference is shrunk to the few calls that make it and printed as C-like
 * calls; the seed reproduces it.
 *
 * A sequence is a plain list of steps that name their sockets by slot, so that
 * any part of it is a sequence as well: a step that finds no socket in its
 * slot, or one where it is about to put one, does nothing.
 */
#define _GNU_SOURCE
#include <asm/byteorder.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <netinet/udp.h>
#include <poll.h>
#include <time.h>

#include <linux/errqueue.h>
#include <linux/filter.h>
#include <linux/sockios.h>

#include "sides.h"
#include "parity_known.h"

#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE	51
#endif
#ifndef SO_ATTACH_REUSEPORT_CBPF
#define SO_ATTACH_REUSEPORT_CBPF 51
#endif

#define SLOTS		8
#define MAX_STEPS	200
#define EPHEMERAL	32768
#define LINE		512
#define GROUP		100
#define SHOWN		5
#define EPILOGUE	(5 * SLOTS)
/* Timers and interrupts may change a transcript once, but not each time. */
#define PLAYS		3

enum call {
	SOCKET, SETSOCKOPT, BIND, LISTEN, CONNECT, ACCEPT, SEND, SENDTO, RECV,
	SHUTDOWN, GETSOCKNAME, GETPEERNAME, SO_ERROR_OF, DUP, CLOSE,
};

/* What a, b, c and d mean depends on the call; mostly they index a table. */
struct step {
	enum call call;
	unsigned int slot, a, b, c, d;
};

struct sequence {
	struct step step[MAX_STEPS];
	unsigned int steps;
};

/* What a socket is, and what a row of a table needs it to be. */
enum { V4 = 1, V6 = 2, TCP = 4, UDP = 8, ALL = V4 | V6 | TCP | UDP };

struct row {
	const char *text;
	unsigned int needs, weight;
};

static const struct {
	const char *text;
	int family, type;
	unsigned int is;
} kind[] = {
	{ "AF_INET, SOCK_STREAM", AF_INET, SOCK_STREAM, V4 | TCP },
	{ "AF_INET6, SOCK_STREAM", AF_INET6, SOCK_STREAM, V6 | TCP },
	{ "AF_INET, SOCK_DGRAM", AF_INET, SOCK_DGRAM, V4 | UDP },
	{ "AF_INET6, SOCK_DGRAM", AF_INET6, SOCK_DGRAM, V6 | UDP },
};

enum { MARKED, PLAIN };

static const char * const flavour_name[] = { "", " /* unmarked */" };

/* The IPv4 addresses come first, and in the same order as v4-mapped ones. */
enum {
	ANY4, HOME4, SECOND4, FAR4, DIRECTED4, GROUP4, BROADCAST4,
	ANY6, HOME6, SECOND6, FAR6, GROUP6,
	ANY_MAPPED, HOME_MAPPED, SECOND_MAPPED, FAR_MAPPED,
};

static const struct row place[] = {
	[ANY4]		= { "0.0.0.0", V4, 6 },
	[HOME4]		= { "127.0.0.1", V4, 12 },
	[SECOND4]	= { "127.0.0.2", V4, 6 },
	[FAR4]		= { "192.0.2.1", V4, 1 },
	[DIRECTED4]	= { "127.255.255.255", V4, 1 },
	[GROUP4]	= { "224.0.0.251", V4, 1 },
	[BROADCAST4]	= { "255.255.255.255", V4, 1 },
	[ANY6]		= { "::", V6, 6 },
	[HOME6]		= { "::1", V6, 8 },
	[SECOND6]	= { SECOND_IP6, V6, 4 },
	[FAR6]		= { "2001:db8::1", V6, 1 },
	[GROUP6]	= { "ff01::1", V6, 1 },
	[ANY_MAPPED]	= { "::ffff:0.0.0.0", V6, 1 },
	[HOME_MAPPED]	= { "::ffff:127.0.0.1", V6, 4 },
	[SECOND_MAPPED]	= { "::ffff:127.0.0.2", V6, 2 },
	[FAR_MAPPED]	= { "::ffff:192.0.2.1", V6, 1 },
};

/* ZERO is "any ephemeral port"; only an unmarked socket can ask for it. */
enum { UNDER_TEST, OTHER, ZERO };

static const char * const port_name[] = { "PORT", "OTHER", "0" };

/* Ways to spoil an address on its way to bind() and connect(). */
enum { AS_IS, UNSPEC, LOCAL, EMPTY, SHORT, LONG, TOO_LONG, SPOILS };

static const char * const spoil_name[SPOILS] = {
	"", ", family AF_UNSPEC", ", family AF_UNIX", ", length 0", ", length 12",
	", length 128", ", length 129",
};

static const struct linger linger_off, linger_reset = { .l_onoff = 1 };
static const struct in_addr loopback = { .s_addr = __constant_htonl(INADDR_LOOPBACK) };
static const struct ip_mreqn group4 = {
	.imr_multiaddr.s_addr = __constant_htonl(0xe00000fb),
	.imr_ifindex = 1,
};

static const struct ipv6_mreq group6 = {
	.ipv6mr_multiaddr.s6_addr = { 0xff, 0x01, [15] = 0x01 },
	.ipv6mr_interface = 1,
};

static const __u32 port_range = 40999u << 16 | 40000;
static const int minus_one = -1, zero, one = 1, three = 3, inet = AF_INET;

#define OPTION(needs, weight, level, name, text, value, len)		\
	{ { #level ", " #name ", " text, needs, weight }, level, name, value, len }

static const struct {
	struct row row;
	int level, name;
	const void *value;
	socklen_t len;
} option[] = {
	OPTION(0, 40, SOL_SOCKET, SO_REUSEADDR, "1", &one, sizeof(int)),
	OPTION(0, 4, SOL_SOCKET, SO_REUSEADDR, "0", &zero, sizeof(int)),
	OPTION(0, 25, SOL_SOCKET, SO_REUSEPORT, "1", &one, sizeof(int)),
	OPTION(0, 4, SOL_SOCKET, SO_REUSEPORT, "0", &zero, sizeof(int)),
	OPTION(V6, 12, SOL_IPV6, IPV6_V6ONLY, "1", &one, sizeof(int)),
	OPTION(V6, 4, SOL_IPV6, IPV6_V6ONLY, "0", &zero, sizeof(int)),
	OPTION(0, 8, SOL_SOCKET, SO_BINDTODEVICE, "lo", "lo", 2),
	OPTION(0, 3, SOL_SOCKET, SO_BINDTODEVICE, "none", "", 0),
	OPTION(0, 1, SOL_SOCKET, SO_BINDTODEVICE, "no such device", "nodev", 5),
	OPTION(0, 4, SOL_IP, IP_FREEBIND, "1", &one, sizeof(int)),
	OPTION(0, 4, SOL_IP, IP_TRANSPARENT, "1", &one, sizeof(int)),
	OPTION(V6, 2, SOL_IPV6, IPV6_TRANSPARENT, "1", &one, sizeof(int)),
	OPTION(0, 5, SOL_IP, IP_BIND_ADDRESS_NO_PORT, "1", &one, sizeof(int)),
	OPTION(0, 3, SOL_IP, IP_LOCAL_PORT_RANGE, "40000-40999", &port_range, sizeof(port_range)),
	OPTION(TCP, 8, SOL_SOCKET, SO_LINGER, "reset", &linger_reset, sizeof(linger_reset)),
	OPTION(TCP, 2, SOL_SOCKET, SO_LINGER, "off", &linger_off, sizeof(linger_off)),
	OPTION(TCP, 2, SOL_SOCKET, SO_KEEPALIVE, "1", &one, sizeof(int)),
	OPTION(TCP, 2, SOL_SOCKET, SO_OOBINLINE, "1", &one, sizeof(int)),
	OPTION(UDP, 6, SOL_SOCKET, SO_BROADCAST, "1", &one, sizeof(int)),
	OPTION(TCP, 6, SOL_TCP, TCP_DEFER_ACCEPT, "1", &one, sizeof(int)),
	OPTION(TCP, 2, SOL_TCP, TCP_DEFER_ACCEPT, "0", &zero, sizeof(int)),
	OPTION(TCP, 6, SOL_TCP, TCP_FASTOPEN, "3", &three, sizeof(int)),
	OPTION(TCP, 4, SOL_TCP, TCP_FASTOPEN_CONNECT, "1", &one, sizeof(int)),
	OPTION(TCP, 3, SOL_TCP, TCP_REPAIR, "1", &one, sizeof(int)),
	OPTION(TCP, 3, SOL_TCP, TCP_REPAIR, "0", &zero, sizeof(int)),
	OPTION(TCP, 2, SOL_TCP, TCP_REPAIR, "-1", &minus_one, sizeof(int)),
	OPTION(UDP, 3, SOL_UDP, UDP_CORK, "1", &one, sizeof(int)),
	OPTION(UDP, 3, SOL_UDP, UDP_CORK, "0", &zero, sizeof(int)),
	OPTION(UDP, 3, SOL_UDP, UDP_SEGMENT, "3", &three, sizeof(int)),
	OPTION(UDP, 2, SOL_UDP, UDP_GRO, "1", &one, sizeof(int)),
	OPTION(0, 4, SOL_IP, IP_RECVERR, "1", &one, sizeof(int)),
	OPTION(V6, 3, SOL_IPV6, IPV6_RECVERR, "1", &one, sizeof(int)),
	OPTION(UDP, 3, SOL_IP, IP_PKTINFO, "1", &one, sizeof(int)),
	OPTION(V6 | UDP, 3, SOL_IPV6, IPV6_RECVPKTINFO, "1", &one, sizeof(int)),
	OPTION(UDP, 3, SOL_IP, IP_RECVORIGDSTADDR, "1", &one, sizeof(int)),
	OPTION(V6 | UDP, 3, SOL_IPV6, IPV6_RECVORIGDSTADDR, "1", &one, sizeof(int)),
	OPTION(V4 | UDP, 3, SOL_IP, IP_ADD_MEMBERSHIP, "224.0.0.251", &group4, sizeof(group4)),
	OPTION(V4 | UDP, 3, SOL_IP, IP_MULTICAST_IF, "127.0.0.1", &loopback, sizeof(loopback)),
	OPTION(V6 | UDP, 3, SOL_IPV6, IPV6_JOIN_GROUP, "ff01::1", &group6, sizeof(group6)),
	OPTION(V6 | UDP, 3, SOL_IPV6, IPV6_MULTICAST_IF, "1", &one, sizeof(int)),
	OPTION(V6, 3, SOL_IPV6, IPV6_ADDRFORM, "AF_INET", &inet, sizeof(int)),
};

static const struct {
	struct row row;
	int flag;
} send_flag[] = {
	{ { "0", 0, 20 }, 0 },
	{ { "MSG_MORE", UDP, 2 }, MSG_MORE },
	{ { "MSG_OOB", TCP, 2 }, MSG_OOB },
	{ { "MSG_FASTOPEN", TCP, 3 }, MSG_FASTOPEN },
	{ { "MSG_DONTROUTE", 0, 1 }, MSG_DONTROUTE },
}, recv_flag[] = {
	{ { "0", 0, 12 }, 0 },
	{ { "MSG_PEEK", 0, 2 }, MSG_PEEK },
	{ { "MSG_TRUNC", UDP, 1 }, MSG_TRUNC },
	{ { "MSG_OOB", TCP, 2 }, MSG_OOB },
	{ { "MSG_ERRQUEUE", 0, 2 }, MSG_ERRQUEUE },
};

/* Ancillary data of a sendmsg() */
enum { NO_CMSG, SOURCE_CMSG, TTL_CMSG, TOS_CMSG, SEGMENT_CMSG, CMSGS };

static const char * const cmsg_name[CMSGS] = {
	"", ", PKTINFO source", ", TTL 3", ", TOS 8", ", UDP_SEGMENT 3",
};

static const int backlogs[] = { 5, 1, 0 };

/* ---- making a sequence ---- */

static __u64 random_state;

/* splitmix64: every seed is a good one, and neighbours are unrelated */
static unsigned int random_below(unsigned int limit)
{
	__u64 z = random_state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return (z ^ z >> 31) % limit;
}

static bool percent(unsigned int chance)
{
	return random_below(100) < chance;
}

/* A row by its weight; now and then one that makes no sense for the socket. */
static unsigned int pick_row(const void *table, size_t size, unsigned int rows, unsigned int is)
{
	unsigned int sum = 0, i;
	const struct row *row;

	if (percent(4))
		is = ALL;
	for (i = 0; i < rows; i++) {
		row = table + i * size;
		sum += row->needs & ~is ? 0 : row->weight;
	}
	sum = random_below(sum);
	for (i = 0; ; i++) {
		row = table + i * size;
		if (row->needs & ~is)
			continue;
		if (sum < row->weight)
			return i;
		sum -= row->weight;
	}
}

static unsigned int pick_place(unsigned int is)
{
	return pick_row(place, sizeof(place[0]), ARRAY_SIZE(place), is);
}

static unsigned int pick_option(unsigned int is)
{
	return pick_row(option, sizeof(option[0]), ARRAY_SIZE(option), is);
}

static unsigned int pick_send_flag(unsigned int is)
{
	return pick_row(send_flag, sizeof(send_flag[0]), ARRAY_SIZE(send_flag), is);
}

static unsigned int pick_recv_flag(unsigned int is)
{
	return pick_row(recv_flag, sizeof(recv_flag[0]), ARRAY_SIZE(recv_flag), is);
}

/* What the generator believes of a slot; it need not be right. */
static struct belief {
	bool used, plain, bound, listening, connected;
	unsigned int is, place, port;
} belief[SLOTS];

static struct sequence *making;

static void add(enum call call, unsigned int slot, unsigned int a, unsigned int b,
		unsigned int c, unsigned int d)
{
	if (making->steps < MAX_STEPS)
		making->step[making->steps++] = (struct step){ call, slot, a, b, c, d };
}

static unsigned int spoil(unsigned int chance)
{
	return percent(chance) ? random_below(SPOILS) : AS_IS;
}

static int free_slot(void)
{
	unsigned int i;

	for (i = 0; i < SLOTS; i++)
		if (!belief[i].used)
			return i;
	return -1;
}

/* A used slot, at best one that is as wanted. */
static int used_slot(unsigned int is, bool bound, bool listening, bool connected)
{
	int any = -1, best = -1;
	unsigned int start = random_below(SLOTS), i;

	for (i = 0; i < SLOTS; i++) {
		unsigned int slot = (start + i) % SLOTS;
		const struct belief *b = &belief[slot];

		if (!b->used)
			continue;
		any = slot;
		if (!(is & ~b->is) && b->bound == bound && b->listening == listening &&
		    b->connected == connected)
			best = slot;
	}
	return best >= 0 && percent(90) ? best : any;
}

static int add_socket(unsigned int mix, unsigned int plain_chance)
{
	int slot = free_slot();
	bool udp = percent(mix), v6 = percent(45), plain = percent(plain_chance);

	if (slot < 0)
		return -1;
	belief[slot] = (struct belief){
		.used = true, .plain = plain, .is = kind[2 * udp + v6].is,
	};
	add(SOCKET, slot, 2 * udp + v6, plain ? PLAIN : MARKED, percent(8), 0);
	return slot;
}

static void add_option(unsigned int slot)
{
	add(SETSOCKOPT, slot, pick_option(belief[slot].is), 0, 0, 0);
}

static void add_bind(unsigned int slot)
{
	unsigned int port = UNDER_TEST;

	if (belief[slot].plain)
		port = percent(50) ? OTHER : ZERO;
	else if (percent(12))
		port = OTHER;
	belief[slot].place = pick_place(belief[slot].is);
	belief[slot].port = port;
	belief[slot].bound = true;
	add(BIND, slot, belief[slot].place, port, spoil(6), 0);
}

/* Where this client finds a server that is bound to that place. */
static unsigned int reach(unsigned int where, unsigned int client)
{
	if (where == ANY6)
		where = percent(60) ? HOME6 : HOME_MAPPED;
	if (where == ANY4 || where == ANY_MAPPED)
		where = percent(70) ? HOME4 : SECOND4;
	if (client & V4 && where >= ANY_MAPPED)
		return where - ANY_MAPPED;
	if (client & V6 && where <= FAR4)
		return where + ANY_MAPPED;
	return where;
}

/* An address to talk to: mostly that of a socket that may be there. */
static void add_talk(enum call call, unsigned int slot, unsigned int c, unsigned int d)
{
	unsigned int is = belief[slot].is, where, port;
	int server;

	server = used_slot(is & (TCP | UDP), true, is & TCP, false);
	if (server >= 0 && percent(75) && belief[server].bound && belief[server].port != ZERO) {
		where = reach(belief[server].place, is);
		port = belief[server].port;
	} else {
		where = pick_place(is);
		port = percent(75) ? UNDER_TEST : OTHER;
	}
	add(call, slot, where, port, c, d);
}

static void add_listen(unsigned int slot)
{
	add(LISTEN, slot, percent(80) ? 0 : random_below(ARRAY_SIZE(backlogs)), 0, 0, 0);
	belief[slot].listening = true;
}

static void add_accept(unsigned int slot)
{
	int to = free_slot();

	if (to < 0)
		return;
	add(ACCEPT, slot, to, percent(50), 0, 0);
	belief[to] = belief[slot];
	belief[to].listening = false;
	belief[to].connected = true;
}

static void add_connect(unsigned int slot)
{
	add_talk(CONNECT, slot, spoil(6), 0);
	belief[slot].connected = true;
}

static void add_send(unsigned int slot)
{
	add(SEND, slot, 0, 0, pick_send_flag(belief[slot].is), 0);
}

static void add_sendto(unsigned int slot)
{
	add_talk(SENDTO, slot, pick_send_flag(belief[slot].is),
		 percent(75) ? NO_CMSG : random_below(CMSGS));
}

static void add_recv(unsigned int slot)
{
	add(RECV, slot, pick_recv_flag(belief[slot].is), 0, 0, 0);
}

static void add_close(unsigned int slot)
{
	add(CLOSE, slot, 0, 0, 0, 0);
	belief[slot].used = false;
}

static void add_server(unsigned int mix)
{
	int slot = add_socket(mix, 5);
	unsigned int options = random_below(3);

	if (slot < 0)
		return;
	while (options--)
		add_option(slot);
	add_bind(slot);
	if (belief[slot].is & TCP)
		add_listen(slot);
}

static void add_client(unsigned int mix)
{
	int slot = add_socket(mix, 40), server;

	if (slot < 0)
		return;
	if (percent(30))
		add_option(slot);
	if (percent(30))
		add_bind(slot);
	add_connect(slot);
	if (percent(60))
		add_send(slot);
	server = used_slot(belief[slot].is & (TCP | UDP), true, belief[slot].is & TCP, false);
	if (server >= 0 && belief[server].is & TCP) {
		if (percent(80))
			add_accept(server);
	} else if (server >= 0) {
		if (percent(60))
			add_recv(server);
		if (percent(60))
			add_sendto(server);
	}
	if (percent(30))
		add_recv(slot);
}

/* Both ends of something go, in any order, and leave what they leave. */
static void add_goodbye(void)
{
	int first = used_slot(TCP, true, false, true), second;

	if (first < 0)
		return;
	add_close(first);
	second = used_slot(TCP, percent(50), false, true);
	if (second >= 0)
		add_close(second);
	if (percent(50)) {
		second = used_slot(TCP, true, true, false);
		if (second >= 0)
			add_close(second);
		add_server(0);
	}
}

static void add_random(unsigned int mix)
{
	unsigned int roll = random_below(100);
	int slot;

	if (free_slot() < 0 && percent(30))
		add_close(random_below(SLOTS));
	if (roll < 7) {
		add_server(mix);
	} else if (roll < 19) {
		add_client(mix);
	} else if (roll < 22) {
		add_goodbye();
	} else if (roll < 24) {
		add_socket(mix, 20);
	} else if (roll < 36) {
		slot = used_slot(0, false, false, false);
		if (slot >= 0)
			add_option(slot);
	} else if (roll < 46) {
		slot = used_slot(0, false, false, false);
		if (slot >= 0)
			add_bind(slot);
	} else if (roll < 51) {
		slot = used_slot(TCP, true, false, false);
		if (slot >= 0)
			add_listen(slot);
	} else if (roll < 59) {
		slot = used_slot(0, percent(50), false, false);
		if (slot >= 0)
			add_connect(slot);
	} else if (roll < 62) {
		slot = used_slot(0, true, false, true);
		if (slot >= 0)
			add(CONNECT, slot, 0, UNDER_TEST, UNSPEC, 0);
	} else if (roll < 67) {
		slot = used_slot(TCP, true, true, false);
		if (slot >= 0)
			add_accept(slot);
	} else if (roll < 73) {
		slot = used_slot(0, true, false, true);
		if (slot >= 0)
			add_send(slot);
	} else if (roll < 80) {
		slot = used_slot(percent(80) ? UDP : 0, percent(70), false, false);
		if (slot >= 0)
			add_sendto(slot);
	} else if (roll < 87) {
		slot = used_slot(0, true, false, percent(60));
		if (slot >= 0)
			add_recv(slot);
	} else if (roll < 90) {
		slot = used_slot(0, true, false, true);
		if (slot >= 0)
			add(SHUTDOWN, slot, random_below(3), 0, 0, 0);
	} else if (roll < 93) {
		add(GETSOCKNAME + random_below(3), random_below(SLOTS), 0, 0, 0, 0);
	} else if (roll < 95) {
		slot = used_slot(0, true, percent(50), percent(50));
		if (slot >= 0 && free_slot() >= 0) {
			int to = free_slot();

			add(DUP, slot, to, 0, 0, 0);
			belief[to] = belief[slot];
		}
	} else {
		slot = used_slot(0, true, percent(50), percent(50));
		if (slot >= 0)
			add_close(slot);
	}
}

static void make(struct sequence *sequence, __u64 seed, unsigned int steps)
{
	static const unsigned int mixes[] = { 0, 0, 100, 100, 50 };
	unsigned int mix, slot;

	random_state = seed;
	making = sequence;
	sequence->steps = 0;
	memset(belief, 0, sizeof(belief));
	mix = mixes[random_below(ARRAY_SIZE(mixes))];
	if (percent(70))
		add_server(mix);
	if (percent(50))
		add_client(mix);
	while (sequence->steps < steps)
		add_random(mix);
	/* What has become of each socket; bind() tells whether it has a port. */
	for (slot = 0; slot < SLOTS; slot++) {
		add(SO_ERROR_OF, slot, 0, 0, 0, 0);
		add(GETSOCKNAME, slot, 0, 0, 0, 0);
		add(GETPEERNAME, slot, 0, 0, 0, 0);
		add(RECV, slot, 0, 0, 0, 0);
		add(BIND, slot, belief[slot].is & V6 ? ANY6 : ANY4, OTHER, AS_IS, 0);
	}
}

/* ---- playing it ---- */

/*
 * A side, a socket that sends to itself, and how to see whether the namespace
 * is as good as new.
 */
struct arena {
	struct side side;
	int fence, sockstat[2];
	unsigned int renewals;
};

struct tally {
	unsigned long calls, held, listens, accepts, connects, sends, bytes;
};

static struct socket_slot {
	int fd;
	bool plain, tcp;
} slots[SLOTS];

static unsigned int left_out[KNOWN_ROWS];

struct transcript {
	char line[MAX_STEPS][LINE];
};

struct play {
	const struct side *side;
	int fence;
	struct tally *tally;
	char *line;
	size_t used;
	short ready[SLOTS];
};

static void __attribute__((format(printf, 2, 3)))
say(struct play *play, const char *fmt, ...)
{
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(play->line + play->used, LINE - play->used, fmt, args);
	va_end(args);
	play->used += n;
	if (play->used >= LINE)
		ksft_exit_fail_msg("a line of a transcript is too long\n");
}

static void say_result(struct play *play, long result)
{
	if (result < 0)
		say(play, "%s", errno_name(errno));
	else
		say(play, "%ld", result);
}

static void say_name(struct play *play, const struct addr *name, const char *zero_is)
{
	char ip[INET6_ADDRSTRLEN] = "?";
	int port = port_of(name);

	if (name->sa.sa_family == AF_INET)
		inet_ntop(AF_INET, &name->v4.sin_addr, ip, sizeof(ip));
	else if (name->sa.sa_family == AF_INET6)
		inet_ntop(AF_INET6, &name->v6.sin6_addr, ip, sizeof(ip));
	if (!port)
		say(play, " [%s]:%s", ip, zero_is);
	else if (port == play->side->port)
		say(play, " [%s]:PORT", ip);
	else if (port >= EPHEMERAL)
		say(play, " [%s]:eph", ip);
	else
		say(play, " [%s]:%u", ip, port);
}

/* On the port-0 side a 0 that comes from elsewhere is the port under test. */
static void say_remote_name(struct play *play, const struct addr *name)
{
	if (name->len)
		say_name(play, name, play->side->marked ? "PORT" : "0");
	else
		say(play, " no name");
}

/*
 * The name of a socket that has no port any more is a number left over: the
 * old port, which on port 0 cannot be told from none. "0?" matches both.
 */
static const char *own_zero(const struct play *play, const struct socket_slot *slot, bool strict)
{
	struct tcp_info info = {};
	socklen_t len = sizeof(info);

	if (!play->side->marked || slot->plain)
		return "0";
	if (side_holds(play->side, slot->fd))
		return "PORT";
	if (!strict && slot->tcp && !getsockopt(slot->fd, SOL_TCP, TCP_INFO, &info, &len) &&
	    info.tcpi_state == TCP_CLOSE)
		return "0?";
	return "0";
}

static void say_own_name(struct play *play, const struct socket_slot *slot, bool strict)
{
	struct addr name = { .len = sizeof(name.v6) };

	if (getsockname(slot->fd, &name.sa, &name.len))
		say(play, " %s", errno_name(errno));
	else
		say_name(play, &name, own_zero(play, slot, strict));
	if (!slot->plain && side_holds(play->side, slot->fd))
		play->tally->held++;
}

/* Which sockets are ready for what, where that has changed. */
static void say_readiness(struct play *play)
{
	static const struct {
		short event;
		char letter;
	} events[] = {
		{ POLLIN, 'i' }, { POLLPRI, 'p' }, { POLLOUT, 'o' },
		{ POLLRDHUP, 'r' }, { POLLHUP, 'h' }, { POLLERR, 'e' },
	};
	struct pollfd polls[SLOTS];
	unsigned int slot, e;

	for (slot = 0; slot < SLOTS; slot++)
		polls[slot] = (struct pollfd){
			.fd = slots[slot].fd,
			.events = POLLIN | POLLPRI | POLLOUT | POLLRDHUP,
		};
	poll(polls, SLOTS, 0);
	for (slot = 0; slot < SLOTS; slot++) {
		if (polls[slot].fd < 0 || polls[slot].revents == play->ready[slot])
			continue;
		play->ready[slot] = polls[slot].revents;
		say(play, " s%u:", slot);
		for (e = 0; e < ARRAY_SIZE(events); e++)
			if (polls[slot].revents & events[e].event)
				say(play, "%c", events[e].letter);
	}
}

static __u16 port_number(const struct play *play, unsigned int port)
{
	if (port == UNDER_TEST)
		return play->side->port;
	return port == OTHER ? OTHER_PORT : 0;
}

static socklen_t make_address(const struct play *play, const struct step *step,
			      unsigned int spoiled, struct sockaddr_storage *to)
{
	struct addr addr = addr_of(place[step->a].text, port_number(play, step->b));

	memset(to, 0, sizeof(*to));
	memcpy(to, &addr.sa, addr.len);
	switch (spoiled) {
	case UNSPEC:
		to->ss_family = AF_UNSPEC;
		return addr.len;
	case LOCAL:
		to->ss_family = AF_UNIX;
		return addr.len;
	case EMPTY:
		return 0;
	case SHORT:
		return 12;
	case LONG:
		return sizeof(*to);
	case TOO_LONG:
		return sizeof(*to) + 1;
	}
	return addr.len;
}

static bool is_connected_to_port(const struct play *play, int fd, bool *mapped)
{
	struct addr peer = { .len = sizeof(peer.v6) };

	if (getpeername(fd, &peer.sa, &peer.len) || port_of(&peer) != play->side->port)
		return false;
	*mapped = is_mapped(&peer);
	return true;
}

/*
 * Would this datagram, or the error that it may cause, come to a socket that is
 * connected to the port under test, but not from there?
 */
static bool shows_udp_peer(const struct play *play, const struct socket_slot *from, bool to_port)
{
	bool from_port = side_holds(play->side, from->fd), mapped;
	unsigned int i;

	for (i = 0; i < SLOTS; i++) {
		const struct socket_slot *slot = &slots[i];
		bool on_port;

		if (slot->fd < 0 || slot->tcp || !is_connected_to_port(play, slot->fd, &mapped))
			continue;
		on_port = side_holds(play->side, slot->fd);
		if (on_port == to_port && !from_port)
			return true;
		if (on_port == from_port && !to_port)
			return true;
	}
	return false;
}

/* Calls that no one promises to be equal: they are made on neither side. */
static bool leave_out(const struct play *play, const struct step *step)
{
	const struct socket_slot *slot = &slots[step->slot];
	bool known, corked, mapped = false, toward;
	int pending;

	if (slot->tcp)
		return false;
	if (step->call != SEND && step->call != SENDTO &&
	    (step->call != SETSOCKOPT || option[step->a].level != SOL_UDP))
		return false;

	toward = is_connected_to_port(play, slot->fd, &mapped);
	/* An unmarked socket keeps the EINVAL that the kernel has for this. */
	if (slot->plain && step->call == SENDTO && step->b == UNDER_TEST)
		return true;
	if (slot->plain && toward && mapped)
		return true;

	/* What is corked goes where it was meant to, whatever this call names. */
	corked = !ioctl(slot->fd, SIOCOUTQ, &pending) && pending;
	if (corked || step->call == SETSOCKOPT)
		known = shows_udp_peer(play, slot, true) || shows_udp_peer(play, slot, false);
	else
		known = shows_udp_peer(play, slot,
				       step->call == SENDTO ? step->b == UNDER_TEST : toward);
	left_out[KNOWN_UDP_PEER] += known;
	return known;
}

static void play_socket(struct play *play, const struct step *step)
{
	struct socket_slot *slot = &slots[step->slot];

	slot->plain = step->b == PLAIN;
	slot->tcp = kind[step->a].type == SOCK_STREAM;
	slot->fd = socket_of(step->c, kind[step->a].family, kind[step->a].type | SOCK_NONBLOCK);
	if (slot->fd >= 0 && !slot->plain)
		side_mark(play->side, slot->fd);
	/* Nagle would make the time of an ACK part of the result. */
	if (slot->fd >= 0 && slot->tcp)
		must(set_int(slot->fd, SOL_TCP, TCP_NODELAY, 1), "TCP_NODELAY");
	say(play, "%s", slot->fd < 0 ? errno_name(-slot->fd) : "ok");
}

/*
 * A group shares out its traffic by a hash over the ports, which differ between
 * the sides, so every group is told to give all of it to its first member.
 */
static int steer_to_first(int fd)
{
	struct sock_filter first = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog program = { .len = 1, .filter = &first };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &program, sizeof(program));
}

static void play_setsockopt(struct play *play, const struct step *step)
{
	const struct socket_slot *slot = &slots[step->slot];
	unsigned int i = step->a;
	int error = setsockopt(slot->fd, option[i].level, option[i].name, option[i].value,
			       option[i].len);

	say_result(play, error);
	if (!error && option[i].name == SO_REUSEPORT && option[i].level == SOL_SOCKET &&
	    option[i].value == &one) {
		say(play, ", group ");
		say_result(play, steer_to_first(slot->fd));
	}
}

static void play_bind(struct play *play, const struct step *step)
{
	const struct socket_slot *slot = &slots[step->slot];
	struct sockaddr_storage to;
	socklen_t len;
	int error;

	if (slot->plain && step->b == UNDER_TEST)
		return;
	len = make_address(play, step, step->c, &to);
	error = bind(slot->fd, (struct sockaddr *)&to, len);
	say_result(play, error);
	say_own_name(play, slot, !error);
}

static void play_listen(struct play *play, const struct step *step)
{
	const struct socket_slot *slot = &slots[step->slot];
	int error = listen(slot->fd, backlogs[step->a]);

	play->tally->listens += !error;
	say_result(play, error);
	say_own_name(play, slot, !error);
}

static void play_connect(struct play *play, const struct step *step)
{
	const struct socket_slot *slot = &slots[step->slot];
	struct sockaddr_storage to;
	socklen_t len = make_address(play, step, step->c, &to);
	int error = connect(slot->fd, (struct sockaddr *)&to, len);

	play->tally->connects += !error || errno == EINPROGRESS;
	say_result(play, error);
	say_own_name(play, slot, false);
}

static void play_accept(struct play *play, const struct step *step)
{
	const struct socket_slot *from = &slots[step->slot];
	struct socket_slot *to = &slots[step->a];
	struct addr name = { .len = sizeof(name.v6) };

	if (to->fd >= 0)
		return;
	to->plain = from->plain;
	to->tcp = from->tcp;
	if (step->b)
		to->fd = accept4(from->fd, &name.sa, &name.len, SOCK_NONBLOCK);
	else
		to->fd = accept4(from->fd, NULL, NULL, SOCK_NONBLOCK);
	if (to->fd < 0) {
		say_result(play, -1);
		return;
	}
	play->tally->accepts++;
	if (step->b)
		say_remote_name(play, &name);
	say_own_name(play, to, false);
}

static void add_cmsg(struct msghdr *msg, int level, int type, const void *data, size_t len)
{
	struct cmsghdr *cmsg = msg->msg_control;

	cmsg->cmsg_level = level;
	cmsg->cmsg_type = type;
	cmsg->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(cmsg), data, len);
	msg->msg_controllen = CMSG_SPACE(len);
}

static void fill_cmsg(struct msghdr *msg, unsigned int which, bool v6)
{
	static const struct in_pktinfo source4 = {
		.ipi_spec_dst.s_addr = __constant_htonl(0x7f000002),
	};
	static const struct in6_pktinfo source6 = { .ipi6_addr = IN6ADDR_LOOPBACK_INIT };
	static const int ttl = 3, tos = 8;
	static const __u16 segment = 3;

	switch (which) {
	case SOURCE_CMSG:
		if (v6)
			add_cmsg(msg, SOL_IPV6, IPV6_PKTINFO, &source6, sizeof(source6));
		else
			add_cmsg(msg, SOL_IP, IP_PKTINFO, &source4, sizeof(source4));
		break;
	case TTL_CMSG:
		if (v6)
			add_cmsg(msg, SOL_IPV6, IPV6_HOPLIMIT, &ttl, sizeof(ttl));
		else
			add_cmsg(msg, SOL_IP, IP_TTL, &ttl, sizeof(ttl));
		break;
	case TOS_CMSG:
		if (v6)
			add_cmsg(msg, SOL_IPV6, IPV6_TCLASS, &tos, sizeof(tos));
		else
			add_cmsg(msg, SOL_IP, IP_TOS, &tos, sizeof(tos));
		break;
	case SEGMENT_CMSG:
		add_cmsg(msg, SOL_UDP, UDP_SEGMENT, &segment, sizeof(segment));
		break;
	}
}

static void play_send(struct play *play, const struct step *step, unsigned int index)
{
	const struct socket_slot *slot = &slots[step->slot];
	char text[16], control[CMSG_SPACE(sizeof(struct in6_pktinfo))] = "";
	struct iovec iov = { .iov_base = text };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control };
	struct sockaddr_storage to;
	ssize_t sent;

	if (step->call == SENDTO) {
		msg.msg_namelen = make_address(play, step, AS_IS, &to);
		msg.msg_name = &to;
		fill_cmsg(&msg, step->d, to.ss_family == AF_INET6);
	}
	iov.iov_len = sprintf(text, "m%03uabcd", index);
	sent = sendmsg(slot->fd, &msg, send_flag[step->c].flag | MSG_NOSIGNAL);
	play->tally->sends += sent > 0;
	say_result(play, sent);
	say_own_name(play, slot, false);
}

static void say_cmsg(struct play *play, const struct cmsghdr *cmsg)
{
	const void *data = CMSG_DATA(cmsg);
	const struct sock_extended_err *error = data;
	const struct in_pktinfo *info = data;
	const struct in6_pktinfo *info6 = data;
	char ip[INET6_ADDRSTRLEN], ip2[INET6_ADDRSTRLEN];
	struct addr name = { .len = sizeof(name.v6) };

	if (cmsg->cmsg_level == SOL_IP && cmsg->cmsg_type == IP_PKTINFO) {
		say(play, " pktinfo %d %s %s", info->ipi_ifindex,
		    inet_ntop(AF_INET, &info->ipi_spec_dst, ip, sizeof(ip)),
		    inet_ntop(AF_INET, &info->ipi_addr, ip2, sizeof(ip2)));
	} else if (cmsg->cmsg_level == SOL_IPV6 && cmsg->cmsg_type == IPV6_PKTINFO) {
		say(play, " pktinfo %d %s", info6->ipi6_ifindex,
		    inet_ntop(AF_INET6, &info6->ipi6_addr, ip, sizeof(ip)));
	} else if ((cmsg->cmsg_level == SOL_IP && cmsg->cmsg_type == IP_RECVORIGDSTADDR) ||
		   (cmsg->cmsg_level == SOL_IPV6 && cmsg->cmsg_type == IPV6_RECVORIGDSTADDR)) {
		say(play, " to");
		memcpy(&name.v6, data, sizeof(name.v6));
		say_remote_name(play, &name);
	} else if ((cmsg->cmsg_level == SOL_IP && cmsg->cmsg_type == IP_RECVERR) ||
		   (cmsg->cmsg_level == SOL_IPV6 && cmsg->cmsg_type == IPV6_RECVERR)) {
		say(play, " error %s origin %u type %u code %u", errno_name(error->ee_errno),
		    error->ee_origin, error->ee_type, error->ee_code);
	} else {
		say(play, " cmsg %d/%d", cmsg->cmsg_level, cmsg->cmsg_type);
	}
}

static void play_recv(struct play *play, const struct step *step)
{
	const struct socket_slot *slot = &slots[step->slot];
	char text[64], control[512];
	struct iovec iov = { .iov_base = text, .iov_len = sizeof(text) };
	struct addr name = {};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_name = &name.sa, .msg_namelen = sizeof(name.v6),
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg;
	ssize_t got = recvmsg(slot->fd, &msg, recv_flag[step->a].flag);

	if (got < 0) {
		say_result(play, got);
		return;
	}
	play->tally->bytes += got;
	say(play, "%zd \"%.*s\" flags %x from", got,
	    (int)(got < (ssize_t)sizeof(text) ? got : (ssize_t)sizeof(text)), text,
	    msg.msg_flags & (MSG_TRUNC | MSG_CTRUNC | MSG_OOB | MSG_ERRQUEUE));
	name.len = msg.msg_namelen;
	say_remote_name(play, &name);
	for (cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg))
		say_cmsg(play, cmsg);
}

static void play_getpeername(struct play *play, const struct step *step)
{
	struct addr name = { .len = sizeof(name.v6) };

	if (getpeername(slots[step->slot].fd, &name.sa, &name.len))
		say_result(play, -1);
	else
		say_remote_name(play, &name);
}

static void play_so_error(struct play *play, const struct step *step)
{
	int error = -1;
	socklen_t len = sizeof(error);

	getsockopt(slots[step->slot].fd, SOL_SOCKET, SO_ERROR, &error, &len);
	say(play, "%s", errno_name(error));
}

static void play_dup(struct play *play, const struct step *step)
{
	struct socket_slot *to = &slots[step->a];

	if (to->fd >= 0)
		return;
	*to = slots[step->slot];
	to->fd = dup(slots[step->slot].fd);
	say(play, "ok");
}

static bool sends_packets(const struct step *step)
{
	switch (step->call) {
	case CONNECT:
	case SEND:
	case SENDTO:
	case SHUTDOWN:
	case CLOSE:
		return true;
	case SETSOCKOPT:
		return option[step->a].level == SOL_UDP || option[step->a].level == SOL_TCP;
	default:
		return false;
	}
}

static void play_step(struct play *play, const struct step *step, unsigned int index)
{
	struct socket_slot *slot = &slots[step->slot];

	if (step->call == SOCKET ? slot->fd >= 0 : slot->fd < 0)
		return;
	if (leave_out(play, step))
		return;
	play->tally->calls++;
	switch (step->call) {
	case SOCKET:
		play_socket(play, step);
		break;
	case SETSOCKOPT:
		play_setsockopt(play, step);
		break;
	case BIND:
		play_bind(play, step);
		break;
	case LISTEN:
		play_listen(play, step);
		break;
	case CONNECT:
		play_connect(play, step);
		break;
	case ACCEPT:
		play_accept(play, step);
		break;
	case SEND:
	case SENDTO:
		play_send(play, step, index);
		break;
	case RECV:
		play_recv(play, step);
		break;
	case SHUTDOWN:
		say_result(play, shutdown(slot->fd, step->a));
		break;
	case GETSOCKNAME:
		say_own_name(play, slot, false);
		break;
	case GETPEERNAME:
		play_getpeername(play, step);
		break;
	case SO_ERROR_OF:
		play_so_error(play, step);
		break;
	case DUP:
		play_dup(play, step);
		break;
	case CLOSE:
		say_result(play, close(slot->fd));
		slot->fd = -1;
		break;
	}
	if (sends_packets(step))
		must(fence_pass(play->fence), "the fence");
	say_readiness(play);
}

static void set_sysctl(const char *name, const char *value)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/sys/net/%s", name);
	must(write_file(path, value), path);
}

static void arena_open(struct arena *arena)
{
	side_open(&arena->side);
	/* What one connection teaches the kernel must not change the next one. */
	set_sysctl("ipv4/tcp_no_metrics_save", "1");
	/* Depends on the clock being in the next second. */
	set_sysctl("ipv4/tcp_tw_reuse", "0");
	/* Fast Open in both directions, without cookies. */
	set_sysctl("ipv4/tcp_fastopen", "519");
	/* Errors are part of the transcript, each of them. */
	set_sysctl("ipv4/icmp_ratemask", "0");
	set_sysctl("ipv6/icmp/ratemask", "");
	arena->fence = must(fence_open(), "the fence");
	arena->sockstat[0] = open("/proc/thread-self/net/sockstat", O_RDONLY | O_CLOEXEC);
	arena->sockstat[1] = open("/proc/thread-self/net/sockstat6", O_RDONLY | O_CLOEXEC);
}

static void arena_close(struct arena *arena)
{
	close(arena->fence);
	close(arena->sockstat[0]);
	close(arena->sockstat[1]);
	close(arena->side.netns);
}

/* Nothing but the fence may outlive a sequence. */
static bool arena_is_clean(const struct arena *arena)
{
	unsigned int tcp, time_wait, udp, i;
	char text[512];

	for (i = 0; i < 2; i++) {
		ssize_t len = pread(arena->sockstat[i], text, sizeof(text) - 1, 0);
		const char *line;

		if (len <= 0)
			ksft_exit_fail_msg("sockstat: %s\n", strerror(errno));
		text[len] = 0;
		time_wait = 0;
		line = strstr(text, "TCP");
		if (!line || (i ? sscanf(line, "TCP6: inuse %u", &tcp) != 1 :
				  sscanf(line, "TCP: inuse %u orphan %*u tw %u",
					 &tcp, &time_wait) != 2))
			ksft_exit_fail_msg("sockstat: no TCP line\n");
		line = strstr(text, "UDP");
		if (!line || (sscanf(line, i ? "UDP6: inuse %u" : "UDP: inuse %u", &udp) != 1))
			ksft_exit_fail_msg("sockstat: no UDP line\n");
		if (tcp || time_wait || udp != !i)
			return false;
	}
	return true;
}

static void play_on(struct arena *arena, const struct sequence *sequence,
		    struct transcript *transcript, struct tally *tally)
{
	struct play play = { .side = &arena->side, .fence = arena->fence, .tally = tally };
	unsigned int i;

	side_enter(&arena->side);
	for (i = 0; i < SLOTS; i++)
		slots[i].fd = -1;
	for (i = 0; i < sequence->steps; i++) {
		play.line = transcript->line[i];
		play.line[0] = 0;
		play.used = 0;
		play_step(&play, &sequence->step[i], i);
	}
	for (i = 0; i < SLOTS; i++) {
		if (slots[i].fd < 0)
			continue;
		reset_on_close(slots[i].fd);
		close(slots[i].fd);
	}
	must(fence_pass(arena->fence), "the fence");
	if (!arena_is_clean(arena)) {
		arena_close(arena);
		arena_open(arena);
		arena->renewals++;
	}
}

/* ---- comparing ---- */

static struct arena left, right;
static struct transcript left_lines, right_lines;
static struct tally left_tally, right_tally;

/* See own_zero() for what 0? is. */
static bool same_line(const char *l, const char *r)
{
	while (*l && *r) {
		if (!strncmp(r, "0?", 2) && (*l == '0' || !strncmp(l, "PORT", 4))) {
			l += *l == '0' ? 1 : 4;
			r += 2;
		} else if (*l++ != *r++) {
			return false;
		}
	}
	return *l == *r;
}

static bool differs_once(const struct sequence *sequence)
{
	unsigned int i;

	play_on(&left, sequence, &left_lines, &left_tally);
	play_on(&right, sequence, &right_lines, &right_tally);
	for (i = 0; i < sequence->steps; i++)
		if (!same_line(left_lines.line[i], right_lines.line[i]))
			return true;
	return false;
}

static bool differs_again(const struct sequence *sequence)
{
	unsigned int i;

	for (i = 1; i < PLAYS; i++)
		if (differs_once(sequence))
			return true;
	return false;
}

static void shrink(struct sequence *sequence)
{
	unsigned int size, at;
	bool smaller;

	do {
		smaller = false;
		for (size = sequence->steps / 2 + 1; size; size /= 2)
			for (at = 0; at + size <= sequence->steps; ) {
				struct sequence trial = *sequence;

				trial.steps -= size;
				memmove(&trial.step[at], &trial.step[at + size],
					(trial.steps - at) * sizeof(trial.step[0]));
				if (differs_once(&trial) && differs_again(&trial)) {
					*sequence = trial;
					smaller = true;
				} else {
					at += size;
				}
			}
	} while (smaller);
}

static void show_call(const struct step *step)
{
	unsigned int s = step->slot;

	switch (step->call) {
	case SOCKET:
		printf("s%u = socket(%s)%s%s", s, kind[step->a].text, flavour_name[step->b],
		       step->c ? " /* as uid 1 */" : "");
		break;
	case SETSOCKOPT:
		printf("setsockopt(s%u, %s)", s, option[step->a].row.text);
		break;
	case BIND:
		printf("bind(s%u, [%s]:%s%s)", s, place[step->a].text, port_name[step->b],
		       spoil_name[step->c]);
		break;
	case LISTEN:
		printf("listen(s%u, %d)", s, backlogs[step->a]);
		break;
	case CONNECT:
		printf("connect(s%u, [%s]:%s%s)", s, place[step->a].text, port_name[step->b],
		       spoil_name[step->c]);
		break;
	case ACCEPT:
		printf("s%u = accept(s%u, %s)", step->a, s, step->b ? "&name" : "NULL");
		break;
	case SEND:
		printf("send(s%u, 8 bytes, %s)", s, send_flag[step->c].row.text);
		break;
	case SENDTO:
		printf("sendto(s%u, 8 bytes, %s, [%s]:%s%s)", s, send_flag[step->c].row.text,
		       place[step->a].text, port_name[step->b], cmsg_name[step->d]);
		break;
	case RECV:
		printf("recv(s%u, %s)", s, recv_flag[step->a].row.text);
		break;
	case SHUTDOWN:
		printf("shutdown(s%u, %u)", s, step->a);
		break;
	case GETSOCKNAME:
		printf("getsockname(s%u)", s);
		break;
	case GETPEERNAME:
		printf("getpeername(s%u)", s);
		break;
	case SO_ERROR_OF:
		printf("getsockopt(s%u, SO_ERROR)", s);
		break;
	case DUP:
		printf("s%u = dup(s%u)", step->a, s);
		break;
	case CLOSE:
		printf("close(s%u)", s);
		break;
	}
}

static void show_play(const struct sequence *sequence)
{
	unsigned int i;

	for (i = 0; i < sequence->steps; i++) {
		if (!*left_lines.line[i] && !*right_lines.line[i])
			continue;
		printf("#   ");
		show_call(&sequence->step[i]);
		printf(";\t/* %s */\n", left_lines.line[i]);
		if (!same_line(left_lines.line[i], right_lines.line[i]))
			printf("#   ^^^ %s: %s\n", right.side.name, right_lines.line[i]);
	}
}

static void show_usage(const char *name)
{
	printf("usage: %s [--control] [--seed N] [--count N] [--steps N] [--show]\n"
	       "Plays --count random sequences of --steps socket calls, from seed --seed on,\n"
	       "on an ordinary port and on port 0, and compares the transcripts.\n"
	       "  --control  compare two ordinary ports; needs no module\n"
	       "  --show     print every transcript\n", name);
}

static unsigned long to_number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 0);

	if (*end || end == text)
		ksft_exit_fail_msg("'%s' is not a number\n", text);
	return value;
}

static unsigned int differences, unstable;

static void try_seed(unsigned long seed, unsigned long steps, bool show)
{
	static struct sequence sequence;

	make(&sequence, seed, steps);
	if (differs_once(&sequence)) {
		if (differs_again(&sequence)) {
			differences++;
			if (differences <= SHOWN) {
				shrink(&sequence);
				differs_once(&sequence);
				printf("# seed %lu differs:\n", seed);
				show_play(&sequence);
			} else {
				printf("# seed %lu differs\n", seed);
			}
			return;
		}
		unstable++;
		printf("# seed %lu differed only once\n", seed);
	}
	if (show) {
		printf("# seed %lu\n", seed);
		show_play(&sequence);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "control", no_argument, NULL, 'C' },
		{ "seed", required_argument, NULL, 's' },
		{ "count", required_argument, NULL, 'c' },
		{ "steps", required_argument, NULL, 'l' },
		{ "show", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{},
	};
	unsigned long seed = 1, count = 3000, steps = 30, group, i;
	bool control = false, show = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 'C':
			control = true;
			break;
		case 's':
			seed = to_number(optarg);
			break;
		case 'c':
			count = to_number(optarg);
			break;
		case 'l':
			steps = to_number(optarg);
			break;
		case 'v':
			show = true;
			break;
		default:
			show_usage(argv[0]);
			return c == 'h' ? KSFT_PASS : KSFT_FAIL;
		}
	}
	if (!count || !steps || steps > MAX_STEPS - EPILOGUE)
		ksft_exit_fail_msg("at least one sequence of at most %d steps\n",
				   MAX_STEPS - EPILOGUE);

	ksft_print_header();
	ksft_set_plan((count + GROUP - 1) / GROUP + 1);
	must(pin_to_this_cpu(), "sched_setaffinity");
	sides_choose(&left.side, &right.side, control);
	arena_open(&left);
	arena_open(&right);
	for (group = 0; group < count; group += GROUP) {
		unsigned int before = differences;

		for (i = group; i < group + GROUP && i < count; i++)
			try_seed(seed + i, steps, show);
		ksft_test_result(differences == before, "seeds %lu to %lu\n", seed + group,
				 seed + i - 1);
	}
	ksft_print_msg("%s: %lu calls, %lu on a socket that held the port\n", right.side.name,
		       right_tally.calls, right_tally.held);
	ksft_print_msg("%lu listens, %lu connects, %lu accepts, %lu sends, %lu bytes received\n",
		       right_tally.listens, right_tally.connects, right_tally.accepts,
		       right_tally.sends, right_tally.bytes);
	ksft_print_msg("%u sequences differed, %u only once, %u namespaces used\n",
		       differences, unstable, left.renewals + right.renewals + 2);
	for (i = 0; i < KNOWN_ROWS; i++)
		if (left_out[i])
			ksft_print_msg("left out %u calls: %s\n", left_out[i],
				       known_difference[i]);
	/* Sequences in which nothing works would be equal as well. */
	ksft_test_result(right_tally.held && right_tally.listens && right_tally.connects &&
			 right_tally.accepts && right_tally.sends && right_tally.bytes &&
			 unstable <= count / 100,
			 "the sequences did something, and the same each time\n");
	ksft_finished();
}

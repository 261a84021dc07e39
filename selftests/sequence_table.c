// SPDX-License-Identifier: GPL-2.0
/*
 * The calls that a sequence is made of, and the rows that they take their
 * arguments from.
 */
#include <asm/byteorder.h>

#include "sequence.h"

#ifndef IPV6_FLOWINFO_SEND
#define IPV6_FLOWINFO_SEND	33
#endif
#ifndef IP_LOCAL_PORT_RANGE
#define IP_LOCAL_PORT_RANGE	51
#endif

#define OPERATION(name, ...)						\
	{ .play = play_##name, .show = show_##name, ##__VA_ARGS__ }

const struct operation operations[CALLS] = {
	[SOCKET]	= OPERATION(socket, .opens = true),
	[SETSOCKOPT]	= OPERATION(setsockopt, .left_out = leave_out_sockopt),
	[BIND]		= OPERATION(bind),
	[LISTEN]	= OPERATION(listen),
	[CONNECT]	= OPERATION(connect, .sends = true),
	[ACCEPT]	= OPERATION(accept),
	[SEND]		= OPERATION(send, .left_out = leave_out_send, .sends = true),
	[SENDTO]	= OPERATION(sendto, .left_out = leave_out_send, .sends = true),
	[RECV]		= OPERATION(recv),
	[SHUTDOWN]	= OPERATION(shutdown, .sends = true),
	[GETSOCKNAME]	= OPERATION(getsockname),
	[GETPEERNAME]	= OPERATION(getpeername),
	[SO_ERROR_OF]	= OPERATION(so_error),
	[DUP]		= OPERATION(dup),
	[CLOSE]		= OPERATION(close, .sends = true),
	[PRIVILEGED]	= OPERATION(privileged, .slotless = true),
};

const struct kind kinds[4] = {
	{ "AF_INET, SOCK_STREAM", AF_INET, SOCK_STREAM, V4 | TCP },
	{ "AF_INET6, SOCK_STREAM", AF_INET6, SOCK_STREAM, V6 | TCP },
	{ "AF_INET, SOCK_DGRAM", AF_INET, SOCK_DGRAM, V4 | UDP },
	{ "AF_INET6, SOCK_DGRAM", AF_INET6, SOCK_DGRAM, V6 | UDP },
};

const struct row places[] = {
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
	[LINK6]		= { LINK_IP6, V6, 3 },
	[FAR6]		= { "2001:db8::1", V6, 1 },
	[GROUP6]	= { "ff01::1", V6, 1 },
	[ANY_MAPPED]	= { "::ffff:0.0.0.0", V6, 1 },
	[HOME_MAPPED]	= { "::ffff:127.0.0.1", V6, 4 },
	[SECOND_MAPPED]	= { "::ffff:127.0.0.2", V6, 2 },
	[FAR_MAPPED]	= { "::ffff:192.0.2.1", V6, 1 },
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
/* Like any number but 0, this switches the option on. */
static const int program_wanted = PROGRAM_WANTED;

#define OPTION(needs, weight, level, name, text, value, len)		\
	{ { #level ", " #name ", " text, needs, weight }, level, name, value, len }

const struct sockopt sockopts[] = {
	OPTION(0, 40, SOL_SOCKET, SO_REUSEADDR, "1", &one, sizeof(int)),
	OPTION(0, 4, SOL_SOCKET, SO_REUSEADDR, "0", &zero, sizeof(int)),
	OPTION(0, 22, SOL_SOCKET, SO_REUSEPORT, "1", &one, sizeof(int)),
	OPTION(0, 3, SOL_SOCKET, SO_REUSEPORT, "1 and a program", &program_wanted, sizeof(int)),
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
	OPTION(V6, 4, SOL_IPV6, IPV6_FLOWINFO_SEND, "1", &one, sizeof(int)),
	OPTION(V6, 3, SOL_IPV6, IPV6_ADDRFORM, "AF_INET", &inet, sizeof(int)),
};

const struct flag send_flags[] = {
	{ { "0", 0, 20 }, 0 },
	{ { "MSG_MORE", UDP, 2 }, MSG_MORE },
	{ { "MSG_OOB", TCP, 2 }, MSG_OOB },
	{ { "MSG_FASTOPEN", TCP, 3 }, MSG_FASTOPEN },
	{ { "MSG_DONTROUTE", 0, 1 }, MSG_DONTROUTE },
};

const struct flag recv_flags[] = {
	{ { "0", 0, 12 }, 0 },
	{ { "MSG_PEEK", 0, 2 }, MSG_PEEK },
	{ { "MSG_TRUNC", UDP, 1 }, MSG_TRUNC },
	{ { "MSG_OOB", TCP, 2 }, MSG_OOB },
	{ { "MSG_ERRQUEUE", 0, 2 }, MSG_ERRQUEUE },
};

const int backlogs[BACKLOGS] = { 5, 1, 0 };

#define TABLE(array)	{ array, sizeof((array)[0]), ARRAY_SIZE(array) }

const struct table place_table = TABLE(places);
const struct table sockopt_table = TABLE(sockopts);
const struct table send_flag_table = TABLE(send_flags);
const struct table recv_flag_table = TABLE(recv_flags);

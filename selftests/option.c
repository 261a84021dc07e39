// SPDX-License-Identifier: GPL-2.0
/*
 * The options themselves: values, lengths, pointers, levels, and the sockets
 * that must refuse them.
 */
#include <assert.h>
#include <limits.h>
#include <linux/netlink.h>
#include <netinet/tcp.h>

#include "module.h"
#include "port0_test.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP 262
#endif

/* IPPROTO_SMC is newer than the headers of some releases. */
#ifndef IPPROTO_SMC
#define IPPROTO_SMC 256
#endif
#define SMCPROTO_SMC	0
#define SMCPROTO_SMC6	1

/* An option that does not exist, to see what the kernel itself returns */
#define NO_SUCH_OPTION	0x7fe1

static int set_raw(int fd, int level, int name, const void *val, socklen_t len)
{
	return rc(setsockopt(fd, level, name, val, len));
}

FIXTURE(option) {
	int fd;
};

FIXTURE_VARIANT(option) {
	const char *host;
	int type;
	int level;
};

FIXTURE_SETUP(option)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
	self->fd = new_socket(_metadata, variant->host, variant->type);
}

FIXTURE_TEARDOWN(option)
{
	close(self->fd);
}

/* The numbers are the same at both levels, so one name serves for both. */
static_assert(IP_BIND_PORT_ZERO == 0x7030, "fixed");
static_assert(IPV6_BIND_PORT_ZERO == 0x7030, "fixed");
static_assert(IP_BOUND_PORT_ZERO == 0x7031, "fixed");
static_assert(IPV6_BOUND_PORT_ZERO == 0x7031, "fixed");

FIXTURE_VARIANT_ADD(option, ip4_tcp) {
	.host = "127.0.0.1", .type = SOCK_STREAM, .level = SOL_IP,
};

FIXTURE_VARIANT_ADD(option, ip4_udp) {
	.host = "127.0.0.1", .type = SOCK_DGRAM, .level = SOL_IP,
};

FIXTURE_VARIANT_ADD(option, ip6_tcp) {
	.host = "::1", .type = SOCK_STREAM, .level = SOL_IPV6,
};

FIXTURE_VARIANT_ADD(option, ip6_udp) {
	.host = "::1", .type = SOCK_DGRAM, .level = SOL_IPV6,
};

FIXTURE_VARIANT_ADD(option, ip6_tcp_sol_ip) {
	.host = "::1", .type = SOCK_STREAM, .level = SOL_IP,
};

FIXTURE_VARIANT_ADD(option, ip6_udp_sol_ip) {
	.host = "::1", .type = SOCK_DGRAM, .level = SOL_IP,
};

#define SET_MARK(value) \
	set_int(self->fd, variant->level, IP_BIND_PORT_ZERO, (value))
#define GET_MARK() \
	get_int(self->fd, variant->level, IP_BIND_PORT_ZERO)
#define GET_BOUND() \
	get_int(self->fd, variant->level, IP_BOUND_PORT_ZERO)

TEST_F(option, unset_at_first)
{
	EXPECT_EQ(0, GET_MARK());
	EXPECT_EQ(0, GET_BOUND());
}

TEST_F(option, set_and_clear)
{
	EXPECT_EQ(0, SET_MARK(0));
	EXPECT_EQ(0, GET_MARK());
	EXPECT_EQ(0, SET_MARK(1));
	EXPECT_EQ(1, GET_MARK());
	EXPECT_EQ(0, SET_MARK(1));
	EXPECT_EQ(1, GET_MARK());
	EXPECT_EQ(0, SET_MARK(0));
	EXPECT_EQ(0, GET_MARK());
}

TEST_F(option, mark_is_per_socket)
{
	int other = new_socket(_metadata, variant->host, variant->type);

	ASSERT_EQ(0, SET_MARK(1));
	EXPECT_EQ(0, get_mark(other));
	EXPECT_EQ(1, get_mark(dup(self->fd)));
}

TEST_F(option, value_is_0_or_1)
{
	static const int bad[] = { 2, -1, 256, 257, INT_MAX, INT_MIN };
	int mark;
	size_t i;

	for (mark = 0; mark <= 1; mark++) {
		ASSERT_EQ(0, SET_MARK(mark));
		for (i = 0; i < ARRAY_SIZE(bad); i++) {
			EXPECT_EQ(-EINVAL, SET_MARK(bad[i])) {
				TH_LOG("value %d", bad[i]);
			}
			EXPECT_EQ(mark, GET_MARK());
		}
	}
}

TEST_F(option, set_short_length)
{
	socklen_t len;
	int one = 1;

	for (len = 0; len < sizeof(int); len++) {
		EXPECT_EQ(-EINVAL, set_raw(self->fd, variant->level,
					   IP_BIND_PORT_ZERO, &one, len)) {
			TH_LOG("length %u", len);
		}
	}
	EXPECT_EQ(-EINVAL, set_raw(self->fd, variant->level,
				   IP_BIND_PORT_ZERO, &one, -1));
	EXPECT_EQ(0, GET_MARK());
}

/* As with the kernel's own int options, the first int counts. */
TEST_F(option, set_longer_length)
{
	int values[2] = { 1, -1 };

	EXPECT_EQ(0, set_raw(self->fd, variant->level, IP_BIND_PORT_ZERO,
			     values, sizeof(values)));
	EXPECT_EQ(1, GET_MARK());
}

TEST_F(option, set_bad_pointer)
{
	EXPECT_EQ(-EFAULT, set_raw(self->fd, variant->level, IP_BIND_PORT_ZERO,
				   NULL, sizeof(int)));
	EXPECT_EQ(-EFAULT, set_raw(self->fd, variant->level, IP_BIND_PORT_ZERO,
				   (void *)1, sizeof(int)));
	/* Nothing is read if the length is wrong. */
	EXPECT_EQ(-EINVAL, set_raw(self->fd, variant->level, IP_BIND_PORT_ZERO,
				   (void *)1, sizeof(int) - 1));
	EXPECT_EQ(-EINVAL, set_raw(self->fd, variant->level, IP_BIND_PORT_ZERO, NULL, 0));
	EXPECT_EQ(0, GET_MARK());
}

TEST_F(option, get_lengths)
{
	static const int names[] = { IP_BIND_PORT_ZERO, IP_BOUND_PORT_ZERO };
	socklen_t len;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		int out[4] = { -1, -1, -1, -1 };

		for (len = 0; len < sizeof(int); len++) {
			socklen_t got = len;

			EXPECT_EQ(-EINVAL, rc(getsockopt(self->fd,
							 variant->level,
							 names[i], out, &got))) {
				TH_LOG("length %u", len);
			}
		}
		len = -1;
		EXPECT_EQ(-EINVAL, rc(getsockopt(self->fd, variant->level,
						 names[i], out, &len)));
		EXPECT_EQ(-1, out[0]);

		/*
		 * If the buffer is larger, one int is written and the length is
		 * set to that.
		 */
		len = sizeof(out);
		EXPECT_EQ(0, rc(getsockopt(self->fd, variant->level, names[i],
					   out, &len)));
		EXPECT_EQ(sizeof(int), len);
		EXPECT_EQ(0, out[0]);
		EXPECT_EQ(-1, out[1]);
	}
}

TEST_F(option, get_bad_pointers)
{
	static const int names[] = { IP_BIND_PORT_ZERO, IP_BOUND_PORT_ZERO };
	socklen_t len;
	size_t i;
	int out;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		len = sizeof(int);
		EXPECT_EQ(-EFAULT, rc(getsockopt(self->fd, variant->level,
						 names[i], NULL, &len)));
		len = sizeof(int);
		EXPECT_EQ(-EFAULT, rc(getsockopt(self->fd, variant->level,
						 names[i], (void *)1, &len)));
		EXPECT_EQ(-EFAULT, rc(getsockopt(self->fd, variant->level,
						 names[i], &out, NULL)));
	}
}

TEST_F(option, bound_is_get_only)
{
	int value;

	for (value = -1; value <= 2; value++) {
		EXPECT_EQ(-ENOPROTOOPT,
			  set_int(self->fd, variant->level, IP_BOUND_PORT_ZERO,
				  value));
	}
	EXPECT_EQ(-ENOPROTOOPT, set_raw(self->fd, variant->level,
					IP_BOUND_PORT_ZERO, &value, 0));
	EXPECT_EQ(-ENOPROTOOPT, set_raw(self->fd, variant->level,
					IP_BOUND_PORT_ZERO, NULL, sizeof(int)));
	EXPECT_EQ(0, GET_BOUND());
}

TEST_F(option, no_other_options)
{
	static const int names[] = {
		IP_BIND_PORT_ZERO - 1, IP_BOUND_PORT_ZERO + 1, NO_SUCH_OPTION,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		EXPECT_EQ(-ENOPROTOOPT,
			  set_int(self->fd, variant->level, names[i], 1));
		EXPECT_EQ(-ENOPROTOOPT,
			  get_int(self->fd, variant->level, names[i]));
	}
}

TEST_F(option, bound_follows_the_port)
{
	int other = new_socket(_metadata, variant->host, variant->type);

	ASSERT_EQ(0, SET_MARK(1));
	EXPECT_EQ(0, GET_BOUND());
	ASSERT_EQ(0, bind_to(self->fd, variant->host, 0));
	EXPECT_EQ(1, GET_BOUND());

	/* A marked socket on another port does not hold port 0. */
	EXPECT_EQ(0, holds_zero(other));
	ASSERT_EQ(0, set_mark(other, 1));
	ASSERT_EQ(0, bind_to(other, variant->host, OTHER_PORT));
	EXPECT_EQ(0, holds_zero(other));
}

TEST_F(option, bound_is_0_on_an_ephemeral_port)
{
	ASSERT_EQ(0, bind_to(self->fd, variant->host, 0));
	EXPECT_TRUE(is_ephemeral(local_port(self->fd)));
	EXPECT_EQ(0, GET_BOUND());
}

TEST_F(option, busy_while_it_holds_the_port)
{
	ASSERT_EQ(0, SET_MARK(1));
	ASSERT_EQ(0, bind_to(self->fd, variant->host, 0));

	EXPECT_EQ(-EBUSY, SET_MARK(0));
	EXPECT_EQ(1, GET_MARK());
	EXPECT_EQ(0, SET_MARK(1));
	EXPECT_EQ(-EINVAL, SET_MARK(2));

	ASSERT_EQ(0, listen_or_connect(self->fd, variant->type, variant->host));
	EXPECT_EQ(-EBUSY, SET_MARK(0));
	EXPECT_EQ(1, GET_BOUND());
}

TEST_F(option, clear_after_a_refused_bind)
{
	int holder = bound_socket(_metadata, variant->host, variant->type, 0);

	ASSERT_EQ(0, SET_MARK(1));
	ASSERT_EQ(-EADDRINUSE, bind_to(self->fd, variant->host, 0));
	EXPECT_EQ(0, GET_BOUND());
	EXPECT_EQ(0, SET_MARK(0));
	EXPECT_EQ(-EBUSY, set_mark(holder, 0));
}

/* If the socket does not hold port 0, the mark can be changed at any time. */
TEST_F(option, change_on_another_port)
{
	ASSERT_EQ(0, bind_to(self->fd, variant->host, OTHER_PORT));
	EXPECT_EQ(0, SET_MARK(1));
	EXPECT_EQ(0, SET_MARK(0));

	ASSERT_EQ(0, listen_or_connect(self->fd, variant->type, variant->host));
	EXPECT_EQ(0, SET_MARK(1));
	EXPECT_EQ(1, GET_MARK());
	EXPECT_EQ(0, GET_BOUND());
	EXPECT_EQ(0, SET_MARK(0));
	EXPECT_EQ(OTHER_PORT, local_port(self->fd));
}

FIXTURE(child) {
	int listener;
	int client;
	int fd;
};

FIXTURE_VARIANT(child) {
	const char *host;
};

FIXTURE_VARIANT_ADD(child, ip4) { .host = "127.0.0.1" };
FIXTURE_VARIANT_ADD(child, ip6) { .host = "::1" };

FIXTURE_SETUP(child)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
	self->listener = bound_socket(_metadata, variant->host, SOCK_STREAM, 0);
	ASSERT_EQ(0, rc(listen(self->listener, 1)));
	self->client = new_socket(_metadata, variant->host, SOCK_STREAM);
	ASSERT_EQ(0, connect_to(self->client, variant->host, 0));
	self->fd = accept(self->listener, NULL, NULL);
	ASSERT_GE(self->fd, 0);
}

FIXTURE_TEARDOWN(child)
{
	close(self->fd);
	close(self->client);
	close(self->listener);
}

TEST_F(child, holds_the_port)
{
	EXPECT_EQ(1, holds_zero(self->fd));
	EXPECT_EQ(1, get_mark(self->fd));
	EXPECT_EQ(0, holds_zero(self->client));
	EXPECT_EQ(0, get_mark(self->client));

	close(self->listener);
	EXPECT_EQ(1, holds_zero(self->fd));
}

TEST_F(child, cannot_be_cleared)
{
	EXPECT_EQ(-EBUSY, set_mark(self->fd, 0));
	EXPECT_EQ(-ENOPROTOOPT,
		  set_int(self->fd, SOL_IP, IP_BOUND_PORT_ZERO, 0));
	EXPECT_EQ(1, holds_zero(self->fd));
}

/* As on a child of a listener on an ordinary port */
TEST_F(child, no_v6only)
{
	struct link link = link_up(_metadata, variant->host, OTHER_PORT);
	int only;

	for (only = 0; only < 2; only++) {
		EXPECT_EQ(set_int(link.child, SOL_IPV6, IPV6_V6ONLY, only),
			  set_int(self->fd, SOL_IPV6, IPV6_V6ONLY, only));
		if (is_ip6(variant->host))
			EXPECT_EQ(-EINVAL, set_int(self->fd, SOL_IPV6, IPV6_V6ONLY, only));
	}
	close(link.child);
	close(link.client);
	close(link.listener);
}

FIXTURE(levels) {};

FIXTURE_VARIANT(levels) {
	int type;
};

FIXTURE_VARIANT_ADD(levels, tcp) { .type = SOCK_STREAM };
FIXTURE_VARIANT_ADD(levels, udp) { .type = SOCK_DGRAM };

FIXTURE_SETUP(levels)
{
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(levels) {}

TEST_F(levels, one_mark_by_two_names)
{
	int fd;

	if (!have_family_of("::1"))
		SKIP(return, "no IPv6");
	fd = new_socket(_metadata, "::1", variant->type);

	EXPECT_EQ(0, set_int(fd, SOL_IP, IP_BIND_PORT_ZERO, 1));
	EXPECT_EQ(1, get_int(fd, SOL_IPV6, IPV6_BIND_PORT_ZERO));
	EXPECT_EQ(0, set_int(fd, SOL_IPV6, IPV6_BIND_PORT_ZERO, 0));
	EXPECT_EQ(0, get_int(fd, SOL_IP, IP_BIND_PORT_ZERO));
	EXPECT_EQ(0, set_int(fd, SOL_IPV6, IPV6_BIND_PORT_ZERO, 1));
	EXPECT_EQ(1, get_int(fd, SOL_IP, IP_BIND_PORT_ZERO));

	ASSERT_EQ(0, bind_to(fd, "::1", 0));
	EXPECT_EQ(1, get_int(fd, SOL_IP, IP_BOUND_PORT_ZERO));
	EXPECT_EQ(1, get_int(fd, SOL_IPV6, IPV6_BOUND_PORT_ZERO));
	EXPECT_EQ(-EBUSY, set_int(fd, SOL_IP, IP_BIND_PORT_ZERO, 0));
	EXPECT_EQ(-EBUSY, set_int(fd, SOL_IPV6, IPV6_BIND_PORT_ZERO, 0));
}

TEST_F(levels, no_sol_ipv6_on_an_ip4_socket)
{
	int fd = new_socket(_metadata, "127.0.0.1", variant->type);

	EXPECT_EQ(set_int(fd, SOL_IPV6, NO_SUCH_OPTION, 1),
		  set_int(fd, SOL_IPV6, IPV6_BIND_PORT_ZERO, 1));
	EXPECT_EQ(get_int(fd, SOL_IPV6, NO_SUCH_OPTION),
		  get_int(fd, SOL_IPV6, IPV6_BIND_PORT_ZERO));
	EXPECT_GT(0, set_int(fd, SOL_IPV6, IPV6_BIND_PORT_ZERO, 1));
	EXPECT_EQ(0, get_mark(fd));
}

/*
 * Sockets that are neither TCP nor UDP. They must return the errno of an option that
 * does not exist. Some of them do not pass SOL_IP options to IP.
 */
FIXTURE(foreign) {
	int fd;
};

FIXTURE_VARIANT(foreign) {
	int family;
	int type;
	int protocol;
	bool handed_on;		/* SOL_IP reaches the option handler */
};

#define FOREIGN(name, _family, _type, _protocol, _handed_on)		\
	FIXTURE_VARIANT_ADD(foreign, name) {				\
		.family = _family, .type = _type,			\
		.protocol = _protocol, .handed_on = _handed_on,		\
	}

FOREIGN(raw4, AF_INET, SOCK_RAW, IPPROTO_TCP, true);
FOREIGN(raw6, AF_INET6, SOCK_RAW, IPPROTO_UDP, true);
FOREIGN(ping4, AF_INET, SOCK_DGRAM, IPPROTO_ICMP, true);
FOREIGN(ping6, AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6, true);
FOREIGN(udplite4, AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE, true);
FOREIGN(udplite6, AF_INET6, SOCK_DGRAM, IPPROTO_UDPLITE, true);
FOREIGN(sctp4_stream, AF_INET, SOCK_STREAM, IPPROTO_SCTP, true);
FOREIGN(sctp6_stream, AF_INET6, SOCK_STREAM, IPPROTO_SCTP, true);
FOREIGN(sctp4_seqpacket, AF_INET, SOCK_SEQPACKET, IPPROTO_SCTP, true);
FOREIGN(smc4, AF_SMC, SOCK_STREAM, SMCPROTO_SMC, true);
FOREIGN(smc6, AF_SMC, SOCK_STREAM, SMCPROTO_SMC6, true);
FOREIGN(inet_smc4, AF_INET, SOCK_STREAM, IPPROTO_SMC, true);
FOREIGN(inet_smc6, AF_INET6, SOCK_STREAM, IPPROTO_SMC, true);
FOREIGN(mptcp4, AF_INET, SOCK_STREAM, IPPROTO_MPTCP, false);
FOREIGN(mptcp6, AF_INET6, SOCK_STREAM, IPPROTO_MPTCP, false);
FOREIGN(unix_stream, AF_UNIX, SOCK_STREAM, 0, false);
FOREIGN(unix_dgram, AF_UNIX, SOCK_DGRAM, 0, false);
FOREIGN(packet, AF_PACKET, SOCK_RAW, 0, false);
FOREIGN(netlink, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, false);

FIXTURE_SETUP(foreign)
{
	enter_netns(_metadata);
	/* In a new namespace, ping sockets cannot be opened by default. */
	ASSERT_EQ(0, write_file("/proc/sys/net/ipv4/ping_group_range", "0 0"));
	self->fd = socket(variant->family, variant->type, variant->protocol);
}

FIXTURE_TEARDOWN(foreign)
{
	close(self->fd);
}

static int get_byte(int fd, int level, int name)
{
	socklen_t len = 1;
	char byte;

	return rc(getsockopt(fd, level, name, &byte, &len));
}

TEST_F(foreign, refuses_both_options)
{
	static const int names[] = { IP_BIND_PORT_ZERO, IP_BOUND_PORT_ZERO };
	int levels[] = { SOL_IP, SOL_IPV6 };
	size_t i, j;

	if (self->fd < 0)
		SKIP(return, "this kernel has no such socket");

	/* A TCP socket can be marked, so the refusal does not mean "no module". */
	ASSERT_EQ(0, set_mark(new_socket(_metadata, "127.0.0.1", SOCK_STREAM),
			      1));

	for (i = 0; i < ARRAY_SIZE(levels); i++) {
		int set = set_int(self->fd, levels[i], NO_SUCH_OPTION, 1);
		int get = get_int(self->fd, levels[i], NO_SUCH_OPTION);

		if (variant->handed_on && levels[i] == SOL_IP) {
			ASSERT_EQ(-ENOPROTOOPT, set);
			ASSERT_EQ(-ENOPROTOOPT, get);
		}
		ASSERT_GT(0, set);
		ASSERT_GT(0, get);

		for (j = 0; j < ARRAY_SIZE(names); j++) {
			EXPECT_EQ(set, set_int(self->fd, levels[i],
					       names[j], 1));
			EXPECT_EQ(get, get_int(self->fd, levels[i], names[j]));
			EXPECT_EQ(get_byte(self->fd, levels[i], NO_SUCH_OPTION),
				  get_byte(self->fd, levels[i], names[j]));
		}
	}
}

/*
 * Protocols with ports, some of which use a TCP socket internally. The mark
 * must not get to that.
 */
FIXTURE(ports) {
	int fd;
};

FIXTURE_VARIANT(ports) {
	const char *host;
	int family;
	int type;
	int protocol;
};

#define PORTS(name, _host, _family, _type, _protocol)			\
	FIXTURE_VARIANT_ADD(ports, name) {				\
		.host = _host, .family = _family, .type = _type,	\
		.protocol = _protocol,					\
	}

PORTS(udplite4, "127.0.0.1", AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE);
PORTS(udplite6, "::1", AF_INET6, SOCK_DGRAM, IPPROTO_UDPLITE);
PORTS(sctp4, "127.0.0.1", AF_INET, SOCK_STREAM, IPPROTO_SCTP);
PORTS(sctp6, "::1", AF_INET6, SOCK_STREAM, IPPROTO_SCTP);
PORTS(mptcp4, "127.0.0.1", AF_INET, SOCK_STREAM, IPPROTO_MPTCP);
PORTS(mptcp6, "::1", AF_INET6, SOCK_STREAM, IPPROTO_MPTCP);
PORTS(smc4, "127.0.0.1", AF_SMC, SOCK_STREAM, SMCPROTO_SMC);
PORTS(smc6, "::1", AF_SMC, SOCK_STREAM, SMCPROTO_SMC6);
PORTS(inet_smc4, "127.0.0.1", AF_INET, SOCK_STREAM, IPPROTO_SMC);
PORTS(inet_smc6, "::1", AF_INET6, SOCK_STREAM, IPPROTO_SMC);

FIXTURE_SETUP(ports)
{
	enter_netns(_metadata);
	self->fd = socket(variant->family, variant->type, variant->protocol);
}

FIXTURE_TEARDOWN(ports)
{
	close(self->fd);
}

#define FOREIGN_SOCKET() \
	socket(variant->family, variant->type, variant->protocol)

static void expect_refused(struct __test_metadata *_metadata, int fd)
{
	EXPECT_GT(0, set_int(fd, SOL_IP, IP_BIND_PORT_ZERO, 1));
	EXPECT_GT(0, set_int(fd, SOL_IPV6, IPV6_BIND_PORT_ZERO, 1));
	EXPECT_GT(0, get_mark(fd));
	EXPECT_GT(0, holds_zero(fd));
}

static void expect_ephemeral_bind(struct __test_metadata *_metadata, int fd,
				  const char *host, int type)
{
	expect_refused(_metadata, fd);
	ASSERT_EQ(0, bind_to(fd, host, 0));
	EXPECT_TRUE(is_ephemeral(local_port(fd)));
	expect_refused(_metadata, fd);
	if (type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(fd, 1)));
	EXPECT_TRUE(is_ephemeral(local_port(fd)));
}

TEST_F(ports, bind_stays_ephemeral)
{
	int client, child;

	if (self->fd < 0)
		SKIP(return, "this kernel has no such socket");
	/* Other sockets can be marked and bound to port 0. */
	bound_socket(_metadata, variant->host, SOCK_STREAM, 0);
	expect_ephemeral_bind(_metadata, self->fd, variant->host, variant->type);
	if (variant->type != SOCK_STREAM)
		return;

	client = FOREIGN_SOCKET();
	ASSERT_LE(0, client);
	expect_refused(_metadata, client);
	ASSERT_EQ(0, connect_to(client, variant->host, local_port(self->fd)));
	EXPECT_TRUE(is_ephemeral(local_port(client)));
	child = rc(accept(self->fd, NULL, NULL));
	ASSERT_LE(0, child);
	expect_refused(_metadata, child);
	expect_send(_metadata, client, "word");
	expect_recv(_metadata, child, "word");
}

/* After an option that SMC leaves to TCP, the socket falls back to plain TCP. */
TEST(smc_fallen_back)
{
	int fd;

	enter_netns(_metadata);
	fd = socket(AF_SMC, SOCK_STREAM, SMCPROTO_SMC);
	if (fd < 0)
		SKIP(return, "this kernel has no SMC");
	ASSERT_EQ(0, set_int(fd, SOL_TCP, TCP_FASTOPEN, 1));
	expect_ephemeral_bind(_metadata, fd, "127.0.0.1", SOCK_STREAM);
}

static int set_ulp(int fd, const char *name)
{
	return rc(setsockopt(fd, SOL_TCP, TCP_ULP, name, strlen(name)));
}

static int hand_to_smc(int fd)
{
	return set_ulp(fd, "smc");
}

static __attribute__((destructor)) void ulp_unload(void)
{
	if (!access("/sys/module/port0_ulp", F_OK))
		test_module_unload("port0_ulp");
}

/*
 * Some kernels can hand a TCP socket to SMC. SMC then overwrites its flags, so a socket
 * must not both be on port 0 and be handed over. For other kernels that have SMC, there
 * is port0_ulp.ko, whose ULP has the same name and does nothing.
 */
FIXTURE(smc_ulp) {
	int fd;
};

FIXTURE_VARIANT(smc_ulp) {
	const char *host;
};

FIXTURE_VARIANT_ADD(smc_ulp, ip4) { .host = "127.0.0.1", };
FIXTURE_VARIANT_ADD(smc_ulp, ip6) { .host = "::1", };

FIXTURE_SETUP(smc_ulp)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
	/* Fails if the kernel has that ULP, or if the module is loaded already. */
	test_module_load("port0_ulp");
	self->fd = new_socket(_metadata, variant->host, SOCK_STREAM);
}

FIXTURE_TEARDOWN(smc_ulp)
{
	close(self->fd);
}

TEST_F(smc_ulp, not_on_port_zero)
{
	int plain = new_socket(_metadata, variant->host, SOCK_STREAM);

	ASSERT_EQ(0, bind_to(plain, variant->host, OTHER_PORT));
	require_mark(_metadata, self->fd);
	ASSERT_EQ(0, bind_to(self->fd, variant->host, 0));
	EXPECT_EQ(-ENOENT, hand_to_smc(self->fd));
	EXPECT_EQ(set_ulp(plain, "tls"), set_ulp(self->fd, "tls"));
	close(plain);
	ASSERT_EQ(0, rc(listen(self->fd, 1)));
	EXPECT_EQ(-ENOENT, hand_to_smc(self->fd));
	EXPECT_EQ(0, local_port(self->fd));
	EXPECT_EQ(1, holds_zero(self->fd));
}

/* SMC refuses a socket that is connected: from port 0, or accepted there. */
TEST_F(smc_ulp, connected)
{
	struct link zero = link_up(_metadata, variant->host, 0);
	struct link other = link_up(_metadata, variant->host, OTHER_PORT);
	int plain = new_socket(_metadata, variant->host, SOCK_STREAM);

	EXPECT_EQ(hand_to_smc(other.child), hand_to_smc(zero.child));
	EXPECT_EQ(1, holds_zero(zero.child));

	close(zero.child);
	close(zero.client);
	close(zero.listener);
	ASSERT_EQ(0, set_int(self->fd, SOL_SOCKET, SO_REUSEADDR, 1));
	require_mark(_metadata, self->fd);
	ASSERT_EQ(0, bind_to(self->fd, variant->host, 0));
	ASSERT_EQ(0, connect_to(self->fd, variant->host, OTHER_PORT));
	ASSERT_EQ(0, connect_to(plain, variant->host, OTHER_PORT));
	EXPECT_EQ(hand_to_smc(plain), hand_to_smc(self->fd));
	EXPECT_EQ(1, holds_zero(self->fd));
}

TEST_F(smc_ulp, others_may)
{
	int plain = new_socket(_metadata, variant->host, SOCK_STREAM);

	ASSERT_EQ(0, bind_to(plain, variant->host, OTHER_PORT));
	require_mark(_metadata, self->fd);
	EXPECT_EQ(hand_to_smc(plain), hand_to_smc(self->fd));
}

TEST_F(smc_ulp, then_not_port_zero)
{
	require_mark(_metadata, self->fd);
	if (hand_to_smc(self->fd))
		SKIP(return, "this kernel cannot hand a TCP socket to SMC");
	EXPECT_EQ(-EOPNOTSUPP, bind_to(self->fd, variant->host, 0));
	ASSERT_EQ(0, bind_to(self->fd, variant->host, OTHER_PORT));
	ASSERT_EQ(0, rc(listen(self->fd, 1)));
	EXPECT_EQ(OTHER_PORT, local_port(self->fd));
}

/*
 * SMC gives the socket back if an option is set that only TCP has. Calls that found
 * the SMC socket before can still overwrite its flags.
 */
TEST_F(smc_ulp, fallen_back_then_not_port_zero)
{
	require_mark(_metadata, self->fd);
	if (hand_to_smc(self->fd))
		SKIP(return, "this kernel cannot hand a TCP socket to SMC");
	ASSERT_EQ(0, set_int(self->fd, SOL_TCP, TCP_FASTOPEN, 1));
	ASSERT_EQ(IPPROTO_TCP, get_int(self->fd, SOL_SOCKET, SO_PROTOCOL));
	EXPECT_EQ(-EOPNOTSUPP, bind_to(self->fd, variant->host, 0));
	EXPECT_EQ(0, holds_zero(self->fd));
	ASSERT_EQ(0, bind_to(self->fd, variant->host, OTHER_PORT));
	ASSERT_EQ(0, rc(listen(self->fd, 1)));
	EXPECT_EQ(OTHER_PORT, local_port(self->fd));
}

/* The ULP "tls" needs a connection, and stays when that ends. */
TEST_F(smc_ulp, another_ulp_may)
{
	struct link link = link_up(_metadata, variant->host, OTHER_PORT);
	int error = set_ulp(link.client, "tls");
	char byte;

	if (error == -ENOENT)
		SKIP(return, "no CONFIG_TLS");
	ASSERT_EQ(0, error);
	reset_on_close(link.child);
	close(link.child);
	ASSERT_EQ(-ECONNRESET, rc(recv(link.client, &byte, 1, 0)));
	require_mark(_metadata, link.client);
	ASSERT_EQ(0, bind_to(link.client, variant->host, 0));
	EXPECT_EQ(1, holds_zero(link.client));
}

TEST_F(smc_ulp, then_marked)
{
	if (hand_to_smc(self->fd))
		SKIP(return, "this kernel cannot hand a TCP socket to SMC");
	require_mark(_metadata, self->fd);
	EXPECT_EQ(-EOPNOTSUPP, bind_to(self->fd, variant->host, 0));
	ASSERT_EQ(0, rc(listen(self->fd, 1)));
	EXPECT_TRUE(is_ephemeral(local_port(self->fd)));
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * bind() of a marked socket to port 0: its result, the privilege it needs, sharing
 * and conflicts. All other calls that choose a port choose an ephemeral one, as without
 * the module.
 */
#include <stdio.h>
#include <sys/un.h>

#include "port0_test.h"

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

/* Not the user who runs the tests. */
#define FOREIGN_UID	65534

static int listen_if_stream(int fd, int type)
{
	return type == SOCK_STREAM ? rc(listen(fd, 1)) : 0;
}

/* Every kind of socket, on the control port and on port 0. */
FIXTURE(bind) {
	int fd;
};

FIXTURE_VARIANT(bind) {
	const char *host;
	int type;
	int port;
};

FIXTURE_SETUP(bind)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
	self->fd = socket_for(_metadata, variant->host, variant->type,
			      variant->port);
}

FIXTURE_TEARDOWN(bind)
{
	close(self->fd);
}

#define BIND_VARIANT(name, _host)					\
	ON_BOTH_PORTS(bind, name##_tcp, .host = _host,			\
		      .type = SOCK_STREAM);				\
	ON_BOTH_PORTS(bind, name##_udp, .host = _host,			\
		      .type = SOCK_DGRAM)

BIND_VARIANT(ip4, "127.0.0.1");
BIND_VARIANT(ip6, "::1");
BIND_VARIANT(mapped, "::ffff:127.0.0.1");
BIND_VARIANT(any4, "0.0.0.0");
BIND_VARIANT(any6, "::");

#define BIND(fd) bind_to((fd), variant->host, variant->port)
#define SOCKET() \
	socket_for(_metadata, variant->host, variant->type, variant->port)
#define LISTEN(fd) listen_if_stream((fd), variant->type)

TEST_F(bind, exactly_that_port)
{
	struct addr want = addr_of(variant->host, variant->port);
	struct addr got = { .len = sizeof(got.v6) };

	ASSERT_EQ(0, BIND(self->fd));
	expect_port(_metadata, self->fd, variant->port);
	ASSERT_EQ(0, rc(getsockname(self->fd, &got.sa, &got.len)));
	EXPECT_EQ(want.len, got.len);
	EXPECT_EQ(0, memcmp(&want.sa, &got.sa, want.len));

	ASSERT_EQ(0, LISTEN(self->fd));
	expect_port(_metadata, self->fd, variant->port);
}

TEST_F(bind, taken)
{
	int other = SOCKET();

	ASSERT_EQ(0, BIND(self->fd));
	EXPECT_EQ(-EADDRINUSE, BIND(other));
	ASSERT_EQ(0, LISTEN(self->fd));
	EXPECT_EQ(-EADDRINUSE, BIND(other));

	/* After its bind() failed, the socket can be bound to another port. */
	ASSERT_EQ(0, bind_to(other, variant->host, OTHER_PORT));
	EXPECT_EQ(OTHER_PORT, local_port(other));
	EXPECT_EQ(0, LISTEN(other));
}

/*
 * Port 1, which the module passes to the kernel instead of 0, is a port like any other.
 */
TEST_F(bind, port_1)
{
	int rival = bound_socket(_metadata, variant->host, variant->type,
				 variant->port);
	int other = SOCKET();

	EXPECT_EQ(-EADDRINUSE, BIND(self->fd));
	ASSERT_EQ(0, bind_to(self->fd, variant->host, 1));
	EXPECT_EQ(1, local_port(self->fd));
	EXPECT_EQ(0, LISTEN(self->fd));
	EXPECT_EQ(1, local_port(self->fd));
	EXPECT_EQ(-EADDRINUSE, bind_to(other, variant->host, 1));
	close(rival);
	EXPECT_EQ(0, BIND(other));
	expect_port(_metadata, other, variant->port);
	close(other);
}

TEST_F(bind, close_releases_the_port)
{
	int late = SOCKET();
	int round;

	ASSERT_EQ(0, BIND(self->fd));
	ASSERT_EQ(-EADDRINUSE, BIND(late));
	close(self->fd);
	ASSERT_EQ(0, BIND(late));
	expect_port(_metadata, late, variant->port);
	close(late);

	for (round = 0; round < 8; round++) {
		int fd = SOCKET();

		ASSERT_EQ(0, BIND(fd));
		ASSERT_EQ(0, LISTEN(fd));
		close(fd);
	}
}

TEST_F(bind, second_bind)
{
	ASSERT_EQ(0, BIND(self->fd));
	EXPECT_EQ(-EINVAL, BIND(self->fd));
	EXPECT_EQ(-EINVAL, bind_to(self->fd, variant->host, OTHER_PORT));
	expect_port(_metadata, self->fd, variant->port);

	ASSERT_EQ(0, LISTEN(self->fd));
	EXPECT_EQ(-EINVAL, BIND(self->fd));
	EXPECT_EQ(-EINVAL, bind_to(self->fd, variant->host, OTHER_PORT));
	expect_port(_metadata, self->fd, variant->port);
}

/*
 * Setting IPV6_V6ONLY would change which addresses the socket conflicts with.
 */
TEST_F(bind, no_v6only_afterwards)
{
	int only, want = is_ip6(variant->host) ? -EINVAL : -ENOPROTOOPT;

	ASSERT_EQ(0, BIND(self->fd));
	for (only = 0; only < 2; only++)
		EXPECT_EQ(want, set_int(self->fd, SOL_IPV6, IPV6_V6ONLY, only));
	ASSERT_EQ(0, LISTEN(self->fd));
	EXPECT_EQ(want, set_int(self->fd, SOL_IPV6, IPV6_V6ONLY, 1));
	expect_port(_metadata, self->fd, variant->port);

	/*
	 * Other options can be set, also one with the number of IPV6_V6ONLY at another
	 * level.
	 */
	if (is_ip6(variant->host))
		EXPECT_EQ(0, set_int(self->fd, SOL_IPV6, IPV6_UNICAST_HOPS, 9));
	EXPECT_EQ(0, set_int(self->fd, SOL_IP, IPV6_V6ONLY, 1));
	EXPECT_EQ(1, get_int(self->fd, SOL_IP, IPV6_V6ONLY));
}

TEST_F(bind, second_bind_after_another_port)
{
	ASSERT_EQ(0, bind_to(self->fd, variant->host, OTHER_PORT));
	EXPECT_EQ(-EINVAL, BIND(self->fd));
	EXPECT_EQ(OTHER_PORT, local_port(self->fd));

	ASSERT_EQ(0, LISTEN(self->fd));
	EXPECT_EQ(-EINVAL, BIND(self->fd));
	EXPECT_EQ(OTHER_PORT, local_port(self->fd));
}

TEST_F(bind, second_bind_after_autobind)
{
	const char *self_host = is_ip6(variant->host) ? "::1" : "127.0.0.1";
	int port;

	ASSERT_EQ(0, listen_or_connect(self->fd, variant->type, self_host));
	port = local_port(self->fd);
	EXPECT_TRUE(is_ephemeral(port));
	EXPECT_EQ(-EINVAL, BIND(self->fd));
	EXPECT_EQ(port, local_port(self->fd));
}

TEST_F(bind, bad_address)
{
	struct addr good = addr_of(variant->host, variant->port);
	bool ip6 = is_ip6(variant->host);
	struct addr remote = addr_of(ip6 ? "fd00::99" : "192.0.2.99",
				     variant->port);
	struct addr other_family = addr_of(ip6 ? "127.0.0.1" : "::1",
					   variant->port);
	struct sockaddr_un path = { .sun_family = AF_UNIX };

	EXPECT_EQ(-EADDRNOTAVAIL, rc(bind(self->fd, &remote.sa, remote.len)));
	EXPECT_EQ(-EAFNOSUPPORT, rc(bind(self->fd, (struct sockaddr *)&path,
					 sizeof(path))));
	EXPECT_EQ(ip6 ? -EINVAL : -EAFNOSUPPORT,
		  rc(bind(self->fd, &other_family.sa, other_family.len)));
	EXPECT_EQ(-EINVAL, rc(bind(self->fd, &good.sa, 0)));
	EXPECT_EQ(-EINVAL, rc(bind(self->fd, &good.sa, 4)));
	EXPECT_EQ(-EINVAL, rc(bind(self->fd, &good.sa, -1)));
	EXPECT_EQ(-EFAULT, rc(bind(self->fd, (void *)1, good.len)));
	EXPECT_EQ(-EBADF, rc(bind(-1, &good.sa, good.len)));

	/* After all these failures bind() works. */
	ASSERT_EQ(0, BIND(self->fd));
	expect_port(_metadata, self->fd, variant->port);
}

/* IPv4 takes AF_UNSPEC with INADDR_ANY, and with no other address. */
TEST_F(bind, unspecified_family)
{
	struct addr addr = addr_of(variant->host, variant->port);
	int expected = -EAFNOSUPPORT;

	addr.sa.sa_family = AF_UNSPEC;
	if (!is_ip6(variant->host) && !addr.v4.sin_addr.s_addr)
		expected = 0;
	ASSERT_EQ(expected, rc(bind(self->fd, &addr.sa, addr.len)));
	if (!expected) {
		expect_port(_metadata, self->fd, variant->port);
		EXPECT_EQ(-EADDRINUSE, BIND(SOCKET()));
	}
}

/* The option defers the choice of an ephemeral port; a fixed one is taken at once. */
TEST_F(bind, address_no_port)
{
	ASSERT_EQ(0, set_int(self->fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1));
	ASSERT_EQ(0, BIND(self->fd));
	expect_port(_metadata, self->fd, variant->port);
	EXPECT_EQ(-EADDRINUSE, BIND(SOCKET()));
}

TEST_F(bind, one_per_namespace)
{
	int other;

	ASSERT_EQ(0, BIND(self->fd));
	ASSERT_EQ(0, LISTEN(self->fd));

	enter_netns(_metadata);
	other = SOCKET();
	ASSERT_EQ(0, BIND(other));
	ASSERT_EQ(0, LISTEN(other));
	expect_port(_metadata, other, variant->port);
	EXPECT_EQ(-EADDRINUSE, BIND(SOCKET()));
	close(other);
	expect_port(_metadata, self->fd, variant->port);
}

/* An address of this host that is in @host */
static const char *reach(const char *host)
{
	if (!strcmp(host, "0.0.0.0"))
		return "127.0.0.1";
	return strcmp(host, "::") ? host : "::1";
}

/*
 * A socket is bound in the namespace in which it was created, even if the task is in
 * another one now.
 */
TEST_F(bind, from_another_namespace)
{
	int home = rc(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
	int second = SOCKET(), client, there;

	ASSERT_LE(0, home);
	enter_netns(_metadata);
	there = SOCKET();
	ASSERT_EQ(0, BIND(self->fd));
	expect_port(_metadata, self->fd, variant->port);
	EXPECT_EQ(-EADDRINUSE, BIND(second));
	EXPECT_EQ(0, BIND(there));

	ASSERT_EQ(0, rc(setns(home, CLONE_NEWNET)));
	close(home);
	EXPECT_EQ(-EADDRINUSE, BIND(second));
	ASSERT_EQ(0, LISTEN(self->fd));
	client = socket_for(_metadata, reach(variant->host), variant->type,
			    variant->port);
	ASSERT_EQ(0, connect_to(client, reach(variant->host), variant->port));
	if (variant->type == SOCK_DGRAM)
		expect_send(_metadata, client, "x");
	EXPECT_TRUE(wait_readable(self->fd));
	reset_on_close(client);
	close(client);
	close(self->fd);
	EXPECT_EQ(0, BIND(second));
	EXPECT_EQ(-EADDRINUSE, BIND(SOCKET()));
	close(second);
	close(there);
}

TEST_F(bind, needs_the_capability)
{
	keep_bind_service(_metadata, false);
	EXPECT_EQ(-EACCES, BIND(self->fd));

	/* After EACCES the socket can bind to an unprivileged port. */
	ASSERT_EQ(0, bind_to(self->fd, variant->host, OTHER_PORT));
	EXPECT_EQ(OTHER_PORT, local_port(self->fd));
}

TEST_F(bind, needs_the_capability_below_the_limit)
{
	static const int starts[] = {
		0, 1, CONTROL_PORT, CONTROL_PORT + 1, 1024,
	};
	size_t i;

	keep_bind_service(_metadata, false);
	for (i = 0; i < ARRAY_SIZE(starts); i++) {
		int fd = SOCKET();

		set_unprivileged_start(_metadata, starts[i]);
		EXPECT_EQ(variant->port < starts[i] ? -EACCES : 0, BIND(fd)) {
			TH_LOG("ip_unprivileged_port_start %d", starts[i]);
		}
		close(fd);
	}
}

/* Root of a user namespace has the privilege in network namespaces created in it ... */
TEST_F(bind, user_namespace_with_its_own_network)
{
	int fd;

	if (unshare(CLONE_NEWUSER))
		SKIP(return, "no user namespaces");
	enter_netns(_metadata);
	fd = SOCKET();
	EXPECT_EQ(0, BIND(fd));
	expect_port(_metadata, fd, variant->port);
}

/* ... and not of others. */
TEST_F(bind, user_namespace_with_a_foreign_network)
{
	if (unshare(CLONE_NEWUSER))
		SKIP(return, "no user namespaces");
	EXPECT_EQ(-EACCES, BIND(self->fd));
	EXPECT_EQ(-EACCES, BIND(SOCKET()));
}

/* What SO_SNDBUF and SO_RCVBUF have noted in the same place as bind() stays. */
TEST_F(bind, buffer_locks_stay)
{
	ASSERT_EQ(0, lock_buffers(self->fd));
	if (buffer_locks(self->fd) == -ENOPROTOOPT)
		SKIP(return, NO_BUFFER_LOCKS);
	ASSERT_EQ(0, BIND(self->fd));
	EXPECT_EQ(BOTH_BUFFERS, buffer_locks(self->fd));
}

TEST_F(bind, reuseaddr)
{
	int other = SOCKET();
	int alone = SOCKET();

	ASSERT_EQ(0, set_int(self->fd, SOL_SOCKET, SO_REUSEADDR, 1));
	ASSERT_EQ(0, set_int(other, SOL_SOCKET, SO_REUSEADDR, 1));

	ASSERT_EQ(0, BIND(self->fd));
	EXPECT_EQ(-EADDRINUSE, BIND(alone));
	ASSERT_EQ(0, BIND(other));
	expect_port(_metadata, other, variant->port);

	/* Of TCP sockets that share by SO_REUSEADDR only one may listen. */
	if (variant->type == SOCK_STREAM) {
		int late = SOCKET();

		ASSERT_EQ(0, rc(listen(self->fd, 1)));
		EXPECT_EQ(-EADDRINUSE, rc(listen(other, 1)));
		ASSERT_EQ(0, set_int(late, SOL_SOCKET, SO_REUSEADDR, 1));
		EXPECT_EQ(-EADDRINUSE, BIND(late));
	}
}

TEST_F(bind, reuseport)
{
	int other = SOCKET();
	int alone = SOCKET();
	int foreign = SOCKET();

	ASSERT_EQ(0, set_int(self->fd, SOL_SOCKET, SO_REUSEPORT, 1));
	ASSERT_EQ(0, set_int(other, SOL_SOCKET, SO_REUSEPORT, 1));
	ASSERT_EQ(0, set_int(foreign, SOL_SOCKET, SO_REUSEPORT, 1));
	ASSERT_EQ(0, rc(fchown(foreign, FOREIGN_UID, -1)));

	ASSERT_EQ(0, BIND(self->fd));
	ASSERT_EQ(0, BIND(other));
	ASSERT_EQ(0, LISTEN(self->fd));
	ASSERT_EQ(0, LISTEN(other));
	expect_port(_metadata, other, variant->port);

	EXPECT_EQ(-EADDRINUSE, BIND(alone));
	EXPECT_EQ(-EADDRINUSE, BIND(foreign));

	/* The port is free when the last socket of the group is closed. */
	close(self->fd);
	EXPECT_EQ(-EADDRINUSE, BIND(alone));
	close(other);
	EXPECT_EQ(0, BIND(alone));
}

TEST_F(bind, reuseport_only_on_the_second)
{
	int other = SOCKET();

	ASSERT_EQ(0, BIND(self->fd));
	ASSERT_EQ(0, set_int(other, SOL_SOCKET, SO_REUSEPORT, 1));
	EXPECT_EQ(-EADDRINUSE, BIND(other));
}

/* A port that is not chosen by bind() is ephemeral, as without the module. */
FIXTURE(ephemeral) {
	int holder;
	int fd;
};

FIXTURE_VARIANT(ephemeral) {
	const char *host;
	int type;
};

FIXTURE_VARIANT_ADD(ephemeral, ip4_tcp) {
	.host = "127.0.0.1", .type = SOCK_STREAM,
};

FIXTURE_VARIANT_ADD(ephemeral, ip4_udp) {
	.host = "127.0.0.1", .type = SOCK_DGRAM,
};

FIXTURE_VARIANT_ADD(ephemeral, ip6_tcp) {
	.host = "::1", .type = SOCK_STREAM,
};

FIXTURE_VARIANT_ADD(ephemeral, ip6_udp) {
	.host = "::1", .type = SOCK_DGRAM,
};

FIXTURE_VARIANT_ADD(ephemeral, mapped_tcp) {
	.host = "::ffff:127.0.0.1", .type = SOCK_STREAM,
};

FIXTURE_VARIANT_ADD(ephemeral, mapped_udp) {
	.host = "::ffff:127.0.0.1", .type = SOCK_DGRAM,
};

FIXTURE_SETUP(ephemeral)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
	/* The results must not depend on whether another socket holds port 0. */
	self->holder = bound_socket(_metadata, variant->host, variant->type, 0);
	ASSERT_EQ(0, listen_if_stream(self->holder, variant->type));
	self->fd = new_socket(_metadata, variant->host, variant->type);
}

FIXTURE_TEARDOWN(ephemeral)
{
	close(self->fd);
	close(self->holder);
}

static void expect_ephemeral(struct __test_metadata *_metadata, int fd)
{
	EXPECT_TRUE(is_ephemeral(local_port(fd))) {
		TH_LOG("port %d", local_port(fd));
	}
	EXPECT_EQ(0, holds_zero(fd));
}

TEST_F(ephemeral, unmarked_bind)
{
	int round;

	for (round = 0; round < 32; round++) {
		int fd = new_socket(_metadata, variant->host, variant->type);

		ASSERT_EQ(0, bind_to(fd, variant->host, 0));
		expect_ephemeral(_metadata, fd);
	}
	ASSERT_EQ(0, bind_to(self->fd, variant->host, 0));
	EXPECT_EQ(-EINVAL, bind_to(self->fd, variant->host, 0));
	EXPECT_EQ(0, listen_if_stream(self->fd, variant->type));
	expect_ephemeral(_metadata, self->fd);
}

TEST_F(ephemeral, bind_after_the_mark_is_cleared)
{
	ASSERT_EQ(0, set_mark(self->fd, 1));
	ASSERT_EQ(-EADDRINUSE, bind_to(self->fd, variant->host, 0));
	ASSERT_EQ(0, set_mark(self->fd, 0));
	ASSERT_EQ(0, bind_to(self->fd, variant->host, 0));
	expect_ephemeral(_metadata, self->fd);
}

TEST_F(ephemeral, autobind_by_connect)
{
	int peer = new_socket(_metadata, variant->host, variant->type);

	ASSERT_EQ(0, bind_to(peer, variant->host, OTHER_PORT));
	ASSERT_EQ(0, listen_if_stream(peer, variant->type));

	ASSERT_EQ(0, set_mark(self->fd, 1));
	ASSERT_EQ(0, connect_to(self->fd, variant->host, OTHER_PORT));
	expect_ephemeral(_metadata, self->fd);
}

TEST_F(ephemeral, autobind_by_listen_or_send)
{
	struct addr addr = addr_of(variant->host, OTHER_PORT);

	ASSERT_EQ(0, set_mark(self->fd, 1));
	if (variant->type == SOCK_STREAM) {
		ASSERT_EQ(0, rc(listen(self->fd, 1)));
	} else {
		ASSERT_EQ(1, rc(sendto(self->fd, "x", 1, 0, &addr.sa,
				       addr.len)));
	}
	expect_ephemeral(_metadata, self->fd);
}

TEST_F(ephemeral, deferred_by_address_no_port)
{
	int peer = new_socket(_metadata, variant->host, variant->type);

	ASSERT_EQ(0, bind_to(peer, variant->host, OTHER_PORT));
	ASSERT_EQ(0, listen_if_stream(peer, variant->type));

	ASSERT_EQ(0, set_int(self->fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1));
	ASSERT_EQ(0, bind_to(self->fd, variant->host, 0));
	EXPECT_EQ(0, holds_zero(self->fd));
	ASSERT_EQ(0, connect_to(self->fd, variant->host, OTHER_PORT));
	expect_ephemeral(_metadata, self->fd);
}

TEST_F(ephemeral, marked_bind_to_another_port)
{
	int other = new_socket(_metadata, variant->host, variant->type);

	ASSERT_EQ(0, set_mark(self->fd, 1));
	ASSERT_EQ(0, bind_to(self->fd, variant->host, OTHER_PORT));
	EXPECT_EQ(OTHER_PORT, local_port(self->fd));
	EXPECT_EQ(0, holds_zero(self->fd));
	EXPECT_EQ(-EADDRINUSE, bind_to(other, variant->host, OTHER_PORT));
	EXPECT_EQ(-EINVAL, bind_to(self->fd, variant->host, 0));
	/* Refused by the kernel, as on an unmarked socket */
	if (is_ip6(variant->host))
		EXPECT_EQ(-EINVAL, set_int(self->fd, SOL_IPV6, IPV6_V6ONLY, 1));
}

/*
 * Which pairs of addresses conflict. Each pair is tried in both orders.
 *
 * Some kernels let TCP bind an IPv4 address after certain IPv6 ones that it conflicts
 * with. For such a pair, TCP on an ordinary port tells what is expected.
 */
FIXTURE(pair) {};

FIXTURE_VARIANT(pair) {
	const char *host[2];
	bool v6only[2];
	bool kernels_differ;
	int expected;
	int port;
};

/* An IPv6 address whose last four bytes are those of 0.0.0.0 */
#define ZEROS6	"fd00::1:0:0"

FIXTURE_SETUP(pair)
{
	if (!have_family_of("::1"))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
	if (!strcmp(variant->host[0], ZEROS6))
		ASSERT_EQ(0, add_ip6_to_lo(ZEROS6));
}

FIXTURE_TEARDOWN(pair) {}

#define PAIR(name, one, two, _expected, ...)				\
	ON_BOTH_PORTS(pair, name, .host = { one, two },			\
		      .expected = _expected, ##__VA_ARGS__)
#define V6ONLY(one, two) .v6only = { one, two }
#define KERNELS_DIFFER .kernels_differ = true

PAIR(any4_any4, "0.0.0.0", "0.0.0.0", -EADDRINUSE);
PAIR(any4_lo4, "0.0.0.0", "127.0.0.1", -EADDRINUSE);
PAIR(lo4_other4, "127.0.0.1", "127.0.0.2", 0);
PAIR(any6_any6, "::", "::", -EADDRINUSE);
PAIR(any6_lo6, "::", "::1", -EADDRINUSE);
PAIR(lo6_other6, "::1", "fd00::2", 0);
PAIR(any6_any4, "::", "0.0.0.0", -EADDRINUSE);
PAIR(any6_lo4, "::", "127.0.0.1", -EADDRINUSE, KERNELS_DIFFER);
PAIR(any6_mapped, "::", "::ffff:127.0.0.1", -EADDRINUSE);
PAIR(only6_any4, "::", "0.0.0.0", 0, V6ONLY(true, false));
PAIR(only6_lo4, "::", "127.0.0.1", 0, V6ONLY(true, false));
PAIR(only6_mapped, "::", "::ffff:127.0.0.1", 0, V6ONLY(true, false), KERNELS_DIFFER);
PAIR(only6_any6, "::", "::", -EADDRINUSE, V6ONLY(true, false));
PAIR(only6_lo6, "::", "::1", -EADDRINUSE, V6ONLY(true, false));
PAIR(lo6_any4, "::1", "0.0.0.0", 0);
PAIR(lo6_lo4, "::1", "127.0.0.1", 0);
PAIR(mapped_lo4, "::ffff:127.0.0.1", "127.0.0.1", -EADDRINUSE, KERNELS_DIFFER);
PAIR(mapped_other4, "::ffff:127.0.0.1", "127.0.0.2", 0);
PAIR(mapped_any4, "::ffff:127.0.0.1", "0.0.0.0", -EADDRINUSE);
PAIR(mapped_any_lo4, "::ffff:0.0.0.0", "127.0.0.1",
     -EADDRINUSE, KERNELS_DIFFER);
PAIR(mapped_any_any6, "::ffff:0.0.0.0", "::", -EADDRINUSE);
PAIR(mapped_lo6, "::ffff:127.0.0.1", "::1", 0);
/* A socket on a multicast address receives on that and does not send from it. */
PAIR(group4_other_group4, "224.0.0.251", "224.0.0.252", 0);
PAIR(group4_lo4, "224.0.0.251", "127.0.0.1", 0);
PAIR(group4_any4, "224.0.0.251", "0.0.0.0", -EADDRINUSE);
PAIR(group4_any6, "224.0.0.251", "::", -EADDRINUSE, KERNELS_DIFFER);
PAIR(group4_group4, "224.0.0.251", "224.0.0.251", -EADDRINUSE);
PAIR(group6_other_group6, "ff05::fb", "ff05::fc", 0);
PAIR(group6_lo6, "ff05::fb", "::1", 0);
PAIR(group6_any6, "ff05::fb", "::", -EADDRINUSE);
PAIR(group6_group6, "ff05::fb", "ff05::fb", -EADDRINUSE);
PAIR(zeros6_lo4, ZEROS6, "127.0.0.1", 0);
PAIR(zeros6_any4, ZEROS6, "0.0.0.0", 0);
PAIR(zeros6_lo6, ZEROS6, "::1", 0);
PAIR(zeros6_any6, ZEROS6, "::", -EADDRINUSE);

/* Bind both, the other way round if @order is 1; what the second bind() returned */
static int bind_pair(struct __test_metadata *_metadata,
		     const FIXTURE_VARIANT(pair) *variant, int order, int type,
		     int port)
{
	int fd[2], err[2], i;

	for (i = 0; i < 2; i++) {
		int side = i ^ order;
		const char *host = variant->host[side];

		fd[i] = socket_for(_metadata, host, type, port);
		if (variant->v6only[side]) {
			ASSERT_EQ(0, set_int(fd[i], SOL_IPV6, IPV6_V6ONLY, 1));
		}
		err[i] = bind_to(fd[i], host, port);
	}
	EXPECT_EQ(0, err[0]);
	close(fd[0]);
	close(fd[1]);
	return err[1];
}

static void try_pair(struct __test_metadata *_metadata,
		     const FIXTURE_VARIANT(pair) *variant, int type)
{
	int order, expected;

	for (order = 0; order < 2; order++) {
		expected = variant->expected;
		if (variant->kernels_differ && type == SOCK_STREAM)
			expected = bind_pair(_metadata, variant, order, type,
					     OTHER_PORT);
		EXPECT_EQ(expected, bind_pair(_metadata, variant, order, type,
					      variant->port)) {
			TH_LOG("%s after %s", variant->host[!order],
			       variant->host[order]);
		}
	}
}

TEST_F(pair, tcp)
{
	/* The kernel refuses these to TCP. */
	if (!strncmp(variant->host[0], "ff05:", 5))
		return;
	try_pair(_metadata, variant, SOCK_STREAM);
}

TEST_F(pair, udp)
{
	try_pair(_metadata, variant, SOCK_DGRAM);
}

/*
 * A dual-stack socket that is connected has one IPv6 address and is not v6-only.
 * Whether it conflicts with IPv4 sockets depends on the order in which the two are
 * compared.
 */
FIXTURE(connected) {};

FIXTURE_VARIANT(connected) {
	int type;
};

FIXTURE_VARIANT_ADD(connected, tcp) { .type = SOCK_STREAM };
FIXTURE_VARIANT_ADD(connected, udp) { .type = SOCK_DGRAM };

FIXTURE_SETUP(connected)
{
	if (!have_family_of("::1"))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(connected) {}

static int bind_beside_a_connected_one(struct __test_metadata *_metadata,
				       const char *host, int type, int port)
{
	int peer = new_socket(_metadata, "::1", type);
	int first = bound_socket(_metadata, "::", type, port);
	int second = socket_for(_metadata, host, type, port), err;

	ASSERT_EQ(0, bind_to(peer, "::1", OTHER_PORT));
	ASSERT_EQ(0, listen_if_stream(peer, type));
	ASSERT_EQ(0, connect_to(first, "::1", OTHER_PORT));
	err = bind_to(second, host, port);
	reset_on_close(first);
	close(first);
	close(second);
	close(peer);
	return err;
}

TEST_F(connected, dual_stack)
{
	static const char hosts[][20] = {
		"0.0.0.0", "127.0.0.1", "127.0.0.6", "::ffff:0.0.0.0",
		"::ffff:127.0.0.1", "::", "::1", "fd00::2",
	};
	int type = variant->type, want, got, round;
	size_t i;

	for (round = 0; round < 2; round++) {
		if (round)
			get_watched(_metadata);
		for (i = 0; i < sizeof(hosts) / sizeof(*hosts); i++) {
			want = bind_beside_a_connected_one(_metadata, hosts[i],
							   type, CONTROL_PORT);
			got = bind_beside_a_connected_one(_metadata, hosts[i],
							  type, 0);
			EXPECT_EQ(want, got) {
				TH_LOG("for %s%s", hosts[i],
				       round ? ", watched" : "");
			}
		}
	}
}

/*
 * Many sockets on one port: if there are more than ten, UDP looks for conflicts in its
 * second hash table, which is by address and port.
 */
#define MANY_SOCKETS	32

FIXTURE(many) {};

FIXTURE_VARIANT(many) {
	const char *prefix;
	int type;
	int port;
};

#define MANY(name, _prefix, _type)					\
	ON_BOTH_PORTS(many, name, .prefix = _prefix, .type = _type)

MANY(ip4_tcp, "127.0.0.", SOCK_STREAM);
MANY(ip4_udp, "127.0.0.", SOCK_DGRAM);
MANY(mapped_tcp, "::ffff:127.0.0.", SOCK_STREAM);
MANY(mapped_udp, "::ffff:127.0.0.", SOCK_DGRAM);

FIXTURE_SETUP(many)
{
	if (!have_family_of("::1"))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(many) {}

static int bind_nth(struct __test_metadata *_metadata,
		    const FIXTURE_VARIANT(many) *variant, int nth,
		    bool reuse, int *err)
{
	char host[INET6_ADDRSTRLEN];
	int fd;

	snprintf(host, sizeof(host), "%s%d", variant->prefix, nth + 1);
	fd = socket_for(_metadata, host, variant->type, variant->port);
	ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_REUSEADDR, reuse));
	*err = bind_to(fd, host, variant->port);
	return fd;
}

TEST_F(many, each_has_its_address)
{
	static const char * const wildcards[] = { "0.0.0.0", "::" };
	int nth, err, fd, leaver;
	size_t i;

	if (variant->type == SOCK_DGRAM && !udp_checks_wildcard(_metadata))
		SKIP(return, NO_WILDCARD_CHECK);
	for (nth = 0; nth < MANY_SOCKETS; nth++) {
		leaver = bind_nth(_metadata, variant, nth, false, &err);
		ASSERT_EQ(0, err);
		expect_port(_metadata, leaver, variant->port);
	}
	for (nth = 0; nth < MANY_SOCKETS; nth++) {
		close(bind_nth(_metadata, variant, nth, false, &err));
		EXPECT_EQ(-EADDRINUSE, err);
	}
	for (i = 0; i < ARRAY_SIZE(wildcards); i++) {
		fd = socket_for(_metadata, wildcards[i], variant->type,
				variant->port);
		EXPECT_EQ(-EADDRINUSE,
			  bind_to(fd, wildcards[i], variant->port));
	}

	close(leaver);
	bind_nth(_metadata, variant, MANY_SOCKETS - 1, false, &err);
	EXPECT_EQ(0, err);
	bind_nth(_metadata, variant, nth, false, &err);
	EXPECT_EQ(0, err);
}

TEST_F(many, one_has_every_address)
{
	static const char * const wildcards[] = { "0.0.0.0", "::" };
	int nth, err, fd;
	size_t i;

	for (nth = 0; nth < MANY_SOCKETS; nth++) {
		bind_nth(_metadata, variant, nth, true, &err);
		ASSERT_EQ(0, err);
	}
	for (i = 0; i < ARRAY_SIZE(wildcards); i++) {
		fd = socket_for(_metadata, wildcards[i], variant->type,
				variant->port);
		ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1));
		ASSERT_EQ(0, bind_to(fd, wildcards[i], variant->port));
		expect_port(_metadata, fd, variant->port);

		/*
		 * The wildcard socket also receives for addresses that no
		 * socket is bound to.
		 */
		close(bind_nth(_metadata, variant, nth, false, &err));
		EXPECT_EQ(-EADDRINUSE, err);
		close(fd);
	}
	bind_nth(_metadata, variant, nth, false, &err);
	EXPECT_EQ(0, err);
}

/*
 * For UDP, the first socket found whose address overlaps decides. If more than ten sockets
 * are on the port, it is searched for in the second table, and older kernels search only
 * the chain of the wildcard there if the new socket is on the wildcard. So the result can
 * depend on the order of the sockets and on their number.
 */
FIXTURE(neighbours) {};

FIXTURE_VARIANT(neighbours) {
	const char *home, *elsewhere, *any;
};

FIXTURE_VARIANT_ADD(neighbours, ip4) {
	.home = "127.0.0.1", .elsewhere = "127.0.0.2", .any = "0.0.0.0",
};

FIXTURE_VARIANT_ADD(neighbours, ip6) {
	.home = "::1", .elsewhere = "fd00::2", .any = "::",
};

FIXTURE_VARIANT_ADD(neighbours, mapped) {
	.home = "::ffff:127.0.0.1", .elsewhere = "::ffff:127.0.0.2", .any = "::",
};

FIXTURE_SETUP(neighbours)
{
	if (!have_family_of(variant->home))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(neighbours) {}

static int sharing(struct __test_metadata *_metadata, const char *host, int port,
		   bool reuse, bool share, int *err)
{
	int fd = socket_for(_metadata, host, SOCK_DGRAM, port);

	ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_REUSEADDR, reuse));
	ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_REUSEPORT, share));
	*err = bind_to(fd, host, port);
	return fd;
}

/*
 * Bind @others sockets elsewhere, two on @home, of which the @nth has SO_REUSEPORT, and one
 * with SO_REUSEPORT on @host. Returns the result of that last bind().
 */
static int bind_beside(struct __test_metadata *_metadata,
		       const FIXTURE_VARIANT(neighbours) *variant, const char *host,
		       int port, int others, int nth)
{
	int fd[MANY_SOCKETS + 3], count = 0, err, i;

	for (i = 0; i < others; i++) {
		fd[count++] = sharing(_metadata, variant->elsewhere, port, true, false, &err);
		ASSERT_EQ(0, err);
	}
	for (i = 0; i < 2; i++) {
		fd[count++] = sharing(_metadata, variant->home, port, true, i == nth, &err);
		ASSERT_EQ(0, err);
	}
	fd[count++] = sharing(_metadata, host, port, false, true, &err);
	while (count)
		close(fd[--count]);
	return err;
}

TEST_F(neighbours, of_any_number)
{
	const char * const hosts[] = { variant->home, variant->any };
	int others, nth, want;
	size_t i;

	for (others = 0; others < MANY_SOCKETS / 2; others++) {
		for (i = 0; i < 2 * ARRAY_SIZE(hosts); i++) {
			nth = i % 2;
			want = bind_beside(_metadata, variant, hosts[i / 2], CONTROL_PORT,
					   others, nth);
			EXPECT_EQ(want, bind_beside(_metadata, variant, hosts[i / 2], 0,
						    others, nth)) {
				TH_LOG("%s beside %d others and two, SO_REUSEPORT on number %d",
				       hosts[i / 2], others, nth);
			}
		}
	}
}

TEST_HARNESS_MAIN

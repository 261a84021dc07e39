// SPDX-License-Identifier: GPL-2.0
/*
 * The complete addresses of a socket and of its peer, byte by byte: scope,
 * flow, padding, v4-mapped addresses, and what is left after a disconnect.
 */
#include <stdlib.h>
#include <sys/un.h>

#include "port0_test.h"

#ifndef IPV6_FLOWINFO_SEND
#define IPV6_FLOWINFO_SEND	33
#endif

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP		262
#endif

#define DEVICE		"port0a"
#define LINK_LOCAL	"fe80::1"
#define GLOBAL		"fd00:2::1"	/* of the same device */
/*
 * A traffic class without its ECN bits. A flow label would have to be leased
 * first.
 */
#define FLOW		htonl(0x0e000000)

/* Addresses as the calls return them, in a buffer that was filled before */
struct name {
	union {
		struct sockaddr sa;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
		unsigned char byte[64];
	};
	socklen_t len;
	int err;
};

typedef int (*name_call)(int fd, struct sockaddr *addr, socklen_t *len);

/* Fills the kernel's buffer for addresses with a long one. */
static void leave_a_long_name(void)
{
	struct sockaddr_un path = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0), peer = socket(AF_UNIX, SOCK_DGRAM, 0);
	socklen_t len = sizeof(path);

	/* Abstract, so that no file is left */
	memset(path.sun_path + 1, 0xa5, sizeof(path.sun_path) - 1);
	if (!rc(bind(peer, (struct sockaddr *)&path, sizeof(path))) &&
	    !rc(connect(fd, (struct sockaddr *)&path, sizeof(path))))
		getpeername(fd, (struct sockaddr *)&path, &len);
	close(peer);
	close(fd);
}

static struct name get(name_call call, int fd)
{
	struct name name = { .len = sizeof(name.byte) };

	memset(name.byte, 0xa5, sizeof(name.byte));
	leave_a_long_name();
	name.err = rc(call(fd, &name.sa, &name.len));
	return name;
}

static void expect_name4(struct __test_metadata *_metadata, struct name name,
			 const char *host, int port)
{
	static const char zeros[8];
	struct addr want = addr_of(host, port);

	ASSERT_LE(0, name.err);
	EXPECT_EQ(sizeof(name.v4), name.len);
	EXPECT_EQ(AF_INET, name.v4.sin_family);
	EXPECT_EQ(want.v4.sin_addr.s_addr, name.v4.sin_addr.s_addr);
	EXPECT_EQ(port, ntohs(name.v4.sin_port));
	EXPECT_EQ(0, memcmp(zeros, name.byte + 8, 8));
	EXPECT_EQ(0xa5, name.byte[sizeof(name.v4)]);
}

static void expect_name6(struct __test_metadata *_metadata, struct name name,
			 const char *host, int port, __u32 flow, __u32 scope)
{
	struct addr want = addr_of(host, port);

	ASSERT_LE(0, name.err);
	EXPECT_EQ(sizeof(name.v6), name.len);
	EXPECT_EQ(AF_INET6, name.v6.sin6_family);
	EXPECT_EQ(0, memcmp(&want.v6.sin6_addr, &name.v6.sin6_addr, 16));
	EXPECT_EQ(port, ntohs(name.v6.sin6_port));
	EXPECT_EQ(flow, name.v6.sin6_flowinfo);
	EXPECT_EQ(scope, name.v6.sin6_scope_id);
	EXPECT_EQ(0xa5, name.byte[sizeof(name.v6)]);
}

static void expect_name(struct __test_metadata *_metadata, struct name name,
			const char *host, int port)
{
	if (is_ip6(host))
		expect_name6(_metadata, name, host, port, 0, 0);
	else
		expect_name4(_metadata, name, host, port);
}

FIXTURE(names) {};

FIXTURE_VARIANT(names) {
	const char *home, *second;
	int type, port;
};

FIXTURE_SETUP(names)
{
	if (!have_family_of(variant->home))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
	stay_on_one_cpu(_metadata);
}

FIXTURE_TEARDOWN(names) {}

#define NAMES(name, _home, _second)					\
	ON_BOTH_PORTS(names, name##_tcp, .home = _home,			\
		      .second = _second, .type = SOCK_STREAM);		\
	ON_BOTH_PORTS(names, name##_udp, .home = _home,			\
		      .second = _second, .type = SOCK_DGRAM)

NAMES(ip4, "127.0.0.1", "127.0.0.2");
NAMES(ip6, "::1", "fd00::2");
NAMES(mapped, "::ffff:127.0.0.1", "::ffff:127.0.0.2");

/* accept() with an address; getpeername() returns the same one afterwards. */
static int accept_name(struct __test_metadata *_metadata, int listener,
		       struct name *name)
{
	int fd;

	*name = get(accept, listener);
	fd = name->err;
	ASSERT_LE(0, fd);
	return fd;
}

TEST_F(names, towards_the_port)
{
	int server = new_server(_metadata, variant->home, variant->type,
				variant->port);
	int client = new_socket(_metadata, variant->second, variant->type), child;
	struct name name;

	ASSERT_EQ(0, bind_to(client, variant->second, OTHER_PORT));
	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	expect_name(_metadata, get(getpeername, client), variant->home,
		    variant->port);
	expect_name(_metadata, get(getsockname, client), variant->second,
		    OTHER_PORT);
	expect_name(_metadata, get(getsockname, server), variant->home,
		    variant->port);
	if (variant->type != SOCK_STREAM)
		return;
	child = accept_name(_metadata, server, &name);
	expect_name(_metadata, name, variant->second, OTHER_PORT);
	expect_name(_metadata, get(getsockname, child), variant->home,
		    variant->port);
}

TEST_F(names, from_the_port)
{
	int server = new_server(_metadata, variant->home, variant->type, OTHER_PORT);
	int client = bound_socket(_metadata, variant->second, variant->type,
				  variant->port);
	struct name name;
	int child;

	ASSERT_EQ(0, connect_to(client, variant->home, OTHER_PORT));
	expect_name(_metadata, get(getsockname, client), variant->second,
		    variant->port);
	expect_name(_metadata, get(getpeername, client), variant->home, OTHER_PORT);
	if (variant->type != SOCK_STREAM)
		return;
	child = accept_name(_metadata, server, &name);
	expect_name(_metadata, name, variant->second, variant->port);
	expect_name(_metadata, get(getpeername, child), variant->second,
		    variant->port);
}

/* A disconnected socket has its own address if that was bound, and no peer. */
TEST_F(names, after_disconnect)
{
	const char *any = is_ip6(variant->home) ? "::" : "0.0.0.0";
	int server = new_server(_metadata, variant->home, variant->type,
				variant->port);
	int client = new_socket(_metadata, variant->second, variant->type);
	int bound = bound_socket(_metadata, variant->second, variant->type,
				 variant->port), other;

	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	ASSERT_EQ(0, disconnect(client));
	EXPECT_EQ(-ENOTCONN, get(getpeername, client).err);
	/* TCP still reports its former port. */
	EXPECT_EQ(variant->type == SOCK_STREAM, is_ephemeral(local_port(client)));
	expect_name(_metadata, get(getsockname, client), any, local_port(client));

	other = new_server(_metadata, variant->home, variant->type, OTHER_PORT);
	ASSERT_EQ(0, connect_to(bound, variant->home, OTHER_PORT));
	ASSERT_EQ(0, disconnect(bound));
	EXPECT_EQ(-ENOTCONN, get(getpeername, bound).err);
	expect_name(_metadata, get(getsockname, bound), variant->second,
		    variant->port);
	close(other);
	close(server);
}

/*
 * Bound to the wildcard, it gets an address when it connects, and loses it
 * afterwards.
 */
TEST_F(names, any_address_after_disconnect)
{
	const char *any = !is_ip6(variant->home) ? "0.0.0.0" : "::";
	int server = new_server(_metadata, variant->home, variant->type, OTHER_PORT);
	int fd = bound_socket(_metadata, any, variant->type, variant->port);
	int round, again;

	for (round = 0; round < 3; round++) {
		ASSERT_EQ(0, connect_to(fd, variant->home, OTHER_PORT));
		expect_name(_metadata, get(getsockname, fd), variant->home,
			    variant->port);
		/*
		 * While it is connected, it has one address and the others are free ...
		 */
		ASSERT_EQ(0, disconnect(fd));
		expect_name(_metadata, get(getsockname, fd), any, variant->port);
		/* ... and after the disconnect, none is free. */
		again = socket_for(_metadata, variant->second, variant->type,
				   variant->port);
		EXPECT_EQ(-EADDRINUSE,
			  bind_to(again, variant->second, variant->port));
		close(again);
		if (variant->type == SOCK_STREAM)
			close(rc(accept(server, NULL, NULL)));
	}
}

/* Connected one way only: closed by the other side, reset, shut down. */
TEST_F(names, of_a_peer_that_leaves)
{
	int listener, client, child;
	char byte;

	if (variant->type != SOCK_STREAM)
		return;
	listener = new_server(_metadata, variant->home, SOCK_STREAM, variant->port);
	client = new_socket(_metadata, variant->second, SOCK_STREAM);
	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	child = rc(accept(listener, NULL, NULL));
	ASSERT_LE(0, child);

	/* The client is in CLOSE_WAIT. */
	ASSERT_EQ(0, rc(shutdown(child, SHUT_WR)));
	EXPECT_EQ(0, rc(recv(client, &byte, 1, 0)));
	expect_name(_metadata, get(getpeername, client), variant->home,
		    variant->port);
	/* A reset closes the client: it has no peer any more. */
	reset_on_close(child);
	close(child);
	settle(_metadata);
	EXPECT_EQ(-ENOTCONN, get(getpeername, client).err);
	EXPECT_EQ(-ENOTCONN, get(getpeername, listener).err);
}

/* Send until the peer's buffer and one's own are full. */
static void fill_up(struct __test_metadata *_metadata, int fd)
{
	static const char text[4096];

	while (rc(send(fd, text, sizeof(text), MSG_DONTWAIT)) > 0)
		;
	settle(_metadata);
	while (rc(send(fd, text, sizeof(text), MSG_DONTWAIT)) > 0)
		;
}

/* Whether it gets into this state; an ACK may be delayed. */
static bool reaches(struct __test_metadata *_metadata, int fd, int state)
{
	int naps;

	for (naps = 0; naps < IO_TIMEOUT_SEC * 100; naps++) {
		if (tcp_info_of(_metadata, fd).tcpi_state == state)
			return true;
		usleep(10000);
	}
	return false;
}

/* While a connection ends, its peer has a name. */
TEST_F(names, in_each_state)
{
	static const struct {
		int state;
		bool full;	/* what is sent cannot be delivered yet */
		bool peer_first, peer_last;	/* when the peer shuts its side down */
	} ways[] = {
		{ .state = TCP_FIN_WAIT2 },
		{ .state = TCP_FIN_WAIT1, .full = true },
		{ .state = TCP_CLOSING, .full = true, .peer_last = true },
		{ .state = TCP_LAST_ACK, .full = true, .peer_first = true },
	};
	int listener, client, child;
	size_t i;

	if (variant->type != SOCK_STREAM)
		return;
	listener = bound_socket(_metadata, variant->home, SOCK_STREAM, variant->port);
	ASSERT_EQ(0, set_int(listener, SOL_SOCKET, SO_RCVBUF, 4096));
	ASSERT_EQ(0, rc(listen(listener, 8)));
	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		client = new_socket(_metadata, variant->home, SOCK_STREAM);
		ASSERT_EQ(0, set_int(client, SOL_SOCKET, SO_SNDBUF, 4096));
		ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
		child = rc(accept(listener, NULL, NULL));
		ASSERT_LE(0, child);
		if (ways[i].full)
			fill_up(_metadata, client);
		if (ways[i].peer_first)
			ASSERT_EQ(0, rc(shutdown(child, SHUT_WR)));
		settle(_metadata);
		ASSERT_EQ(0, rc(shutdown(client, SHUT_WR)));
		if (ways[i].peer_last)
			ASSERT_EQ(0, rc(shutdown(child, SHUT_WR)));
		EXPECT_TRUE(reaches(_metadata, client, ways[i].state)) {
			TH_LOG("it does not get into state %d", ways[i].state);
		}
		expect_name(_metadata, get(getpeername, client), variant->home, variant->port);
		reset_on_close(client);
		reset_on_close(child);
		close(client);
		close(child);
	}
	close(listener);
}

/*
 * A buffer that is too short gets the first bytes, and the full length is
 * returned.
 */
TEST_F(names, in_a_short_buffer)
{
	int server = new_server(_metadata, variant->home, variant->type,
				variant->port);
	int client = new_socket(_metadata, variant->home, variant->type);
	struct addr want = addr_of(variant->home, variant->port), got;

	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	memset(&got, 0xa5, sizeof(got));
	got.len = 4;
	ASSERT_EQ(0, rc(getpeername(client, &got.sa, &got.len)));
	EXPECT_EQ(want.len, got.len);
	EXPECT_EQ(0, memcmp(&want.sa, &got.sa, 4));
	EXPECT_EQ(0xa5, ((unsigned char *)&got.sa)[4]);
	got.len = -1;
	EXPECT_EQ(-EINVAL, rc(getpeername(client, &got.sa, &got.len)));
	close(server);
}

/* SO_PEERNAME, which takes no length that is greater than that of the name */
static int peer_by_option(int fd, struct sockaddr *addr, socklen_t *len)
{
	int family = 0;
	socklen_t size = sizeof(family);

	if (rc(getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size)))
		return -1;
	*len = family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
	return getsockopt(fd, SOL_SOCKET, SO_PEERNAME, addr, len);
}

/* A closed connection still has a peer by this option; a socket without one has none. */
TEST_F(names, by_option)
{
	int fd = new_socket(_metadata, variant->second, variant->type);
	int server, client, child;

	/* Not marked, as in programs that do not use port 0 */
	EXPECT_EQ(-ENOTCONN, get(peer_by_option, fd).err);
	ASSERT_EQ(0, bind_to(fd, variant->second, OTHER_PORT));
	EXPECT_EQ(-ENOTCONN, get(peer_by_option, fd).err);
	close(fd);

	/* A connection that was refused, which no call has noticed yet, has a peer. */
	if (variant->type == SOCK_STREAM) {
		client = new_socket(_metadata, variant->second, SOCK_STREAM | SOCK_NONBLOCK);
		EXPECT_EQ(-EINPROGRESS, connect_to(client, variant->home, variant->port));
		settle(_metadata);
		EXPECT_EQ(-ENOTCONN, get(getpeername, client).err);
		expect_name(_metadata, get(peer_by_option, client), variant->home,
			    variant->port);
		close(client);
	}

	client = new_socket(_metadata, variant->second, variant->type);
	if (variant->type == SOCK_STREAM)
		EXPECT_EQ(-ECONNREFUSED, connect_to(client, variant->home, variant->port));
	EXPECT_EQ(-ENOTCONN, get(peer_by_option, client).err);
	server = new_server(_metadata, variant->home, variant->type, variant->port);
	EXPECT_EQ(-ENOTCONN, get(peer_by_option, server).err);
	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	expect_name(_metadata, get(peer_by_option, client), variant->home, variant->port);
	if (variant->type == SOCK_STREAM) {
		child = rc(accept(server, NULL, NULL));
		reset_on_close(child);
		close(child);
		settle(_metadata);
		expect_name(_metadata, get(peer_by_option, client), variant->home,
			    variant->port);
	}
	ASSERT_EQ(0, disconnect(client));
	EXPECT_EQ(-ENOTCONN, get(peer_by_option, client).err);
}

/* By this option, a socket that is connecting has a peer. */
TEST_F(names, by_option_before_the_handshake)
{
	int server, waiting;

	if (variant->type != SOCK_STREAM)
		return;
	/* The accept queue has room for one and is full: the next SYN is dropped. */
	server = new_server(_metadata, variant->home, SOCK_STREAM, variant->port);
	ASSERT_EQ(0, rc(listen(server, 0)));
	ASSERT_EQ(0, connect_to(new_socket(_metadata, variant->home, SOCK_STREAM),
				variant->home, variant->port));
	settle(_metadata);
	waiting = new_socket(_metadata, variant->home, SOCK_STREAM | SOCK_NONBLOCK);
	ASSERT_EQ(-EINPROGRESS, connect_to(waiting, variant->home, variant->port));
	EXPECT_EQ(-ENOTCONN, get(getpeername, waiting).err);
	expect_name(_metadata, get(peer_by_option, waiting), variant->home, variant->port);
}

/* An MPTCP socket is not marked, but the peer of its TCP connection may be on the port. */
TEST_F(names, of_multipath_tcp)
{
	int family = is_ip6(variant->home) ? AF_INET6 : AF_INET;
	int client, server, child;
	struct name name;

	if (variant->type != SOCK_STREAM)
		return;
	client = socket(family, SOCK_STREAM, IPPROTO_MPTCP);
	if (client < 0)
		SKIP(return, "no MPTCP");
	server = new_server(_metadata, variant->home, variant->type, variant->port);
	EXPECT_EQ(-ENOTCONN, get(getpeername, client).err);
	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	expect_name(_metadata, get(getpeername, client), variant->home, variant->port);
	child = accept_name(_metadata, server, &name);
	close(child);
	close(client);

	server = socket(family, SOCK_STREAM, IPPROTO_MPTCP);
	ASSERT_EQ(0, bind_to(server, variant->home, OTHER_PORT));
	ASSERT_EQ(0, rc(listen(server, 8)));
	EXPECT_EQ(-ENOTCONN, get(getpeername, server).err);
	client = bound_socket(_metadata, variant->second, variant->type, variant->port);
	ASSERT_EQ(0, connect_to(client, variant->home, OTHER_PORT));
	child = accept_name(_metadata, server, &name);
	expect_name(_metadata, name, variant->second, variant->port);
	expect_name(_metadata, get(getpeername, child), variant->second, variant->port);
}

/* For the kernel these are connected to port 0, since their protocols have no ports. */
TEST(other_protocols)
{
	static const struct {
		int family, type, protocol;
		const char *host;
	} kinds[] = {
		{ AF_INET, SOCK_RAW, IPPROTO_UDP, "127.0.0.1" },
		{ AF_INET6, SOCK_RAW, IPPROTO_UDP, "::1" },
		{ AF_INET, SOCK_RAW, IPPROTO_MPTCP, "127.0.0.1" },
		{ AF_INET6, SOCK_RAW, IPPROTO_MPTCP, "::1" },
		{ AF_INET, SOCK_DGRAM, IPPROTO_ICMP, "127.0.0.1" },
		{ AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6, "::1" },
		{ AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE, "127.0.0.1" },
		{ AF_INET6, SOCK_DGRAM, IPPROTO_UDPLITE, "::1" },
	};
	size_t i;
	int fd;

	enter_netns(_metadata);
	ASSERT_EQ(0, write_file("/proc/sys/net/ipv4/ping_group_range", "0 0"));
	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		fd = socket(kinds[i].family, kinds[i].type, kinds[i].protocol);
		if (fd < 0)
			continue;
		EXPECT_EQ(0, connect_to(fd, kinds[i].host, 0));
		EXPECT_EQ(-ENOTCONN, get(getpeername, fd).err);
		close(fd);
	}
}

/*
 * Link-local addresses belong to a device, which is in the scope of the
 * address.
 */
FIXTURE(scope) {
	int index;
};

FIXTURE_VARIANT(scope) {
	int type, port;
};

FIXTURE_SETUP(scope)
{
	if (!have_family_of("::1"))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
	stay_on_one_cpu(_metadata);
	ASSERT_EQ(0, system("ip link add dev0 type veth peer name dev1 &&"
			    " ip link add " DEVICE " type veth peer name port0b &&"
			    " ip link set " DEVICE " up && ip link set port0b up &&"
			    " ip addr add " LINK_LOCAL "/64 dev " DEVICE " nodad &&"
			    " ip addr add " GLOBAL "/64 dev " DEVICE " nodad &&"
			    " while ip addr show dev " DEVICE
			    " tentative | grep -q " LINK_LOCAL "/; do sleep 0.1; done"));
	self->index = if_nametoindex(DEVICE);
	ASSERT_LT(1, self->index);
}

FIXTURE_TEARDOWN(scope) {}

ON_BOTH_PORTS(scope, tcp, .type = SOCK_STREAM);
ON_BOTH_PORTS(scope, udp, .type = SOCK_DGRAM);

static struct addr scoped(int port, int scope)
{
	struct addr addr = addr_of(LINK_LOCAL, port);

	addr.v6.sin6_scope_id = scope;
	return addr;
}

static int bind_scoped(int fd, int port, int scope)
{
	struct addr addr = scoped(port, scope);

	return rc(bind(fd, &addr.sa, addr.len));
}

static int connect_scoped(int fd, int port, int scope)
{
	struct addr addr = scoped(port, scope);

	return rc(connect(fd, &addr.sa, addr.len));
}

TEST_F(scope, is_needed)
{
	int fd = socket_for(_metadata, "::", variant->type, variant->port);

	EXPECT_EQ(-EINVAL, bind_scoped(fd, variant->port, 0));
	EXPECT_EQ(-ENODEV, bind_scoped(fd, variant->port, 9999));
	EXPECT_EQ(0, bind_scoped(fd, variant->port, self->index));
	expect_port(_metadata, fd, variant->port);
	expect_name6(_metadata, get(getsockname, fd), LINK_LOCAL, variant->port, 0,
		     self->index);
	EXPECT_EQ(-EINVAL, bind_scoped(fd, variant->port, self->index));
}

TEST_F(scope, is_in_the_name)
{
	int server = socket_for(_metadata, "::", variant->type, variant->port);
	int client = new_socket(_metadata, "::", variant->type), child;
	struct addr from = { .len = sizeof(from.v6) };
	struct name name;
	char byte;

	ASSERT_EQ(0, bind_scoped(server, variant->port, self->index));
	if (variant->type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(server, 4)));
	ASSERT_EQ(0, connect_scoped(client, variant->port, self->index));
	expect_name6(_metadata, get(getpeername, client), LINK_LOCAL,
		     variant->port, 0, self->index);
	if (variant->type == SOCK_STREAM) {
		child = accept_name(_metadata, server, &name);
		expect_name6(_metadata, name, LINK_LOCAL, local_port(client), 0,
			     self->index);
		expect_name6(_metadata, get(getsockname, child), LINK_LOCAL,
			     variant->port, 0, self->index);
		return;
	}
	ASSERT_EQ(1, rc(send(client, "x", 1, 0)));
	ASSERT_EQ(1, rc(recvfrom(server, &byte, 1, 0, &from.sa, &from.len)));
	EXPECT_EQ(self->index, (int)from.v6.sin6_scope_id);
}

/*
 * A peer that sends from the port; accept() and getpeername() must return that.
 */
TEST_F(scope, of_a_peer_on_the_port)
{
	int server = new_socket(_metadata, "::", variant->type);
	int client = socket_for(_metadata, "::", variant->type, variant->port);
	struct name name;
	int child;

	ASSERT_EQ(0, bind_scoped(server, OTHER_PORT, self->index));
	if (variant->type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(server, 4)));
	ASSERT_EQ(0, bind_scoped(client, variant->port, self->index));
	ASSERT_EQ(0, connect_scoped(client, OTHER_PORT, self->index));
	if (variant->type != SOCK_STREAM) {
		ASSERT_EQ(0, connect_scoped(server, variant->port, self->index));
		expect_name6(_metadata, get(getpeername, server), LINK_LOCAL,
			     variant->port, 0, self->index);
		return;
	}
	child = accept_name(_metadata, server, &name);
	expect_name6(_metadata, name, LINK_LOCAL, variant->port, 0, self->index);
	expect_name6(_metadata, get(getpeername, child), LINK_LOCAL,
		     variant->port, 0, self->index);
}

/*
 * The scope depends on the peer's address only, not on the socket's own address or
 * device.
 */
TEST_F(scope, of_the_peer_alone)
{
	int server = new_server(_metadata, GLOBAL, variant->type, variant->port);
	int other = socket_for(_metadata, "::", variant->type, variant->port);
	int fd;

	ASSERT_EQ(0, bind_scoped(other, variant->port, self->index));
	if (variant->type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(other, 4)));

	fd = new_socket(_metadata, "::", variant->type);
	ASSERT_EQ(0, set_device(fd, DEVICE));
	ASSERT_EQ(0, connect_to(fd, GLOBAL, variant->port));
	expect_name6(_metadata, get(getpeername, fd), GLOBAL, variant->port, 0, 0);
	close(fd);

	fd = new_socket(_metadata, "::", variant->type);
	ASSERT_EQ(0, bind_scoped(fd, OTHER_PORT, self->index));
	ASSERT_EQ(0, connect_to(fd, GLOBAL, variant->port));
	expect_name6(_metadata, get(getpeername, fd), GLOBAL, variant->port, 0, 0);
	close(fd);

	fd = new_socket(_metadata, "::", variant->type);
	ASSERT_EQ(0, bind_to(fd, GLOBAL, OTHER_PORT + 1));
	ASSERT_EQ(0, connect_scoped(fd, variant->port, self->index));
	expect_name6(_metadata, get(getpeername, fd), LINK_LOCAL, variant->port, 0,
		     self->index);
	expect_name6(_metadata, get(getsockname, fd), GLOBAL, OTHER_PORT + 1, 0, 0);
	close(fd);
	close(other);
	close(server);
}

/* A link-local destination of sendto(), without a connection */
TEST_F(scope, of_a_destination)
{
	struct addr to = scoped(variant->port, self->index);
	int server, client;
	char byte;

	if (variant->type == SOCK_STREAM)
		return;
	server = socket_for(_metadata, "::", SOCK_DGRAM, variant->port);
	ASSERT_EQ(0, bind_scoped(server, variant->port, self->index));
	client = socket_for(_metadata, "::", SOCK_DGRAM, variant->port);
	EXPECT_EQ(1, rc(sendto(client, "x", 1, 0, &to.sa, to.len)));
	EXPECT_EQ(1, rc(recv(server, &byte, 1, 0)));
	/* The old, shorter form of an IPv6 address has no scope. */
	EXPECT_EQ(1, rc(sendto(client, "x", 1, 0, &to.sa, 24)));
	EXPECT_EQ(1, rc(recv(server, &byte, 1, 0)));
	EXPECT_EQ(-EINVAL, rc(sendto(client, "x", 1, 0, &to.sa, 23)));
}

/* The address of a peer has a flow if the socket has IPV6_FLOWINFO_SEND. */
TEST_F(scope, flow)
{
	struct addr to = addr_of("::1", variant->port);
	int server = new_server(_metadata, "::1", variant->type, variant->port);
	int with, fd;

	to.v6.sin6_flowinfo = FLOW;
	for (with = 0; with < 2; with++) {
		fd = new_socket(_metadata, "::1", variant->type);
		ASSERT_EQ(0, set_int(fd, SOL_IPV6, IPV6_FLOWINFO_SEND, with));
		ASSERT_EQ(0, rc(connect(fd, &to.sa, to.len)));
		expect_name6(_metadata, get(getpeername, fd), "::1", variant->port,
			     with ? FLOW : 0, 0);
		expect_name6(_metadata, get(getsockname, fd), "::1",
			     local_port(fd), 0, 0);
		/* As getpeername() returns it */
		ASSERT_EQ(0, set_int(fd, SOL_IPV6, IPV6_FLOWINFO_SEND, !with));
		expect_name6(_metadata, get(getpeername, fd), "::1", variant->port,
			     0, 0);
		close(fd);
	}
	close(server);
}

TEST_HARNESS_MAIN

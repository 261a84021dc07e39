// SPDX-License-Identifier: GPL-2.0
/*
 * Calls other than bind(), in flight when they wait for the socket lock: whether they hold
 * a reference on the module, names of peers, options of IPv6 sockets that must not change on
 * a bound one, and SO_REUSEPORT groups.
 */
#include "filed.h"
#include "order.h"

/* ---- references on the module ---- */

FIXTURE(references) {};

FIXTURE_VARIANT(references) {
	const char *host;
	int type;
};

#define UNMARKED(name, _host, _type)					\
	FIXTURE_VARIANT_ADD(references, name) { .host = _host, .type = _type }

UNMARKED(ip4_tcp, "127.0.0.1", SOCK_STREAM);
UNMARKED(ip4_udp, "127.0.0.1", SOCK_DGRAM);
UNMARKED(ip6_tcp, "::1", SOCK_STREAM);
UNMARKED(ip6_udp, "::1", SOCK_DGRAM);

FIXTURE_SETUP(references)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	if (!hold_load())
		SKIP(return, NO_HOLD);
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(references) {}

static int do_getpeername_none(struct call *call)
{
	struct addr name = { .len = sizeof(name.v6) };
	int err = rc(getpeername(call->fd, &name.sa, &name.len));

	return err == -ENOTCONN ? 0 : err ?: -EISCONN;
}

static int do_getpeername(struct call *call)
{
	return peer_port(call->fd);
}

#define NO_LOCK_FOR_NAMES	"this kernel does not take the lock for getpeername()"

/*
 * Calls on unmarked sockets run in the kernel's functions only: while they wait for the
 * lock, they hold no reference on the module.
 */
TEST_F(references, unmarked_calls_hold_none)
{
	const struct call calls[] = {
		{ .make = do_bind, .host = variant->host },
		{ .make = do_bind, .host = variant->host, .port = OTHER_PORT },
		{ .make = do_connect, .host = variant->host, .port = PEER_PORT },
		{ .make = variant->type == SOCK_STREAM ? do_listen : do_send,
		  .host = variant->host, .port = PEER_PORT, .text = "x" },
		/* Older kernels do not take the lock for this. */
		{ .make = is_older_than(6, 1) ? do_bind : do_getpeername_none,
		  .host = variant->host },
		{ .make = do_v6only, .value = 1 },
	};
	int peer = new_socket(_metadata, variant->host, variant->type);
	long users = wait_for_users(0);
	size_t i;

	ASSERT_EQ(0, bind_to(peer, variant->host, PEER_PORT));
	if (variant->type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(peer, 1)));
	for (i = 0; i < ARRAY_SIZE(calls) - !is_ip6(variant->host); i++) {
		struct call call = calls[i];

		call.fd = new_socket(_metadata, variant->host, variant->type);
		call_hold(_metadata, &call, BEFORE_LOCK);
		EXPECT_EQ(users, module_users()) {
			TH_LOG("during call %zu", i);
		}
		EXPECT_LE(0, call_release(_metadata, &call));
		close(call.fd);
	}
}

/* getpeername() is redirected only if the peer is on port 0. */
TEST_F(references, getpeername_of_other_ports_holds_none)
{
	struct call get = { .make = do_getpeername };
	int peer = new_socket(_metadata, variant->host, variant->type), marked;
	long users = wait_for_users(0);

	if (is_older_than(6, 1))
		SKIP(return, NO_LOCK_FOR_NAMES);
	ASSERT_EQ(0, bind_to(peer, variant->host, PEER_PORT));
	if (variant->type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(peer, 2)));
	for (marked = 0; marked < 2; marked++) {
		get.fd = new_socket(_metadata, variant->host, variant->type);
		ASSERT_EQ(0, set_mark(get.fd, marked));
		ASSERT_EQ(0, connect_to(get.fd, variant->host, PEER_PORT));
		call_hold(_metadata, &get, BEFORE_LOCK);
		EXPECT_EQ(users, module_users());
		EXPECT_EQ(PEER_PORT, call_release(_metadata, &get));
		close(get.fd);
	}
}

/*
 * A call that is redirected to the module holds a reference on it while it waits for the
 * lock, so that the module cannot be unloaded meanwhile.
 */
TEST_F(references, redirected_calls_hold_one)
{
	const struct call calls[] = {
		{ .make = do_bind, .host = variant->host },
		{ .make = do_bind, .host = variant->host, .port = OTHER_PORT },
		{ .make = do_getpeername },
		/* With MSG_MORE, a send takes the lock. */
		{ .make = do_send, .host = variant->host, .text = "x", .flags = MSG_MORE },
		{ .make = do_v6only, .value = 1 },
	};
	int listener = bound_socket(_metadata, variant->host, variant->type, 0);
	long users = wait_for_users(1);
	size_t i;

	if (variant->type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(listener, 2)));
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		struct call call = calls[i];

		if ((call.make == do_v6only && !is_ip6(variant->host)) ||
		    (call.make == do_send && variant->type == SOCK_STREAM) ||
		    (call.make == do_getpeername && is_older_than(6, 1)))
			continue;
		call.fd = new_socket(_metadata, variant->host, variant->type);
		if (call.make == do_getpeername) {
			ASSERT_EQ(0, connect_to(call.fd, variant->host, 0));
		} else {
			require_mark(_metadata, call.fd);
		}
		if (call.make == do_send)
			send_to(call.fd, variant->host, OTHER_PORT, "y", 0);
		call_hold(_metadata, &call, BEFORE_LOCK);
		EXPECT_EQ(users + 1, module_users()) {
			TH_LOG("during call %zu", i);
		}
		call_release(_metadata, &call);
		close(call.fd);
	}
	close(listener);
	EXPECT_EQ(0, wait_for_users(0));
}

/* ---- getpeername() ---- */

FIXTURE(peer_name) {};

FIXTURE_VARIANT(peer_name) {
	const char *host;
	int port;
};

ON_BOTH_PORTS(peer_name, ip4, .host = "127.0.0.1");
ON_BOTH_PORTS(peer_name, ip6, .host = "::1");

FIXTURE_SETUP(peer_name)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	if (!hold_load())
		SKIP(return, NO_HOLD);
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(peer_name) {}

/* The socket is disconnected after getpeername() has begun and before it gets the lock. */
TEST_F(peer_name, disconnected_while_getpeername_waits)
{
	struct call get = { .make = do_getpeername_none };

	if (is_older_than(6, 1))
		SKIP(return, NO_LOCK_FOR_NAMES);
	get.fd = new_socket(_metadata, variant->host, SOCK_DGRAM);
	ASSERT_EQ(0, connect_to(get.fd, variant->host, variant->port));
	call_hold(_metadata, &get, BEFORE_LOCK);
	EXPECT_EQ(0, disconnect(get.fd));
	EXPECT_EQ(0, call_release(_metadata, &get));
	close(get.fd);
}

/* The same, and it is connected again, to another port. */
TEST_F(peer_name, reconnected_while_getpeername_waits)
{
	struct call get = { .make = do_getpeername };

	if (is_older_than(6, 1))
		SKIP(return, NO_LOCK_FOR_NAMES);
	get.fd = new_socket(_metadata, variant->host, SOCK_DGRAM);
	ASSERT_EQ(0, connect_to(get.fd, variant->host, variant->port));
	call_hold(_metadata, &get, BEFORE_LOCK);
	EXPECT_EQ(0, connect_to(get.fd, variant->host, OTHER_PORT));
	EXPECT_EQ(OTHER_PORT, call_release(_metadata, &get));
	close(get.fd);
}

/* The peer resets the connection meanwhile. */
TEST_F(peer_name, reset_while_getpeername_waits)
{
	struct call get = { .make = do_getpeername_none };
	struct link link;
	char byte;

	if (is_older_than(6, 1))
		SKIP(return, NO_LOCK_FOR_NAMES);
	link = link_up(_metadata, variant->host, variant->port);
	get.fd = link.client;
	call_hold(_metadata, &get, BEFORE_LOCK);
	reset_on_close(link.child);
	close(link.child);
	EXPECT_EQ(-ECONNRESET, rc(recv(link.client, &byte, 1, 0)));
	EXPECT_EQ(0, call_release(_metadata, &get));
	close(link.client);
	close(link.listener);
}

/* ---- options of IPv6 sockets ---- */

FIXTURE(v6only) {};

FIXTURE_VARIANT(v6only) {
	int type;
	int before;
	bool marked;		/* when the option begins */
	bool listens;		/* when the option gets the lock */
	int port;
};

#define V6ONLY(name, ...)	ON_BOTH_PORTS(v6only, name, __VA_ARGS__)
V6ONLY(tcp_set, .type = SOCK_STREAM, .before = 0);
V6ONLY(tcp_clear, .type = SOCK_STREAM, .before = 1);
V6ONLY(listener_set, .type = SOCK_STREAM, .before = 0, .listens = true);
V6ONLY(listener_clear, .type = SOCK_STREAM, .before = 1, .listens = true);
V6ONLY(udp_set, .type = SOCK_DGRAM, .before = 0);
V6ONLY(udp_clear, .type = SOCK_DGRAM, .before = 1);
V6ONLY(marked_tcp_set, .type = SOCK_STREAM, .before = 0, .marked = true);
V6ONLY(marked_tcp_clear, .type = SOCK_STREAM, .before = 1, .marked = true);
V6ONLY(marked_udp_set, .type = SOCK_DGRAM, .before = 0, .marked = true);
V6ONLY(marked_udp_clear, .type = SOCK_DGRAM, .before = 1, .marked = true);

FIXTURE_SETUP(v6only)
{
	if (!have_family_of("::"))
		SKIP(return, "no IPv6");
	if (!hold_load())
		SKIP(return, NO_HOLD);
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(v6only) {}

/* Bind IPv4 sockets while the option is written, and its lock is not released yet. */
static void bind_ip4(struct __test_metadata *_metadata,
		     const FIXTURE_VARIANT(v6only) *variant)
{
	const char *const hosts[] = { "0.0.0.0", "127.0.0.1" };
	int i, fd;

	for (i = 0; i < 2; i++) {
		fd = socket_for(_metadata, hosts[i], variant->type, variant->port);
		EXPECT_EQ(variant->before ? 0 : -EADDRINUSE,
			  bind_to(fd, hosts[i], variant->port)) {
			TH_LOG("on %s, before the option is undone", hosts[i]);
		}
		close(fd);
	}
}

/*
 * IPV6_V6ONLY can be set on sockets that are not bound. One of the two calls waits for
 * the lock or for its turn. In either order, the option and the hash tables must agree
 * afterwards.
 */
TEST_F(v6only, late)
{
	int fd = new_socket(_metadata, "::", variant->type);
	struct call option = {
		.make = do_v6only, .fd = fd, .value = !variant->before,
		.next = BEFORE_UNLOCK,
	};
	struct call winner = {
		.make = do_win, .fd = fd, .host = "::", .port = variant->port,
	};
	int rival = socket_for(_metadata, "0.0.0.0", variant->type,
			       variant->port);
	int v6only = variant->before, result;
	bool bound;

	ASSERT_EQ(0, set_int(fd, SOL_IPV6, IPV6_V6ONLY, variant->before));
	if (variant->marked && !variant->port)
		ASSERT_EQ(0, set_mark(fd, 1));
	call_hold(_metadata, &option, BEFORE_LOCK);
	call_start(_metadata, &winner);
	bound = call_has_ended(_metadata, &winner);
	if (variant->listens)
		ASSERT_EQ(0, rc(listen(fd, 1)));
	call_release_to_next(_metadata, &option);
	if (bound)
		bind_ip4(_metadata, variant);
	result = call_release(_metadata, &option);
	/* A call that finds the socket bound fails or changes nothing. */
	EXPECT_TRUE(bound ? result == -EINVAL || (!variant->port && !result) :
			    !variant->port && !result) {
		TH_LOG("it returned %d", result);
	}
	if (!bound)
		v6only = !variant->before;
	EXPECT_EQ(0, call_end(_metadata, &winner));
	expect_port(_metadata, fd, variant->port);
	EXPECT_EQ(v6only, get_int(fd, SOL_IPV6, IPV6_V6ONLY));
	EXPECT_EQ(v6only ? 0 : -EADDRINUSE,
		  bind_to(rival, "0.0.0.0", variant->port));
}

FIXTURE(child) {};

FIXTURE_VARIANT(child) {
	const char *wildcard;
	int port;
};

ON_BOTH_PORTS(child, tcp, .wildcard = "::");

FIXTURE_SETUP(child)
{
	if (!have_family_of(variant->wildcard))
		SKIP(return, "no IPv6");
	if (!hold_load())
		SKIP(return, NO_HOLD);
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(child) {}

/*
 * With TCP_DEFER_ACCEPT, the accepted socket is made from its listener when the first data
 * arrive: here, while a late call has set IPV6_V6ONLY on the listener. The IPv4 address of
 * that socket is taken nevertheless.
 */
TEST_F(child, of_a_listener_with_a_late_option)
{
	int fd = new_socket(_metadata, variant->wildcard, SOCK_STREAM);
	struct call option = {
		.make = do_v6only, .fd = fd, .value = 1, .next = BEFORE_UNLOCK,
	};
	struct call winner = {
		.make = do_win, .fd = fd, .host = variant->wildcard,
		.port = variant->port,
	};
	int client = new_socket(_metadata, "127.0.0.1", SOCK_STREAM);
	int rival = socket_for(_metadata, "127.0.0.1", SOCK_STREAM, variant->port);
	int accepted;

	call_hold(_metadata, &option, BEFORE_LOCK);
	call_start(_metadata, &winner);
	ASSERT_EQ(0, call_end(_metadata, &winner));
	ASSERT_EQ(0, set_int(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, 10));
	ASSERT_EQ(0, rc(listen(fd, 1)));
	ASSERT_EQ(0, connect_to(client, "127.0.0.1", variant->port));
	call_release_to_next(_metadata, &option);
	expect_send(_metadata, client, "question");
	settle(_metadata);
	call_release(_metadata, &option);
	accepted = rc(accept(fd, NULL, NULL));
	ASSERT_LE(0, accepted);
	expect_recv(_metadata, accepted, "question");
	close(fd);
	EXPECT_EQ(-EADDRINUSE, bind_to(rival, "127.0.0.1", variant->port));
}

FIXTURE(addrform) {};

FIXTURE_VARIANT(addrform) {
	int type;
	int port;
};

ON_BOTH_PORTS(addrform, tcp, .type = SOCK_STREAM);
ON_BOTH_PORTS(addrform, udp, .type = SOCK_DGRAM);

FIXTURE_SETUP(addrform)
{
	if (!have_family_of("::"))
		SKIP(return, "no IPv6");
	if (!hold_load())
		SKIP(return, NO_HOLD);
	enter_netns(_metadata);
	stay_on_one_cpu(_metadata);
}

FIXTURE_TEARDOWN(addrform) {}

#define MAPPED	"::ffff:127.0.0.1"

static int make_peer(struct __test_metadata *_metadata, int type)
{
	int peer = new_socket(_metadata, "127.0.0.1", type);

	ASSERT_EQ(0, bind_to(peer, "127.0.0.1", PEER_PORT));
	if (type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(peer, 4)));
	return peer;
}

static int do_addrform(struct call *call)
{
	return set_int(call->fd, SOL_IPV6, IPV6_ADDRFORM, AF_INET);
}

/*
 * IPV6_ADDRFORM needs a connected socket. The socket has one connection when the call
 * begins; later it is bound, and has another connection from that port.
 *
 * On some kernels, TCP can bind an IPv4 address beside the same v4-mapped one. There it
 * can do so after IPV6_ADDRFORM, too, and listen() on an ordinary port makes the kernel
 * warn.
 */
TEST_F(addrform, late)
{
	int peer = make_peer(_metadata, variant->type);
	int fd = new_socket(_metadata, MAPPED, variant->type);
	struct call addrform = { .make = do_addrform, .fd = fd };
	struct place place = {
		.host = "127.0.0.1", .dest = "127.0.0.1", .other = "127.0.0.2",
		.type = variant->type, .port = variant->port,
		.about = "a late IPV6_ADDRFORM",
	};
	bool conflict = bind_beside(_metadata, MAPPED, "127.0.0.1", variant->type);
	long users = wait_for_users(0);

	ASSERT_EQ(0, connect_to(fd, MAPPED, PEER_PORT));
	call_hold(_metadata, &addrform, BEFORE_LOCK);
	ASSERT_EQ(0, disconnect(fd));
	if (!variant->port)
		ASSERT_EQ(0, set_mark(fd, 1));
	ASSERT_EQ(0, bind_to(fd, MAPPED, variant->port));
	ASSERT_EQ(0, connect_to(fd, MAPPED, PEER_PORT));
	EXPECT_EQ(0, call_release(_metadata, &addrform));
	EXPECT_EQ(variant->port, local_port(fd));
	if (conflict)
		expect_taken(_metadata, &place);
	EXPECT_EQ(0, disconnect(fd));
	if (conflict)
		expect_filed(_metadata, fd, &place);
	close(fd);
	close(peer);
	settle(_metadata);
	EXPECT_EQ(users, wait_for_users(users));
}

/* A bind() that began on an IPv6 socket gets the lock of a connected IPv4 one. */
TEST_F(addrform, bind_late)
{
	int peer = make_peer(_metadata, variant->type);
	int fd = socket_for(_metadata, MAPPED, variant->type, variant->port);
	struct call bind_ = {
		.make = do_bind, .fd = fd, .host = MAPPED,
		.port = variant->port,
	};

	call_hold(_metadata, &bind_, BEFORE_LOCK);
	ASSERT_EQ(0, connect_to(fd, MAPPED, PEER_PORT));
	ASSERT_EQ(0, set_int(fd, SOL_IPV6, IPV6_ADDRFORM, AF_INET));
	EXPECT_EQ(-EINVAL, call_release(_metadata, &bind_));
	EXPECT_TRUE(is_ephemeral(local_port(fd)));
	close(peer);
}

/* ---- SO_REUSEPORT groups ---- */

#define OTHER_DEVICE	"port0g"

FIXTURE(leaver) {};

FIXTURE_VARIANT(leaver) {
	const char *device;	/* of SO_BINDTODEVICE; NULL: connect() */
	int port;
};

ON_BOTH_PORTS(leaver, connect, .device = NULL);
ON_BOTH_PORTS(leaver, device, .device = OTHER_DEVICE);

FIXTURE_SETUP(leaver)
{
	if (!hold_load())
		SKIP(return, NO_HOLD);
	enter_netns(_metadata);
	stay_on_one_cpu(_metadata);
	if (variant->device)
		ASSERT_EQ(0, add_veth(variant->device));
}

FIXTURE_TEARDOWN(leaver) {}

/* A program that always chooses the first member of a group */
static struct sock_filter choose_first[] = { { BPF_RET | BPF_K, 0, 0, 0 } };
static const struct sock_fprog first_member = { 1, choose_first };

/*
 * connect() and SO_BINDTODEVICE take a socket out of its group. Before they release the
 * socket lock, another socket binds what the first was bound to. It gets a group of its own:
 * its program cannot choose the first.
 */
TEST_F(leaver, others_bind_before_the_lock_is_released)
{
	int fd = new_socket(_metadata, "0.0.0.0", SOCK_DGRAM);
	int other = socket_for(_metadata, "0.0.0.0", SOCK_DGRAM, variant->port);
	int client = new_socket(_metadata, "127.0.0.2", SOCK_DGRAM);
	char device[IFNAMSIZ] = OTHER_DEVICE, byte;
	struct call bind_ = {
		.make = do_win, .fd = fd, .host = "0.0.0.0", .port = variant->port,
	};
	struct call leave = {
		.make = variant->device ? do_device : do_connect, .fd = fd,
		.host = "127.0.0.1", .port = PEER_PORT, .page = device,
	};

	ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1));
	ASSERT_EQ(0, set_int(other, SOL_SOCKET, SO_REUSEPORT, 1));
	/* In a thread, so that the module watches the socket. */
	call_start(_metadata, &bind_);
	ASSERT_EQ(0, call_end(_metadata, &bind_));

	call_hold(_metadata, &leave, BEFORE_UNLOCK);
	EXPECT_EQ(0, bind_to(other, "0.0.0.0", variant->port));
	EXPECT_EQ(0, call_release(_metadata, &leave));
	expect_port(_metadata, other, variant->port);

	ASSERT_EQ(0, rc(setsockopt(other, SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF,
				   &first_member, sizeof(first_member))));
	ASSERT_EQ(0, connect_to(client, "127.0.0.2", variant->port));
	ASSERT_EQ(1, rc(send(client, "x", 1, 0)));
	EXPECT_EQ(1, rc(recv(other, &byte, 1, 0)));
	close(client);
	close(other);
	close(fd);
	EXPECT_EQ(0, wait_for_users(0));
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * Addresses without a family, of another family, and of odd lengths, in bind(),
 * connect() and sendto(). Each call is made on an ordinary port and on port 0, in every
 * state of a socket, and its results and effects must be the same.
 */
#include "port0_test.h"

FIXTURE(unspec) {};

FIXTURE_VARIANT(unspec) {
	const char *home, *second;
	int type, port;
};

FIXTURE_SETUP(unspec)
{
	if (!have_family_of(variant->home))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
	stay_on_one_cpu(_metadata);
}

FIXTURE_TEARDOWN(unspec) {}

#define UNSPEC(name, _home, _second)					\
	ON_BOTH_PORTS(unspec, name##_tcp, .home = _home,		\
		      .second = _second, .type = SOCK_STREAM);		\
	ON_BOTH_PORTS(unspec, name##_udp, .home = _home,		\
		      .second = _second, .type = SOCK_DGRAM)

UNSPEC(ip4, "127.0.0.1", "127.0.0.2");
UNSPEC(ip6, "::1", "fd00::2");
UNSPEC(mapped, "::ffff:127.0.0.1", "::ffff:127.0.0.2");

static struct addr odd(const char *host, int port, int family)
{
	struct addr addr = addr_of(host, port);

	addr.sa.sa_family = family;
	return addr;
}

/*
 * connect() to AF_UNSPEC disconnects: a bound socket, the same again, and an unbound
 * one.
 */
TEST_F(unspec, connect)
{
	struct addr none = odd(variant->home, variant->port, AF_UNSPEC);
	int server = new_server(_metadata, variant->home, variant->type, OTHER_PORT);
	int fd = socket_for(_metadata, variant->second, variant->type,
			    variant->port);
	int round;

	EXPECT_EQ(0, rc(connect(fd, &none.sa, none.len)));
	ASSERT_EQ(0, bind_to(fd, variant->second, variant->port));
	for (round = 0; round < 3; round++) {
		EXPECT_EQ(0, rc(connect(fd, &none.sa, none.len)));
		expect_port(_metadata, fd, variant->port);
		EXPECT_EQ(0, connect_to(fd, variant->home, OTHER_PORT));
		expect_port(_metadata, fd, variant->port);
		EXPECT_EQ(OTHER_PORT, peer_port(fd));
		if (variant->type == SOCK_STREAM)
			close(rc(accept(server, NULL, NULL)));
		EXPECT_EQ(0, rc(connect(fd, &none.sa, sizeof(sa_family_t))));
		expect_port(_metadata, fd, variant->port);
		EXPECT_EQ(-ENOTCONN, peer_port(fd));
	}
	EXPECT_EQ(-EINVAL, rc(connect(fd, &none.sa, 1)));
}

/* connect() to AF_UNSPEC makes a listener stop listening; it keeps its port. */
TEST_F(unspec, connect_of_a_listener)
{
	int fd, client;

	if (variant->type != SOCK_STREAM)
		return;
	fd = new_server(_metadata, variant->home, SOCK_STREAM, variant->port);
	EXPECT_EQ(0, disconnect(fd));
	expect_port(_metadata, fd, variant->port);
	client = new_socket(_metadata, variant->home, SOCK_STREAM);
	EXPECT_EQ(-ECONNREFUSED, connect_to(client, variant->home, variant->port));
	EXPECT_EQ(-EADDRINUSE,
		  bind_to(socket_for(_metadata, variant->home, SOCK_STREAM,
				     variant->port), variant->home, variant->port));
	EXPECT_EQ(0, rc(listen(fd, 1)));
	expect_port(_metadata, fd, variant->port);
	EXPECT_EQ(0, connect_to(client, variant->home, variant->port));
}

/*
 * An accepted socket has not bound its port itself, so connect() to AF_UNSPEC releases
 * it.
 */
TEST_F(unspec, connect_of_a_child)
{
	int listener, client, child, next;

	if (variant->type != SOCK_STREAM)
		return;
	listener = new_server(_metadata, variant->home, SOCK_STREAM, variant->port);
	client = new_socket(_metadata, variant->home, SOCK_STREAM);
	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	child = rc(accept(listener, NULL, NULL));
	ASSERT_LE(0, child);
	expect_port(_metadata, child, variant->port);
	close(listener);
	next = socket_for(_metadata, variant->home, SOCK_STREAM, variant->port);
	EXPECT_EQ(-EADDRINUSE, bind_to(next, variant->home, variant->port));

	EXPECT_EQ(0, disconnect(child));
	EXPECT_EQ(-ENOTCONN, peer_port(child));
	EXPECT_TRUE(variant->port || holds_zero(child) == 0);
	EXPECT_EQ(0, bind_to(next, variant->home, variant->port));
	expect_port(_metadata, next, variant->port);

	/* The socket can be bound again, like a new one. */
	EXPECT_EQ(-EADDRINUSE, bind_to(child, variant->home, variant->port));
	close(next);
	EXPECT_EQ(0, bind_to(child, variant->home, variant->port));
	expect_port(_metadata, child, variant->port);
	EXPECT_EQ(0, rc(listen(child, 1)));
}

/*
 * The outcome of one sendto(): its result, which socket has received the datagram, and
 * the port that the sender has then: -1 for that of its bind(), -2 for an ephemeral one
 */
struct outcome {
	int err, got, port_after;
};

static bool got_one(int fd)
{
	char byte;

	return rc(recv(fd, &byte, 1, MSG_DONTWAIT)) == 1;
}

enum state { UNBOUND, BOUND, CONNECTED, CONNECTED_TO_PORT, STATES };

static struct outcome try_sendto(struct __test_metadata *_metadata,
				 const char *home, const char *second, int port,
				 enum state state, int family, int len, int to_port)
{
	int server = bound_socket(_metadata, home, SOCK_DGRAM, port);
	int other = bound_socket(_metadata, home, SOCK_DGRAM, OTHER_PORT);
	int fd = socket_for(_metadata, second, SOCK_DGRAM, port);
	struct addr to = odd(home, to_port < 0 ? port : to_port, family);
	struct outcome outcome;

	if (state == BOUND)
		ASSERT_EQ(0, bind_to(fd, second, port));
	if (state >= CONNECTED)
		ASSERT_EQ(0, connect_to(fd, home, state == CONNECTED ?
					OTHER_PORT : port));
	outcome.err = rc(sendto(fd, "x", 1, 0, &to.sa, len < 0 ? (int)to.len : len));
	settle(_metadata);
	outcome.got = got_one(server) | got_one(other) << 1;
	outcome.port_after = local_port(fd);
	if (state == BOUND && outcome.port_after == port)
		outcome.port_after = -1;
	else if (is_ephemeral(outcome.port_after))
		outcome.port_after = -2;
	close(fd);
	close(other);
	close(server);
	return outcome;
}

TEST_F(unspec, sendto)
{
	static const int families[] = { AF_UNSPEC, AF_INET, AF_INET6, AF_UNIX };
	static const int lens[] = { -1, 0, 1, 2, 8, 15, 16, 23, 24, 28 };
	static const int ports[] = { -1, OTHER_PORT };
	struct outcome want, got;
	size_t f, l, p;
	int state;

	if (variant->type != SOCK_DGRAM)
		return;
	for (state = 0; state < STATES; state++) {
		for (f = 0; f < ARRAY_SIZE(families); f++) {
			for (l = 0; l < ARRAY_SIZE(lens); l++) {
				for (p = 0; p < ARRAY_SIZE(ports); p++) {
					want = try_sendto(_metadata, variant->home,
							  variant->second,
							  CONTROL_PORT, state,
							  families[f], lens[l],
							  ports[p]);
					got = try_sendto(_metadata, variant->home,
							 variant->second,
							 variant->port, state,
							 families[f], lens[l],
							 ports[p]);
					EXPECT_EQ(want.err, got.err);
					EXPECT_EQ(want.port_after, got.port_after);
					EXPECT_EQ(want.got, got.got) {
						TH_LOG("state %d family %d length %d port %d",
						       state, families[f],
						       lens[l], ports[p]);
					}
				}
			}
		}
	}
}

/* sendto() on an IPv4 socket treats AF_UNSPEC as AF_INET. */
TEST_F(unspec, sendto_reaches_the_port)
{
	struct addr to = odd(variant->home, variant->port, AF_UNSPEC);
	int server, client;

	if (variant->type != SOCK_DGRAM)
		return;
	server = new_server(_metadata, variant->home, SOCK_DGRAM, variant->port);
	client = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);
	if (is_ip6(variant->home)) {
		EXPECT_EQ(-EDESTADDRREQ, rc(sendto(client, "x", 1, 0, &to.sa,
						   to.len)));
		return;
	}
	EXPECT_EQ(1, rc(sendto(client, "x", 1, 0, &to.sa, to.len)));
	expect_recv(_metadata, server, "x");
}

/*
 * sendto() on an IPv6 socket treats AF_UNSPEC as no address, so the datagram goes to
 * the peer, also if that is on port 1, which the module passes to the kernel instead of
 * 0.
 */
TEST_F(unspec, sendto_beside_a_peer_on_port_1)
{
	struct addr to = odd(variant->home, variant->port, AF_UNSPEC);
	int server, peer, client, wants;

	/* To a v4-mapped peer it would be sent as IPv6, for which there is no route. */
	if (variant->type != SOCK_DGRAM || strchr(variant->home, 'f'))
		return;
	wants = is_ip6(variant->home) ? 1 : variant->port;
	server = new_server(_metadata, variant->home, SOCK_DGRAM, variant->port);
	peer = new_server(_metadata, variant->home, SOCK_DGRAM, 1);
	client = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);
	ASSERT_EQ(0, connect_to(client, variant->home, 1));
	EXPECT_EQ(1, rc(sendto(client, "x", 1, 0, &to.sa, to.len)));
	settle(_metadata);
	EXPECT_EQ(wants == 1, got_one(peer));
	EXPECT_EQ(wants != 1, got_one(server));
	/* With a valid address it is sent there, without an address to the peer. */
	EXPECT_EQ(1, send_to(client, variant->home, variant->port, "x", 0));
	expect_recv(_metadata, server, "x");
	EXPECT_EQ(1, rc(send(client, "x", 1, 0)));
	expect_recv(_metadata, peer, "x");
	EXPECT_EQ(1, send_to(client, variant->home, 1, "x", 0));
	expect_recv(_metadata, peer, "x");
}

/* bind() to an address of every family, of every length. */
TEST_F(unspec, bind)
{
	static const int families[] = { AF_UNSPEC, AF_INET, AF_INET6, AF_UNIX, 99 };
	const char * const hosts[] = {
		variant->home, variant->second, "0.0.0.0", "::", "::ffff:0.0.0.0",
	};
	size_t f, h;
	int len;

	for (f = 0; f < ARRAY_SIZE(families); f++) {
		for (h = 0; h < ARRAY_SIZE(hosts); h++) {
			for (len = 0; len <= 28; len++) {
				int ports[] = { CONTROL_PORT, variant->port };
				int err[2], port[2], side;

				for (side = 0; side < 2; side++) {
					struct addr to = odd(hosts[h], ports[side],
							     families[f]);
					int fd = socket_for(_metadata, variant->home,
							    variant->type,
							    ports[side]);

					err[side] = rc(bind(fd, &to.sa, len));
					port[side] = !err[side] &&
						local_port(fd) == ports[side];
					close(fd);
				}
				EXPECT_EQ(err[0], err[1]) {
					TH_LOG("%s, family %d, length %d",
					       hosts[h], families[f], len);
				}
				EXPECT_EQ(port[0], port[1]);
			}
		}
	}
}

TEST_HARNESS_MAIN

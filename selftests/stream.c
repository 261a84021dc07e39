// SPDX-License-Identifier: GPL-2.0
/*
 * TCP connections whose server, client or both are on port 0.
 * Peers of marked sockets are never marked themselves.
 */
#include "port0_test.h"

LINK_FIXTURE(stream)
SPECIFIC_LINKS(stream);
WILDCARD_LINKS(stream);

static void reuse(struct __test_metadata *_metadata, int fd)
{
	ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1));
}

static int client_of(struct __test_metadata *_metadata, const char *host,
		     int port)
{
	int fd = new_socket(_metadata, host, SOCK_STREAM);

	ASSERT_EQ(0, connect_to(fd, host, port));
	EXPECT_EQ(port, peer_port(fd));
	return fd;
}

/* A client that is bound to @port, with SO_REUSEADDR. */
static int client_from(struct __test_metadata *_metadata, const char *host,
		       int port)
{
	int fd = socket_for(_metadata, host, SOCK_STREAM, port);

	reuse(_metadata, fd);
	ASSERT_EQ(0, bind_to(fd, host, port));
	return fd;
}

/* accept() with an address argument, which must have @port. */
static int accept_from(struct __test_metadata *_metadata, int listener,
		       int port)
{
	struct addr peer = { .len = sizeof(peer.v6) };
	int fd = rc(accept(listener, &peer.sa, &peer.len));

	ASSERT_LE(0, fd);
	EXPECT_EQ(port, port_of(&peer));
	EXPECT_EQ(port, peer_port(fd));
	return fd;
}

TEST_F(stream, from_first_to_last)
{
	int listener = listener_on(_metadata, variant->server, variant->port);
	int client = client_of(_metadata, variant->dest, variant->port);
	int child = accept_from(_metadata, listener, local_port(client));

	EXPECT_TRUE(is_ephemeral(local_port(client)));
	expect_port(_metadata, listener, variant->port);
	expect_port(_metadata, child, variant->port);
	talk(_metadata, client, child);

	/* After shutdown() the other direction still works. */
	ASSERT_EQ(0, rc(shutdown(client, SHUT_WR)));
	expect_recv(_metadata, child, "");
	EXPECT_EQ(variant->port, peer_port(client));
	expect_port(_metadata, child, variant->port);
	expect_send(_metadata, child, "last words");
	expect_recv(_metadata, client, "last words");

	close(child);
	expect_recv(_metadata, client, "");
	close(client);
	close(listener);
}

TEST_F(stream, peer_address)
{
	struct addr want = addr_of(variant->dest, variant->port);
	struct addr got = { .len = sizeof(got.v6) };
	int client;

	listener_on(_metadata, variant->server, variant->port);
	client = client_of(_metadata, variant->dest, variant->port);
	ASSERT_EQ(0, rc(getpeername(client, &got.sa, &got.len)));
	EXPECT_EQ(want.len, got.len);
	EXPECT_EQ(0, memcmp(&want.sa, &got.sa, want.len));
}

TEST_F(stream, several_clients)
{
	int listener = listener_on(_metadata, variant->server, variant->port);
	int client[4], child[4];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(client); i++)
		client[i] = client_of(_metadata, variant->dest, variant->port);
	for (i = 0; i < ARRAY_SIZE(client); i++) {
		child[i] = accept_from(_metadata, listener,
				       local_port(client[i]));
		expect_port(_metadata, child[i], variant->port);
	}
	close(listener);
	for (i = 0; i < ARRAY_SIZE(client); i++)
		talk(_metadata, client[i], child[i]);
}

TEST_F(stream, accept_without_address)
{
	int listener = listener_on(_metadata, variant->server, variant->port);
	int client = client_of(_metadata, variant->dest, variant->port);
	int child = rc(accept(listener, NULL, NULL));

	ASSERT_LE(0, child);
	talk(_metadata, client, child);
}

TEST_F(stream, refused)
{
	int client = new_socket(_metadata, variant->dest, SOCK_STREAM);
	int server;

	EXPECT_EQ(-ECONNREFUSED,
		  connect_to(client, variant->dest, variant->port));
	EXPECT_EQ(-ENOTCONN, peer_port(client));

	/* Connections to a bound socket that does not listen are refused, too. */
	server = bound_socket(_metadata, variant->server, SOCK_STREAM,
			      variant->port);
	EXPECT_EQ(-ECONNREFUSED,
		  connect_to(client, variant->dest, variant->port));
	ASSERT_EQ(0, rc(listen(server, 1)));
	EXPECT_EQ(0, connect_to(client, variant->dest, variant->port));
	EXPECT_EQ(variant->port, peer_port(client));
}

TEST_F(stream, no_peer_no_name)
{
	int fd = socket_for(_metadata, variant->server, SOCK_STREAM,
			    variant->port);

	EXPECT_EQ(-ENOTCONN, peer_port(fd));
	ASSERT_EQ(0, bind_to(fd, variant->server, variant->port));
	EXPECT_EQ(-ENOTCONN, peer_port(fd));
	ASSERT_EQ(0, rc(listen(fd, 1)));
	EXPECT_EQ(-ENOTCONN, peer_port(fd));
}

/* getpeername() fails on a socket in SYN_SENT. */
TEST_F(stream, no_name_before_the_handshake)
{
	struct addr addr = addr_of(variant->dest, variant->port);
	int listener = listener_on(_metadata, variant->server, variant->port);
	int waiting;

	/* The accept queue has room for one and is full: the next SYN is dropped. */
	ASSERT_EQ(0, rc(listen(listener, 0)));
	client_of(_metadata, variant->dest, variant->port);
	settle(_metadata);

	waiting = new_socket(_metadata, variant->dest,
			     SOCK_STREAM | SOCK_NONBLOCK);
	ASSERT_EQ(-EINPROGRESS, rc(connect(waiting, &addr.sa, addr.len)));
	ASSERT_EQ(TCP_SYN_SENT, tcp_info_of(_metadata, waiting).tcpi_state);
	EXPECT_EQ(-ENOTCONN, peer_port(waiting));
}

TEST_F(stream, reset)
{
	int listener = listener_on(_metadata, variant->server, variant->port);
	int client = client_of(_metadata, variant->dest, variant->port);
	int child = accept_from(_metadata, listener, local_port(client));
	char byte;

	reset_on_close(child);
	close(child);
	EXPECT_EQ(-ECONNRESET, rc(recv(client, &byte, 1, 0)));
	EXPECT_EQ(-ENOTCONN, peer_port(client));
}

TEST_F(stream, child_keeps_the_port_taken)
{
	int listener = listener_on(_metadata, variant->server, variant->port);
	int client = client_of(_metadata, variant->dest, variant->port);
	int child = accept_from(_metadata, listener, local_port(client));
	int next;

	close(listener);
	next = socket_for(_metadata, variant->server, SOCK_STREAM,
			  variant->port);
	EXPECT_EQ(-EADDRINUSE, bind_to(next, variant->server, variant->port));
	talk(_metadata, client, child);

	/* With SO_REUSEADDR a new server takes over. */
	reuse(_metadata, next);
	ASSERT_EQ(0, bind_to(next, variant->server, variant->port));
	ASSERT_EQ(0, rc(listen(next, 1)));
	client_of(_metadata, variant->dest, variant->port);
	talk(_metadata, client, child);
}

TEST_F(stream, restart_over_time_wait)
{
	int listener = listener_on(_metadata, variant->server, variant->port);
	int client = client_of(_metadata, variant->dest, variant->port);
	int child = accept_from(_metadata, listener, local_port(client));
	int next;

	/* The end that closes first is in TIME_WAIT: here the server. */
	close(child);
	expect_recv(_metadata, client, "");
	close(client);
	close(listener);

	next = socket_for(_metadata, variant->server, SOCK_STREAM,
			  variant->port);
	EXPECT_EQ(-EADDRINUSE, bind_to(next, variant->server, variant->port));
	reuse(_metadata, next);
	ASSERT_EQ(0, bind_to(next, variant->server, variant->port));
	ASSERT_EQ(0, rc(listen(next, 1)));
	expect_port(_metadata, next, variant->port);
	client_of(_metadata, variant->dest, variant->port);
}

/* A bind() is compared with each socket in TIME_WAIT, not only with the last one. */
TEST_F(stream, bind_over_two_in_time_wait)
{
	int client[2], child[2], next, other, i;

	for (i = 0; i < 2; i++) {
		int listener = listener_on(_metadata, variant->dest, OTHER_PORT + i);

		client[i] = client_from(_metadata, variant->dest, variant->port);
		ASSERT_EQ(0, connect_to(client[i], variant->dest, OTHER_PORT + i));
		child[i] = accept_from(_metadata, listener, variant->port);
	}
	/* Without this, the kernel knows by SO_REUSEADDR alone that there is no conflict. */
	other = socket_for(_metadata, "127.0.0.3", SOCK_STREAM, variant->port);
	ASSERT_EQ(0, bind_to(other, "127.0.0.3", variant->port));
	close(other);
	/* Only the first one conflicts with a socket that has SO_REUSEADDR. */
	ASSERT_EQ(0, set_int(client[0], SOL_SOCKET, SO_REUSEADDR, 0));
	for (i = 0; i < 2; i++) {
		close(client[i]);
		expect_recv(_metadata, child[i], "");
		close(child[i]);
	}
	next = socket_for(_metadata, variant->dest, SOCK_STREAM, variant->port);
	reuse(_metadata, next);
	EXPECT_EQ(-EADDRINUSE, bind_to(next, variant->dest, variant->port));
}

/*
 * Closed before the peer has received all that was sent: the socket goes on without a task,
 * and gives its port to a TIME_WAIT when a packet arrives, in softirq context. It is watched
 * by the module if its file had another reference when it was bound.
 */
TEST_F(stream, closed_with_data_in_flight)
{
	static char much[4096];
	int watched;

	for (watched = 0; watched < 2; watched++) {
		int listener = new_socket(_metadata, variant->server, SOCK_STREAM);
		int client = socket_for(_metadata, variant->source, SOCK_STREAM, variant->port);
		int next = socket_for(_metadata, variant->source, SOCK_STREAM, variant->port);
		int copy = watched ? dup(client) : -1, child, tries;

		ASSERT_EQ(0, set_int(listener, SOL_SOCKET, SO_RCVBUF, 4096));
		ASSERT_EQ(0, bind_to(listener, variant->server, OTHER_PORT + watched));
		ASSERT_EQ(0, rc(listen(listener, 1)));
		ASSERT_EQ(0, set_int(client, SOL_SOCKET, SO_SNDBUF, 4096));
		reuse(_metadata, client);
		ASSERT_EQ(0, bind_to(client, variant->source, variant->port));
		close(copy);
		ASSERT_EQ(0, connect_to(client, variant->dest, OTHER_PORT + watched));
		child = accept_from(_metadata, listener, variant->port);
		close(listener);

		/* Until the buffers of both are full */
		for (tries = 0; tries < 2; tries++) {
			while (rc(send(client, much, sizeof(much), MSG_DONTWAIT)) > 0)
				;
			settle(_metadata);
		}
		close(client);
		EXPECT_EQ(-EADDRINUSE, bind_to(next, variant->source, variant->port));
		while (rc(recv(child, much, sizeof(much), 0)) > 0)
			;
		expect_recv(_metadata, child, "");
		close(child);
		settle(_metadata);
		EXPECT_LE(1, time_waits());
		EXPECT_EQ(-EADDRINUSE, bind_to(next, variant->source, variant->port));
		reuse(_metadata, next);
		EXPECT_EQ(0, bind_to(next, variant->source, variant->port));
		expect_port(_metadata, next, variant->port);
		close(next);
	}
}

TEST_F(stream, listen_again)
{
	int listener = listener_on(_metadata, variant->server, variant->port);
	int client = new_socket(_metadata, variant->dest, SOCK_STREAM);

	/* A second listen() changes only the backlog. */
	ASSERT_EQ(0, rc(listen(listener, 2)));
	expect_port(_metadata, listener, variant->port);

	/* After shutdown() it refuses connections, but keeps the port. */
	ASSERT_EQ(0, rc(shutdown(listener, SHUT_RDWR)));
	expect_port(_metadata, listener, variant->port);
	EXPECT_EQ(-ECONNREFUSED,
		  connect_to(client, variant->dest, variant->port));
	ASSERT_EQ(0, rc(listen(listener, 2)));
	expect_port(_metadata, listener, variant->port);
	client_of(_metadata, variant->dest, variant->port);
}

/* Without the module, accept() with an address fails for a peer on port 0. */
TEST_F(stream, from_port)
{
	int listener = listener_on(_metadata, variant->server, OTHER_PORT);
	int client = client_from(_metadata, variant->source, variant->port);
	int child;

	ASSERT_EQ(0, connect_to(client, variant->dest, OTHER_PORT));
	expect_port(_metadata, client, variant->port);
	EXPECT_EQ(OTHER_PORT, peer_port(client));

	child = accept_from(_metadata, listener, variant->port);
	EXPECT_EQ(OTHER_PORT, local_port(child));
	talk(_metadata, client, child);
	ASSERT_EQ(0, rc(shutdown(client, SHUT_WR)));
	expect_recv(_metadata, child, "");
	EXPECT_EQ(variant->port, peer_port(child));
	close(child);
	expect_recv(_metadata, client, "");
}

/* A connection that is reset before accept() can still be accepted. */
TEST_F(stream, from_port_reset_before_accept)
{
	struct addr peer = { .len = sizeof(peer.v6) };
	int listener = listener_on(_metadata, variant->server, OTHER_PORT);
	int client = client_from(_metadata, variant->source, variant->port);
	int child;
	char byte;

	ASSERT_EQ(0, connect_to(client, variant->dest, OTHER_PORT));
	settle(_metadata);
	reset_on_close(client);
	close(client);

	child = rc(accept(listener, &peer.sa, &peer.len));
	ASSERT_LE(0, child);
	EXPECT_EQ(variant->port, port_of(&peer));
	EXPECT_EQ(-ECONNRESET, rc(recv(child, &byte, 1, 0)));
	EXPECT_EQ(-ENOTCONN, peer_port(child));
}

TEST_F(stream, from_port_to_two_servers)
{
	int first = listener_on(_metadata, variant->server, OTHER_PORT);
	int second = listener_on(_metadata, variant->server, OTHER_PORT + 1);
	int one = client_from(_metadata, variant->source, variant->port);
	int two = client_from(_metadata, variant->source, variant->port);

	ASSERT_EQ(0, connect_to(one, variant->dest, OTHER_PORT));
	ASSERT_EQ(0, connect_to(two, variant->dest, OTHER_PORT + 1));
	expect_port(_metadata, one, variant->port);
	expect_port(_metadata, two, variant->port);
	talk(_metadata, one,
		 accept_from(_metadata, first, variant->port));
	talk(_metadata, two,
		 accept_from(_metadata, second, variant->port));
}

TEST_F(stream, from_port_twice_to_one_server)
{
	int listener = listener_on(_metadata, variant->server, OTHER_PORT);
	int one = client_from(_metadata, variant->source, variant->port);
	int two = client_from(_metadata, variant->source, variant->port);

	ASSERT_EQ(0, connect_to(one, variant->dest, OTHER_PORT));
	EXPECT_EQ(-EADDRNOTAVAIL, connect_to(two, variant->dest, OTHER_PORT));
	expect_port(_metadata, two, variant->port);
	talk(_metadata, one,
		 accept_from(_metadata, listener, variant->port));
}

TEST_F(stream, from_port_refused_then_served)
{
	int client = client_from(_metadata, variant->source, variant->port);
	int listener;

	EXPECT_EQ(-ECONNREFUSED, connect_to(client, variant->dest, OTHER_PORT));
	expect_port(_metadata, client, variant->port);

	listener = listener_on(_metadata, variant->server, OTHER_PORT);
	ASSERT_EQ(0, connect_to(client, variant->dest, OTHER_PORT));
	expect_port(_metadata, client, variant->port);
	talk(_metadata, client,
		 accept_from(_metadata, listener, variant->port));
}

/* An explicitly bound socket keeps its port when it disconnects. */
TEST_F(stream, disconnect_and_reconnect)
{
	int listener = listener_on(_metadata, variant->server, OTHER_PORT);
	int client = client_from(_metadata, variant->source, variant->port);

	ASSERT_EQ(0, connect_to(client, variant->dest, OTHER_PORT));
	accept_from(_metadata, listener, variant->port);

	ASSERT_EQ(0, disconnect(client));
	expect_port(_metadata, client, variant->port);
	EXPECT_EQ(-ENOTCONN, peer_port(client));
	EXPECT_EQ(-EINVAL, bind_to(client, variant->source, OTHER_PORT + 1));

	ASSERT_EQ(0, connect_to(client, variant->dest, OTHER_PORT));
	expect_port(_metadata, client, variant->port);
	talk(_metadata, client,
		 accept_from(_metadata, listener, variant->port));
}

TEST_F(stream, disconnect_from_port)
{
	int listener = listener_on(_metadata, variant->server, variant->port);
	int client = client_of(_metadata, variant->dest, variant->port);

	accept_from(_metadata, listener, local_port(client));
	ASSERT_EQ(0, disconnect(client));
	EXPECT_EQ(-ENOTCONN, peer_port(client));

	ASSERT_EQ(0, connect_to(client, variant->dest, variant->port));
	EXPECT_EQ(variant->port, peer_port(client));
	talk(_metadata, client,
		 accept_from(_metadata, listener, local_port(client)));
}

/* Of two servers that share the port, one gets the connection. */
TEST_F(stream, reuseport_group)
{
	struct pollfd group[2];
	int client, child;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(group); i++) {
		int fd = socket_for(_metadata, variant->server, SOCK_STREAM,
				    variant->port);

		ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1));
		ASSERT_EQ(0, bind_to(fd, variant->server, variant->port));
		ASSERT_EQ(0, rc(listen(fd, 1)));
		group[i].fd = fd;
		group[i].events = POLLIN;
	}
	client = client_of(_metadata, variant->dest, variant->port);
	ASSERT_EQ(1, poll(group, ARRAY_SIZE(group), IO_TIMEOUT_SEC * 1000));
	child = accept_from(_metadata, group[!group[0].revents].fd,
			    local_port(client));
	talk(_metadata, client, child);
}

/* Both ends on the same port, which takes two addresses. */
LINK_FIXTURE(same_port)
SPECIFIC_LINKS(same_port);

TEST_F(same_port, from_port_to_port)
{
	int listener = listener_on(_metadata, variant->server, variant->port);
	int client = client_from(_metadata, variant->source, variant->port);
	int child;

	ASSERT_EQ(0, connect_to(client, variant->dest, variant->port));
	expect_port(_metadata, client, variant->port);
	EXPECT_EQ(variant->port, peer_port(client));

	child = accept_from(_metadata, listener, variant->port);
	expect_port(_metadata, child, variant->port);
	talk(_metadata, client, child);
	ASSERT_EQ(0, rc(shutdown(client, SHUT_WR)));
	expect_recv(_metadata, child, "");
	close(child);
	expect_recv(_metadata, client, "");
}

TEST_F(same_port, connect_to_oneself)
{
	int fd = client_from(_metadata, variant->dest, variant->port);

	ASSERT_EQ(0, connect_to(fd, variant->dest, variant->port));
	expect_port(_metadata, fd, variant->port);
	EXPECT_EQ(variant->port, peer_port(fd));
	expect_send(_metadata, fd, "echo");
	expect_recv(_metadata, fd, "echo");
}

TEST_HARNESS_MAIN

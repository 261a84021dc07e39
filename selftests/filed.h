/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tests from user space under which address a bound socket is filed in the kernel's
 * tables: a second socket cannot bind that address but can bind another one, and the
 * socket receives what is sent to its address and nothing else.
 */
#ifndef PORT0_FILED_H
#define PORT0_FILED_H

#include "port0_test.h"

struct place {
	const char *host;	/* the address it was bound to */
	const char *dest;	/* an address of this host that is in @host */
	bool dest_is_free;	/* older kernels let it be bound beside ::ffff:0.0.0.0 */
	const char *other;	/* an address of this host that is not in @host, or NULL */
	int type;
	int port;
	const char *about;	/* for messages: what has been done to the socket */
};

#define EXPECT_AT(place, expected, seen)				\
	EXPECT_EQ(expected, seen) {					\
		TH_LOG("after %s", (place)->about);			\
	}

static inline void expect_address(struct __test_metadata *_metadata,
				  const struct addr *addr, const char *host,
				  const char *about)
{
	char text[INET6_ADDRSTRLEN] = "?";

	if (addr->sa.sa_family == AF_INET6)
		inet_ntop(AF_INET6, &addr->v6.sin6_addr, text, sizeof(text));
	else
		inet_ntop(AF_INET, &addr->v4.sin_addr, text, sizeof(text));
	EXPECT_STREQ(host, text) {
		TH_LOG("after %s", about);
	}
}

/*
 * The result of binding another socket to @host; that socket is closed again.
 */
static inline int try_bind(struct __test_metadata *_metadata,
			   const struct place *place, const char *host)
{
	int fd = socket_for(_metadata, host, place->type, place->port);
	int err = bind_to(fd, host, place->port);

	close(fd);
	return err;
}

static inline void expect_name(struct __test_metadata *_metadata, int fd,
			       const struct place *place)
{
	struct addr name = { .len = sizeof(name.v6) };

	EXPECT_TRUE(place->port || holds_zero(fd) == 1) {
		TH_LOG("it does not hold port 0 after %s", place->about);
	}
	EXPECT_AT(place, 0, rc(getsockname(fd, &name.sa, &name.len)));
	EXPECT_AT(place, place->port, port_of(&name));
	expect_address(_metadata, &name, place->host, place->about);
}

/* Its address is taken, and no other address is. */
static inline void expect_taken(struct __test_metadata *_metadata,
				const struct place *place)
{
	EXPECT_AT(place, -EADDRINUSE,
		  try_bind(_metadata, place, place->host));
	EXPECT_AT(place, place->dest_is_free ? 0 : -EADDRINUSE,
		  try_bind(_metadata, place, place->dest));
	if (place->other)
		EXPECT_AT(place, 0, try_bind(_metadata, place, place->other));
}

/* The socket is closed, so its address is free. */
static inline void expect_free(struct __test_metadata *_metadata,
			       const struct place *place)
{
	EXPECT_AT(place, 0, try_bind(_metadata, place, place->host));
	if (place->other)
		EXPECT_AT(place, 0, try_bind(_metadata, place, place->other));
}

/*
 * Receives a byte that has arrived. -EAGAIN proves that none was sent only after
 * settle().
 */
static inline int recv_now(int fd)
{
	char byte = 0;
	int err = rc(recv(fd, &byte, 1, MSG_DONTWAIT));

	return err == 1 ? byte : err;
}

/* The same, but waits until something arrives. */
static inline int recv_soon(int fd)
{
	return wait_readable(fd) ? recv_now(fd) : -EAGAIN;
}

/* It receives datagrams to its address, and not those to another socket's. */
static inline void expect_datagrams(struct __test_metadata *_metadata, int fd,
				    const struct place *place)
{
	int client = socket_for(_metadata, place->dest, SOCK_DGRAM,
				place->port);
	int rival = -1;

	if (place->other) {
		rival = socket_for(_metadata, place->other, SOCK_DGRAM,
				   place->port);
		EXPECT_AT(place, 0, bind_to(rival, place->other, place->port));
	}
	while (recv_now(fd) >= 0)
		;
	EXPECT_AT(place, 1, send_to(client, place->dest, place->port, "d", 0));
	EXPECT_AT(place, 'd', recv_soon(fd));
	if (place->other) {
		send_to(client, place->other, place->port, "o", 0);
		EXPECT_AT(place, 'o', recv_soon(rival));
		settle(_metadata);
		EXPECT_AT(place, -EAGAIN, recv_now(fd));
		close(rival);
	}
	close(client);
}

/* It listens, and gets the connections to its address and no others. */
static inline void expect_connections(struct __test_metadata *_metadata, int fd,
				      const struct place *place)
{
	int client = new_socket(_metadata, place->dest, SOCK_STREAM), child;

	EXPECT_AT(place, 0, connect_to(client, place->dest, place->port));
	child = wait_readable(fd) ? rc(accept(fd, NULL, NULL)) : -EAGAIN;
	EXPECT_TRUE(child >= 0) {
		TH_LOG("no connection after %s", place->about);
	}
	EXPECT_AT(place, place->port, local_port(child));
	/* Reset both, since otherwise a TIME_WAIT would keep the port. */
	reset_on_close(client);
	reset_on_close(child);
	close(client);
	close(child);
	if (place->other) {
		client = new_socket(_metadata, place->other, SOCK_STREAM);
		EXPECT_AT(place, -ECONNREFUSED,
			  connect_to(client, place->other, place->port));
		close(client);
	}
}

/* All tests of this file, for a socket that is bound and not connected */
static inline void expect_filed(struct __test_metadata *_metadata, int fd,
				const struct place *place)
{
	expect_name(_metadata, fd, place);
	expect_taken(_metadata, place);
	if (place->type == SOCK_DGRAM) {
		expect_datagrams(_metadata, fd, place);
		return;
	}
	EXPECT_AT(place, 0, rc(listen(fd, 1)));
	expect_taken(_metadata, place);
	expect_connections(_metadata, fd, place);
}

#endif /* PORT0_FILED_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the feature tests of parity share: each is written for "a port" and run
 * on an ordinary one and on port 0, over IPv4 and over IPv6.
 */
#ifndef PARITY_FEATURE_H
#define PARITY_FEATURE_H

#include <netinet/tcp.h>

#include "port0_test.h"

#define FEATURE_FIXTURE(fixture)					\
	FIXTURE(fixture) {};						\
	FIXTURE_VARIANT(fixture) {					\
		const char *home;					\
		const char *second;					\
		int port;						\
	};								\
	FIXTURE_SETUP(fixture)						\
	{								\
		if (!have_family_of(variant->home))			\
			SKIP(return, "no IPv6");			\
		enter_netns(_metadata);					\
		stay_on_one_cpu(_metadata);				\
	}								\
	FIXTURE_TEARDOWN(fixture) {}					\
	ON_BOTH_PORTS(fixture, ip4, .home = "127.0.0.1",		\
		      .second = "127.0.0.2");				\
	ON_BOTH_PORTS(fixture, ip6, .home = "::1", .second = "fd00::2")

struct link {
	int listener, client, child;
};

static inline int listener_on(struct __test_metadata *_metadata, const char *host, int port)
{
	int fd = socket_for(_metadata, host, SOCK_STREAM, port);

	ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1));
	ASSERT_EQ(0, bind_to(fd, host, port));
	ASSERT_EQ(0, rc(listen(fd, 8)));
	expect_port(_metadata, fd, port);
	return fd;
}

/* An unmarked client of the port, and the child that serves it from a listener. */
static inline struct link link_to(struct __test_metadata *_metadata, const char *host, int port,
				  int listener)
{
	struct link link = { .listener = listener };

	link.client = new_socket(_metadata, host, SOCK_STREAM);
	ASSERT_EQ(0, connect_to(link.client, host, port));
	EXPECT_EQ(port, peer_port(link.client));
	link.child = rc(accept(listener, NULL, NULL));
	ASSERT_LE(0, link.child);
	expect_port(_metadata, link.child, port);
	return link;
}

static inline struct link link_up(struct __test_metadata *_metadata, const char *host, int port)
{
	return link_to(_metadata, host, port, listener_on(_metadata, host, port));
}

static inline void talk(struct __test_metadata *_metadata, int one, int two)
{
	expect_send(_metadata, one, "to and");
	expect_recv(_metadata, two, "to and");
	expect_send(_metadata, two, "fro");
	expect_recv(_metadata, one, "fro");
}

static inline struct tcp_info tcp_info_of(struct __test_metadata *_metadata, int fd)
{
	struct tcp_info info = {};
	socklen_t len = sizeof(info);

	ASSERT_EQ(0, rc(getsockopt(fd, SOL_TCP, TCP_INFO, &info, &len)));
	return info;
}

#define GROUP_SIZE	4
#define GROUP_CLIENTS	64

/* How many each of a group got of what so many clients sent or called. */
static inline void count_shares(struct __test_metadata *_metadata, const char *host, int type,
				int port, const int *group, size_t members, int *shares)
{
	int client, fd, all = 0, i;
	size_t member;
	char byte;

	for (i = 0; i < GROUP_CLIENTS; i++) {
		client = new_socket(_metadata, host, type);
		ASSERT_EQ(0, connect_to(client, host, port));
		if (type == SOCK_DGRAM)
			expect_send(_metadata, client, "x");
		settle(_metadata);
		close(client);
	}
	for (member = 0; member < members; member++) {
		ASSERT_EQ(0, rc(fcntl(group[member], F_SETFL, O_NONBLOCK)));
		for (shares[member] = 0; ; shares[member]++) {
			fd = type == SOCK_DGRAM ? rc(recv(group[member], &byte, 1, 0)) :
						  rc(accept(group[member], NULL, NULL));
			if (fd == -EAGAIN)
				break;
			ASSERT_LE(0, fd);
			if (type == SOCK_STREAM)
				close(fd);
		}
		all += shares[member];
	}
	EXPECT_EQ(GROUP_CLIENTS, all);
}

/* A group shares its traffic out, and what one leaves goes to the others. */
static inline void share_out(struct __test_metadata *_metadata, const char *host, int type,
			     int port)
{
	int group[GROUP_SIZE], shares[GROUP_SIZE];
	size_t i;

	for (i = 0; i < GROUP_SIZE; i++) {
		group[i] = socket_for(_metadata, host, type, port);
		ASSERT_EQ(0, set_int(group[i], SOL_SOCKET, SO_REUSEPORT, 1));
		ASSERT_EQ(0, bind_to(group[i], host, port));
		expect_port(_metadata, group[i], port);
		if (type == SOCK_STREAM)
			ASSERT_EQ(0, rc(listen(group[i], GROUP_CLIENTS)));
	}
	count_shares(_metadata, host, type, port, group, GROUP_SIZE, shares);
	for (i = 0; i < GROUP_SIZE; i++)
		EXPECT_LT(0, shares[i]);
	close(group[0]);
	count_shares(_metadata, host, type, port, group + 1, GROUP_SIZE - 1, shares);
	for (i = 0; i < GROUP_SIZE - 1; i++)
		EXPECT_LT(0, shares[i]);
}

/* Delivery may be put off to a thread of the kernel's, so wait a little. */
static inline bool wait_readable(int fd)
{
	struct pollfd poll_in = { .fd = fd, .events = POLLIN };

	return poll(&poll_in, 1, IO_TIMEOUT_SEC * 1000) == 1;
}

#endif

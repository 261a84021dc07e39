/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What every C test of port0 needs: addresses from text, sockets that are
 * marked and bound, and a network namespace of its own for each test.
 *
 * Most tests are written for "a port" and run twice: on CONTROL_PORT, where
 * the stock kernel shows what is right, and on port 0, which must be no
 * different. A test that fails on both is wrong; one that fails on port 0 only
 * has found a bug.
 */
#ifndef PORT0_TEST_H
#define PORT0_TEST_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "kselftest_harness.h"

#include "port0.h"

/* Privileged like port 0, so that the control obeys the same rules. */
#define CONTROL_PORT	7
#define OTHER_PORT	8080

/* Long enough for an emulated machine, shorter than a test may take. */
#define IO_TIMEOUT_SEC	10

/*
 * The harness's own 30 seconds are too few for a guest that is emulated, full of
 * sanitizers and not alone on its host.
 */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	300

struct addr {
	union {
		struct sockaddr sa;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	};
	socklen_t len;
};

static inline bool is_ip6(const char *host)
{
	return strchr(host, ':');
}

static inline struct addr addr_of(const char *host, int port)
{
	struct addr addr;

	memset(&addr, 0, sizeof(addr));
	if (is_ip6(host)) {
		addr.v6.sin6_family = AF_INET6;
		addr.v6.sin6_port = htons(port);
		inet_pton(AF_INET6, host, &addr.v6.sin6_addr);
		addr.len = sizeof(addr.v6);
	} else {
		addr.v4.sin_family = AF_INET;
		addr.v4.sin_port = htons(port);
		inet_pton(AF_INET, host, &addr.v4.sin_addr);
		addr.len = sizeof(addr.v4);
	}

	return addr;
}

static inline int port_of(const struct addr *addr)
{
	if (addr->sa.sa_family == AF_INET6)
		return ntohs(addr->v6.sin6_port);
	return ntohs(addr->v4.sin_port);
}

/* A system call's result, or the negative errno: comparable in one line. */
static inline int rc(long ret)
{
	return ret < 0 ? -errno : (int)ret;
}

static inline int set_int(int fd, int level, int name, int value)
{
	return rc(setsockopt(fd, level, name, &value, sizeof(value)));
}

static inline int get_int(int fd, int level, int name)
{
	socklen_t len = sizeof(int);
	int value = -1;
	int err = rc(getsockopt(fd, level, name, &value, &len));

	return err ? err : value;
}

static inline int set_mark(int fd, int value)
{
	return set_int(fd, SOL_IP, IP_BIND_PORT_ZERO, value);
}

static inline int get_mark(int fd)
{
	return get_int(fd, SOL_IP, IP_BIND_PORT_ZERO);
}

static inline int holds_zero(int fd)
{
	return get_int(fd, SOL_IP, IP_BOUND_PORT_ZERO);
}

static inline int bind_to(int fd, const char *host, int port)
{
	struct addr addr = addr_of(host, port);

	return rc(bind(fd, &addr.sa, addr.len));
}

static inline int connect_to(int fd, const char *host, int port)
{
	struct addr addr = addr_of(host, port);

	return rc(connect(fd, &addr.sa, addr.len));
}

static inline int disconnect(int fd)
{
	struct sockaddr unspec = { .sa_family = AF_UNSPEC };

	return rc(connect(fd, &unspec, sizeof(unspec)));
}

/* The first thing a socket of this type does after bind(). */
static inline int listen_or_connect(int fd, int type, const char *host)
{
	if (type == SOCK_STREAM)
		return rc(listen(fd, 1));
	return connect_to(fd, host, OTHER_PORT);
}

static inline int local_port(int fd)
{
	struct addr addr = { .len = sizeof(addr.v6) };
	int err = rc(getsockname(fd, &addr.sa, &addr.len));

	return err ? err : port_of(&addr);
}

static inline int peer_port(int fd)
{
	struct addr addr = { .len = sizeof(addr.v6) };
	int err = rc(getpeername(fd, &addr.sa, &addr.len));

	return err ? err : port_of(&addr);
}

static inline bool is_ephemeral(int port)
{
	/* The range a fresh network namespace starts with. */
	return port >= 32768 && port <= 60999;
}

static inline int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	int err = rc(write(fd, text, strlen(text)));

	close(fd);
	return err < 0 ? err : 0;
}

/* What the kernel sent says that it now takes packets for @addr. */
static inline bool is_local_route(const struct nlmsghdr *head,
				  const struct in6_addr *addr)
{
	const struct rtmsg *route = NLMSG_DATA(head);

	return head->nlmsg_type == RTM_NEWROUTE &&
	       route->rtm_type == RTN_LOCAL &&
	       memmem(head, head->nlmsg_len, addr, sizeof(*addr));
}

/*
 * IPv4 has all of 127/8 on lo, IPv6 gets a second address here. The kernel
 * completes an address behind the caller's back: its route is the last of it.
 */
static inline void add_second_ip6(struct __test_metadata *_metadata)
{
	struct {
		struct nlmsghdr head;
		struct ifaddrmsg ifa;
		struct rtattr attr;
		struct in6_addr addr;
	} request = {
		.head = {
			.nlmsg_len = sizeof(request),
			.nlmsg_type = RTM_NEWADDR,
			.nlmsg_flags = NLM_F_REQUEST,
		},
		.ifa = {
			.ifa_family = AF_INET6,
			.ifa_prefixlen = 128,
			.ifa_flags = IFA_F_NODAD,
			.ifa_index = if_nametoindex("lo"),
		},
		.attr = {
			.rta_len = RTA_LENGTH(sizeof(struct in6_addr)),
			.rta_type = IFA_LOCAL,
		},
	};
	struct sockaddr_nl routes = {
		.nl_family = AF_NETLINK,
		.nl_groups = RTMGRP_IPV6_ROUTE,
	};
	struct timeval patience = { .tv_sec = IO_TIMEOUT_SEC };
	union {
		struct nlmsghdr head;
		char room[4096];
	} reply;
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);

	inet_pton(AF_INET6, "fd00::2", &request.addr);
	ASSERT_EQ(0, rc(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience,
				   sizeof(patience))));
	ASSERT_EQ(0, rc(bind(fd, (struct sockaddr *)&routes, sizeof(routes))));
	ASSERT_LT(0, rc(send(fd, &request, sizeof(request), 0)));
	do {
		ASSERT_LT(0, rc(recv(fd, &reply, sizeof(reply), 0)));
		ASSERT_NE(NLMSG_ERROR, reply.head.nlmsg_type);
	} while (!is_local_route(&reply.head, &request.addr));
	close(fd);
}

static inline bool have_family_of(const char *host)
{
	int fd = socket(is_ip6(host) ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

static inline void lo_up(struct __test_metadata *_metadata)
{
	struct ifreq ifr = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	ASSERT_EQ(0, rc(ioctl(fd, SIOCSIFFLAGS, &ifr)));
	close(fd);
	if (have_family_of("::1"))
		add_second_ip6(_metadata);
}

static inline void enter_netns(struct __test_metadata *_metadata)
{
	ASSERT_EQ(0, rc(unshare(CLONE_NEWNET))) {
		TH_LOG("a network namespace needs root and CONFIG_NET_NS");
	}
	lo_up(_metadata);
}

/* A socket whose every wait is bounded. */
static inline int new_socket(struct __test_metadata *_metadata,
			     const char *host, int type)
{
	struct timeval patience = { .tv_sec = IO_TIMEOUT_SEC };
	int fd = socket(is_ip6(host) ? AF_INET6 : AF_INET, type, 0);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, rc(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience,
				   sizeof(patience))));
	ASSERT_EQ(0, rc(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience,
				   sizeof(patience))));
	return fd;
}

static inline void require_mark(struct __test_metadata *_metadata, int fd)
{
	ASSERT_EQ(0, set_mark(fd, 1)) {
		TH_LOG("cannot mark the socket: is port0 loaded?");
	}
}

/* A socket for which @port means what it says, 0 included. */
static inline int socket_for(struct __test_metadata *_metadata,
			     const char *host, int type, int port)
{
	int fd = new_socket(_metadata, host, type);

	if (!port)
		require_mark(_metadata, fd);
	return fd;
}

/* The socket has @port, and when that is 0 it is not just unbound. */
static inline void expect_port(struct __test_metadata *_metadata, int fd,
			       int port)
{
	EXPECT_EQ(port, local_port(fd));
	/* Asked on port 0 only, so that the control runs on a stock kernel. */
	EXPECT_TRUE(port || holds_zero(fd) == 1);
}

static inline int bound_socket(struct __test_metadata *_metadata,
			       const char *host, int type, int port)
{
	int fd = socket_for(_metadata, host, type, port);

	ASSERT_EQ(0, bind_to(fd, host, port));
	expect_port(_metadata, fd, port);
	return fd;
}

static inline void expect_send(struct __test_metadata *_metadata, int fd,
			       const char *text)
{
	EXPECT_EQ((int)strlen(text), rc(send(fd, text, strlen(text), 0)));
}

static inline void expect_recv(struct __test_metadata *_metadata, int fd,
			       const char *text)
{
	char buf[256] = "";

	EXPECT_EQ((int)strlen(text), rc(recv(fd, buf, sizeof(buf) - 1, 0)));
	EXPECT_STREQ(text, buf);
}

/* Each CPU has a queue of its own for packets over loopback. */
static inline void stay_on_one_cpu(struct __test_metadata *_metadata)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	ASSERT_EQ(0, rc(sched_setaffinity(0, sizeof(one), &one)));
}

/*
 * Packets over loopback arrive before the call that sends them returns, except
 * while the kernel has put such work off to a thread of its own. This waits
 * until they do again, so that those sent before have arrived, and what they
 * were answered: for tests that stay on one CPU.
 */
static inline void settle(struct __test_metadata *_metadata)
{
	struct addr self = { .len = sizeof(self.v6) };
	int fd = new_socket(_metadata, "127.0.0.1", SOCK_DGRAM);
	char byte;

	ASSERT_EQ(0, bind_to(fd, "127.0.0.99", 0));
	ASSERT_EQ(0, rc(getsockname(fd, &self.sa, &self.len)));
	ASSERT_EQ(0, rc(connect(fd, &self.sa, self.len)));
	for (;;) {
		ASSERT_EQ(1, rc(send(fd, "", 1, 0)));
		if (recv(fd, &byte, 1, MSG_DONTWAIT) == 1)
			break;
		ASSERT_EQ(1, rc(recv(fd, &byte, 1, 0)));
	}
	close(fd);
}

/* One variant of a fixture for the control, one for port 0. */
#define ON_BOTH_PORTS(fixture, name, ...)				\
	FIXTURE_VARIANT_ADD(fixture, name##_control) {			\
		__VA_ARGS__, .port = CONTROL_PORT			\
	};								\
	FIXTURE_VARIANT_ADD(fixture, name##_zero) {			\
		__VA_ARGS__, .port = 0					\
	}

/*
 * A server, and a client that reaches it at @dest from @source:
 * the fixture of every test that moves data.
 */
#define LINK_FIXTURE(fixture)						\
	FIXTURE(fixture) {};						\
	FIXTURE_VARIANT(fixture) {					\
		const char *server;					\
		const char *dest;					\
		const char *source;					\
		int port;						\
	};								\
	FIXTURE_SETUP(fixture)						\
	{								\
		if (!have_family_of(variant->server) ||			\
		    !have_family_of(variant->dest))			\
			SKIP(return, "no IPv6");			\
		enter_netns(_metadata);					\
		stay_on_one_cpu(_metadata);				\
	}								\
	FIXTURE_TEARDOWN(fixture) {}

#define LINK_VARIANT(fixture, name, _server, _dest, _source)		\
	ON_BOTH_PORTS(fixture, name, .server = _server, .dest = _dest,	\
		      .source = _source)

/* Links whose two ends may both sit on the same port. */
#define SPECIFIC_LINKS(fixture)						\
	LINK_VARIANT(fixture, ip4, "127.0.0.1", "127.0.0.1",		\
		     "127.0.0.2");					\
	LINK_VARIANT(fixture, ip6, "::1", "::1", "fd00::2");		\
	LINK_VARIANT(fixture, mapped_server, "::ffff:127.0.0.1",	\
		     "127.0.0.1", "127.0.0.2");				\
	LINK_VARIANT(fixture, mapped_client, "127.0.0.1",		\
		     "::ffff:127.0.0.1", "::ffff:127.0.0.2")

#define WILDCARD_LINKS(fixture)						\
	LINK_VARIANT(fixture, any4, "0.0.0.0", "127.0.0.1",		\
		     "127.0.0.2");					\
	LINK_VARIANT(fixture, dual_ip4, "::", "127.0.0.1",		\
		     "127.0.0.2");					\
	LINK_VARIANT(fixture, dual_ip6, "::", "::1", "fd00::2")

#endif /* PORT0_TEST_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Addresses, sockets, network namespaces and counters, for every C test of port0.
 *
 * Nothing here knows of a test framework: a function that can fail returns a
 * negative errno, and the caller decides what that means.
 */
#ifndef PORT0_NET_H
#define PORT0_NET_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/types.h>

#include "options.h"

/*
 * The ordinary port that port 0 is compared with. Binding it needs the same
 * privilege as binding port 0.
 */
#define CONTROL_PORT	7
#define OTHER_PORT	8080

/* Every IPv4 address in 127/8 is on lo; IPv6 gets this second one. */
#define SECOND_IP6	"fd00::2"

/* Long enough for an emulated machine, shorter than a test may take. */
#define IO_TIMEOUT_SEC	10

/* ---- results ---- */

/* A system call's result, or the negative errno: comparable in one line. */
static inline int rc(long ret)
{
	return ret < 0 ? -errno : (int)ret;
}

static inline int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	int err = rc(write(fd, text, strlen(text)));

	close(fd);
	return err < 0 ? err : 0;
}

/* ---- addresses ---- */

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

static inline int family_of(const char *host)
{
	return is_ip6(host) ? AF_INET6 : AF_INET;
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

static inline bool is_mapped(const struct addr *addr)
{
	return addr->sa.sa_family == AF_INET6 &&
	       IN6_IS_ADDR_V4MAPPED(&addr->v6.sin6_addr);
}

static inline bool is_ephemeral(int port)
{
	/* The range a fresh network namespace starts with. */
	return port >= 32768 && port <= 60999;
}

static inline bool have_family_of(const char *host)
{
	int fd = socket(family_of(host), SOCK_DGRAM, 0);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

/* ---- socket options ---- */

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

static inline int set_device(int fd, const char *device)
{
	return rc(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, strlen(device)));
}

/* Bounds every wait on the socket. */
static inline int set_timeouts(int fd)
{
	struct timeval timeout = { .tv_sec = IO_TIMEOUT_SEC };
	int err = rc(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)));

	return err ?: rc(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)));
}

/* close() sends a reset then, and leaves no TIME_WAIT to block the next bind(). */
static inline void reset_on_close(int fd)
{
	struct linger linger = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* ---- calls that take an address ---- */

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

static inline int send_to(int fd, const char *host, int port, const char *text, int flags)
{
	struct addr addr = addr_of(host, port);

	return rc(sendto(fd, text, strlen(text), flags, &addr.sa, addr.len));
}

static inline int disconnect(int fd)
{
	struct sockaddr unspec = { .sa_family = AF_UNSPEC };

	return rc(connect(fd, &unspec, sizeof(unspec)));
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

/* The first thing a socket of this type does after bind(). */
static inline int listen_or_connect(int fd, int type, const char *host)
{
	if (type == SOCK_STREAM)
		return rc(listen(fd, 1));
	return connect_to(fd, host, OTHER_PORT);
}

/* ---- rtnetlink ---- */

struct nl_request {
	union {
		struct nlmsghdr nl;
		char room[256];
	};
};

static inline struct nl_request nl_start(__u16 type, const void *family_header, size_t len)
{
	struct nl_request request = {
		.nl.nlmsg_len = NLMSG_LENGTH(len),
		.nl.nlmsg_type = type,
		.nl.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
	};

	memcpy(NLMSG_DATA(&request.nl), family_header, len);
	return request;
}

static inline struct rtattr *nl_attr(struct nl_request *to, __u16 type,
				     const void *data, size_t len)
{
	struct rtattr *attr = (void *)(to->room + NLMSG_ALIGN(to->nl.nlmsg_len));

	attr->rta_type = type;
	attr->rta_len = RTA_LENGTH(len);
	memcpy(RTA_DATA(attr), data, len);
	to->nl.nlmsg_len = NLMSG_ALIGN(to->nl.nlmsg_len) + RTA_SPACE(len);
	return attr;
}

/* A socket that hears of what happens in @groups. */
static inline int nl_open(__u32 groups)
{
	struct sockaddr_nl addr = { .nl_family = AF_NETLINK, .nl_groups = groups };
	int fd = rc(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)), err;

	if (fd < 0)
		return fd;
	err = set_timeouts(fd) ?: rc(bind(fd, (struct sockaddr *)&addr, sizeof(addr)));
	if (!err)
		return fd;
	close(fd);
	return err;
}

static inline int nl_call(const struct nl_request *request)
{
	struct {
		struct nlmsghdr nl;
		struct nlmsgerr error;
		char more[256];
	} reply;
	int fd = nl_open(0), err;

	if (fd < 0)
		return fd;
	err = rc(send(fd, request, request->nl.nlmsg_len, 0));
	if (err >= 0)
		err = rc(recv(fd, &reply, sizeof(reply), 0));
	close(fd);
	return err < 0 ? err : reply.error.error;
}

/* Does the message say that the kernel now takes packets for @addr? */
static inline bool nl_is_local_route(const struct nlmsghdr *head, const struct in6_addr *addr)
{
	const struct rtmsg *route = NLMSG_DATA(head);

	return head->nlmsg_type == RTM_NEWROUTE && route->rtm_type == RTN_LOCAL &&
	       memmem(head, head->nlmsg_len, addr, sizeof(*addr));
}

/*
 * The kernel adds an IPv6 address in the background and its local route last, so
 * the route is waited for.
 */
static inline int add_ip6_to_lo(const char *host)
{
	struct ifaddrmsg header = {
		.ifa_family = AF_INET6,
		.ifa_prefixlen = 128,
		.ifa_flags = IFA_F_NODAD,
		.ifa_index = if_nametoindex("lo"),
	};
	struct nl_request request = nl_start(RTM_NEWADDR, &header, sizeof(header));
	struct addr addr = addr_of(host, 0);
	union {
		struct nlmsghdr head;
		char room[4096];
	} news;
	int routes = nl_open(RTMGRP_IPV6_ROUTE), err;

	if (routes < 0)
		return routes;
	nl_attr(&request, IFA_LOCAL, &addr.v6.sin6_addr, sizeof(addr.v6.sin6_addr));
	err = nl_call(&request);
	while (!err) {
		err = rc(recv(routes, &news, sizeof(news), 0));
		if (err > 0 && nl_is_local_route(&news.head, &addr.v6.sin6_addr)) {
			err = 0;
			break;
		}
		err = err < 0 ? err : 0;
	}
	close(routes);
	return err;
}

/* One end of a veth pair: a device that nobody sends to. */
static inline int add_veth(const char *name)
{
	struct ifinfomsg header = {};
	struct nl_request request = nl_start(RTM_NEWLINK, &header, sizeof(header));
	struct rtattr *info;

	nl_attr(&request, IFLA_IFNAME, name, strlen(name) + 1);
	info = nl_attr(&request, IFLA_LINKINFO, "", 0);
	nl_attr(&request, IFLA_INFO_KIND, "veth", 4);
	info->rta_len = request.room + request.nl.nlmsg_len - (char *)info;
	return nl_call(&request);
}

/* ---- network namespaces ---- */

static inline int set_lo_up(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	int err = rc(ioctl(fd, SIOCSIFFLAGS, &lo));

	close(fd);
	if (err || !have_family_of("::1"))
		return err;
	return add_ip6_to_lo(SECOND_IP6);
}

/* Moves the caller into a new namespace, with loopback up. */
static inline int new_netns(void)
{
	return rc(unshare(CLONE_NEWNET)) ?: set_lo_up();
}

/* ---- packets over loopback ---- */

/* Each CPU has a queue of its own for packets over loopback, and they overtake. */
static inline int pin_to_this_cpu(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	return rc(sched_setaffinity(0, sizeof(one), &one));
}

/*
 * Packets over loopback arrive before the call that sends them returns, unless
 * the kernel has deferred that work to ksoftirqd. A fence is a socket that sends
 * to itself. On a single CPU, what was sent before it has arrived when it has,
 * and so has what that was answered.
 */
static inline int fence_open(void)
{
	struct addr self = { .len = sizeof(self.v6) };
	int fd = rc(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)), err;

	if (fd < 0)
		return fd;
	err = set_timeouts(fd) ?: bind_to(fd, "127.0.0.99", 0) ?:
	      rc(getsockname(fd, &self.sa, &self.len)) ?: rc(connect(fd, &self.sa, self.len));
	if (!err)
		return fd;
	close(fd);
	return err;
}

/* Sends until a packet is there at once: no work is deferred any more. */
static inline int fence_pass(int fd)
{
	char byte;

	for (;;) {
		if (send(fd, "", 1, 0) != 1)
			return -errno;
		if (recv(fd, &byte, 1, MSG_DONTWAIT) == 1)
			return 0;
		if (recv(fd, &byte, 1, 0) != 1)
			return -errno;
	}
}

/* ---- counters of the namespace ---- */

/* Sockets in TIME_WAIT. */
static inline int time_waits(void)
{
	FILE *file = fopen("/proc/thread-self/net/sockstat", "re");
	char line[256];
	int count = -ENOENT;

	if (!file)
		return -errno;
	while (count < 0 && fgets(line, sizeof(line), file))
		if (sscanf(line, "TCP: inuse %*d orphan %*d tw %d", &count) != 1)
			count = -ENOENT;
	fclose(file);
	return count;
}

/* A counter of /proc/net/netstat: a line of names, then a line of values. */
static inline long netstat_counter(const char *name)
{
	char names[8192], values[8192], *n, *v, *next_n, *next_v;
	FILE *file = fopen("/proc/thread-self/net/netstat", "re");
	long value = -ENOENT;

	if (!file)
		return -errno;
	while (value < 0 && fgets(names, sizeof(names), file) &&
	       fgets(values, sizeof(values), file)) {
		n = strtok_r(names, "\n ", &next_n);
		v = strtok_r(values, "\n ", &next_v);
		while (n && v && strcmp(n, name)) {
			n = strtok_r(NULL, "\n ", &next_n);
			v = strtok_r(NULL, "\n ", &next_v);
		}
		if (n && v)
			value = atol(v);
	}
	fclose(file);
	return value;
}

#endif /* PORT0_NET_H */

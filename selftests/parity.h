/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parity tests share: a side is one network namespace in which an
 * experiment is made on one port. The same experiment is made by unmarked
 * sockets on an ordinary port and by marked sockets on port 0, and whatever
 * differs between the two sides is a fault of port 0.
 */
#ifndef PARITY_H
#define PARITY_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/rtnetlink.h>
#include <linux/types.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kselftest.h"
#include "port0.h"

/* Privileged as port 0 is, and below every ephemeral range. */
#define PARITY_PORT		81
#define PARITY_CONTROL_PORT	82

#define PARITY_V6		"fd00::2"

/*
 * Each CPU has a queue of its own for packets over loopback. What overtakes
 * another one there is answered differently, and may even end a TIME_WAIT.
 */
static inline void stay_on_one_cpu(void)
{
	cpu_set_t one;

	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		ksft_exit_fail_msg("sched_setaffinity: %s\n", strerror(errno));
}

struct side {
	const char *name;
	__u16 port;
	bool marked;
	int netns;
};

union address {
	struct sockaddr sa;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static inline void address_set(union address *to, const char *ip, __u16 port)
{
	memset(to, 0, sizeof(*to));
	if (inet_pton(AF_INET, ip, &to->v4.sin_addr) == 1) {
		to->v4.sin_family = AF_INET;
		to->v4.sin_port = htons(port);
	} else if (inet_pton(AF_INET6, ip, &to->v6.sin6_addr) == 1) {
		to->v6.sin6_family = AF_INET6;
		to->v6.sin6_port = htons(port);
	} else {
		ksft_exit_fail_msg("'%s' is not an address\n", ip);
	}
}

static inline socklen_t address_len(const union address *of)
{
	return of->sa.sa_family == AF_INET ? sizeof(of->v4) : sizeof(of->v6);
}

/* sin_port and sin6_port lie at the same place */
static inline __u16 address_port(const union address *of)
{
	return ntohs(of->v4.sin_port);
}

static inline bool has_option(int fd, int level, int name, int value)
{
	return !setsockopt(fd, level, name, &value, sizeof(value));
}

static inline void set_option(int fd, int level, int name, int value)
{
	if (!has_option(fd, level, name, value))
		ksft_exit_fail_msg("setsockopt(%d, %d): %s\n", level, name,
				   strerror(errno));
}

static inline void set_sysctl(const char *name, const char *value)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/proc/sys/net/%s", name);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		ksft_exit_fail_msg("%s: %s\n", path, strerror(errno));
	close(fd);
}

struct nl_request {
	union {
		struct nlmsghdr nl;
		char room[256];
	};
};

static inline struct nl_request nl_start(const void *family_header, size_t len)
{
	struct nl_request request = { .nl.nlmsg_len = NLMSG_LENGTH(len) };

	memcpy(NLMSG_DATA(&request.nl), family_header, len);
	return request;
}

static inline struct rtattr *nl_attr(struct nl_request *to, __u16 type,
				     const void *data, size_t len)
{
	struct rtattr *attr = (void *)to->room + NLMSG_ALIGN(to->nl.nlmsg_len);

	attr->rta_type = type;
	attr->rta_len = RTA_LENGTH(len);
	memcpy(RTA_DATA(attr), data, len);
	to->nl.nlmsg_len = NLMSG_ALIGN(to->nl.nlmsg_len) + RTA_SPACE(len);
	return attr;
}

static inline void nl_send(struct nl_request *request, __u16 type, const char *what)
{
	struct {
		struct nlmsghdr nl;
		struct nlmsgerr error;
		char more[256];
	} reply;
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);

	request->nl.nlmsg_type = type;
	request->nl.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
	if (fd < 0 || send(fd, request, request->nl.nlmsg_len, 0) < 0 ||
	    recv(fd, &reply, sizeof(reply), 0) < 0)
		ksft_exit_fail_msg("rtnetlink: %s\n", strerror(errno));
	if (reply.error.error)
		ksft_exit_fail_msg("%s: %s\n", what, strerror(-reply.error.error));
	close(fd);
}

/* A device that exists, and that nobody sends to: one end of a veth pair. */
static inline void link_add(const char *name)
{
	struct ifinfomsg link = {};
	struct nl_request request = nl_start(&link, sizeof(link));
	struct rtattr *info;

	nl_attr(&request, IFLA_IFNAME, name, strlen(name) + 1);
	info = nl_attr(&request, IFLA_LINKINFO, "", 0);
	nl_attr(&request, IFLA_INFO_KIND, "veth", 4);
	info->rta_len = request.room + request.nl.nlmsg_len - (char *)info;
	nl_send(&request, RTM_NEWLINK, "a veth device (CONFIG_VETH)");
}

/* The kernel gives an IPv6 address its route some time after the address. */
static inline void wait_for_route(const char *ip)
{
	union address self;
	socklen_t len = sizeof(self);
	int fd, tries;
	char byte;

	address_set(&self, ip, 0);
	fd = socket(self.sa.sa_family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, &self.sa, len) || getsockname(fd, &self.sa, &len))
		ksft_exit_fail_msg("%s: %s\n", ip, strerror(errno));
	for (tries = 0; recv(fd, &byte, 1, 0) < 0; tries++) {
		if (tries == 5000)
			ksft_exit_fail_msg("%s: no route in five seconds\n", ip);
		if (tries)
			usleep(1000);
		sendto(fd, "", 1, 0, &self.sa, len);
	}
	close(fd);
}

/* IPv4 has all of 127/8, IPv6 needs a second address. */
static inline void loopback_up(void)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	struct ifaddrmsg addr = { .ifa_family = AF_INET6, .ifa_prefixlen = 128 };
	__u32 flags = IFA_F_NODAD;
	struct nl_request request;
	struct in6_addr ip;
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &lo))
		ksft_exit_fail_msg("loopback: %s\n", strerror(errno));
	close(fd);
	addr.ifa_index = if_nametoindex("lo");
	inet_pton(AF_INET6, PARITY_V6, &ip);
	request = nl_start(&addr, sizeof(addr));
	nl_attr(&request, IFA_LOCAL, &ip, sizeof(ip));
	nl_attr(&request, IFA_FLAGS, &flags, sizeof(flags));
	nl_send(&request, RTM_NEWADDR, PARITY_V6 " on lo");
	wait_for_route(PARITY_V6);
}

/* A fresh namespace, and the caller in it. */
static inline void side_open(struct side *side)
{
	if (unshare(CLONE_NEWNET))
		ksft_exit_fail_msg("unshare: %s (run as root)\n", strerror(errno));
	side->netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	if (side->netns < 0)
		ksft_exit_fail_msg("/proc/thread-self/ns/net: %s\n", strerror(errno));
	loopback_up();
}

static inline void side_enter(const struct side *side)
{
	if (setns(side->netns, CLONE_NEWNET))
		ksft_exit_fail_msg("setns: %s\n", strerror(errno));
}

static inline void side_mark(const struct side *side, int fd)
{
	if (side->marked && !has_option(fd, SOL_IP, IP_BIND_PORT_ZERO, 1))
		ksft_exit_fail_msg("IP_BIND_PORT_ZERO: %s (is the port0 module loaded?)\n",
				   strerror(errno));
}

/* Is this socket really on the port under test? */
static inline bool side_holds(const struct side *side, int fd)
{
	socklen_t len = sizeof(union address), vlen = sizeof(int);
	union address name;
	int bound = 0;

	if (getsockname(fd, &name.sa, &len) ||
	    address_port(&name) != side->port)
		return false;
	if (!side->marked)
		return true;
	return !getsockopt(fd, SOL_IP, IP_BOUND_PORT_ZERO, &bound, &vlen) && bound == 1;
}

/* A socket whose sk_uid is uid: the kernel takes it from the inode. */
static inline int socket_of(uid_t uid, int family, int type)
{
	int fd;

	if (!uid)
		return socket(family, type, 0);
	setfsuid(uid);
	fd = socket(family, type, 0);
	setfsuid(0);
	return fd;
}

static inline const char *errno_name(int error)
{
	static char number[8];
	const char *name = error ? strerrorname_np(error) : "0";

	if (name)
		return name;
	snprintf(number, sizeof(number), "%d", error);
	return number;
}

/*
 * The two sides of a test. --control compares two ordinary ports: there must
 * be no difference, so it shows that the test itself is deterministic, and it
 * needs no module.
 */
static inline void sides_choose(struct side *left, struct side *right, bool control)
{
	*left = (struct side){ .name = "ordinary", .port = PARITY_PORT };
	*right = (struct side){ .name = "port 0", .marked = true };
	if (control)
		*right = (struct side){ .name = "control", .port = PARITY_CONTROL_PORT };
}

#endif

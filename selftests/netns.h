/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Network namespaces with what tests need in them, the packets over their loopback
 * and their counters.
 */
#ifndef PORT0_NETNS_H
#define PORT0_NETNS_H

#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>

#include <linux/if_addr.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include "net.h"

/* Every IPv4 address in 127/8 is on lo; IPv6 gets this second one. */
#define SECOND_IP6	"fd00::2"

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

static inline int nl_call(const struct nl_request *request)
{
	struct {
		struct nlmsghdr nl;
		struct nlmsgerr error;
		char more[256];
	} reply;
	int fd = rc(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)), err;

	if (fd < 0)
		return fd;
	err = set_timeouts(fd) ?: rc(send(fd, request, request->nl.nlmsg_len, 0));
	if (err >= 0)
		err = rc(recv(fd, &reply, sizeof(reply), 0));
	close(fd);
	return err < 0 ? err : reply.error.error;
}

/*
 * The kernel adds the routes of an IPv6 address in the background, and tells listeners of
 * a route a moment before a lookup finds it. So packets to @addr are sent until one
 * arrives.
 */
static inline int wait_until_reached(struct addr addr)
{
	int fd = rc(socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0)), tries, err;
	char byte;

	if (fd < 0)
		return fd;
	err = bind_to(fd, "::", 0);
	addr.v6.sin6_port = htons(local_port(fd));
	for (tries = 0; !err; tries++) {
		sendto(fd, "", 1, 0, &addr.sa, addr.len);
		if (recv(fd, &byte, 1, MSG_DONTWAIT) == 1)
			break;
		usleep(1000);
		if (tries == IO_TIMEOUT_SEC * 1000)
			err = -ETIMEDOUT;
	}
	close(fd);
	return err;
}

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

	nl_attr(&request, IFA_LOCAL, &addr.v6.sin6_addr, sizeof(addr.v6.sin6_addr));
	addr.v6.sin6_scope_id = header.ifa_index;
	return nl_call(&request) ?: wait_until_reached(addr);
}

/* One end of a veth pair: a device on which nothing is received. */
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

static inline int set_lo(int request, struct ifreq *lo)
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	int err;

	strcpy(lo->ifr_name, "lo");
	err = rc(ioctl(fd, request, lo));
	close(fd);
	return err;
}

/* Loopback up, with another IPv4 address than 127.0.0.1 */
static inline int set_lo_up_elsewhere(void)
{
	struct ifreq flags = { .ifr_flags = IFF_UP }, addr = {};
	struct sockaddr_in *elsewhere = (void *)&addr.ifr_addr;

	elsewhere->sin_family = AF_INET;
	elsewhere->sin_addr.s_addr = htonl(0xc0000201);	/* 192.0.2.1 */
	return set_lo(SIOCSIFFLAGS, &flags) ?: set_lo(SIOCSIFADDR, &addr);
}

static inline int set_lo_up(void)
{
	struct ifreq flags = { .ifr_flags = IFF_UP };
	int err = set_lo(SIOCSIFFLAGS, &flags);

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

/*
 * Each CPU has its own queue for packets over loopback, so packets of two CPUs can be
 * reordered.
 */
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
 * to itself. On a single CPU, once its packet has arrived, all packets that were sent
 * before have arrived, too, and so have the answers to them.
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

/* Sends packets until one arrives at once: then no work is deferred any more. */
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

#endif /* PORT0_NETNS_H */

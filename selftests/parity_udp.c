// SPDX-License-Identifier: GPL-2.0
/*
 * Less common parts of UDP, on an ordinary port and on port 0.
 */
#include <netinet/udp.h>
#include <stdlib.h>

#include <linux/errqueue.h>

#include "port0_test.h"

FEATURE_FIXTURE(udp);

#define GROUP4		"224.0.0.251"
#define GROUP6		"ff05::1:3"

static int udp_on(struct __test_metadata *_metadata, const char *host, int port)
{
	return bound_socket(_metadata, host, SOCK_DGRAM, port);
}

static int udp_client(struct __test_metadata *_metadata, const char *host, int port)
{
	return socket_for(_metadata, host, SOCK_DGRAM, port);
}

/* A message to @to, with one piece of control data if there is a type. */
static int send_with(int fd, struct addr to, const char *text, int level, int type,
		     const void *data, size_t len)
{
	char control[CMSG_SPACE(sizeof(struct in6_pktinfo))] = "";
	struct iovec iov = { .iov_base = (char *)text, .iov_len = strlen(text) };
	struct msghdr msg = {
		.msg_name = &to.sa, .msg_namelen = to.len,
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = CMSG_SPACE(len),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = level;
	cmsg->cmsg_type = type;
	cmsg->cmsg_len = CMSG_LEN(len);
	memcpy(CMSG_DATA(cmsg), data, len);
	return rc(sendmsg(fd, &msg, 0));
}

/* The result of one recvmsg() */
struct received {
	char text[64];
	struct addr from;
	char control[256];
	struct msghdr msg;
};

static int receive(int fd, struct received *got, int flags)
{
	static struct iovec iov;
	int len;

	memset(got, 0, sizeof(*got));
	iov.iov_base = got->text;
	iov.iov_len = sizeof(got->text) - 1;
	got->msg = (struct msghdr){
		.msg_name = &got->from.sa, .msg_namelen = sizeof(got->from.v6),
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = got->control, .msg_controllen = sizeof(got->control),
	};
	len = rc(recvmsg(fd, &got->msg, flags));
	got->from.len = got->msg.msg_namelen;
	return len;
}

static const void *control_of(struct received *got, int level, int type)
{
	struct cmsghdr *cmsg;

	for (cmsg = CMSG_FIRSTHDR(&got->msg); cmsg; cmsg = CMSG_NXTHDR(&got->msg, cmsg))
		if (cmsg->cmsg_level == level && cmsg->cmsg_type == type)
			return CMSG_DATA(cmsg);
	return NULL;
}

static void expect_parts(struct __test_metadata *_metadata, int fd)
{
	expect_recv(_metadata, fd, "seg");
	expect_recv(_metadata, fd, "men");
	expect_recv(_metadata, fd, "t");
}

/* One send, several datagrams: by option, by control data, connected or not. */
TEST_F(udp, segments)
{
	struct addr to = addr_of(variant->home, variant->port);
	int server = udp_on(_metadata, variant->home, variant->port);
	int client = udp_client(_metadata, variant->home, variant->port);
	const __u16 size = 3;

	EXPECT_EQ(7, send_with(client, to, "segment", SOL_UDP, UDP_SEGMENT, &size, sizeof(size)));
	expect_parts(_metadata, server);
	ASSERT_EQ(0, set_int(client, SOL_UDP, UDP_SEGMENT, size));
	EXPECT_EQ(7, rc(sendto(client, "segment", 7, 0, &to.sa, to.len)));
	expect_parts(_metadata, server);
	ASSERT_EQ(0, rc(connect(client, &to.sa, to.len)));
	expect_send(_metadata, client, "segment");
	expect_parts(_metadata, server);
}

/* Tell whether loopback delivers a segmented datagram whole, on an ordinary port. */
static bool kernel_leaves_whole(struct __test_metadata *_metadata, const char *home)
{
	struct addr to = addr_of(home, OTHER_PORT);
	int server = udp_on(_metadata, home, OTHER_PORT);
	int client = udp_client(_metadata, home, OTHER_PORT);
	struct received got;
	int size;

	ASSERT_EQ(0, set_int(server, SOL_UDP, UDP_GRO, 1));
	ASSERT_EQ(0, set_int(client, SOL_UDP, UDP_SEGMENT, 3));
	EXPECT_EQ(7, rc(sendto(client, "segment", 7, 0, &to.sa, to.len)));
	size = receive(server, &got, 0);
	close(server);
	close(client);
	return size == 7;
}

TEST_F(udp, segments_taken_whole)
{
	struct addr to = addr_of(variant->home, variant->port);
	int server = udp_on(_metadata, variant->home, variant->port);
	int client = udp_client(_metadata, variant->home, variant->port);
	struct received got;
	const int *size;

	if (!kernel_leaves_whole(_metadata, variant->home))
		SKIP(return, "this kernel segments datagrams on loopback");
	ASSERT_EQ(0, set_int(server, SOL_UDP, UDP_GRO, 1));
	ASSERT_EQ(0, set_int(client, SOL_UDP, UDP_SEGMENT, 3));
	EXPECT_EQ(7, rc(sendto(client, "segment", 7, 0, &to.sa, to.len)));
	EXPECT_EQ(7, receive(server, &got, 0));
	EXPECT_STREQ("segment", got.text);
	size = control_of(&got, SOL_UDP, UDP_GRO);
	ASSERT_NE(NULL, size);
	EXPECT_EQ(3, *size);
}

/* UDP_CORK, the socket option for MSG_MORE */
TEST_F(udp, cork)
{
	struct addr to = addr_of(variant->home, variant->port);
	int server = udp_on(_metadata, variant->home, variant->port);
	int client = udp_client(_metadata, variant->home, variant->port);
	int round;

	for (round = 0; round < 2; round++) {
		ASSERT_EQ(0, set_int(client, SOL_UDP, UDP_CORK, 1));
		EXPECT_EQ(3, rc(sendto(client, "one", 3, 0, &to.sa, to.len)));
		EXPECT_EQ(3, rc(sendto(client, "two", 3, 0, &to.sa, to.len)));
		EXPECT_EQ(5, rc(sendto(client, "three", 5, 0, NULL, 0)));
		EXPECT_EQ(-EAGAIN, rc(recv(server, "", 0, MSG_DONTWAIT)));
		ASSERT_EQ(0, set_int(client, SOL_UDP, UDP_CORK, 0));
		expect_recv(_metadata, server, "onetwothree");
	}
}

/*
 * A corked datagram goes to the port of its first part. Port 1 is what the module passes to
 * the kernel instead of 0.
 */
TEST_F(udp, cork_and_another_port)
{
	static const int ports[] = { OTHER_PORT, 1 };
	struct addr to = addr_of(variant->home, variant->port);
	int server = udp_on(_metadata, variant->home, variant->port);
	int client = udp_client(_metadata, variant->home, variant->port);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ports); i++) {
		struct addr other = addr_of(variant->home, ports[i]);
		int elsewhere = udp_on(_metadata, variant->home, ports[i]);

		EXPECT_EQ(3, rc(sendto(client, "one", 3, MSG_MORE, &to.sa, to.len)));
		EXPECT_EQ(3, rc(sendto(client, "two", 3, 0, &other.sa, other.len)));
		expect_recv(_metadata, server, "onetwo");
		EXPECT_EQ(5, rc(sendto(client, "three", 5, MSG_MORE, &other.sa, other.len)));
		EXPECT_EQ(4, rc(sendto(client, "four", 4, 0, &to.sa, to.len)));
		expect_recv(_metadata, elsewhere, "threefour");
		EXPECT_EQ(-EAGAIN, rc(recv(server, "", 0, MSG_DONTWAIT)));
	}
}

TEST_F(udp, source_by_control_data)
{
	const bool ip6 = is_ip6(variant->home);
	struct addr to = addr_of(variant->home, variant->port);
	struct addr source = addr_of(variant->second, 0);
	int server = udp_on(_metadata, variant->home, variant->port);
	int client = udp_client(_metadata, variant->home, variant->port);
	struct in6_pktinfo info6 = { .ipi6_addr = source.v6.sin6_addr };
	struct in_pktinfo info = { .ipi_spec_dst = source.v4.sin_addr };
	struct received got;

	EXPECT_EQ(4, ip6 ? send_with(client, to, "from", SOL_IPV6, IPV6_PKTINFO, &info6,
				     sizeof(info6)) :
			   send_with(client, to, "from", SOL_IP, IP_PKTINFO, &info,
				     sizeof(info)));
	EXPECT_EQ(4, receive(server, &got, 0));
	EXPECT_EQ(local_port(client), port_of(&got.from));
	EXPECT_EQ(0, ip6 ? memcmp(&source.v6.sin6_addr, &got.from.v6.sin6_addr, 16) :
			   memcmp(&source.v4.sin_addr, &got.from.v4.sin_addr, 4));
}

TEST_F(udp, ttl_and_tos_by_control_data)
{
	const bool ip6 = is_ip6(variant->home);
	const int level = ip6 ? SOL_IPV6 : SOL_IP;
	struct addr to = addr_of(variant->home, variant->port);
	int server = udp_on(_metadata, variant->home, variant->port);
	int client = udp_client(_metadata, variant->home, variant->port);
	const int ttl = 7, tos = 8;
	struct received got;
	const void *data;

	ASSERT_EQ(0, set_int(server, level, ip6 ? IPV6_RECVHOPLIMIT : IP_RECVTTL, 1));
	ASSERT_EQ(0, set_int(server, level, ip6 ? IPV6_RECVTCLASS : IP_RECVTOS, 1));

	EXPECT_EQ(3, send_with(client, to, "ttl", level, ip6 ? IPV6_HOPLIMIT : IP_TTL,
			       &ttl, sizeof(ttl)));
	EXPECT_EQ(3, receive(server, &got, 0));
	data = control_of(&got, level, ip6 ? IPV6_HOPLIMIT : IP_TTL);
	ASSERT_NE(NULL, data);
	EXPECT_EQ(ttl, *(const int *)data);

	EXPECT_EQ(3, send_with(client, to, "tos", level, ip6 ? IPV6_TCLASS : IP_TOS,
			       &tos, sizeof(tos)));
	EXPECT_EQ(3, receive(server, &got, 0));
	data = control_of(&got, level, ip6 ? IPV6_TCLASS : IP_TOS);
	ASSERT_NE(NULL, data);
	EXPECT_EQ(tos, *(const unsigned char *)data);
}

/* The port that a datagram was sent to, and the port in an ICMP error */
TEST_F(udp, original_destination)
{
	const bool ip6 = is_ip6(variant->home);
	struct addr to = addr_of(variant->home, variant->port);
	int server = udp_on(_metadata, variant->home, variant->port);
	int client = udp_client(_metadata, variant->home, variant->port);
	struct addr original;
	struct received got;
	const void *data;

	ASSERT_EQ(0, set_int(server, ip6 ? SOL_IPV6 : SOL_IP,
			     ip6 ? IPV6_RECVORIGDSTADDR : IP_RECVORIGDSTADDR, 1));
	EXPECT_EQ(1, rc(sendto(client, "x", 1, 0, &to.sa, to.len)));
	EXPECT_EQ(1, receive(server, &got, 0));
	data = control_of(&got, ip6 ? SOL_IPV6 : SOL_IP,
			  ip6 ? IPV6_RECVORIGDSTADDR : IP_RECVORIGDSTADDR);
	ASSERT_NE(NULL, data);
	memcpy(&original.sa, data, to.len);
	EXPECT_EQ(variant->port, port_of(&original));
}

TEST_F(udp, error_queue)
{
	const bool ip6 = is_ip6(variant->home);
	struct addr to = addr_of(variant->home, variant->port);
	int client = udp_client(_metadata, variant->home, variant->port);
	const struct sock_extended_err *error;
	struct received got;

	ASSERT_EQ(0, set_int(client, ip6 ? SOL_IPV6 : SOL_IP, ip6 ? IPV6_RECVERR : IP_RECVERR, 1));
	EXPECT_EQ(4, rc(sendto(client, "lost", 4, 0, &to.sa, to.len)));
	EXPECT_EQ(-ECONNREFUSED, rc(recv(client, &got, 1, 0)));
	EXPECT_EQ(4, receive(client, &got, MSG_ERRQUEUE));
	EXPECT_STREQ("lost", got.text);
	EXPECT_EQ(to.len, got.from.len);
	EXPECT_EQ(variant->port, port_of(&got.from));
	error = control_of(&got, ip6 ? SOL_IPV6 : SOL_IP, ip6 ? IPV6_RECVERR : IP_RECVERR);
	ASSERT_NE(NULL, error);
	EXPECT_EQ(ECONNREFUSED, (int)error->ee_errno);
}

/* IPv6 has no multicast over lo, so both families use a veth device. */
static int multicast_device(struct __test_metadata *_metadata)
{
	ASSERT_EQ(0, system("ip link add port0a type veth peer name port0b && "
			    "ip link set port0a up && ip link set port0b up && "
			    "ip addr add 192.0.2.1/24 dev port0a && "
			    "ip addr add 2001:db8::1/64 dev port0a nodad && "
			    "while ip addr show dev port0a tentative | grep -q 2001:db8::1; do "
			    "sleep 0.1; done"));
	return if_nametoindex("port0a");
}

/*
 * Every socket that has joined the group gets a copy, by sendto() and from a connected
 * socket.
 */
TEST_F(udp, multicast)
{
	const bool ip6 = is_ip6(variant->home);
	const char *group = ip6 ? GROUP6 : GROUP4, *any = ip6 ? "::" : "0.0.0.0";
	struct addr to = addr_of(group, variant->port);
	int device = multicast_device(_metadata);
	struct group_req join = { .gr_interface = device };
	struct ip_mreqn out = { .imr_ifindex = device };
	int client = udp_client(_metadata, any, variant->port);
	int member[2];
	size_t i;

	memcpy(&join.gr_group, &to.sa, to.len);
	for (i = 0; i < ARRAY_SIZE(member); i++) {
		member[i] = udp_client(_metadata, any, variant->port);
		ASSERT_EQ(0, set_int(member[i], SOL_SOCKET, SO_REUSEADDR, 1));
		ASSERT_EQ(0, bind_to(member[i], any, variant->port));
		expect_port(_metadata, member[i], variant->port);
		ASSERT_EQ(0, rc(setsockopt(member[i], ip6 ? SOL_IPV6 : SOL_IP, MCAST_JOIN_GROUP,
					   &join, sizeof(join))));
	}
	ASSERT_EQ(0, ip6 ? set_int(client, SOL_IPV6, IPV6_MULTICAST_IF, device) :
			   rc(setsockopt(client, SOL_IP, IP_MULTICAST_IF, &out, sizeof(out))));

	EXPECT_EQ(3, rc(sendto(client, "all", 3, 0, &to.sa, to.len)));
	for (i = 0; i < ARRAY_SIZE(member); i++)
		expect_recv(_metadata, member[i], "all");
	ASSERT_EQ(0, rc(connect(client, &to.sa, to.len)));
	expect_send(_metadata, client, "again");
	for (i = 0; i < ARRAY_SIZE(member); i++)
		expect_recv(_metadata, member[i], "again");
}

/* A dual-stack server answers clients of either family. */
TEST_F(udp, dual_stack_server)
{
	struct addr to = addr_of(variant->home, variant->port), from;
	int server = udp_on(_metadata, "::", variant->port);
	int client = udp_client(_metadata, variant->home, variant->port);
	struct received got;

	EXPECT_EQ(4, rc(sendto(client, "ping", 4, 0, &to.sa, to.len)));
	EXPECT_EQ(4, receive(server, &got, 0));
	from = got.from;
	EXPECT_EQ(4, rc(sendto(server, "pong", 4, 0, &from.sa, from.len)));
	EXPECT_EQ(4, receive(client, &got, 0));
	EXPECT_EQ(variant->port, port_of(&got.from));
}

TEST_F(udp, reuseport_shares_out)
{
	share_out(_metadata, variant->home, SOCK_DGRAM, variant->port);
}

/* For Linux, a client of the wildcard is one of loopback. */
TEST_F(udp, reuseport_shares_out_any)
{
	share_out(_metadata, is_ip6(variant->home) ? "::" : "0.0.0.0", SOCK_DGRAM,
		  variant->port);
}

FIXTURE(broadcast) {};

FIXTURE_VARIANT(broadcast)
{
	int port;
};

FIXTURE_VARIANT_ADD(broadcast, control) { .port = CONTROL_PORT };
FIXTURE_VARIANT_ADD(broadcast, zero) { .port = 0 };

FIXTURE_SETUP(broadcast)
{
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(broadcast) {}

TEST_F(broadcast, everyone)
{
	struct addr to = addr_of("255.255.255.255", variant->port);
	int server = udp_on(_metadata, "0.0.0.0", variant->port);
	int client = udp_client(_metadata, "0.0.0.0", variant->port);

	ASSERT_EQ(0, rc(setsockopt(client, SOL_SOCKET, SO_BINDTODEVICE, "lo", 2)));
	EXPECT_EQ(-EACCES, rc(sendto(client, "all", 3, 0, &to.sa, to.len)));
	ASSERT_EQ(0, set_int(client, SOL_SOCKET, SO_BROADCAST, 1));
	EXPECT_EQ(3, rc(sendto(client, "all", 3, 0, &to.sa, to.len)));
	expect_recv(_metadata, server, "all");
	ASSERT_EQ(0, rc(connect(client, &to.sa, to.len)));
	expect_send(_metadata, client, "again");
	expect_recv(_metadata, server, "again");
}

TEST_HARNESS_MAIN

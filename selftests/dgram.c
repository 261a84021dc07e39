// SPDX-License-Identifier: GPL-2.0
/*
 * UDP from, to and between sockets on port 0. To send to port 0 by address a
 * socket has to be marked; a connected one need not be.
 */
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/uio.h>

#include "port0_test.h"

LINK_FIXTURE(dgram)
SPECIFIC_LINKS(dgram);
WILDCARD_LINKS(dgram);

static int server_on(struct __test_metadata *_metadata, const char *host,
		     int port)
{
	return bound_socket(_metadata, host, SOCK_DGRAM, port);
}

/*
 * A connected client, which needs no mark except towards a mapped peer: there the
 * kernel turns every send() into a sendto().
 */
static int client_of(struct __test_metadata *_metadata, const char *host,
		     int port)
{
	struct addr addr = addr_of(host, port);
	int fd = is_mapped(&addr) ?
		 socket_for(_metadata, host, SOCK_DGRAM, port) :
		 new_socket(_metadata, host, SOCK_DGRAM);

	ASSERT_EQ(0, connect_to(fd, host, port));
	EXPECT_EQ(port, peer_port(fd));
	EXPECT_TRUE(is_ephemeral(local_port(fd)));
	return fd;
}

static void expect_sendto(struct __test_metadata *_metadata, int fd,
			  const char *host, int port, const char *text)
{
	EXPECT_EQ((int)strlen(text), send_to(fd, host, port, text, 0)) {
		TH_LOG("to %s port %d", host, port);
	}
}

/* Expects @text from @port, and returns the sender's address. */
static struct addr expect_recvfrom(struct __test_metadata *_metadata, int fd,
				   int port, const char *text)
{
	struct addr from = { .len = sizeof(from.v6) };
	char buf[256] = "";

	EXPECT_EQ((int)strlen(text),
		  rc(recvfrom(fd, buf, sizeof(buf) - 1, 0, &from.sa,
			      &from.len)));
	EXPECT_STREQ(text, buf);
	EXPECT_EQ(port, port_of(&from));
	return from;
}

static void answer(struct __test_metadata *_metadata, int fd, struct addr to,
		   const char *text)
{
	EXPECT_EQ((int)strlen(text),
		  rc(sendto(fd, text, strlen(text), 0, &to.sa, to.len)));
}

TEST_F(dgram, echo_to_a_connected_client)
{
	int server = server_on(_metadata, variant->server, variant->port);
	int client = client_of(_metadata, variant->dest, variant->port);
	struct addr from;

	expect_send(_metadata, client, "question");
	from = expect_recvfrom(_metadata, server, local_port(client),
			       "question");
	answer(_metadata, server, from, "answer");
	expect_recvfrom(_metadata, client, variant->port, "answer");
	expect_port(_metadata, server, variant->port);
}

TEST_F(dgram, echo_by_address)
{
	int server = server_on(_metadata, variant->server, variant->port);
	int client = socket_for(_metadata, variant->dest, SOCK_DGRAM,
				variant->port);
	struct addr from;

	expect_sendto(_metadata, client, variant->dest, variant->port, "one");
	EXPECT_TRUE(is_ephemeral(local_port(client)));
	from = expect_recvfrom(_metadata, server, local_port(client), "one");
	answer(_metadata, server, from, "answer");
	expect_recvfrom(_metadata, client, variant->port, "answer");

	/* The autobound port stays, whatever is sent later. */
	expect_sendto(_metadata, client, variant->dest, variant->port, "two");
	expect_recvfrom(_metadata, server, port_of(&from), "two");
}

TEST_F(dgram, empty_datagram)
{
	int server = server_on(_metadata, variant->server, variant->port);
	int client = socket_for(_metadata, variant->dest, SOCK_DGRAM,
				variant->port);

	expect_sendto(_metadata, client, variant->dest, variant->port, "");
	expect_recvfrom(_metadata, server, local_port(client), "");
}

TEST_F(dgram, from_port)
{
	int server = server_on(_metadata, variant->server, OTHER_PORT);
	int client = server_on(_metadata, variant->source, variant->port);
	struct addr from;

	expect_sendto(_metadata, client, variant->dest, OTHER_PORT, "question");
	from = expect_recvfrom(_metadata, server, variant->port, "question");
	expect_port(_metadata, client, variant->port);

	/* To answer, an unmarked server connects; see client_of(). */
	if (!variant->port && is_mapped(&from))
		require_mark(_metadata, server);
	ASSERT_EQ(0, rc(connect(server, &from.sa, from.len)));
	EXPECT_EQ(variant->port, peer_port(server));
	expect_send(_metadata, server, "answer");
	expect_recv(_metadata, client, "answer");
}

TEST_F(dgram, from_port_connected)
{
	int server = server_on(_metadata, variant->server, OTHER_PORT);
	int client = server_on(_metadata, variant->source, variant->port);
	int round;

	ASSERT_EQ(0, connect_to(client, variant->dest, OTHER_PORT));
	for (round = 0; round < 4; round++) {
		expect_port(_metadata, client, variant->port);
		expect_send(_metadata, client, "send");
		expect_recvfrom(_metadata, server, variant->port, "send");
	}
	expect_port(_metadata, client, variant->port);
}

TEST_F(dgram, marked_server_answers_by_address)
{
	int server = server_on(_metadata, variant->server, OTHER_PORT);
	int client = server_on(_metadata, variant->source, variant->port);
	struct addr from;

	if (!variant->port)
		require_mark(_metadata, server);
	expect_sendto(_metadata, client, variant->dest, OTHER_PORT, "question");
	from = expect_recvfrom(_metadata, server, variant->port, "question");
	answer(_metadata, server, from, "answer");
	expect_recvfrom(_metadata, client, OTHER_PORT, "answer");
	EXPECT_EQ(OTHER_PORT, local_port(server));
}

/* A datagram to one port must not change where the next one goes. */
TEST_F(dgram, by_turns)
{
	int server = server_on(_metadata, variant->server, variant->port);
	int other = server_on(_metadata, variant->server, OTHER_PORT);
	int client = socket_for(_metadata, variant->dest, SOCK_DGRAM,
				variant->port);
	int round;

	for (round = 0; round < 4; round++) {
		expect_sendto(_metadata, client, variant->dest, variant->port,
			      "for the server");
		expect_sendto(_metadata, client, variant->dest, OTHER_PORT,
			      "for the other");
		expect_recv(_metadata, other, "for the other");
		expect_recv(_metadata, server, "for the server");
	}
}

/* Nor must a failed send change where the next one goes. */
TEST_F(dgram, after_a_failure)
{
	static char huge[70000];
	struct addr addr = addr_of(variant->dest, variant->port);
	const char *nowhere = is_mapped(&addr) ? "::ffff:192.0.2.1" :
			      is_ip6(variant->dest) ? "2001:db8::1" :
			      "192.0.2.1";
	int server = server_on(_metadata, variant->server, variant->port);
	int other = server_on(_metadata, variant->server, OTHER_PORT);
	int client = socket_for(_metadata, variant->dest, SOCK_DGRAM,
				variant->port);

	EXPECT_EQ(-EMSGSIZE, rc(sendto(client, huge, sizeof(huge), 0,
				       &addr.sa, addr.len)));
	EXPECT_EQ(-ENETUNREACH,
		  send_to(client, nowhere, variant->port, "lost", 0));
	EXPECT_EQ(-EINVAL, rc(sendto(client, "x", 1, 0, &addr.sa, 4)));
	EXPECT_EQ(-EFAULT, rc(sendto(client, (void *)1, 1, 0, &addr.sa,
				     addr.len)));

	expect_sendto(_metadata, client, variant->dest, OTHER_PORT, "other");
	expect_recv(_metadata, other, "other");
	expect_sendto(_metadata, client, variant->dest, variant->port, "port");
	expect_recv(_metadata, server, "port");
}

TEST_F(dgram, sendmsg_with_control_data)
{
	char control[CMSG_SPACE(sizeof(int))] = "";
	struct iovec parts[2] = {
		{ .iov_base = "two ", .iov_len = 4 },
		{ .iov_base = "parts", .iov_len = 5 },
	};
	struct addr addr = addr_of(variant->dest, variant->port);
	struct msghdr msg = {
		.msg_name = &addr.sa,
		.msg_namelen = addr.len,
		.msg_iov = parts,
		.msg_iovlen = 2,
		.msg_control = control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	int server = server_on(_metadata, variant->server, variant->port);
	int client = socket_for(_metadata, variant->dest, SOCK_DGRAM,
				variant->port);
	bool ip6 = is_ip6(variant->dest) && !is_mapped(&addr);
	int ttl = 5;

	cmsg->cmsg_level = ip6 ? SOL_IPV6 : SOL_IP;
	cmsg->cmsg_type = ip6 ? IPV6_HOPLIMIT : IP_TTL;
	cmsg->cmsg_len = CMSG_LEN(sizeof(ttl));
	memcpy(CMSG_DATA(cmsg), &ttl, sizeof(ttl));

	EXPECT_EQ(9, rc(sendmsg(client, &msg, 0)));
	expect_recv(_metadata, server, "two parts");
	/* The caller's address is read, never written. */
	EXPECT_EQ(variant->port, port_of(&addr));
}

TEST_F(dgram, sendmmsg_to_two_ports)
{
	struct addr addr[2] = {
		addr_of(variant->dest, variant->port),
		addr_of(variant->dest, OTHER_PORT),
	};
	struct iovec text[2] = {
		{ .iov_base = "port", .iov_len = 4 },
		{ .iov_base = "other", .iov_len = 5 },
	};
	struct mmsghdr msgs[2] = { 0 };
	int server = server_on(_metadata, variant->server, variant->port);
	int other = server_on(_metadata, variant->server, OTHER_PORT);
	int client = socket_for(_metadata, variant->dest, SOCK_DGRAM,
				variant->port);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(msgs); i++) {
		msgs[i].msg_hdr.msg_name = &addr[i].sa;
		msgs[i].msg_hdr.msg_namelen = addr[i].len;
		msgs[i].msg_hdr.msg_iov = &text[i];
		msgs[i].msg_hdr.msg_iovlen = 1;
	}
	ASSERT_EQ(2, rc(sendmmsg(client, msgs, 2, 0)));
	expect_recv(_metadata, server, "port");
	expect_recv(_metadata, other, "other");
}

/* A datagram that is sent in parts goes to the address of the first part. */
TEST_F(dgram, in_parts)
{
	int server = server_on(_metadata, variant->server, variant->port);
	int client = socket_for(_metadata, variant->dest, SOCK_DGRAM,
				variant->port);

	EXPECT_EQ(3, send_to(client, variant->dest, variant->port, "in ",
			     MSG_MORE));
	EXPECT_EQ(5, send_to(client, variant->dest, variant->port, "parts", 0));
	expect_recvfrom(_metadata, server, local_port(client), "in parts");
}

TEST_F(dgram, connected_in_parts)
{
	int server = server_on(_metadata, variant->server, variant->port);
	int client = client_of(_metadata, variant->dest, variant->port);

	EXPECT_EQ(3, rc(send(client, "in ", 3, MSG_MORE)));
	EXPECT_EQ(5, rc(send(client, "parts", 5, 0)));
	expect_recvfrom(_metadata, server, local_port(client), "in parts");
}

TEST_F(dgram, connected_elsewhere)
{
	int server = server_on(_metadata, variant->server, variant->port);
	int other = server_on(_metadata, variant->server, OTHER_PORT);
	int client = socket_for(_metadata, variant->dest, SOCK_DGRAM,
				variant->port);

	ASSERT_EQ(0, connect_to(client, variant->dest, OTHER_PORT));
	expect_sendto(_metadata, client, variant->dest, variant->port, "aside");
	expect_recv(_metadata, server, "aside");
	expect_send(_metadata, client, "onward");
	expect_recv(_metadata, other, "onward");
	EXPECT_EQ(OTHER_PORT, peer_port(client));
}

TEST_F(dgram, refused)
{
	int client = client_of(_metadata, variant->dest, variant->port);
	char byte;

	expect_send(_metadata, client, "x");
	EXPECT_EQ(-ECONNREFUSED, rc(recv(client, &byte, 1, 0)));
}

TEST_F(dgram, disconnect_keeps_a_bound_port)
{
	int fd = server_on(_metadata, variant->source, variant->port);

	ASSERT_EQ(0, connect_to(fd, variant->dest, OTHER_PORT));
	expect_port(_metadata, fd, variant->port);
	ASSERT_EQ(0, disconnect(fd));
	expect_port(_metadata, fd, variant->port);
	EXPECT_EQ(-ENOTCONN, peer_port(fd));
	EXPECT_EQ(-EINVAL, bind_to(fd, variant->source, OTHER_PORT));
}

TEST_F(dgram, disconnect_drops_an_ephemeral_port)
{
	int fd = socket_for(_metadata, variant->dest, SOCK_DGRAM,
			    variant->port);
	int server;

	ASSERT_EQ(0, connect_to(fd, variant->dest, variant->port));
	EXPECT_EQ(variant->port, peer_port(fd));
	EXPECT_TRUE(is_ephemeral(local_port(fd)));
	ASSERT_EQ(0, disconnect(fd));
	EXPECT_EQ(-ENOTCONN, peer_port(fd));
	EXPECT_EQ(0, local_port(fd));

	/* A socket that is not bound does not hold port 0. */
	EXPECT_TRUE(variant->port || holds_zero(fd) == 0);
	server = server_on(_metadata, variant->server, variant->port);
	expect_sendto(_metadata, fd, variant->dest, variant->port, "again");
	EXPECT_TRUE(is_ephemeral(local_port(fd)));
	expect_recvfrom(_metadata, server, local_port(fd), "again");
}

/* The socket has had an ephemeral port before. */
TEST_F(dgram, bound_after_an_ephemeral_port)
{
	int fd = socket_for(_metadata, variant->server, SOCK_DGRAM,
			    variant->port);
	int other = socket_for(_metadata, variant->server, SOCK_DGRAM,
			       variant->port);
	int client;

	ASSERT_EQ(0, connect_to(fd, is_ip6(variant->server) ? "::1" :
				"127.0.0.1", OTHER_PORT));
	EXPECT_TRUE(is_ephemeral(local_port(fd)));
	ASSERT_EQ(0, disconnect(fd));
	ASSERT_EQ(0, bind_to(fd, variant->server, variant->port));
	EXPECT_EQ(-EADDRINUSE, bind_to(other, variant->server, variant->port));
	client = client_of(_metadata, variant->dest, variant->port);
	expect_send(_metadata, client, "x");
	expect_recv(_metadata, fd, "x");
}

TEST_F(dgram, no_peer_no_name)
{
	int fd = socket_for(_metadata, variant->server, SOCK_DGRAM,
			    variant->port);

	EXPECT_EQ(-ENOTCONN, peer_port(fd));
	ASSERT_EQ(0, bind_to(fd, variant->server, variant->port));
	EXPECT_EQ(-ENOTCONN, peer_port(fd));
	EXPECT_EQ(-EDESTADDRREQ, rc(send(fd, "x", 1, 0)));
}

/* Of two sockets that share the port one gets the datagram. */
TEST_F(dgram, reuseport_group)
{
	struct pollfd group[2];
	int client;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(group); i++) {
		int fd = socket_for(_metadata, variant->server, SOCK_DGRAM,
				    variant->port);

		ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1));
		ASSERT_EQ(0, bind_to(fd, variant->server, variant->port));
		group[i].fd = fd;
		group[i].events = POLLIN;
	}
	client = client_of(_metadata, variant->dest, variant->port);
	expect_send(_metadata, client, "one of you");
	ASSERT_EQ(1, poll(group, ARRAY_SIZE(group), IO_TIMEOUT_SEC * 1000));
	expect_recv(_metadata, group[!group[0].revents].fd, "one of you");
}

/* Of sockets that share the port by SO_REUSEADDR, the last one to bind receives. */
TEST_F(dgram, last_to_bind_receives)
{
	int fd[3], client, i;

	for (i = 0; i < 3; i++) {
		fd[i] = socket_for(_metadata, variant->server, SOCK_DGRAM,
				   variant->port);
		ASSERT_EQ(0, set_int(fd[i], SOL_SOCKET, SO_REUSEADDR, 1));
		ASSERT_EQ(0, bind_to(fd[i], variant->server, variant->port));
	}
	client = client_of(_metadata, variant->dest, variant->port);
	while (i--) {
		expect_send(_metadata, client, "for the last");
		expect_recv(_metadata, fd[i], "for the last");
		close(fd[i]);
	}
}

/* The number of UDP sockets in /proc/net/sockstat or sockstat6 */
static long sockets_in_use(bool ip6)
{
	const char *name = ip6 ? "UDP6: inuse " : "UDP: inuse ";
	char line[256];
	FILE *file = fopen(ip6 ? "/proc/net/sockstat6" : "/proc/net/sockstat", "re");
	long count = -1;

	while (count < 0 && fgets(line, sizeof(line), file))
		if (!strncmp(line, name, strlen(name)))
			count = atol(line + strlen(name));
	fclose(file);
	return count;
}

/* Each bound socket is counted once, and not any more after it is closed. */
TEST_F(dgram, counted)
{
	bool ip6 = is_ip6(variant->server);
	int round, fd, loser;

	for (round = 0; round < 3; round++) {
		EXPECT_EQ(0, sockets_in_use(ip6));
		fd = server_on(_metadata, variant->server, variant->port);
		EXPECT_EQ(1, sockets_in_use(ip6));
		loser = socket_for(_metadata, variant->server, SOCK_DGRAM,
				   variant->port);
		EXPECT_EQ(-EADDRINUSE,
			  bind_to(loser, variant->server, variant->port));
		EXPECT_EQ(1, sockets_in_use(ip6));
		close(loser);
		close(fd);
	}
}

/* It is counted in the namespace that it was made in. */
TEST_F(dgram, counted_at_home)
{
	int home = rc(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
	int fd = socket_for(_metadata, variant->server, SOCK_DGRAM, variant->port);
	bool ip6 = is_ip6(variant->server);

	ASSERT_LE(0, home);
	enter_netns(_metadata);
	ASSERT_EQ(0, bind_to(fd, variant->server, variant->port));
	EXPECT_EQ(0, sockets_in_use(ip6));
	ASSERT_EQ(0, rc(setns(home, CLONE_NEWNET)));
	EXPECT_EQ(1, sockets_in_use(ip6));
	close(fd);
	EXPECT_EQ(0, sockets_in_use(ip6));
	close(home);
}

/* Both ends on the same port, which takes two addresses. */
LINK_FIXTURE(same_port)
SPECIFIC_LINKS(same_port);

TEST_F(same_port, by_address)
{
	int server = server_on(_metadata, variant->server, variant->port);
	int client = server_on(_metadata, variant->source, variant->port);
	struct addr from;

	expect_sendto(_metadata, client, variant->dest, variant->port, "there");
	from = expect_recvfrom(_metadata, server, variant->port, "there");
	answer(_metadata, server, from, "and back");
	expect_recvfrom(_metadata, client, variant->port, "and back");
	expect_port(_metadata, server, variant->port);
	expect_port(_metadata, client, variant->port);
}

TEST_F(same_port, connected)
{
	int server = server_on(_metadata, variant->server, variant->port);
	int client = server_on(_metadata, variant->source, variant->port);
	struct addr from;

	ASSERT_EQ(0, connect_to(client, variant->dest, variant->port));
	expect_send(_metadata, client, "there");
	from = expect_recvfrom(_metadata, server, variant->port, "there");
	ASSERT_EQ(0, rc(connect(server, &from.sa, from.len)));
	EXPECT_EQ(variant->port, peer_port(server));
	expect_send(_metadata, server, "and back");
	expect_recv(_metadata, client, "and back");
	expect_port(_metadata, server, variant->port);
}

TEST_F(same_port, to_oneself)
{
	int fd = server_on(_metadata, variant->dest, variant->port);

	expect_sendto(_metadata, fd, variant->dest, variant->port, "echo");
	expect_recvfrom(_metadata, fd, variant->port, "echo");
}

/* The results of unmarked sockets, which are the same without the module */
FIXTURE(unmarked) {};

FIXTURE_VARIANT(unmarked) {
	const char *server;
	const char *dest;
};

FIXTURE_VARIANT_ADD(unmarked, ip4) {
	.server = "127.0.0.1", .dest = "127.0.0.1",
};

FIXTURE_VARIANT_ADD(unmarked, ip6) {
	.server = "::1", .dest = "::1",
};

FIXTURE_VARIANT_ADD(unmarked, mapped_client) {
	.server = "127.0.0.1", .dest = "::ffff:127.0.0.1",
};

FIXTURE_SETUP(unmarked)
{
	if (!have_family_of(variant->dest))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(unmarked) {}

TEST_F(unmarked, no_sendto)
{
	int server = server_on(_metadata, variant->server, 0);
	int client = new_socket(_metadata, variant->dest, SOCK_DGRAM);
	int marked = socket_for(_metadata, variant->dest, SOCK_DGRAM, 0);

	EXPECT_EQ(-EINVAL, send_to(client, variant->dest, 0, "refused", 0));

	/* An unmarked socket cannot send, even if another one is marked ... */
	expect_sendto(_metadata, marked, variant->dest, 0, "marked");
	EXPECT_EQ(-EINVAL, send_to(client, variant->dest, 0, "refused", 0));
	expect_recv(_metadata, server, "marked");
	EXPECT_EQ(-EAGAIN, rc(recv(server, &marked, 1, MSG_DONTWAIT)));

	/* ... and a mark that was cleared does not count. */
	ASSERT_EQ(0, set_mark(client, 1));
	expect_sendto(_metadata, client, variant->dest, 0, "marked");
	ASSERT_EQ(0, set_mark(client, 0));
	EXPECT_EQ(-EINVAL, send_to(client, variant->dest, 0, "refused", 0));
}

/* send() to a mapped peer is a sendto() in the kernel, which needs the mark. */
TEST_F(unmarked, no_send_to_a_mapped_peer)
{
	struct addr addr = addr_of(variant->dest, 0);
	int server = server_on(_metadata, variant->server, 0);
	int client = new_socket(_metadata, variant->dest, SOCK_DGRAM);

	ASSERT_EQ(0, connect_to(client, variant->dest, 0));
	EXPECT_EQ(0, peer_port(client));
	EXPECT_EQ(is_mapped(&addr) ? -EINVAL : 1, rc(send(client, "x", 1, 0)));
	if (!is_mapped(&addr))
		expect_recv(_metadata, server, "x");
}

/*
 * The kernel looks up the route of an echo reply without a socket. After a datagram to
 * port 0, the hooks on the route lookup run for that, too.
 */
TEST_F(unmarked, while_the_kernel_answers_a_ping)
{
	struct icmphdr ping = {
		.type = ICMP_ECHO, .checksum = htons(~(ICMP_ECHO << 8)),
	};
	struct addr to = addr_of("127.0.0.1", 0);
	int marked = socket_for(_metadata, variant->dest, SOCK_DGRAM, 0);
	struct { struct iphdr ip; struct icmphdr icmp; } packet;
	int raw, i;

	expect_sendto(_metadata, marked, variant->dest, 0, "marked");
	raw = rc(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
	ASSERT_LE(0, raw);
	ASSERT_EQ(0, set_timeouts(raw));
	ASSERT_EQ((int)sizeof(ping), rc(sendto(raw, &ping, sizeof(ping), 0,
					       &to.sa, to.len)));
	/*
	 * The raw socket receives the request, the reply, and "port unreachable" for
	 * port 0.
	 */
	for (i = 0; i < 3; i++) {
		ASSERT_LT(0, rc(recv(raw, &packet, sizeof(packet), 0)));
		if (packet.icmp.type == ICMP_ECHOREPLY)
			break;
	}
	EXPECT_EQ(ICMP_ECHOREPLY, packet.icmp.type);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * Less common parts of TCP, on an ordinary port and on port 0.
 */
#include <linux/filter.h>
#include <linux/tls.h>

#include "port0_test.h"

#define TENANT	65534	/* a second owner of sockets */

FEATURE_FIXTURE(tcp);

/* The first connection gets a cookie, the second one sends data in its SYN. */
TEST_F(tcp, fast_open)
{
	struct addr to = addr_of(variant->home, variant->port);
	int listener = listener_on(_metadata, variant->home, variant->port);
	int client, child, round;

	ASSERT_EQ(0, write_file("/proc/sys/net/ipv4/tcp_fastopen", "3"));
	ASSERT_EQ(0, set_int(listener, SOL_TCP, TCP_FASTOPEN, 5));
	for (round = 0; round < 2; round++) {
		client = new_socket(_metadata, variant->home, SOCK_STREAM);
		EXPECT_EQ(5, rc(sendto(client, "early", 5, MSG_FASTOPEN, &to.sa, to.len)));
		child = rc(accept(listener, NULL, NULL));
		ASSERT_LE(0, child);
		expect_recv(_metadata, child, "early");
		settle(_metadata);
		EXPECT_EQ(round, !!(tcp_info_of(_metadata, client).tcpi_options &
				    TCPI_OPT_SYN_DATA));
		expect_port(_metadata, child, variant->port);
		EXPECT_EQ(variant->port, peer_port(client));
		talk(_metadata, client, child);
		close(client);
		close(child);
	}
	EXPECT_EQ(1, netstat_counter("TCPFastOpenPassive"));
}

TEST_F(tcp, fast_open_connect)
{
	int listener = listener_on(_metadata, variant->home, variant->port);
	int client = new_socket(_metadata, variant->home, SOCK_STREAM);
	int child;

	/* Both directions, without cookies. */
	ASSERT_EQ(0, write_file("/proc/sys/net/ipv4/tcp_fastopen", "0x207"));
	ASSERT_EQ(0, set_int(listener, SOL_TCP, TCP_FASTOPEN, 5));
	ASSERT_EQ(0, set_int(client, SOL_TCP, TCP_FASTOPEN_CONNECT, 1));
	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	expect_send(_metadata, client, "early");
	child = rc(accept(listener, NULL, NULL));
	ASSERT_LE(0, child);
	expect_recv(_metadata, child, "early");
	talk(_metadata, child, client);
}

/* The listener keeps no request: the child is made from the client's ACK. */
TEST_F(tcp, syn_cookies)
{
	struct link link;

	ASSERT_EQ(0, write_file("/proc/sys/net/ipv4/tcp_syncookies", "2"));
	link = link_up(_metadata, variant->home, variant->port);
	EXPECT_EQ(1, netstat_counter("SyncookiesRecv"));
	talk(_metadata, link.client, link.child);
	EXPECT_EQ(variant->port, peer_port(link.client));
}

TEST_F(tcp, defer_accept)
{
	int listener = listener_on(_metadata, variant->home, variant->port);
	int client = new_socket(_metadata, variant->home, SOCK_STREAM);
	int child;

	ASSERT_EQ(0, set_int(listener, SOL_TCP, TCP_DEFER_ACCEPT, 5));
	ASSERT_EQ(0, rc(fcntl(listener, F_SETFL, O_NONBLOCK)));
	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	EXPECT_EQ(-EAGAIN, rc(accept(listener, NULL, NULL)));
	expect_send(_metadata, client, "at last");
	ASSERT_TRUE(wait_readable(listener));
	child = rc(accept(listener, NULL, NULL));
	ASSERT_LE(0, child);
	expect_recv(_metadata, child, "at last");
	talk(_metadata, client, child);
}

/* A silent connection is probed, and the peer answers the probe. */
TEST_F(tcp, keepalive)
{
	struct link link = link_up(_metadata, variant->home, variant->port);
	unsigned int silent, before = 0, tries = 0;

	ASSERT_EQ(0, set_int(link.child, SOL_TCP, TCP_KEEPIDLE, 1));
	ASSERT_EQ(0, set_int(link.child, SOL_TCP, TCP_KEEPINTVL, 1));
	ASSERT_EQ(0, set_int(link.child, SOL_SOCKET, SO_KEEPALIVE, 1));
	/* The time since the last ACK grows until there is another one. */
	while ((silent = tcp_info_of(_metadata, link.child).tcpi_last_ack_recv) >= before) {
		ASSERT_GT(200, tries++);
		before = silent;
		usleep(100 * 1000);
	}
	EXPECT_LE(1, netstat_counter("TCPKeepAlive"));
	talk(_metadata, link.client, link.child);
}

/* close() waits for data to be acknowledged, but at most for the time of SO_LINGER. */
TEST_F(tcp, linger)
{
	const struct linger wait = { .l_onoff = 1, .l_linger = 1 };
	struct link link = link_up(_metadata, variant->home, variant->port);
	struct timeval before, after, took;
	static char much[1 << 20];
	int flag = MSG_DONTWAIT;

	while (send(link.child, much, sizeof(much), flag) > 0)
		;
	ASSERT_EQ(0, rc(setsockopt(link.child, SOL_SOCKET, SO_LINGER, &wait, sizeof(wait))));
	gettimeofday(&before, NULL);
	close(link.child);
	gettimeofday(&after, NULL);
	timersub(&after, &before, &took);
	EXPECT_LE(900, took.tv_sec * 1000 + took.tv_usec / 1000);

	/* Data that is still queued is delivered nevertheless. */
	while (recv(link.client, much, sizeof(much), 0) > 0)
		;
	EXPECT_EQ(0, rc(recv(link.client, much, 1, 0)));
}

TEST_F(tcp, urgent)
{
	struct link link = link_up(_metadata, variant->home, variant->port);
	struct pollfd urgent = { .fd = link.child, .events = POLLPRI };
	char byte = 0;
	int mark;

	expect_send(_metadata, link.client, "before");
	EXPECT_EQ(1, rc(send(link.client, "!", 1, MSG_OOB)));
	ASSERT_EQ(1, poll(&urgent, 1, IO_TIMEOUT_SEC * 1000));
	EXPECT_EQ(1, rc(recv(link.child, &byte, 1, MSG_OOB)));
	EXPECT_EQ('!', byte);
	expect_recv(_metadata, link.child, "before");
	ASSERT_EQ(0, rc(ioctl(link.child, SIOCATMARK, &mark)));
	EXPECT_EQ(1, mark);

	ASSERT_EQ(0, set_int(link.client, SOL_SOCKET, SO_OOBINLINE, 1));
	EXPECT_EQ(1, rc(send(link.child, "!", 1, MSG_OOB)));
	expect_recv(_metadata, link.client, "!");
}

TEST_F(tcp, half_closed_by_the_server)
{
	struct link link = link_up(_metadata, variant->home, variant->port);

	ASSERT_EQ(0, rc(shutdown(link.child, SHUT_WR)));
	expect_recv(_metadata, link.client, "");
	expect_send(_metadata, link.client, "still here");
	expect_recv(_metadata, link.child, "still here");
	EXPECT_EQ(variant->port, peer_port(link.client));
	expect_port(_metadata, link.child, variant->port);
	close(link.client);
	expect_recv(_metadata, link.child, "");
}

static void tls_start(struct __test_metadata *_metadata, int fd)
{
	const struct tls12_crypto_info_aes_gcm_128 keys = {
		.info.version = TLS_1_2_VERSION,
		.info.cipher_type = TLS_CIPHER_AES_GCM_128,
	};

	ASSERT_EQ(0, rc(setsockopt(fd, SOL_TLS, TLS_TX, &keys, sizeof(keys))));
	ASSERT_EQ(0, rc(setsockopt(fd, SOL_TLS, TLS_RX, &keys, sizeof(keys))));
}

/* kTLS replaces the operations of a socket, on a child and on its peer. */
TEST_F(tcp, ktls)
{
	struct link link = link_up(_metadata, variant->home, variant->port);
	int error = rc(setsockopt(link.client, SOL_TCP, TCP_ULP, "tls", 3));

	if (error == -ENOENT)
		SKIP(return, "no CONFIG_TLS");
	ASSERT_EQ(0, error);
	ASSERT_EQ(0, rc(setsockopt(link.child, SOL_TCP, TCP_ULP, "tls", 3)));
	tls_start(_metadata, link.child);
	tls_start(_metadata, link.client);
	talk(_metadata, link.client, link.child);
	talk(_metadata, link.child, link.client);
	expect_port(_metadata, link.child, variant->port);
	EXPECT_EQ(variant->port, peer_port(link.client));
	ASSERT_EQ(0, rc(shutdown(link.child, SHUT_WR)));
	expect_recv(_metadata, link.client, "");
	close(link.child);
	close(link.client);
	close(link.listener);

	/* The port is free again. */
	close(listener_on(_metadata, variant->home, variant->port));
}

/* One end of a connection that TCP_REPAIR makes without a handshake */
static int repaired(struct __test_metadata *_metadata, const char *from, int from_port,
		    const char *to, int to_port, unsigned int send_seq, unsigned int recv_seq)
{
	int fd = socket_for(_metadata, from, SOCK_STREAM, from_port);

	ASSERT_EQ(0, set_int(fd, SOL_TCP, TCP_REPAIR, 1));
	ASSERT_EQ(0, set_int(fd, SOL_TCP, TCP_REPAIR_QUEUE, TCP_SEND_QUEUE));
	ASSERT_EQ(0, set_int(fd, SOL_TCP, TCP_QUEUE_SEQ, send_seq));
	ASSERT_EQ(0, set_int(fd, SOL_TCP, TCP_REPAIR_QUEUE, TCP_RECV_QUEUE));
	ASSERT_EQ(0, set_int(fd, SOL_TCP, TCP_QUEUE_SEQ, recv_seq));
	ASSERT_EQ(0, bind_to(fd, from, from_port));
	ASSERT_EQ(0, connect_to(fd, to, to_port));
	expect_port(_metadata, fd, from_port);
	EXPECT_EQ(to_port, peer_port(fd));
	EXPECT_EQ(TCP_ESTABLISHED, tcp_info_of(_metadata, fd).tcpi_state);
	return fd;
}

/* A socket in repair mode may have the address of another one. */
TEST_F(tcp, repair)
{
	int holder = bound_socket(_metadata, variant->home, SOCK_STREAM,
				  variant->port);
	int one = repaired(_metadata, variant->home, variant->port,
			   variant->second, OTHER_PORT, 1000, 2000);
	int two = repaired(_metadata, variant->second, OTHER_PORT,
			   variant->home, variant->port, 2000, 1000);

	ASSERT_EQ(0, set_int(one, SOL_TCP, TCP_REPAIR, 0));
	ASSERT_EQ(0, set_int(two, SOL_TCP, TCP_REPAIR, 0));
	talk(_metadata, one, two);
	close(one);
	expect_recv(_metadata, two, "");
	close(two);
	close(holder);
}

static void drop_everything(struct __test_metadata *_metadata, int fd)
{
	struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
	struct sock_fprog program = { .len = 1, .filter = &drop };

	ASSERT_EQ(0, rc(setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program,
				   sizeof(program))));
}

static int bound_nonblock(struct __test_metadata *_metadata, const char *host, int port)
{
	int fd = socket_for(_metadata, host, SOCK_STREAM, port);

	ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1));
	ASSERT_EQ(0, bind_to(fd, host, port));
	ASSERT_EQ(0, rc(fcntl(fd, F_SETFL, O_NONBLOCK)));
	return fd;
}

/*
 * A simultaneous open. The SYN of the first socket is dropped by a listener with a filter,
 * which is then closed. The second socket is bound to the listener's address, and its SYN
 * arrives at the first one while that is in SYN_SENT.
 */
static void open_both(struct __test_metadata *_metadata, const char *one_host, int one_port,
		      const char *two_host, int two_port)
{
	int listener = socket_for(_metadata, two_host, SOCK_STREAM, two_port);
	int one = bound_nonblock(_metadata, one_host, one_port), two;

	drop_everything(_metadata, listener);
	ASSERT_EQ(0, bind_to(listener, two_host, two_port));
	ASSERT_EQ(0, rc(listen(listener, 1)));
	EXPECT_EQ(-EINPROGRESS, connect_to(one, two_host, two_port));
	settle(_metadata);
	close(listener);
	two = bound_nonblock(_metadata, two_host, two_port);
	EXPECT_EQ(-EINPROGRESS, connect_to(two, one_host, one_port));

	ASSERT_EQ(0, rc(fcntl(one, F_SETFL, 0)));
	ASSERT_EQ(0, rc(fcntl(two, F_SETFL, 0)));
	EXPECT_EQ(0, connect_to(one, two_host, two_port));
	EXPECT_EQ(0, connect_to(two, one_host, one_port));
	expect_port(_metadata, one, one_port);
	expect_port(_metadata, two, two_port);
	EXPECT_EQ(two_port, peer_port(one));
	EXPECT_EQ(one_port, peer_port(two));
	talk(_metadata, one, two);
	close(one);
	expect_recv(_metadata, two, "");
	close(two);
}

TEST_F(tcp, simultaneous_open)
{
	open_both(_metadata, variant->home, variant->port, variant->second, OTHER_PORT);
}

TEST_F(tcp, simultaneous_open_towards_the_port)
{
	open_both(_metadata, variant->home, OTHER_PORT, variant->second, variant->port);
}

TEST_F(tcp, simultaneous_open_between_two_such_ports)
{
	open_both(_metadata, variant->home, variant->port, variant->second, variant->port);
}

/* The client is in TIME_WAIT, and connect() from the same port reuses that. */
TEST_F(tcp, time_wait_is_reused_by_connect)
{
	int listener = listener_on(_metadata, variant->home, OTHER_PORT);
	int round, client, child;

	for (round = 0; round < 3; round++) {
		client = socket_for(_metadata, variant->second, SOCK_STREAM, variant->port);
		ASSERT_EQ(0, set_int(client, SOL_SOCKET, SO_REUSEADDR, 1));
		ASSERT_EQ(0, bind_to(client, variant->second, variant->port));
		ASSERT_EQ(0, connect_to(client, variant->home, OTHER_PORT));
		child = rc(accept(listener, NULL, NULL));
		ASSERT_LE(0, child);
		talk(_metadata, client, child);
		close(client);
		expect_recv(_metadata, child, "");
		close(child);
		settle(_metadata);
		EXPECT_EQ(1, time_waits());
	}
	client = socket_for(_metadata, variant->second, SOCK_STREAM, variant->port);
	EXPECT_EQ(-EADDRINUSE, bind_to(client, variant->second, variant->port));
}

/* The server is in TIME_WAIT, and a new SYN of the same client reopens it. */
TEST_F(tcp, time_wait_is_reopened_by_a_syn)
{
	int listener = listener_on(_metadata, variant->home, variant->port);
	int round, client, child;

	for (round = 0; round < 3; round++) {
		client = new_socket(_metadata, variant->second, SOCK_STREAM);
		ASSERT_EQ(0, set_int(client, SOL_SOCKET, SO_REUSEADDR, 1));
		ASSERT_EQ(0, bind_to(client, variant->second, OTHER_PORT));
		ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
		child = rc(accept(listener, NULL, NULL));
		ASSERT_LE(0, child);
		expect_port(_metadata, child, variant->port);
		talk(_metadata, client, child);
		close(child);
		expect_recv(_metadata, client, "");
		close(client);
		settle(_metadata);
		EXPECT_EQ(1, time_waits());
	}
}

TEST_F(tcp, reuseport_shares_out)
{
	share_out(_metadata, variant->home, SOCK_STREAM, variant->port);
}

/*
 * bind() of a user's socket that shares the port, beside a connection of that user which
 * has been closed and is still open on the other side. A kernel may take it for root's.
 */
static int beside_an_orphan(struct __test_metadata *_metadata, const char *home,
			    const char *second, int port)
{
	int listener = socket_for(_metadata, home, SOCK_STREAM, port);
	int other = socket_for(_metadata, second, SOCK_STREAM, port);
	int again = socket_for(_metadata, home, SOCK_STREAM, port);
	struct link link;
	int err;

	ASSERT_EQ(0, set_int(listener, SOL_SOCKET, SO_REUSEPORT, 1));
	ASSERT_EQ(0, set_int(again, SOL_SOCKET, SO_REUSEPORT, 1));
	ASSERT_EQ(0, rc(fchown(listener, TENANT, -1)));
	ASSERT_EQ(0, rc(fchown(again, TENANT, -1)));
	ASSERT_EQ(0, bind_to(listener, home, port));
	ASSERT_EQ(0, rc(listen(listener, 8)));
	/* It does not share the port, so sockets are compared one by one from now on. */
	ASSERT_EQ(0, bind_to(other, second, port));
	link = link_to(_metadata, home, port, listener);
	ASSERT_EQ(0, rc(fchown(link.child, TENANT, -1)));
	/* Longer than a minute: until then, it is more than a TIME_WAIT socket. */
	ASSERT_EQ(0, set_int(link.child, SOL_TCP, TCP_LINGER2, 90));
	close(link.child);
	settle(_metadata);
	close(listener);
	err = bind_to(again, home, port);
	close(again);
	close(other);
	reset_on_close(link.client);
	close(link.client);
	return err;
}

TEST_F(tcp, reuseport_beside_an_orphan)
{
	EXPECT_EQ(beside_an_orphan(_metadata, variant->home, variant->second, OTHER_PORT),
		  beside_an_orphan(_metadata, variant->home, variant->second,
				   variant->port));
}

/* The same beside a TIME_WAIT, which has no owner. */
static int beside_a_time_wait(struct __test_metadata *_metadata, const char *home,
			      const char *second, int port)
{
	int listener = socket_for(_metadata, home, SOCK_STREAM, port);
	int other = socket_for(_metadata, second, SOCK_STREAM, port);
	int again = socket_for(_metadata, home, SOCK_STREAM, port);
	int before = time_waits(), err;
	struct link link;

	ASSERT_EQ(0, set_int(listener, SOL_SOCKET, SO_REUSEPORT, 1));
	ASSERT_EQ(0, set_int(again, SOL_SOCKET, SO_REUSEPORT, 1));
	ASSERT_EQ(0, bind_to(listener, home, port));
	ASSERT_EQ(0, rc(listen(listener, 8)));
	/* It does not share the port, so sockets are compared one by one from now on. */
	ASSERT_EQ(0, bind_to(other, second, port));
	link = link_to(_metadata, home, port, listener);
	close(link.child);
	expect_recv(_metadata, link.client, "");
	close(link.client);
	settle(_metadata);
	EXPECT_EQ(before + 1, time_waits());
	close(listener);
	err = bind_to(again, home, port);
	close(again);
	close(other);
	return err;
}

TEST_F(tcp, reuseport_beside_a_time_wait)
{
	EXPECT_EQ(beside_a_time_wait(_metadata, variant->home, variant->second, OTHER_PORT),
		  beside_a_time_wait(_metadata, variant->home, variant->second,
				     variant->port));
}

/* TCP MD5 signatures, whose keys belong to the peers' addresses. */
TEST_F(tcp, md5_signature)
{
	struct addr peer = addr_of(variant->second, 0), server = addr_of(variant->home, 0);
	struct tcp_md5sig key = { .tcpm_keylen = 6, .tcpm_key = "secret" };
	int listener = socket_for(_metadata, variant->home, SOCK_STREAM, variant->port);
	int client = new_socket(_metadata, variant->second, SOCK_STREAM);
	int child;

	memcpy(&key.tcpm_addr, &peer.sa, peer.len);
	if (setsockopt(listener, SOL_TCP, TCP_MD5SIG, &key, sizeof(key)))
		SKIP(return, "no CONFIG_TCP_MD5SIG");
	memcpy(&key.tcpm_addr, &server.sa, server.len);
	ASSERT_EQ(0, rc(setsockopt(client, SOL_TCP, TCP_MD5SIG, &key, sizeof(key))));
	ASSERT_EQ(0, bind_to(listener, variant->home, variant->port));
	ASSERT_EQ(0, rc(listen(listener, 1)));
	ASSERT_EQ(0, bind_to(client, variant->second, OTHER_PORT));
	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	child = rc(accept(listener, NULL, NULL));
	ASSERT_LE(0, child);
	talk(_metadata, client, child);
}

TEST_HARNESS_MAIN

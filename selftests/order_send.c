// SPDX-License-Identifier: GPL-2.0
/*
 * Datagrams in flight while something else happens to their socket.
 *
 * A send is blocked while it copies, or the socket lock is held, for as long as
 * the test needs. A datagram must go where it was sent, or nowhere; in
 * particular not to port 1, which the kernel is given in place of 0.
 */
#include <netinet/udp.h>

#include "cgroup.h"
#include "filed.h"
#include "order.h"

#define STAND_IN	1

/* ---- a send takes no lock ---- */

FIXTURE(unlocked) {
	struct slow_page slow;
};

FIXTURE_VARIANT(unlocked) {
	const char *host, *peer;
	int port;
};

ON_BOTH_PORTS(unlocked, ip4, .host = "127.0.0.1", .peer = "127.0.0.2");
ON_BOTH_PORTS(unlocked, ip6, .host = "::1", .peer = "fd00::2");
ON_BOTH_PORTS(unlocked, mapped, .host = "::ffff:127.0.0.1",
	      .peer = "::ffff:127.0.0.2");
ON_BOTH_PORTS(unlocked, any4, .host = "0.0.0.0", .peer = "127.0.0.2");
ON_BOTH_PORTS(unlocked, any6, .host = "::", .peer = "fd00::2");

FIXTURE_SETUP(unlocked)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	if (!have_slow_pages())
		SKIP(return, NO_SLOW_PAGES);
	enter_netns(_metadata);
	slow_page_make(_metadata, &self->slow);
}

FIXTURE_TEARDOWN(unlocked)
{
	close(self->slow.uffd);
}

/*
 * Expect that @send_ ends although another thread keeps the socket lock, as on an
 * ordinary port.
 */
static void send_while_locked(struct __test_metadata *_metadata,
			      struct slow_page *slow, struct call *send_,
			      int peer, int port)
{
	struct call lock = {
		.make = do_keep_lock, .fd = send_->fd, .page = slow->page,
	};
	struct addr from = { .len = sizeof(from.v6) };
	char byte;

	call_start(_metadata, &lock);
	slow_page_is_read(_metadata, slow);
	call_start(_metadata, send_);
	EXPECT_TRUE(call_ends(send_)) {
		TH_LOG("it waits for the socket lock");
	}
	slow_page_fill(_metadata, slow);
	EXPECT_EQ(1, call_end(_metadata, send_));
	call_end(_metadata, &lock);
	EXPECT_EQ(1, rc(recvfrom(peer, &byte, 1, 0, &from.sa, &from.len)));
	EXPECT_EQ(port, port_of(&from));
}

TEST_F(unlocked, sendto)
{
	int peer = new_socket(_metadata, variant->peer, SOCK_DGRAM);
	struct call send_ = {
		.make = do_send, .host = variant->peer, .port = PEER_PORT,
		.text = "x",
	};

	ASSERT_EQ(0, bind_to(peer, variant->peer, PEER_PORT));
	send_.fd = bound_socket(_metadata, variant->host, SOCK_DGRAM,
				variant->port);
	send_while_locked(_metadata, &self->slow, &send_, peer, variant->port);
}

TEST_F(unlocked, sendto_dontwait)
{
	int peer = new_socket(_metadata, variant->peer, SOCK_DGRAM);
	struct call send_ = {
		.make = do_send, .host = variant->peer, .port = PEER_PORT,
		.text = "x", .flags = MSG_DONTWAIT,
	};

	ASSERT_EQ(0, bind_to(peer, variant->peer, PEER_PORT));
	send_.fd = bound_socket(_metadata, variant->host, SOCK_DGRAM,
				variant->port);
	send_while_locked(_metadata, &self->slow, &send_, peer, variant->port);
}

TEST_F(unlocked, send_connected)
{
	int peer = new_socket(_metadata, variant->peer, SOCK_DGRAM);
	struct call send_ = { .make = do_send_connected, .text = "x" };

	ASSERT_EQ(0, bind_to(peer, variant->peer, PEER_PORT));
	send_.fd = bound_socket(_metadata, variant->host, SOCK_DGRAM,
				variant->port);
	ASSERT_EQ(0, connect_to(send_.fd, variant->peer, PEER_PORT));
	send_while_locked(_metadata, &self->slow, &send_, peer, variant->port);
}

/* From port 0 to port 0 */
TEST_F(unlocked, sendto_same_port)
{
	int peer = bound_socket(_metadata, variant->peer, SOCK_DGRAM,
				variant->port);
	struct call send_ = {
		.make = do_send, .host = variant->peer, .port = variant->port,
		.text = "x",
	};

	send_.fd = socket_for(_metadata, variant->host, SOCK_DGRAM,
			      variant->port);
	set_int(send_.fd, SOL_SOCKET, SO_REUSEADDR, 1);
	set_int(peer, SOL_SOCKET, SO_REUSEADDR, 1);
	ASSERT_EQ(0, bind_to(send_.fd, variant->host, variant->port));
	send_while_locked(_metadata, &self->slow, &send_, peer, variant->port);
}

/* ---- a send that is stuck in copying ---- */

FIXTURE(stuck) {
	int server, peer, stand_in;
	int fd;
	struct slow_page slow[2];
};

FIXTURE_VARIANT(stuck) {
	const char *host;
};

FIXTURE_VARIANT_ADD(stuck, ip4) { .host = "127.0.0.1" };
FIXTURE_VARIANT_ADD(stuck, ip6) { .host = "::1" };
FIXTURE_VARIANT_ADD(stuck, mapped) { .host = "::ffff:127.0.0.1" };

FIXTURE_SETUP(stuck)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	if (!have_slow_pages())
		SKIP(return, NO_SLOW_PAGES);
	enter_netns(_metadata);
	stay_on_one_cpu(_metadata);
	self->server = bound_socket(_metadata, variant->host, SOCK_DGRAM, 0);
	self->peer = new_socket(_metadata, variant->host, SOCK_DGRAM);
	self->stand_in = new_socket(_metadata, variant->host, SOCK_DGRAM);
	self->fd = socket_for(_metadata, variant->host, SOCK_DGRAM, 0);
	ASSERT_EQ(0, bind_to(self->peer, variant->host, PEER_PORT));
	ASSERT_EQ(0, bind_to(self->stand_in, variant->host, STAND_IN));
	ASSERT_EQ(0, bind_to(self->fd, variant->host, OTHER_PORT));
	slow_page_make(_metadata, &self->slow[0]);
	slow_page_make(_metadata, &self->slow[1]);
}

FIXTURE_TEARDOWN(stuck)
{
	settle(_metadata);
	EXPECT_EQ(-EAGAIN, recv_now(self->stand_in));
	close(self->slow[0].uffd);
	close(self->slow[1].uffd);
}

static void expect_one(struct __test_metadata *_metadata, int fd)
{
	EXPECT_EQ(0, recv_soon(fd));
	settle(_metadata);
	EXPECT_EQ(-EAGAIN, recv_now(fd));
}

/* The mark is cleared while the send copies. */
TEST_F(stuck, clear)
{
	struct call send_ = {
		.make = do_send_page, .fd = self->fd, .host = variant->host,
		.page = self->slow[0].page,
	};

	call_start(_metadata, &send_);
	slow_page_is_read(_metadata, &self->slow[0]);
	ASSERT_EQ(0, set_mark(self->fd, 0));
	slow_page_fill(_metadata, &self->slow[0]);
	EXPECT_EQ(1, call_end(_metadata, &send_));
	expect_one(_metadata, self->server);
	EXPECT_EQ(-EINVAL, send_to(self->fd, variant->host, 0, "x", 0));
}

/* The same while the datagram is being built under the lock */
TEST_F(stuck, clear_corked)
{
	struct call send_ = {
		.make = do_send_page, .fd = self->fd, .host = variant->host,
		.page = self->slow[0].page, .flags = MSG_MORE,
	};
	struct call clear = { .make = do_mark, .fd = self->fd };

	call_start(_metadata, &send_);
	slow_page_is_read(_metadata, &self->slow[0]);
	call_start(_metadata, &clear);
	expect_blocked(_metadata, &clear);
	slow_page_fill(_metadata, &self->slow[0]);
	EXPECT_EQ(1, call_end(_metadata, &send_));
	EXPECT_EQ(0, call_end(_metadata, &clear));
	EXPECT_EQ(0, set_int(self->fd, SOL_UDP, UDP_CORK, 0));
	expect_one(_metadata, self->server);
}

/*
 * The send waits for the lock of a corked socket. When it gets the lock, nothing is
 * corked any more and the mark is cleared. A BPF program nevertheless sees port 0.
 */
TEST_F(stuck, clear_before_a_program)
{
	struct addr to = addr_of(variant->host, 0);
	const int type = is_ip6(variant->host) && !is_mapped(&to) ?
		BPF_CGROUP_UDP6_SENDMSG : BPF_CGROUP_UDP4_SENDMSG;
	struct call send_ = {
		.make = do_send, .host = variant->host, .text = "x",
	};
	struct cgroup cgroup;
	int program, fd;

	if (!have_cgroup())
		SKIP(return, NO_CGROUP);
	if (!hold_load())
		SKIP(return, NO_HOLD);
	cgroup_enter(_metadata, &cgroup);
	/* Programs are those of the control group that made the socket. */
	fd = socket_for(_metadata, variant->host, SOCK_DGRAM, 0);
	send_.fd = fd;
	program = EXPECT_ADDRESS(type, 0);
	EXPECT_EQ(1, send_to(fd, variant->host, PEER_PORT, "c", MSG_MORE));
	call_hold(_metadata, &send_, BEFORE_LOCK);
	EXPECT_EQ(0, set_int(fd, SOL_UDP, UDP_CORK, 0));
	ASSERT_EQ(0, set_mark(fd, 0));
	attach(_metadata, cgroup.fd, program, type);
	EXPECT_EQ(1, call_release(_metadata, &send_));
	detach(_metadata, cgroup.fd, program, type);
	EXPECT_EQ('c', recv_soon(self->peer));
	EXPECT_EQ('x', recv_soon(self->server));
	cgroup_leave(_metadata, &cgroup);
}

/*
 * The socket is marked again and bound to port 0 while its first datagram is
 * still in flight.
 */
TEST_F(stuck, clear_mark_disconnect)
{
	struct call send_ = {
		.make = do_send_page, .fd = self->fd, .host = variant->host,
		.page = self->slow[0].page,
	};

	call_start(_metadata, &send_);
	slow_page_is_read(_metadata, &self->slow[0]);
	ASSERT_EQ(0, set_mark(self->fd, 0));
	ASSERT_EQ(0, set_mark(self->fd, 1));
	ASSERT_EQ(0, connect_to(self->fd, variant->host, PEER_PORT));
	ASSERT_EQ(0, disconnect(self->fd));
	slow_page_fill(_metadata, &self->slow[0]);
	EXPECT_EQ(1, call_end(_metadata, &send_));
	expect_one(_metadata, self->server);
}

/* Two tasks send through one socket, to port 0 and to another, in either order. */
static void two_sends(struct __test_metadata *_metadata, struct call *first,
		      struct call *second, const struct slow_page *slow)
{
	first->page = slow[0].page;
	second->page = slow[1].page;
	call_start(_metadata, first);
	slow_page_is_read(_metadata, &slow[0]);
	call_start(_metadata, second);
	slow_page_is_read(_metadata, &slow[1]);
	slow_page_fill(_metadata, &slow[1]);
	EXPECT_EQ(1, call_end(_metadata, second));
	slow_page_fill(_metadata, &slow[0]);
	EXPECT_EQ(1, call_end(_metadata, first));
}

TEST_F(stuck, two_sends_zero_first)
{
	struct call zero = {
		.make = do_send_page, .fd = self->fd, .host = variant->host,
	};
	struct call other = {
		.make = do_send_page, .fd = self->fd, .host = variant->host,
		.port = PEER_PORT,
	};

	two_sends(_metadata, &zero, &other, self->slow);
	expect_one(_metadata, self->server);
	expect_one(_metadata, self->peer);
}

TEST_F(stuck, two_sends_zero_last)
{
	struct call zero = {
		.make = do_send_page, .fd = self->fd, .host = variant->host,
	};
	struct call other = {
		.make = do_send_page, .fd = self->fd, .host = variant->host,
		.port = PEER_PORT,
	};

	two_sends(_metadata, &other, &zero, self->slow);
	expect_one(_metadata, self->server);
	expect_one(_metadata, self->peer);
}

/*
 * A send waits for the socket lock behind a call that clears the mark. The
 * datagram must go where it was sent.
 */
TEST_F(stuck, behind_clear)
{
	struct call lock = {
		.make = do_keep_lock, .fd = self->fd,
		.page = self->slow[0].page,
	};
	struct call clear = { .make = do_mark, .fd = self->fd };
	struct call send_ = {
		.make = do_send, .fd = self->fd, .host = variant->host,
		.text = "x", .flags = MSG_MORE,
	};

	call_start(_metadata, &lock);
	slow_page_is_read(_metadata, &self->slow[0]);
	call_start(_metadata, &clear);
	expect_blocked(_metadata, &clear);
	call_start(_metadata, &send_);
	expect_blocked(_metadata, &send_);
	slow_page_fill(_metadata, &self->slow[0]);
	call_end(_metadata, &lock);
	EXPECT_EQ(0, call_end(_metadata, &clear));
	EXPECT_EQ(1, call_end(_metadata, &send_));
	EXPECT_EQ(0, get_mark(self->fd));

	expect_send(_metadata, self->fd, "y");
	expect_recv(_metadata, self->server, "xy");
}

/* ---- the cost for other sends ---- */

#define SLEEPERS	1024
#define BATCHES		10
#define BATCH		20
#define TRIES		50

/*
 * The time of a datagram to another port in seconds: the best of several
 * batches, since interruptions only make it longer.
 */
static double cost(struct __test_metadata *_metadata, int fd, const char *host,
		   int peer)
{
	double best = 1e9, began;
	char byte;
	int i, j;

	for (i = 0; i < BATCHES; i++) {
		began = now();
		for (j = 0; j < BATCH; j++)
			ASSERT_EQ(1, send_to(fd, host, PEER_PORT, "x", 0));
		if (now() - began < best)
			best = now() - began;
		while (recv(peer, &byte, 1, MSG_DONTWAIT) >= 0)
			;
	}
	return best / BATCH;
}

/*
 * Threads that sleep in a send to port 0 must not slow down others, even on the same
 * socket. If all calls were in one list, a datagram would take more than twenty times
 * as long. Other work on the machine may double the time for a while.
 */
TEST_F(stuck, sleepers)
{
	static struct call sleepers[SLEEPERS];
	struct pollfd event = { .events = POLLIN };
	double alone, again, crowded = 1e9;
	pthread_attr_t attr;
	int i;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 32768);
	event.fd = self->slow[0].uffd;
	/*
	 * Each sleeper has allocated its packet, which counts against the send buffer.
	 */
	ASSERT_EQ(0, set_int(self->fd, SOL_SOCKET, SO_SNDBUFFORCE, 1 << 24));
	alone = cost(_metadata, self->fd, variant->host, self->peer);
	for (i = 0; i < SLEEPERS; i++) {
		sleepers[i] = (struct call){
			.make = do_send_page, .fd = self->fd,
			.host = variant->host, .page = self->slow[0].page,
		};
		ASSERT_EQ(0, pthread_create(&sleepers[i].thread, &attr,
					    call_run, &sleepers[i]));
	}
	ASSERT_EQ(1, poll(&event, 1, IO_TIMEOUT_SEC * 1000));
	for (i = 0; i < SLEEPERS; i++) {
		while (!atomic_load(&sleepers[i].tid) ||
		       state_of(atomic_load(&sleepers[i].tid)) == 'R')
			nap_ms(1);
	}
	/* Noise goes away, a list that is too long does not: measure again. */
	for (i = 0; i < TRIES && crowded >= 1.5 * alone; i++) {
		crowded = cost(_metadata, self->fd, variant->host, self->peer);
		nap_ms(20);
	}
	slow_page_fill(_metadata, &self->slow[0]);
	for (i = 0; i < SLEEPERS; i++)
		call_end(_metadata, &sleepers[i]);
	/* The machine may have become slower meanwhile, for all that it does. */
	again = cost(_metadata, self->fd, variant->host, self->peer);
	if (again > alone)
		alone = again;
	TH_LOG("%.1f us a datagram, %.1f beside %d sleepers",
	       alone * 1e6, crowded * 1e6, SLEEPERS);
	EXPECT_LT(crowded, 1.5 * alone);
}

/* ---- many tasks ---- */

#define SENDERS		192

FIXTURE(many) {
	struct slow_page slow;
};

FIXTURE_VARIANT(many) {
	const char *host;
};

FIXTURE_VARIANT_ADD(many, ip4) { .host = "127.0.0.1" };
FIXTURE_VARIANT_ADD(many, ip6) { .host = "::1" };

FIXTURE_SETUP(many)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	if (!have_slow_pages())
		SKIP(return, NO_SLOW_PAGES);
	enter_netns(_metadata);
	stay_on_one_cpu(_metadata);
	slow_page_make(_metadata, &self->slow);
}

FIXTURE_TEARDOWN(many)
{
	close(self->slow.uffd);
}

static int do_send_together(struct call *call)
{
	pthread_barrier_wait(call->page);
	return do_send(call);
}

static int receiver(struct __test_metadata *_metadata, const char *host, int port)
{
	int fd = bound_socket(_metadata, host, SOCK_DGRAM, port);

	/* Socket buffers for all of them */
	ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20));
	return fd;
}

static int count_received(int fd)
{
	int count = 0;

	while (recv_now(fd) >= 0)
		count++;
	return count;
}

/*
 * Calls are hashed by task. With this many pairs, some have the same hash. A
 * datagram to port 1 must go there, whatever another task sends to port 0
 * through the same socket.
 */
TEST_F(many, send_to_either_port)
{
	struct call to_zero[SENDERS] = {}, to_one[SENDERS] = {};
	int zero = receiver(_metadata, variant->host, 0);
	int one = receiver(_metadata, variant->host, STAND_IN);
	int fd = socket_for(_metadata, variant->host, SOCK_DGRAM, 0), i;
	pthread_barrier_t barrier;
	struct uffd_msg fault;

	ASSERT_EQ(0, pthread_barrier_init(&barrier, NULL, SENDERS));
	ASSERT_EQ(0, bind_to(fd, is_ip6(variant->host) ? SECOND_IP6 : "127.0.0.2", 0));
	for (i = 0; i < SENDERS; i++) {
		to_zero[i] = (struct call){
			.make = do_send_page, .fd = fd, .host = variant->host,
			.page = self->slow.page,
		};
		call_start(_metadata, &to_zero[i]);
		slow_page_is_read(_metadata, &self->slow);
		ASSERT_EQ((int)sizeof(fault),
			  rc(read(self->slow.uffd, &fault, sizeof(fault))));
	}
	for (i = 0; i < SENDERS; i++) {
		to_one[i] = (struct call){
			.make = do_send_together, .fd = fd,
			.host = variant->host, .port = STAND_IN, .text = "x",
			.page = &barrier,
		};
		call_start(_metadata, &to_one[i]);
	}
	for (i = 0; i < SENDERS; i++)
		EXPECT_EQ(1, call_end(_metadata, &to_one[i]));
	settle(_metadata);
	EXPECT_EQ(SENDERS, count_received(one));
	EXPECT_EQ(0, count_received(zero));
	slow_page_fill(_metadata, &self->slow);
	for (i = 0; i < SENDERS; i++)
		EXPECT_EQ(1, call_end(_metadata, &to_zero[i]));
	settle(_metadata);
	EXPECT_EQ(0, count_received(one));
	EXPECT_EQ(SENDERS, count_received(zero));
}

TEST_HARNESS_MAIN

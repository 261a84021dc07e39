// SPDX-License-Identifier: GPL-2.0
/*
 * Two calls on one marked socket: calls that must not overlap take turns, see turn.c of
 * the module. Each test holds one call and lets the other begin.
 */
#include <netinet/udp.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "filed.h"
#include "order.h"

FIXTURE(turn) {};

FIXTURE_VARIANT(turn) {
	const char *host, *other;
	int type;
};

#define TURN(name, _host, _other, _type)				\
	FIXTURE_VARIANT_ADD(turn, name) {				\
		.host = _host, .other = _other, .type = _type		\
	}
TURN(ip4_tcp, "127.0.0.1", "127.0.0.2", SOCK_STREAM);
TURN(ip6_tcp, "::1", "fd00::2", SOCK_STREAM);
TURN(ip4_udp, "127.0.0.1", "127.0.0.2", SOCK_DGRAM);
TURN(ip6_udp, "::1", "fd00::2", SOCK_DGRAM);

FIXTURE_SETUP(turn)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	if (!hold_load())
		SKIP(return, NO_HOLD);
	enter_netns(_metadata);
	stay_on_one_cpu(_metadata);
}

FIXTURE_TEARDOWN(turn)
{
	write_file(DRAIN, "0");
}

#define PLACE_OF(variant, _about) {					\
	.host = (variant)->host, .dest = (variant)->host,		\
	.other = (variant)->other, .type = (variant)->type,		\
	.about = _about,						\
}

/*
 * A bind() and a call that clears the mark. If the bind() comes first, the socket keeps
 * its mark; if it comes last, it gets an ephemeral port.
 */
static void expect_bind_or_clear(struct __test_metadata *_metadata, int fd,
				 const struct place *place, int clear)
{
	if (clear == -EBUSY) {
		EXPECT_EQ(1, get_mark(fd));
		expect_filed(_metadata, fd, place);
	} else {
		EXPECT_EQ(0, clear);
		EXPECT_EQ(0, get_mark(fd));
		EXPECT_EQ(0, holds_zero(fd));
		EXPECT_TRUE(is_ephemeral(local_port(fd)));
		expect_free(_metadata, place);
	}
	close(fd);
	settle(_metadata);
	expect_free(_metadata, place);
	EXPECT_EQ(0, wait_for_users(0));
}

TEST_F(turn, clear_held_while_bind)
{
	struct place place = PLACE_OF(variant, "a bind() during a clear");
	int fd = socket_for(_metadata, variant->host, variant->type, 0);
	struct call clear = { .make = do_mark, .fd = fd };
	struct call bind_ = { .make = do_bind, .fd = fd, .host = variant->host };
	int cleared;

	call_hold(_metadata, &clear, BEFORE_LOCK);
	call_start(_metadata, &bind_);
	call_has_ended(_metadata, &bind_);
	cleared = call_release(_metadata, &clear);
	EXPECT_EQ(0, call_end(_metadata, &bind_));
	expect_bind_or_clear(_metadata, fd, &place, cleared);
}

TEST_F(turn, bind_held_while_clear)
{
	struct place place = PLACE_OF(variant, "a clear during a bind()");
	int fd = socket_for(_metadata, variant->host, variant->type, 0);
	struct call clear = { .make = do_mark, .fd = fd };
	struct call bind_ = { .make = do_bind, .fd = fd, .host = variant->host };
	int cleared;

	call_hold(_metadata, &bind_, BEFORE_LOCK);
	call_start(_metadata, &clear);
	call_has_ended(_metadata, &clear);
	EXPECT_EQ(0, call_release(_metadata, &bind_));
	cleared = call_end(_metadata, &clear);
	expect_bind_or_clear(_metadata, fd, &place, cleared);
}

/* The bind() is complete but still has the lock. */
TEST_F(turn, bind_done_while_clear)
{
	struct place place = PLACE_OF(variant, "a clear at the end of a bind()");
	int fd = socket_for(_metadata, variant->host, variant->type, 0);
	struct call clear = { .make = do_mark, .fd = fd };
	struct call bind_ = { .make = do_bind, .fd = fd, .host = variant->host };

	call_hold(_metadata, &bind_, BEFORE_UNLOCK);
	call_start(_metadata, &clear);
	call_has_ended(_metadata, &clear);
	EXPECT_EQ(0, call_release(_metadata, &bind_));
	expect_bind_or_clear(_metadata, fd, &place,
			     call_end(_metadata, &clear));
}

/*
 * Two calls of bind() on a marked socket: one wins, the other fails with
 * EINVAL.
 */
TEST_F(turn, bind_held_while_bind)
{
	struct place place = PLACE_OF(variant, "two bind()s");
	int fd = socket_for(_metadata, variant->host, variant->type, 0);
	struct call first = { .make = do_bind, .fd = fd, .host = variant->host };
	struct call second = {
		.make = do_bind, .fd = fd, .host = variant->other,
	};
	int one, two;

	call_hold(_metadata, &first, BEFORE_LOCK);
	call_start(_metadata, &second);
	call_has_ended(_metadata, &second);
	one = call_release(_metadata, &first);
	two = call_end(_metadata, &second);
	if (one) {
		EXPECT_EQ(-EINVAL, one);
		EXPECT_EQ(0, two);
		place.host = variant->other;
		place.dest = variant->other;
		place.other = variant->host;
	} else {
		EXPECT_EQ(-EINVAL, two);
	}
	expect_filed(_metadata, fd, &place);
}

/* IPV6_V6ONLY waits for the bind(), and is refused then. */
TEST_F(turn, bind_held_while_v6only)
{
	struct call bind_ = { .make = do_bind, .host = "::" };
	struct call option = { .make = do_v6only, .value = 1 };
	int rival;

	if (!is_ip6(variant->host))
		return;
	bind_.fd = socket_for(_metadata, "::", variant->type, 0);
	option.fd = bind_.fd;
	rival = socket_for(_metadata, "0.0.0.0", variant->type, 0);
	call_hold(_metadata, &bind_, BEFORE_LOCK);
	call_start(_metadata, &option);
	call_has_ended(_metadata, &option);
	EXPECT_EQ(0, call_release(_metadata, &bind_));
	EXPECT_EQ(-EINVAL, call_end(_metadata, &option));
	EXPECT_EQ(0, get_int(bind_.fd, SOL_IPV6, IPV6_V6ONLY));
	expect_port(_metadata, bind_.fd, 0);
	EXPECT_EQ(-EADDRINUSE, bind_to(rival, "0.0.0.0", 0));
}

/* Each call ends its turn, however it ends: the next one on the socket does not wait. */
TEST_F(turn, ends_with_the_call)
{
	int fd = socket_for(_metadata, variant->host, variant->type, 0);
	struct {
		int (*make)(struct call *call);
		const char *drain;
		int value, want;
	} calls[] = {
		{ do_bind, "1", 0, -EPERM }, { do_bind, "1", 0, -EPERM },
		{ do_v6only, "0", 0, 0 }, { do_v6only, "0", 256, 0 },
		{ do_mark, "0", 0, 0 }, { do_mark, "0", 0, 0 }, { do_mark, "0", 1, 0 },
		{ do_bind, "0", 0, 0 }, { do_bind, "0", 0, -EINVAL }, { do_mark, "0", 0, -EBUSY },
		{ do_v6only, "0", 0, -EINVAL }, { do_bind, "0", 0, -EINVAL },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		struct call call = {
			.make = calls[i].make, .fd = fd, .host = variant->host,
			.value = calls[i].value,
		};

		if (call.make == do_v6only && !is_ip6(variant->host))
			continue;
		ASSERT_EQ(0, write_file(DRAIN, calls[i].drain));
		call_start(_metadata, &call);
		ASSERT_TRUE(call_ends(&call)) {
			TH_LOG("call %zu waits", i);
		}
		EXPECT_EQ(calls[i].want, call_end(_metadata, &call)) {
			TH_LOG("call %zu", i);
		}
		if (call.make == do_v6only && !calls[i].want)
			EXPECT_EQ(!!call.value, get_int(fd, SOL_IPV6, IPV6_V6ONLY));
	}
}

/* While IPV6_V6ONLY waits for its value, other calls on the socket do not wait. */
TEST_F(turn, v6only_from_a_slow_page)
{
	const int ports[] = { OTHER_PORT, 0 };
	int i;

	if (!is_ip6(variant->host))
		return;
	if (!have_slow_pages())
		SKIP(return, NO_SLOW_PAGES);
	for (i = 0; i < 2; i++) {
		int fd = socket_for(_metadata, "::", variant->type, ports[i]);
		struct call option = { .make = do_v6only_from_page, .fd = fd };
		struct call bind_ = {
			.make = do_bind, .fd = fd, .host = "::", .port = ports[i],
		};
		struct slow_page slow;

		slow_page_make(_metadata, &slow);
		option.page = slow.page;
		call_start(_metadata, &option);
		slow_page_is_read(_metadata, &slow);
		call_start(_metadata, &bind_);
		EXPECT_TRUE(call_ends(&bind_)) {
			TH_LOG("bind() to port %d waits", ports[i]);
		}
		slow_page_fill(_metadata, &slow);
		EXPECT_EQ(-EINVAL, call_end(_metadata, &option));
		EXPECT_EQ(0, call_end(_metadata, &bind_));
		expect_port(_metadata, fd, ports[i]);
		close(slow.uffd);
		close(fd);
	}
}

/* An address that this host does not have: bind() leaves the port to others. */
static const char *nowhere(const char *host)
{
	return is_ip6(host) ? "2001:db8::1" : "192.0.2.1";
}

/*
 * A process whose call waits for @first: a process, since a single thread cannot be
 * killed. If @hold is not -1, it is held after the wait for its turn.
 */
static pid_t fork_waiter(struct __test_metadata *_metadata,
			 const struct call *first, struct call *waiter, int hold)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		if (hold >= 0 && write(hold, AFTER_WAIT, strlen(AFTER_WAIT)) < 0)
			_exit(1);
		/*
		 * The child must not keep descriptors that the parent closes.
		 */
		close(first->hold);
		close(hold);
		waiter->fd = first->fd;
		waiter->make(waiter);
		_exit(0);
	}
	EXPECT_FALSE(process_has_ended(_metadata, pid)) {
		TH_LOG("a call that should wait ends");
	}
	return pid;
}

static void expect_killed(struct __test_metadata *_metadata, pid_t pid)
{
	siginfo_t gone = {};

	ASSERT_EQ(0, rc(waitid(P_PID, pid, &gone, WEXITED)));
	EXPECT_EQ(CLD_KILLED, gone.si_code);
}

/* Of the remaining two calls, one gets the port, and the socket works. */
static void expect_one_bound(struct __test_metadata *_metadata, int fd,
			     const struct place *place, int one, int other)
{
	EXPECT_TRUE((!one && other == -EINVAL) || (one == -EINVAL && !other)) {
		TH_LOG("one bind() returned %d, the other %d", one, other);
	}
	expect_filed(_metadata, fd, place);
	close(fd);
	settle(_metadata);
	expect_free(_metadata, place);
	EXPECT_EQ(0, wait_for_users(0));
}

/* One waiting call is killed: it ends at once, and the others are not affected. */
static void kill_waiter(struct __test_metadata *_metadata, struct call *waiter,
			const struct place *place)
{
	int fd = socket_for(_metadata, place->host, place->type, 0);
	struct call first = { .make = do_bind, .fd = fd, .host = place->host };
	struct call last = { .make = do_bind, .fd = fd, .host = place->host };
	int one;
	pid_t pid;

	call_hold(_metadata, &first, BEFORE_LOCK);
	pid = fork_waiter(_metadata, &first, waiter, -1);
	call_start(_metadata, &last);
	expect_blocked(_metadata, &last);
	ASSERT_EQ(0, rc(kill(pid, SIGKILL)));
	expect_killed(_metadata, pid);
	/* The call that it waited for is still held. */
	EXPECT_FALSE(atomic_load(&first.ended));
	EXPECT_FALSE(atomic_load(&last.ended));
	EXPECT_EQ(1, get_mark(fd));
	one = call_release(_metadata, &first);
	expect_one_bound(_metadata, fd, place, one,
			 call_end(_metadata, &last));
}

/* Each of the calls that wait for a turn */
TEST_F(turn, killed_while_it_waits)
{
	struct place place = PLACE_OF(variant, "a call that was killed");
	struct call waiters[] = {
		{ .make = do_bind, .host = nowhere(variant->host) },
		{ .make = do_mark },
		{ .make = do_v6only, .value = 1 },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(waiters) - !is_ip6(variant->host); i++)
		kill_waiter(_metadata, &waiters[i], &place);
}

static void do_nothing_on_signal(int number)
{
}

/* As on an ordinary port, bind() does not fail with EINTR. */
TEST_F(turn, no_signal_ends_the_wait)
{
	const struct sigaction action = { .sa_handler = do_nothing_on_signal };
	struct place place = PLACE_OF(variant, "a bind() that got a signal");
	int fd = socket_for(_metadata, variant->host, variant->type, 0), one;
	struct call first = { .make = do_bind, .fd = fd, .host = variant->host };
	struct call last = { .make = do_bind, .fd = fd, .host = variant->host };

	ASSERT_EQ(0, rc(sigaction(SIGUSR1, &action, NULL)));
	call_hold(_metadata, &first, BEFORE_LOCK);
	call_start(_metadata, &last);
	expect_blocked(_metadata, &last);
	ASSERT_EQ(0, pthread_kill(last.thread, SIGUSR1));
	expect_blocked(_metadata, &last);
	one = call_release(_metadata, &first);
	expect_one_bound(_metadata, fd, &place, one,
			 call_end(_metadata, &last));
}

/* The waiter is killed, and gets the turn before it has left the queue. */
TEST_F(turn, killed_and_given_its_turn)
{
	struct place place = PLACE_OF(variant, "a bind() killed in its turn");
	int fd = socket_for(_metadata, variant->host, variant->type, 0);
	struct call first = { .make = do_bind, .fd = fd, .host = variant->host };
	struct call last = { .make = do_bind, .fd = fd, .host = variant->host };
	struct call waiter = {
		.make = do_bind, .host = nowhere(variant->host),
	};
	int hold = hold_open(_metadata), one;
	pid_t pid;

	call_hold(_metadata, &first, BEFORE_LOCK);
	pid = fork_waiter(_metadata, &first, &waiter, hold);
	call_start(_metadata, &last);
	expect_blocked(_metadata, &last);
	ASSERT_EQ(0, rc(kill(pid, SIGKILL)));
	hold_wait(_metadata, hold, AFTER_WAIT);
	one = call_release(_metadata, &first);
	expect_blocked(_metadata, &last);
	close(hold);
	expect_killed(_metadata, pid);
	expect_one_bound(_metadata, fd, &place, one,
			 call_end(_metadata, &last));
}

#define QUEUE	4

/* The call that has waited longest is next, one at a time. */
TEST_F(turn, first_come_first_served)
{
	int rival = bound_socket(_metadata, variant->host, variant->type, 0);
	int fd = socket_for(_metadata, variant->host, variant->type, 0);
	struct call first = { .make = do_bind, .fd = fd, .host = variant->host };
	struct call waiters[QUEUE];
	int i;

	call_hold(_metadata, &first, BEFORE_LOCK);
	for (i = 0; i < QUEUE; i++) {
		waiters[i] = (struct call){
			.make = do_bind, .fd = fd, .host = variant->host,
		};
		call_start_held(_metadata, &waiters[i], BEFORE_LOCK);
		expect_blocked(_metadata, &waiters[i]);
	}
	/* Each call finds the address taken, so the next call tries. */
	EXPECT_EQ(-EADDRINUSE, call_release(_metadata, &first));
	for (i = 0; i < QUEUE; i++) {
		hold_wait(_metadata, waiters[i].hold, BEFORE_LOCK);
		EXPECT_EQ(-EADDRINUSE, call_release(_metadata, &waiters[i]));
	}
	close(rival);
	EXPECT_EQ(0, wait_for_users(0));
}

/* bind() reads the parameter "drain" when it has its turn, not before it waits for it. */
TEST_F(turn, drain_is_switched_while_bind_waits)
{
	int rival = bound_socket(_metadata, variant->host, variant->type, 0), drains;

	if (access(DRAIN, W_OK))
		SKIP(return, "the module is not loaded");
	for (drains = 0; drains < 2; drains++) {
		int fd = socket_for(_metadata, variant->host, variant->type, 0);
		struct call first = { .make = do_bind, .fd = fd, .host = variant->host };
		struct call last = { .make = do_bind, .fd = fd, .host = variant->host };

		call_hold(_metadata, &first, BEFORE_LOCK);
		EXPECT_EQ(0, write_file(DRAIN, drains ? "0" : "1"));
		call_start(_metadata, &last);
		expect_blocked(_metadata, &last);
		EXPECT_EQ(0, write_file(DRAIN, drains ? "1" : "0"));
		EXPECT_EQ(-EADDRINUSE, call_release(_metadata, &first));
		EXPECT_EQ(drains ? -EPERM : -EADDRINUSE, call_end(_metadata, &last));
		EXPECT_EQ(0, write_file(DRAIN, "0"));
		close(fd);
	}
	close(rival);
	EXPECT_EQ(0, wait_for_users(0));
}

/* In ms: until the module has seen the parameter, and removed or armed hooks */
#define DRAIN_TIME	1500

static void drain_for_a_moment(struct __test_metadata *_metadata)
{
	EXPECT_EQ(0, write_file(DRAIN, "1"));
	nap_ms(DRAIN_TIME);
	EXPECT_EQ(0, write_file(DRAIN, "0"));
	nap_ms(DRAIN_TIME);
}

/*
 * A call that needs hooks is counted until it ends: a drain that begins and ends while it
 * waits for the lock leaves the hooks in place. Here, those that give the port back.
 */
TEST_F(turn, drained_while_a_bind_waits)
{
	int fd = socket_for(_metadata, variant->host, variant->type, 0);
	struct call bind_ = { .make = do_bind, .fd = fd, .host = variant->host };

	call_hold(_metadata, &bind_, BEFORE_LOCK);
	drain_for_a_moment(_metadata);
	EXPECT_EQ(0, call_release(_metadata, &bind_));
	expect_port(_metadata, fd, 0);
	close(fd);
	EXPECT_EQ(0, wait_for_users(0));
}

/*
 * The same for a call that marks a socket, and the hooks on sendmsg(). When the drain ends,
 * the socket is not marked yet, so nothing else would arm them for it.
 */
TEST_F(turn, drained_while_a_mark_waits)
{
	struct call mark = { .make = do_mark, .value = 1 };
	struct call lock = { .make = do_keep_lock };
	struct slow_page slow;
	int fd;

	if (variant->type != SOCK_DGRAM)
		return;
	if (!have_slow_pages())
		SKIP(return, NO_SLOW_PAGES);
	fd = new_socket(_metadata, variant->host, variant->type);
	ASSERT_EQ(0, bind_to(fd, variant->host, OTHER_PORT));
	slow_page_make(_metadata, &slow);
	lock.fd = fd;
	lock.page = slow.page;
	mark.fd = fd;
	call_hold(_metadata, &mark, AFTER_UNLOCK);
	call_start(_metadata, &lock);
	slow_page_is_read(_metadata, &slow);
	close(mark.hold);
	expect_blocked(_metadata, &mark);
	drain_for_a_moment(_metadata);
	slow_page_fill(_metadata, &slow);
	call_end(_metadata, &lock);
	EXPECT_EQ(0, call_end(_metadata, &mark));
	EXPECT_EQ(1, send_to(fd, variant->host, 0, "x", 0));
	close(slow.uffd);
	close(fd);
}

/*
 * The same for a send, which needs its hooks until the datagram has a header. Without them,
 * it would go to port 1, which the module passes to the kernel instead of 0.
 */
TEST_F(turn, drained_while_a_send_waits)
{
	struct call send_ = {
		.make = do_send, .host = variant->host, .text = "x", .flags = MSG_MORE,
	};
	int server, stand_in;

	if (variant->type != SOCK_DGRAM)
		return;
	stand_in = bound_socket(_metadata, variant->host, SOCK_DGRAM, 1);
	send_.fd = socket_for(_metadata, variant->host, SOCK_DGRAM, 0);
	ASSERT_EQ(0, bind_to(send_.fd, variant->host, OTHER_PORT));
	call_hold(_metadata, &send_, BEFORE_LOCK);
	drain_for_a_moment(_metadata);
	/* Not before, since it keeps the hooks itself */
	server = bound_socket(_metadata, variant->host, SOCK_DGRAM, 0);
	EXPECT_EQ(1, call_release(_metadata, &send_));
	EXPECT_EQ(0, set_int(send_.fd, SOL_UDP, UDP_CORK, 0));
	EXPECT_EQ('x', recv_soon(server));
	settle(_metadata);
	EXPECT_EQ(-EAGAIN, recv_now(stand_in));
	close(send_.fd);
	close(stand_in);
	close(server);
}

#define HELD_BINDS	16
#define MANY_SOCKETS		512
#define PART	64
#define MANY_PORT	20000

static int do_bind_part(struct call *call)
{
	const int *fds = call->page;
	int i, err;

	for (i = 0; i < PART; i++) {
		err = bind_to(fds[i], call->host, call->port + i);
		if (err)
			return err;
	}
	return 0;
}

/*
 * Turns are hashed by socket. With this many pairs, some have the same hash: no
 * call may wait for one on another socket.
 */
TEST_F(turn, sockets_do_not_wait_for_each_other)
{
	struct rlimit files = { .rlim_cur = 2048, .rlim_max = 2048 };
	struct call held[HELD_BINDS] = {};
	static int others[MANY_SOCKETS];
	int i;

	ASSERT_EQ(0, rc(setrlimit(RLIMIT_NOFILE, &files)));
	for (i = 0; i < MANY_SOCKETS; i++)
		others[i] = socket_for(_metadata, variant->host, variant->type,
				      0);
	for (i = 0; i < HELD_BINDS; i++) {
		held[i].make = do_bind;
		held[i].fd = socket_for(_metadata, variant->host, variant->type,
					0);
		held[i].host = variant->host;
		held[i].port = MANY_PORT + MANY_SOCKETS + i;
		call_hold(_metadata, &held[i], BEFORE_LOCK);
	}
	for (i = 0; i < MANY_SOCKETS; i += PART) {
		struct call part = {
			.make = do_bind_part, .page = &others[i],
			.host = variant->host, .port = MANY_PORT + i,
		};

		call_start(_metadata, &part);
		ASSERT_TRUE(call_ends(&part)) {
			TH_LOG("a bind() waits for that of another socket");
		}
		EXPECT_EQ(0, call_end(_metadata, &part));
	}
	for (i = 0; i < HELD_BINDS; i++)
		EXPECT_EQ(0, call_release(_metadata, &held[i]));
}

static int do_get(struct call *call)
{
	return get_int(call->fd, SOL_IP, call->value);
}

/*
 * Both options are read and set with the socket lock held. The kernel takes and releases
 * the lock once before that, when it looks for an option of its own.
 */
TEST_F(turn, options_wait_for_the_lock)
{
	struct call options[] = {
		{ .make = do_mark, .value = 1 },
		{ .make = do_mark, .value = 0 },
		{ .make = do_get, .value = IP_BIND_PORT_ZERO },
		{ .make = do_get, .value = IP_BOUND_PORT_ZERO },
	};
	size_t i;

	if (!have_slow_pages())
		SKIP(return, NO_SLOW_PAGES);
	for (i = 0; i < ARRAY_SIZE(options); i++) {
		int fd = new_socket(_metadata, variant->host, variant->type);
		struct call lock = { .make = do_keep_lock, .fd = fd };
		struct slow_page slow;

		slow_page_make(_metadata, &slow);
		lock.page = slow.page;
		options[i].fd = fd;
		call_hold(_metadata, &options[i], AFTER_UNLOCK);
		call_start(_metadata, &lock);
		slow_page_is_read(_metadata, &slow);
		close(options[i].hold);
		expect_blocked(_metadata, &options[i]);
		slow_page_fill(_metadata, &slow);
		call_end(_metadata, &lock);
		EXPECT_EQ(0, call_end(_metadata, &options[i]));
		close(slow.uffd);
		close(fd);
	}
}

/* getsockopt() returns the state that the call has left which got the lock before it. */
TEST_F(turn, options_return_what_earlier_calls_did)
{
	static const struct {
		struct call first;
		const char *where;
		bool marked;		/* when the first call begins */
		int option;
	} pairs[] = {
		{ { .make = do_mark, .value = 1 }, AFTER_UNLOCK, false, IP_BIND_PORT_ZERO },
		{ { .make = do_bind }, BEFORE_LOCK, true, IP_BOUND_PORT_ZERO },
	};
	size_t i;

	/* The options are handled alike for every kind of socket. */
	if (is_ip6(variant->host) == (variant->type == SOCK_STREAM))
		return;
	if (!have_slow_pages())
		SKIP(return, NO_SLOW_PAGES);
	for (i = 0; i < ARRAY_SIZE(pairs); i++) {
		int fd = new_socket(_metadata, variant->host, variant->type);
		struct call lock = { .make = do_keep_lock, .fd = fd };
		struct call first = pairs[i].first;
		struct call get = { .make = do_get, .fd = fd, .value = pairs[i].option };
		struct slow_page slow;

		ASSERT_EQ(0, set_mark(fd, pairs[i].marked));
		slow_page_make(_metadata, &slow);
		lock.page = slow.page;
		first.fd = fd;
		first.host = variant->host;
		call_hold(_metadata, &first, pairs[i].where);
		call_hold(_metadata, &get, AFTER_UNLOCK);
		call_start(_metadata, &lock);
		slow_page_is_read(_metadata, &slow);
		/* Tasks get the lock in the order in which they began to wait. */
		close(first.hold);
		expect_blocked(_metadata, &first);
		close(get.hold);
		expect_blocked(_metadata, &get);
		slow_page_fill(_metadata, &slow);
		call_end(_metadata, &lock);
		EXPECT_EQ(0, call_end(_metadata, &first));
		EXPECT_EQ(1, call_end(_metadata, &get));
		close(slow.uffd);
		close(fd);
	}
}

/*
 * Without threads no call is late, so the socket is not watched, and close() itself drops
 * the reference on the module. For a watched socket a kworker would drop it, which cannot
 * run here: this task has a real-time priority.
 */
TEST_F(turn, no_watch_without_threads)
{
	const struct sched_param first = { .sched_priority = 1 }, usual = {};
	int fd = bound_socket(_metadata, variant->host, variant->type, 0);
	long users;

	EXPECT_EQ(1, wait_for_users(1));
	sched_setscheduler(0, SCHED_FIFO, &first);
	close(fd);
	users = module_users();
	sched_setscheduler(0, SCHED_OTHER, &usual);
	EXPECT_EQ(0, users);
}

/* The number of voluntary context switches of a thread so far */
static long sleeps_of(int tid)
{
	char path[64], line[128];
	long sleeps = -1;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
	file = fopen(path, "re");
	while (file && fgets(line, sizeof(line), file))
		sscanf(line, "voluntary_ctxt_switches: %ld", &sleeps);
	if (file)
		fclose(file);
	return sleeps;
}

#define WAITERS	8
#define OTHERS	20

/* A call that waits for one socket is not woken by calls on others. */
TEST_F(turn, not_woken_by_calls_on_others)
{
	int fd = socket_for(_metadata, variant->host, variant->type, 0);
	struct call first = { .make = do_bind, .fd = fd, .host = variant->host };
	struct call waiters[WAITERS] = {};
	long before[WAITERS], after;
	int i, other;

	call_hold(_metadata, &first, BEFORE_LOCK);
	for (i = 0; i < WAITERS; i++) {
		waiters[i] = first;
		waiters[i].where = NULL;
		call_start(_metadata, &waiters[i]);
	}
	/* One of the waiters may have been the first and ended. */
	for (i = 0; i < WAITERS; i++) {
		call_has_ended(_metadata, &waiters[i]);
		before[i] = sleeps_of(atomic_load(&waiters[i].tid));
	}
	for (i = 0; i < OTHERS; i++) {
		other = bound_socket(_metadata, variant->other, variant->type,
				     0);
		close(other);
	}
	for (i = 0; i < WAITERS; i++) {
		after = sleeps_of(atomic_load(&waiters[i].tid));
		EXPECT_EQ(before[i], after) {
			TH_LOG("woken %ld times by %d calls of bind()", after - before[i],
			       OTHERS);
		}
	}
	call_release(_metadata, &first);
	for (i = 0; i < WAITERS; i++)
		call_end(_metadata, &waiters[i]);
}

TEST_HARNESS_MAIN

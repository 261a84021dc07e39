// SPDX-License-Identifier: GPL-2.0
/*
 * A call that began before a bind() and gets the socket lock after it.
 *
 * When that late call began, the socket had no mark and no port, so no hook has
 * redirected it. Each test holds it where it waits for the lock, lets the other thread
 * mark the socket and bind it (the winner), and lets the late call go on. Then the late
 * call must have failed, or the socket must be as the winner has left it, which further
 * calls on the socket show. On an ordinary port the kernel shows what is right.
 */
#include <sys/resource.h>
#include <sys/wait.h>

#include "cgroup.h"
#include "filed.h"
#include "order.h"

#define MAPPED_ANY	"::ffff:0.0.0.0"

/*
 * The addresses of a race: of the bind() that gets the socket lock first, the late one,
 * and others
 */
struct contest {
	const char *host, *dest;	/* of the winner; see struct place */
	const char *late;
	const char *other;
	int type;
};

struct late {
	const struct contest *contest;
	int port;
	int fd;
	int peer;
	bool no_port;
	bool v6only;
	const char *early;	/* an address that it has before, without a port */
	char about[128];
	struct place place;
};

static void late_set_up(struct __test_metadata *_metadata, struct late *self,
			const struct contest *contest, int port)
{
	if (!have_family_of(contest->host))
		SKIP(return, "no IPv6");
	if (!hold_load())
		SKIP(return, NO_HOLD);
	enter_netns(_metadata);
	stay_on_one_cpu(_metadata);
	self->contest = contest;
	self->port = port;
	self->place = (struct place){
		.host = contest->host, .dest = contest->dest,
		.other = contest->other, .type = contest->type,
		.port = port, .about = self->about,
		.dest_is_free = !bind_beside(_metadata, contest->host,
					     contest->dest, contest->type),
	};
	self->peer = new_socket(_metadata, contest->dest, contest->type);
	ASSERT_EQ(0, bind_to(self->peer, contest->dest, PEER_PORT));
	if (contest->type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(self->peer, 16)));
}

#define LATE(fixture)							\
	FIXTURE(fixture) { struct late late; };				\
	FIXTURE_VARIANT(fixture) { struct contest contest; int port; };	\
	FIXTURE_SETUP(fixture)						\
	{								\
		late_set_up(_metadata, &self->late, &variant->contest,	\
			    variant->port);				\
	}								\
	FIXTURE_TEARDOWN(fixture) {}

#define CONTEST(fixture, name, _host, _dest, _late, _other, _type)	\
	ON_BOTH_PORTS(fixture, name, .contest.host = _host,		\
		      .contest.dest = _dest, .contest.late = _late,	\
		      .contest.other = _other, .contest.type = _type)

#define ON_TYPE(fixture, name, type)					\
	CONTEST(fixture, ip4_##name, "127.0.0.2", "127.0.0.2",		\
		"127.0.0.3", "127.0.0.1", type);			\
	CONTEST(fixture, ip6_##name, "::1", "::1", "fd00::2",		\
		"fd00::2", type);					\
	CONTEST(fixture, mapped_##name, "::ffff:127.0.0.2",		\
		"::ffff:127.0.0.2", "::ffff:127.0.0.3",			\
		"::ffff:127.0.0.1", type);				\
	CONTEST(fixture, late_any_##name, "::1", "::1", "::",		\
		"fd00::2", type);					\
	CONTEST(fixture, late_mapped_##name, "::", "::1",		\
		"::ffff:127.0.0.3", NULL, type);			\
	CONTEST(fixture, same_##name, "127.0.0.2", "127.0.0.2",		\
		"127.0.0.2", "127.0.0.1", type);			\
	CONTEST(fixture, any_##name, "0.0.0.0", "127.0.0.1",		\
		"127.0.0.2", NULL, type);				\
	CONTEST(fixture, mapped_any_##name, MAPPED_ANY,			\
		"::ffff:127.0.0.1", "::", NULL, type)

LATE(any);
ON_TYPE(any, tcp, SOCK_STREAM);
ON_TYPE(any, udp, SOCK_DGRAM);

LATE(tcp);
ON_TYPE(tcp, tcp, SOCK_STREAM);

LATE(udp);
ON_TYPE(udp, udp, SOCK_DGRAM);

static void tell_about(struct late *self, const char *call)
{
	snprintf(self->about, sizeof(self->about), "%s", call);
}

/* Start @late on a socket that is not bound or marked yet, and hold it */
static void hold_late(struct __test_metadata *_metadata, struct late *self,
		      struct call *late)
{
	self->fd = new_socket(_metadata, self->contest->host,
			      self->contest->type);
	set_int(self->fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, self->no_port);
	if (self->v6only)
		set_int(self->fd, SOL_IPV6, IPV6_V6ONLY, 1);
	if (self->early)
		ASSERT_EQ(0, bind_to(self->fd, self->early, 0));
	late->fd = self->fd;
	call_hold(_metadata, late, BEFORE_LOCK);
}

/* Another thread marks and binds the socket: the winner. */
static void win(struct __test_metadata *_metadata, struct late *self)
{
	struct call win = {
		.make = do_win, .fd = self->fd, .host = self->contest->host,
		.port = self->port,
	};

	call_start(_metadata, &win);
	ASSERT_EQ(0, call_end(_metadata, &win));
}

/*
 * The result of a late bind(). Before Linux 6.1, bind() returns EADDRINUSE for any
 * errno of get_port, here EINVAL.
 */
static int late_answer(int result, int port)
{
	if (result == -EADDRINUSE && !port && is_older_than(6, 1))
		return -EINVAL;
	return result;
}

static int release_late(struct __test_metadata *_metadata, struct call *late,
			int port)
{
	return late_answer(call_release(_metadata, late), port);
}

/* A use of the socket after a late bind() */
typedef void then_t(struct __test_metadata *_metadata, struct late *self);

/*
 * A late bind() with IP_BIND_ADDRESS_NO_PORT succeeds without effect; so does
 * one on UDP to the address that the socket has, or to the same wildcard in the
 * other family's form, which has the same hash.
 */
static bool may_succeed(const struct late *self, const struct call *late)
{
	const struct contest *contest = self->contest;

	return !self->port && !late->port &&
	       (self->no_port ||
		(contest->type == SOCK_DGRAM &&
		 (!strcmp(contest->host, MAPPED_ANY) ||
		  !strcmp(contest->host, contest->late))));
}

/* A late bind(), with a port and without, in each of four ways. */
static void each_late_bind(struct __test_metadata *_metadata, struct late *self,
			   then_t *then)
{
	long users = wait_for_users(0);
	int port, result;

	for (port = 0; port < 4; port++) {
		struct call late = {
			.make = do_bind, .host = self->contest->late,
			.port = port & 1 ? OTHER_PORT : 0,
		};

		self->no_port = port & 2;
		snprintf(self->about, sizeof(self->about),
			 "a late bind(), port %d%s", late.port, self->no_port ?
			 ", IP_BIND_ADDRESS_NO_PORT" : "");
		hold_late(_metadata, self, &late);
		win(_metadata, self);
		result = release_late(_metadata, &late, self->port);
		EXPECT_AT(&self->place, may_succeed(self, &late) ? 0 : -EINVAL,
			  result);
		EXPECT_AT(&self->place, 0, get_int(self->fd, SOL_SOCKET,
						   SO_BINDTOIFINDEX));
		then(_metadata, self);
		if (self->fd >= 0) {
			reset_on_close(self->fd);
			close(self->fd);
		}
		settle(_metadata);
		expect_free(_metadata, &self->place);
	}
	EXPECT_EQ(users, wait_for_users(users));
}

#define LATE_BIND(fixture, name)					\
static void then_##name(struct __test_metadata *_metadata,		\
			struct late *self);				\
									\
TEST_F(fixture, bind_then_##name)					\
{									\
	each_late_bind(_metadata, &self->late, then_##name);		\
}									\
									\
static void then_##name(struct __test_metadata *_metadata,		\
			struct late *self)

LATE_BIND(any, nothing)
{
	expect_filed(_metadata, self->fd, &self->place);
}

LATE_BIND(any, close)
{
	EXPECT_EQ(0, rc(close(self->fd)));
	self->fd = -1;
}

/* The socket is closed before the late bind() goes on. */
TEST_F(any, bind_when_closed)
{
	struct late *late = &self->late;
	struct call bind_ = { .make = do_bind, .host = late->contest->late };
	long users = wait_for_users(0);
	int port, result;

	tell_about(late, "a late bind() of a closed socket");
	for (port = 0; port < 4; port++) {
		bind_.port = port & 1 ? OTHER_PORT : 0;
		late->no_port = port & 2;
		hold_late(_metadata, late, &bind_);
		win(_metadata, late);
		EXPECT_EQ(0, rc(close(late->fd)));
		expect_taken(_metadata, &late->place);
		result = release_late(_metadata, &bind_, late->port);
		EXPECT_TRUE(result == -EINVAL || (!late->port && !result)) {
			TH_LOG("it returned %d", result);
		}
		settle(_metadata);
		expect_free(_metadata, &late->place);
	}
	EXPECT_EQ(users, wait_for_users(users));
}

static int try_bind_v6only(struct __test_metadata *_metadata,
			   const struct place *place)
{
	int fd = socket_for(_metadata, "::", place->type, place->port);
	int err;

	set_int(fd, SOL_IPV6, IPV6_V6ONLY, 1);
	err = bind_to(fd, "::", place->port);
	close(fd);
	return err;
}

/*
 * Bind other sockets while the late bind() has written its address and keeps the socket
 * lock. Only the address and IPV6_V6ONLY that the socket was bound with count.
 */
static void others_bind(struct __test_metadata *_metadata, struct late *self)
{
	const char *host = self->contest->host, *other = self->contest->other;
	bool mapped = !strncmp(host, "::ffff:", 7);
	const char *late = self->contest->late;

	EXPECT_AT(&self->place, -EADDRINUSE,
		  try_bind(_metadata, &self->place, host));
	EXPECT_AT(&self->place, -EADDRINUSE,
		  try_bind(_metadata, &self->place, "::"));
	if (other)
		EXPECT_AT(&self->place, 0, try_bind(_metadata, &self->place, other));
	if (other && strcmp(late, host) && strcmp(late, "::"))
		EXPECT_AT(&self->place, 0, try_bind(_metadata, &self->place, late));
	if (!strcmp(host, "0.0.0.0"))
		EXPECT_AT(&self->place, -EADDRINUSE,
			  try_bind(_metadata, &self->place, "127.0.0.3"));
	/* No IPv6 address conflicts with an IPv4 socket or a v4-mapped address. */
	if (have_family_of("::1"))
		EXPECT_AT(&self->place, !is_ip6(host) || mapped ? 0 : -EADDRINUSE,
			  try_bind(_metadata, &self->place, "::1"));
	if (!is_ip6(host) || mapped)
		return;
	EXPECT_AT(&self->place, -EADDRINUSE,
		  try_bind_v6only(_metadata, &self->place));
	/* An IPv6 address makes the socket v6-only. */
	EXPECT_AT(&self->place, self->v6only || strcmp(host, "::") ? 0 : -EADDRINUSE,
		  try_bind(_metadata, &self->place, "0.0.0.0"));
}

LATE(half);
ON_TYPE(half, tcp, SOCK_STREAM);
ON_TYPE(half, udp, SOCK_DGRAM);
CONTEST(half, late_ip6_tcp, "::ffff:127.0.0.2", "::ffff:127.0.0.2", "::1", "::ffff:127.0.0.1",
	SOCK_STREAM);
CONTEST(half, late_ip6_udp, "::ffff:127.0.0.2", "::ffff:127.0.0.2", "::1", "::ffff:127.0.0.1",
	SOCK_DGRAM);
/* Both wildcards have the same hash. */
CONTEST(half, late_mapped_any_tcp, "::", "::1", MAPPED_ANY, NULL, SOCK_STREAM);
CONTEST(half, late_mapped_any_udp, "::", "::1", MAPPED_ANY, NULL, SOCK_DGRAM);

TEST_F(half, others_bind_before_the_late_bind_is_undone)
{
	struct late *late = &self->late;
	long users = wait_for_users(0);
	int only;

	late->no_port = true;
	for (only = 0; only <= is_ip6(late->contest->host); only++) {
		struct call bind_ = {
			.make = do_bind, .host = late->contest->late,
			.next = BEFORE_UNLOCK,
		};

		late->v6only = only;
		/* A v6-only socket cannot be bound to an IPv4 address. */
		if (only && !strncmp(late->contest->host, "::ffff:", 7))
			break;
		tell_about(late, only ? "half a late bind(), IPV6_V6ONLY" :
			   "half a late bind()");
		hold_late(_metadata, late, &bind_);
		win(_metadata, late);
		call_release_to_next(_metadata, &bind_);
		others_bind(_metadata, late);
		call_release(_metadata, &bind_);
		expect_filed(_metadata, late->fd, &late->place);
		close(late->fd);
		settle(_metadata);
		expect_free(_metadata, &late->place);
	}
	EXPECT_EQ(users, wait_for_users(users));
}

/*
 * Sockets with SO_REUSEPORT, of which one has the address of a late bind() that keeps the
 * socket lock. Another one does not share the port with it there: it does not get the
 * address of a third socket, which does not share, and it alone gets what is sent to its
 * own address.
 */
TEST_F(half, groups_form_before_the_late_bind_is_undone)
{
	struct late *late = &self->late;
	const struct contest *contest = late->contest;
	struct call bind_ = {
		.make = do_bind, .host = contest->late, .next = BEFORE_UNLOCK,
	};
	bool elsewhere = contest->type == SOCK_DGRAM && strcmp(contest->late, "::") &&
			 strcmp(contest->late, contest->host);
	int group[2], shares[2] = {}, third;
	long users = wait_for_users(0);

	if (!contest->other)
		SKIP(return, "no address is left for a third socket");
	tell_about(late, "half a late bind(), SO_REUSEPORT");
	/* Before the others, so that a search meets it after them. */
	third = bound_socket(_metadata, contest->other, contest->type, late->port);
	late->no_port = true;
	hold_late(_metadata, late, &bind_);
	ASSERT_EQ(0, set_int(late->fd, SOL_SOCKET, SO_REUSEPORT, 1));
	win(_metadata, late);
	call_release_to_next(_metadata, &bind_);

	group[0] = socket_for(_metadata, contest->other, contest->type, late->port);
	ASSERT_EQ(0, set_int(group[0], SOL_SOCKET, SO_REUSEPORT, 1));
	EXPECT_AT(&late->place, -EADDRINUSE, bind_to(group[0], contest->other, late->port));
	close(third);
	if (elsewhere)
		EXPECT_AT(&late->place, 0, bind_to(group[0], contest->late, late->port));
	call_release(_metadata, &bind_);
	if (elsewhere) {
		/* By IPv4: an unmarked IPv6 socket cannot send to a v4-mapped port 0. */
		bool mapped = !strncmp(contest->late, "::ffff:", 7);

		group[1] = late->fd;
		count_shares(_metadata, contest->late + (mapped ? 7 : 0), SOCK_DGRAM,
			     late->port, group, 2, shares);
		EXPECT_AT(&late->place, 0, shares[1]);
	}
	close(group[0]);
	close(late->fd);
	settle(_metadata);
	expect_free(_metadata, &late->place);
	EXPECT_EQ(users, wait_for_users(users));
}

/*
 * A socket that shares the address which the socket was bound to gets into one group with
 * it, though that one has the address of a late bind() which keeps the socket lock.
 */
TEST_F(half, a_member_joins_before_the_late_bind_is_undone)
{
	struct late *late = &self->late;
	const struct contest *contest = late->contest;
	struct call bind_ = {
		.make = do_bind, .host = contest->late, .next = BEFORE_UNLOCK,
	};
	/* By IPv4: an unmarked IPv6 socket cannot send to a v4-mapped port 0. */
	bool mapped = !strncmp(contest->dest, "::ffff:", 7);
	int group[2], shares[2] = {}, i;
	long users = wait_for_users(0);

	tell_about(late, "half a late bind(), SO_REUSEPORT");
	late->no_port = true;
	hold_late(_metadata, late, &bind_);
	ASSERT_EQ(0, set_int(late->fd, SOL_SOCKET, SO_REUSEPORT, 1));
	win(_metadata, late);
	call_release_to_next(_metadata, &bind_);

	group[0] = late->fd;
	group[1] = socket_for(_metadata, contest->host, contest->type, late->port);
	ASSERT_EQ(0, set_int(group[1], SOL_SOCKET, SO_REUSEPORT, 1));
	EXPECT_AT(&late->place, 0, bind_to(group[1], contest->host, late->port));
	call_release(_metadata, &bind_);
	if (contest->type == SOCK_STREAM)
		for (i = 0; i < 2; i++)
			ASSERT_EQ(0, rc(listen(group[i], GROUP_CLIENTS)));
	count_shares(_metadata, contest->dest + (mapped ? 7 : 0), contest->type, late->port,
		     group, 2, shares);
	for (i = 0; i < 2; i++) {
		EXPECT_LT(0, shares[i]);
		close(group[i]);
	}
	settle(_metadata);
	expect_free(_metadata, &late->place);
	EXPECT_EQ(users, wait_for_users(users));
}

/*
 * The limit of privileged ports is compared with the port before bind() waits for the
 * socket lock. A new limit that is written meanwhile has no effect on this bind().
 */
TEST_F(any, limit_is_raised_while_bind_waits)
{
	struct late *late = &self->late;
	int may;

	for (may = 0; may < 2; may++) {
		struct call bind_ = {
			.make = do_bind, .host = late->contest->host,
			.port = late->port,
		};

		/* Without the right, bind() to an ordinary port fails before the lock. */
		if (!may && late->port)
			continue;
		set_unprivileged_start(_metadata, late->port + !may);
		bind_.fd = socket_for(_metadata, bind_.host, late->contest->type,
				      late->port);
		keep_bind_service(_metadata, false);
		call_hold(_metadata, &bind_, BEFORE_LOCK);
		keep_bind_service(_metadata, true);
		set_unprivileged_start(_metadata, 1024);
		EXPECT_EQ(may ? 0 : -EACCES, call_release(_metadata, &bind_)) {
			TH_LOG("the limit was %d", late->port + !may);
		}
		close(bind_.fd);
	}
}

LATE_BIND(any, device)
{
	EXPECT_AT(&self->place, 0, set_device(self->fd, "lo"));
	expect_filed(_metadata, self->fd, &self->place);
}

/* What SO_BINDTODEVICE has changed before the late bind() stays. */
TEST_F(any, bind_after_device)
{
	struct late *late = &self->late;
	struct call bind_ = { .make = do_bind, .host = late->contest->late };
	long users = wait_for_users(0);

	late->no_port = true;
	tell_about(late, "SO_BINDTODEVICE and a late bind()");
	hold_late(_metadata, late, &bind_);
	win(_metadata, late);
	EXPECT_AT(&late->place, 0, set_device(late->fd, "lo"));
	EXPECT_AT(&late->place, may_succeed(late, &bind_) ? 0 : -EINVAL,
		  release_late(_metadata, &bind_, late->port));
	EXPECT_AT(&late->place, (int)if_nametoindex("lo"),
		  get_int(late->fd, SOL_SOCKET, SO_BINDTOIFINDEX));
	expect_filed(_metadata, late->fd, &late->place);
	close(late->fd);
	settle(_metadata);
	EXPECT_EQ(users, wait_for_users(users));
}

/* What SO_SNDBUF and SO_RCVBUF have noted in the socket before the late bind() stays. */
TEST_F(any, bind_after_buffers)
{
	struct late *late = &self->late;
	struct call bind_ = { .make = do_bind, .host = late->contest->late };
	long users = wait_for_users(0);

	if (is_older_than(5, 14))
		SKIP(return, NO_BUFFER_LOCKS);
	late->no_port = true;
	tell_about(late, "SO_SNDBUF, SO_RCVBUF and a late bind()");
	hold_late(_metadata, late, &bind_);
	win(_metadata, late);
	EXPECT_AT(&late->place, 0, lock_buffers(late->fd));
	EXPECT_AT(&late->place, may_succeed(late, &bind_) ? 0 : -EINVAL,
		  release_late(_metadata, &bind_, late->port));
	EXPECT_AT(&late->place, BOTH_BUFFERS, buffer_locks(late->fd));
	expect_filed(_metadata, late->fd, &late->place);
	close(late->fd);
	settle(_metadata);
	EXPECT_EQ(users, wait_for_users(users));
}

/* Port 1, which the module passes to the kernel instead of 0, is a port like any other. */
TEST_F(any, bind_to_the_stand_in)
{
	struct late *late = &self->late;
	struct call bind_ = { .make = do_bind, .host = late->contest->host, .port = 1 };
	long users = wait_for_users(0);

	tell_about(late, "a late bind() to the same address, port 1");
	hold_late(_metadata, late, &bind_);
	win(_metadata, late);
	EXPECT_AT(&late->place, -EINVAL, release_late(_metadata, &bind_, late->port));
	expect_filed(_metadata, late->fd, &late->place);
	close(late->fd);
	settle(_metadata);
	EXPECT_EQ(users, wait_for_users(users));
}

LATE_BIND(tcp, listen)
{
	EXPECT_AT(&self->place, 0, rc(listen(self->fd, 1)));
	expect_connections(_metadata, self->fd, &self->place);
	expect_filed(_metadata, self->fd, &self->place);
}

/* The next call on the socket receives a datagram. */
LATE_BIND(udp, receive)
{
	expect_datagrams(_metadata, self->fd, &self->place);
}

LATE_BIND(udp, device_and_back)
{
	EXPECT_AT(&self->place, 0, set_device(self->fd, "lo"));
	EXPECT_AT(&self->place, 0, set_device(self->fd, ""));
	expect_filed(_metadata, self->fd, &self->place);
}

/* The source that the peer sees is the address it was bound to. */
static void expect_peer(struct __test_metadata *_metadata, struct late *self)
{
	struct addr from = { .len = sizeof(from.v6) };
	char byte;
	int fd = -EAGAIN;

	if (wait_readable(self->peer)) {
		if (self->contest->type == SOCK_STREAM)
			fd = rc(accept(self->peer, &from.sa, &from.len));
		else
			fd = rc(recvfrom(self->peer, &byte, 1, 0, &from.sa,
					 &from.len));
	}
	if (fd >= 0 && self->contest->type == SOCK_STREAM)
		close(fd);
	EXPECT_TRUE(fd >= 0) {
		TH_LOG("the peer receives nothing after %s", self->about);
	}
	EXPECT_AT(&self->place, self->port, port_of(&from));
	expect_address(_metadata, &from, self->contest->dest,
		       self->about);
}

/*
 * The peer refuses the connection before connect() has released the lock. The socket
 * nevertheless has the address of the connection, like @other, which was not bound.
 */
LATE_BIND(tcp, connect_in_vain)
{
	const char *dest = self->contest->dest;
	struct addr name = { .len = sizeof(name.v6) }, want = name;
	int other = new_socket(_metadata, dest, SOCK_STREAM);

	/* connect() replaces only a wildcard by another address. */
	if (self->contest->other) {
		close(other);
		return;
	}
	fcntl(other, F_SETFL, O_NONBLOCK);
	fcntl(self->fd, F_SETFL, O_NONBLOCK);
	EXPECT_EQ(-EINPROGRESS, connect_to(other, dest, PEER_PORT + 1));
	EXPECT_AT(&self->place, -EINPROGRESS,
		  connect_to(self->fd, dest, PEER_PORT + 1));
	EXPECT_EQ(0, rc(getsockname(other, &want.sa, &want.len)));
	EXPECT_AT(&self->place, 0, rc(getsockname(self->fd, &name.sa, &name.len)));
	EXPECT_AT(&self->place, self->port, port_of(&name));
	/* Only the ports differ. */
	if (name.sa.sa_family == AF_INET6)
		want.v6.sin6_port = name.v6.sin6_port;
	else
		want.v4.sin_port = name.v4.sin_port;
	EXPECT_AT(&self->place, 0, memcmp(&want, &name, name.len));
	close(other);
}

static void connect_to_peer(struct __test_metadata *_metadata,
			    struct late *self)
{
	struct addr name = { .len = sizeof(name.v6) };

	EXPECT_AT(&self->place, 0,
		  connect_to(self->fd, self->contest->dest, PEER_PORT));
	EXPECT_AT(&self->place, 1, rc(send(self->fd, "c", 1, MSG_NOSIGNAL)));
	expect_peer(_metadata, self);
	EXPECT_AT(&self->place, 0, rc(getsockname(self->fd, &name.sa, &name.len)));
	expect_address(_metadata, &name, self->contest->dest, self->about);
}

LATE_BIND(any, connect)
{
	connect_to_peer(_metadata, self);
	EXPECT_AT(&self->place, self->port, local_port(self->fd));
	EXPECT_AT(&self->place, -EADDRINUSE,
		  try_bind(_metadata, &self->place, self->contest->dest));
	if (self->contest->other)
		EXPECT_AT(&self->place, 0, try_bind(_metadata, &self->place,
						    self->contest->other));
}

/* After a disconnect the socket has the address that it had before connect(). */
static void expect_back(struct __test_metadata *_metadata, struct late *self)
{
	/*
	 * The kernel leaves the wildcard in the other family's form, on any
	 * port.
	 */
	if (strcmp(self->contest->host, MAPPED_ANY))
		expect_filed(_metadata, self->fd, &self->place);
}

LATE_BIND(any, disconnect)
{
	connect_to_peer(_metadata, self);
	EXPECT_AT(&self->place, 0, disconnect(self->fd));
	expect_back(_metadata, self);
}

/* After a disconnect the socket has the address that bind() gave it. */
LATE_BIND(any, disconnect_at_once)
{
	EXPECT_AT(&self->place, 0, disconnect(self->fd));
	expect_filed(_metadata, self->fd, &self->place);
}

/* To another address, for which the kernel would choose another source. */
LATE_BIND(any, connect_elsewhere)
{
	const struct contest *contest = self->contest;
	int peer = self->peer;

	if (!contest->other)
		return;
	self->peer = new_socket(_metadata, contest->other, contest->type);
	ASSERT_EQ(0, bind_to(self->peer, contest->other, PEER_PORT));
	if (contest->type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(self->peer, 16)));
	EXPECT_AT(&self->place, 0,
		  connect_to(self->fd, contest->other, PEER_PORT));
	EXPECT_AT(&self->place, 1, rc(send(self->fd, "c", 1, MSG_NOSIGNAL)));
	expect_peer(_metadata, self);
	close(self->peer);
	self->peer = peer;
}

LATE_BIND(udp, send)
{
	EXPECT_AT(&self->place, 1,
		  send_to(self->fd, self->contest->dest, PEER_PORT, "s", 0));
	expect_peer(_metadata, self);
	expect_filed(_metadata, self->fd, &self->place);
}

/*
 * The TIME_WAIT is filed under the address of the socket; the test does not wait for
 * its end.
 */
TEST_F(tcp, bind_then_time_wait)
{
	struct late *late = &self->late;
	const struct contest *contest = late->contest;
	struct call bind_ = { .make = do_bind, .host = contest->late };
	struct addr from = { .len = sizeof(from.v6) };
	char byte;
	int child;

	late->no_port = true;
	tell_about(late, "a late bind() and TIME_WAIT");
	hold_late(_metadata, late, &bind_);
	win(_metadata, late);
	call_release(_metadata, &bind_);
	ASSERT_EQ(0, connect_to(late->fd, contest->dest, PEER_PORT));
	child = rc(accept(late->peer, &from.sa, &from.len));
	ASSERT_LE(0, child);
	expect_address(_metadata, &from, contest->dest, late->about);
	EXPECT_EQ(0, rc(shutdown(late->fd, SHUT_WR)));
	EXPECT_EQ(0, rc(read(child, &byte, 1)));
	close(child);
	close(late->fd);
	settle(_metadata);
	EXPECT_AT(&late->place, -EADDRINUSE,
		  try_bind(_metadata, &late->place, contest->dest));
	if (contest->other)
		EXPECT_AT(&late->place, 0,
			  try_bind(_metadata, &late->place, contest->other));
	EXPECT_EQ(0, wait_for_users(0));
}

/*
 * The late bind() is that of another process, which shares the open file and not
 * the table of files. This one has no threads.
 */
TEST_F(any, bind_of_another_process)
{
	struct late *late = &self->late;
	const struct contest *contest = late->contest;
	long users = wait_for_users(0);
	struct call bind_ = { .make = do_bind, .host = contest->late };
	int hold, status, i;
	pid_t pid;

	for (i = 0; i < 2; i++) {
		late->no_port = i;
		snprintf(late->about, sizeof(late->about),
			 "a late bind() of another process%s", late->no_port ?
			 ", IP_BIND_ADDRESS_NO_PORT" : "");
		late->fd = new_socket(_metadata, contest->host, contest->type);
		ASSERT_EQ(0, set_int(late->fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT,
				     late->no_port));
		hold = hold_open(_metadata);
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			if (write(hold, BEFORE_LOCK, strlen(BEFORE_LOCK)) < 0)
				_exit(255);
			close(hold);
			_exit(-bind_to(late->fd, contest->late, 0));
		}
		hold_wait(_metadata, hold, BEFORE_LOCK);
		if (!late->port)
			require_mark(_metadata, late->fd);
		EXPECT_AT(&late->place, 0,
			  bind_to(late->fd, contest->host, late->port));
		close(hold);
		ASSERT_EQ(pid, rc(waitpid(pid, &status, 0)));
		ASSERT_TRUE(WIFEXITED(status));
		EXPECT_AT(&late->place, may_succeed(late, &bind_) ? 0 : -EINVAL,
			  late_answer(-WEXITSTATUS(status), late->port));
		expect_filed(_metadata, late->fd, &late->place);
		reset_on_close(late->fd);
		close(late->fd);
		settle(_metadata);
		expect_free(_metadata, &late->place);
	}
	EXPECT_EQ(users, wait_for_users(users));
}

/* ---- a multicast address, which a socket does not send from ---- */

LATE(group);
CONTEST(group, ip4, "224.0.0.251", "127.0.0.1", "127.0.0.3", NULL, SOCK_DGRAM);
CONTEST(group, ip6, "ff05::fb", "::1", "fd00::2", NULL, SOCK_DGRAM);
CONTEST(group, ip4_tcp, "224.0.0.251", "127.0.0.1", "127.0.0.3", NULL, SOCK_STREAM);

/* To its host's address, which is the source then */
LATE_BIND(group, answer_as_host)
{
	if (self->contest->type == SOCK_STREAM) {
		connect_to_peer(_metadata, self);
		EXPECT_AT(&self->place, self->port, local_port(self->fd));
		return;
	}
	EXPECT_AT(&self->place, 1,
		  send_to(self->fd, self->contest->dest, PEER_PORT, "a", 0));
	expect_peer(_metadata, self);
	expect_name(_metadata, self->fd, &self->place);
}

/* ---- two late calls in a row ---- */

LATE(queue);
CONTEST(queue, ip4_tcp, "127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.1",
	SOCK_STREAM);
CONTEST(queue, ip6_tcp, "::1", "::1", "fd00::2", "fd00::2", SOCK_STREAM);
CONTEST(queue, ip4_udp, "127.0.0.2", "127.0.0.2", "127.0.0.3", "127.0.0.1",
	SOCK_DGRAM);
CONTEST(queue, ip6_udp, "::1", "::1", "fd00::2", "fd00::2", SOCK_DGRAM);

/*
 * Three calls wait for the lock, in this order: the bind() that gets the port, a late
 * bind() and a late connect(). The connect() gets the lock right after the late bind().
 */
TEST_F(queue, two_in_the_queue)
{
	struct late *late = &self->late;
	const struct contest *contest = late->contest;
	struct call bind_ = { .make = do_bind, .host = contest->late };
	struct call connect_ = {
		.make = do_connect, .host = contest->dest, .port = PEER_PORT,
	};
	struct call winner = {
		.make = do_bind, .host = contest->host, .port = late->port,
	};
	struct call lock = { .make = do_keep_lock };
	long users = wait_for_users(0);
	struct slow_page slow;

	if (!have_slow_pages())
		SKIP(return, NO_SLOW_PAGES);
	slow_page_make(_metadata, &slow);
	tell_about(late, "a late bind() and a late connect()");
	late->no_port = true;
	hold_late(_metadata, late, &bind_);
	connect_.fd = late->fd;
	call_hold(_metadata, &connect_, BEFORE_LOCK);
	if (!late->port)
		require_mark(_metadata, late->fd);

	lock.fd = late->fd;
	lock.page = slow.page;
	call_start(_metadata, &lock);
	slow_page_is_read(_metadata, &slow);
	winner.fd = late->fd;
	call_start(_metadata, &winner);
	expect_blocked(_metadata, &winner);
	close(bind_.hold);
	expect_blocked(_metadata, &bind_);
	close(connect_.hold);
	expect_blocked(_metadata, &connect_);
	slow_page_fill(_metadata, &slow);

	call_end(_metadata, &lock);
	EXPECT_EQ(0, call_end(_metadata, &winner));
	EXPECT_EQ(late->port ? -EINVAL : 0, call_end(_metadata, &bind_));
	EXPECT_EQ(0, call_end(_metadata, &connect_));
	EXPECT_EQ(1, rc(send(late->fd, "c", 1, MSG_NOSIGNAL)));
	expect_peer(_metadata, late);
	EXPECT_EQ(0, disconnect(late->fd));
	expect_back(_metadata, late);
	close(late->fd);
	close(slow.uffd);
	settle(_metadata);
	EXPECT_EQ(users, wait_for_users(users));
}

/* ---- an address with a device ---- */

#define LINK_LOCAL	"fe80::2"

LATE(link);
CONTEST(link, tcp, "::1", "::1", LINK_LOCAL, "fd00::2", SOCK_STREAM);
CONTEST(link, udp, "::1", "::1", LINK_LOCAL, "fd00::2", SOCK_DGRAM);
CONTEST(link, any_tcp, "::", "::1", LINK_LOCAL, NULL, SOCK_STREAM);
CONTEST(link, any_udp, "::", "::1", LINK_LOCAL, NULL, SOCK_DGRAM);

static int do_bind_on_lo(struct call *call)
{
	struct addr addr = addr_of(call->host, call->port);

	addr.v6.sin6_scope_id = if_nametoindex("lo");
	return rc(bind(call->fd, &addr.sa, addr.len));
}

/*
 * Binding a link-local address also binds the socket to the device, to which it
 * may be bound already.
 */
TEST_F(link, bind_on_device)
{
	struct late *late = &self->late;
	int i, device;

	ASSERT_EQ(0, add_ip6_to_lo(LINK_LOCAL));
	for (i = 0; i < 4; i++) {
		struct call bind_ = {
			.make = do_bind_on_lo, .host = LINK_LOCAL,
		};

		late->no_port = i & 1;
		device = i & 2 ? if_nametoindex("lo") : 0;
		snprintf(late->about, sizeof(late->about),
			 "a late bind() to a link-local address%s, device %d",
			 late->no_port ? ", IP_BIND_ADDRESS_NO_PORT" : "",
			 device);
		hold_late(_metadata, late, &bind_);
		ASSERT_EQ(0, set_device(late->fd, device ? "lo" : ""));
		win(_metadata, late);
		EXPECT_AT(&late->place, may_succeed(late, &bind_) ? 0 : -EINVAL,
			  release_late(_metadata, &bind_, late->port));
		EXPECT_AT(&late->place, device, get_int(late->fd, SOL_SOCKET,
							SO_BINDTOIFINDEX));
		expect_filed(_metadata, late->fd, &late->place);
		reset_on_close(late->fd);
		close(late->fd);
	}
	EXPECT_EQ(0, wait_for_users(0));
}

#define OTHER_DEVICE	"port0f"

/*
 * While the late bind() keeps the socket lock, the socket has the device of the link-local
 * address. It is on all devices nevertheless, and another socket does not get the port on
 * another device.
 */
TEST_F(link, others_bind_before_the_device_is_undone)
{
	struct late *late = &self->late;
	struct call bind_ = {
		.make = do_bind_on_lo, .host = LINK_LOCAL, .next = BEFORE_UNLOCK,
	};
	long users = wait_for_users(0);
	int other;

	ASSERT_EQ(0, add_ip6_to_lo(LINK_LOCAL));
	ASSERT_EQ(0, add_veth(OTHER_DEVICE));
	tell_about(late, "half a late bind() to a link-local address");
	late->no_port = true;
	hold_late(_metadata, late, &bind_);
	win(_metadata, late);
	call_release_to_next(_metadata, &bind_);

	other = socket_for(_metadata, "::", late->contest->type, late->port);
	ASSERT_EQ(0, set_device(other, OTHER_DEVICE));
	EXPECT_AT(&late->place, -EADDRINUSE, bind_to(other, "::", late->port));
	close(other);
	EXPECT_AT(&late->place, may_succeed(late, &bind_) ? 0 : -EINVAL,
		  release_late(_metadata, &bind_, late->port));
	EXPECT_AT(&late->place, 0, get_int(late->fd, SOL_SOCKET, SO_BINDTOIFINDEX));
	expect_filed(_metadata, late->fd, &late->place);
	reset_on_close(late->fd);
	close(late->fd);
	settle(_metadata);
	EXPECT_EQ(users, wait_for_users(users));
}

/* ---- an address that a timer has changed ---- */

#define VETH		"port0d"
#define FIRST_ADDRESS	"192.0.2.1"
#define NEXT_ADDRESS	"192.0.2.2"
#define NOBODY		"192.0.2.9"

FIXTURE(rerouted) {};

FIXTURE_VARIANT(rerouted) {
	const char *any, *next, *nobody, *late;
	int type, port;
};

ON_BOTH_PORTS(rerouted, tcp, .any = "0.0.0.0", .next = NEXT_ADDRESS,
	      .nobody = NOBODY, .late = "127.0.0.2", .type = SOCK_STREAM);
ON_BOTH_PORTS(rerouted, mapped_tcp, .any = "::", .next = "::ffff:" NEXT_ADDRESS,
	      .nobody = "::ffff:" NOBODY, .late = "::ffff:127.0.0.2",
	      .type = SOCK_STREAM);

FIXTURE_SETUP(rerouted)
{
	if (!have_family_of(variant->any))
		SKIP(return, "no IPv6");
	if (!hold_load())
		SKIP(return, NO_HOLD);
	enter_netns(_metadata);
	ASSERT_EQ(0, write_file("/proc/sys/net/ipv4/ip_dynaddr", "1"));
	ASSERT_EQ(0, system("ip link add " VETH " type veth peer name port0e &&"
			    " ip link set port0e up &&"
			    " ip link set " VETH " arp off up &&"
			    " ip addr add " FIRST_ADDRESS " dev " VETH " &&"
			    " ip addr add " NEXT_ADDRESS " dev " VETH " &&"
			    " ip route add " NOBODY " dev " VETH
			    " src " FIRST_ADDRESS " metric 1 &&"
			    " ip route add " NOBODY " dev " VETH
			    " src " NEXT_ADDRESS " metric 2"));
}

FIXTURE_TEARDOWN(rerouted) {}

/*
 * The route from the first address goes with it, and that from the next one remains. Without
 * any, even for a moment, a repeated SYN could fail with ENETUNREACH.
 */
static int change_address(void)
{
	return system("ip addr del " FIRST_ADDRESS " dev " VETH);
}

static bool has_address(int fd, const char *host)
{
	struct addr name = { .len = sizeof(name.v6) }, want = addr_of(host, 0);

	if (getsockname(fd, &name.sa, &name.len))
		return false;
	if (is_ip6(host))
		return !memcmp(&name.v6.sin6_addr, &want.v6.sin6_addr,
			       sizeof(want.v6.sin6_addr));
	return name.v4.sin_addr.s_addr == want.v4.sin_addr.s_addr;
}

/*
 * With ip_dynaddr, if a SYN is repeated and its source address is gone, the timer gives
 * the socket another address while no task has its lock. A late bind() after the
 * connection has failed must not change that address.
 */
TEST_F(rerouted, bind_after_syn)
{
	int fd = new_socket(_metadata, variant->nobody, variant->type);
	struct call bind_ = { .make = do_bind, .fd = fd, .host = variant->late };
	struct place place = {
		.host = variant->next, .dest = variant->next,
		.other = variant->late, .type = variant->type,
		.port = variant->port, .about = "another address for a SYN",
	};
	struct pollfd event = { .fd = fd };

	if (is_older_than(6, 1) && (!variant->port || is_ip6(variant->any)))
		SKIP(return, "before Linux 6.1, the old address is not replaced everywhere");
	call_hold(_metadata, &bind_, BEFORE_LOCK);
	if (!variant->port)
		require_mark(_metadata, fd);
	ASSERT_EQ(0, bind_to(fd, variant->any, variant->port));
	/*
	 * The SYN is repeated after one second and after three. On a busy machine, the
	 * address may be changed only after the first time.
	 */
	ASSERT_EQ(0, set_int(fd, SOL_TCP, TCP_SYNCNT, 2));
	ASSERT_EQ(0, rc(fcntl(fd, F_SETFL, O_NONBLOCK)));
	ASSERT_EQ(-EINPROGRESS, connect_to(fd, variant->nobody, PEER_PORT));
	ASSERT_EQ(0, change_address());
	ASSERT_EQ(1, rc(poll(&event, 1, 2 * IO_TIMEOUT_SEC * 1000)));
	ASSERT_EQ(ETIMEDOUT, get_int(fd, SOL_SOCKET, SO_ERROR));
	EXPECT_EQ(-EINVAL, release_late(_metadata, &bind_, variant->port));
	expect_name(_metadata, fd, &place);
	expect_taken(_metadata, &place);
	close(fd);
	expect_free(_metadata, &place);
	EXPECT_EQ(0, wait_for_users(0));
}

/* Another socket does not get the address that the timer has given to the first. */
TEST_F(rerouted, others_bind_after_syn)
{
	struct place place = {
		.host = variant->next, .dest = variant->next,
		.other = variant->late, .type = variant->type,
		.port = variant->port, .about = "another address for a SYN",
	};
	double start = now();
	int fd;

	if (is_older_than(6, 1) && is_ip6(variant->any))
		SKIP(return, "before Linux 6.1, the old address is not replaced everywhere");
	get_watched(_metadata);
	fd = bound_socket(_metadata, variant->any, variant->type, variant->port);
	ASSERT_EQ(0, rc(fcntl(fd, F_SETFL, O_NONBLOCK)));
	ASSERT_EQ(-EINPROGRESS, connect_to(fd, variant->nobody, PEER_PORT));
	ASSERT_EQ(0, change_address());
	while (!has_address(fd, variant->next) && now() - start < 2 * IO_TIMEOUT_SEC)
		usleep(10000);
	ASSERT_TRUE(has_address(fd, variant->next));
	EXPECT_EQ(-EADDRINUSE, try_bind(_metadata, &place, variant->next));
	close(fd);
	expect_free(_metadata, &place);
	EXPECT_EQ(0, wait_for_users(0));
}

/* ---- many at a time ---- */

#define MANY		2048
#define HELD		16

FIXTURE(many) {};

FIXTURE_VARIANT(many) {
	int type;
};

FIXTURE_VARIANT_ADD(many, tcp) { .type = SOCK_STREAM };
FIXTURE_VARIANT_ADD(many, udp) { .type = SOCK_DGRAM };

FIXTURE_SETUP(many)
{
	if (!hold_load())
		SKIP(return, NO_HOLD);
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(many) {}

static int do_nothing(struct call *call)
{
	char byte;

	return rc(read(call->fd, &byte, 1));
}

/*
 * How many small objects the kernel has allocated that count against no control group,
 * from its caches for objects of any kind; -1 if that cannot be told.
 */
static long uncharged_objects(void)
{
	FILE *file = fopen("/proc/slabinfo", "re");
	long objects, sum = 0;
	bool charges = false;
	char line[512];
	int size;

	while (file && fgets(line, sizeof(line), file)) {
		charges |= !strncmp(line, "kmalloc-cg-", 11);
		if ((sscanf(line, "kmalloc-%d %ld", &size, &objects) == 2 ||
		     sscanf(line, "kmalloc-rnd-%*d-%d %ld", &size, &objects) == 2) &&
		    size <= 512)
			sum += objects;
	}
	if (file)
		fclose(file);
	return charges ? sum : -1;
}

/*
 * Watches are hashed by socket. With this many pairs, some have the same hash:
 * the end of one socket must not end the watch on another. The memory of a watch is
 * charged to the task's control group, like that of the socket.
 */
TEST_F(many, bind_then_close_of_others)
{
	struct rlimit files = { .rlim_cur = 4096, .rlim_max = 4096 };
	struct call late[HELD] = {}, thread = { .make = do_nothing };
	static int others[MANY];
	char host[32], other[HELD][32];
	int fds[HELD], end[2], i;
	long uncharged;

	ASSERT_EQ(0, rc(setrlimit(RLIMIT_NOFILE, &files)));
	/* A call can be late only if there are other threads. */
	ASSERT_EQ(0, rc(pipe(end)));
	thread.fd = end[0];
	call_start(_metadata, &thread);
	for (i = 0; i < MANY; i++)
		others[i] = socket_for(_metadata, "127.0.0.1", variant->type, 0);
	uncharged = uncharged_objects();
	for (i = 0; i < MANY; i++) {
		snprintf(host, sizeof(host), "127.1.%d.%d", i / 200 + 1, i % 200 + 1);
		ASSERT_EQ(0, bind_to(others[i], host, 0));
	}
	EXPECT_GT(MANY / 2, uncharged_objects() - uncharged);
	/* The place of one is not taken for that of another in the same bucket. */
	fds[0] = socket_for(_metadata, "127.0.0.1", variant->type, 0);
	for (i = 0; i < MANY; i++) {
		snprintf(host, sizeof(host), "127.1.%d.%d", i / 200 + 1, i % 200 + 1);
		EXPECT_EQ(-EADDRINUSE, bind_to(fds[0], host, 0));
	}
	close(fds[0]);
	for (i = 0; i < HELD; i++) {
		snprintf(other[i], sizeof(other[i]), "127.3.0.%d", i + 1);
		fds[i] = new_socket(_metadata, "127.0.0.1", variant->type);
		ASSERT_EQ(0, set_int(fds[i], SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1));
		late[i].make = do_bind;
		late[i].fd = fds[i];
		late[i].host = other[i];
		call_hold(_metadata, &late[i], BEFORE_LOCK);
		snprintf(host, sizeof(host), "127.2.0.%d", i + 1);
		require_mark(_metadata, fds[i]);
		ASSERT_EQ(0, bind_to(fds[i], host, 0));
	}
	for (i = 0; i < MANY; i++)
		close(others[i]);
	EXPECT_EQ(HELD, wait_for_users(HELD));
	for (i = 0; i < HELD; i++) {
		struct addr name = { .len = sizeof(name.v6) };

		EXPECT_EQ(0, call_release(_metadata, &late[i]));
		snprintf(host, sizeof(host), "127.2.0.%d", i + 1);
		EXPECT_EQ(0, rc(getsockname(fds[i], &name.sa, &name.len)));
		expect_address(_metadata, &name, host,
			       "the close of other sockets");
		close(fds[i]);
	}
	EXPECT_EQ(0, wait_for_users(0));
	close(end[1]);
	EXPECT_EQ(0, call_end(_metadata, &thread));
}

/* ---- a post_bind program that refuses the bind() ---- */

struct refusal {
	struct cgroup cgroup;
	int program, type;
};

static void refusal_make(struct __test_metadata *_metadata,
			 struct refusal *refusal, const char *host)
{
	refusal->type = is_ip6(host) ? BPF_CGROUP_INET6_POST_BIND :
				       BPF_CGROUP_INET4_POST_BIND;
	refusal->program = LOAD_PROGRAM(BPF_PROG_TYPE_CGROUP_SOCK,
					refusal->type, MOV_IMM(R0, 0), RETURN());
	cgroup_enter(_metadata, &refusal->cgroup);
}

static void refusal_on(struct __test_metadata *_metadata,
		       const struct refusal *refusal)
{
	attach(_metadata, refusal->cgroup.fd, refusal->program, refusal->type);
}

static void refusal_off(struct __test_metadata *_metadata,
			const struct refusal *refusal)
{
	detach(_metadata, refusal->cgroup.fd, refusal->program, refusal->type);
}

/* Older kernels leave a socket bound whose bind() a program has refused. */
static bool refusal_is_undone(struct __test_metadata *_metadata,
			      const struct refusal *refusal,
			      const struct contest *contest)
{
	int fd = new_socket(_metadata, contest->host, contest->type);
	bool undone;

	refusal_on(_metadata, refusal);
	EXPECT_EQ(-EPERM, bind_to(fd, contest->host, CONTROL_PORT));
	refusal_off(_metadata, refusal);
	undone = !bind_to(fd, contest->host, CONTROL_PORT);
	close(fd);
	return undone;
}

#define NOT_UNDONE	"a refused bind() leaves the socket bound in this kernel"

static void refusal_end(struct __test_metadata *_metadata,
			struct refusal *refusal)
{
	close(refusal->program);
	cgroup_leave(_metadata, &refusal->cgroup);
}

/*
 * The late bind() is refused by a program at its end. The socket must keep the
 * port that the other bind() took, or give it up completely.
 */
TEST_F(any, bind_refused)
{
	struct late *late = &self->late;
	const struct contest *contest = late->contest;
	long users = wait_for_users(0);
	struct refusal refusal;
	int i, result;

	refusal_make(_metadata, &refusal, contest->host);
	tell_about(late, "a late bind() that a program refuses");
	for (i = 0; i < 4; i++) {
		struct call bind_ = {
			.make = do_bind, .host = contest->late,
			.port = i & 1 ? OTHER_PORT : 0,
		};

		late->no_port = i & 2;
		hold_late(_metadata, late, &bind_);
		win(_metadata, late);
		refusal_on(_metadata, &refusal);
		result = release_late(_metadata, &bind_, late->port);
		refusal_off(_metadata, &refusal);
		EXPECT_TRUE(result == -EINVAL ||
			    (!late->port && (!result || result == -EPERM))) {
			TH_LOG("it returned %d", result);
		}
		if (late->port || holds_zero(late->fd)) {
			expect_filed(_metadata, late->fd, &late->place);
		} else {
			struct addr name = { .len = sizeof(name.v6) };

			expect_free(_metadata, &late->place);
			EXPECT_EQ(0, rc(getsockname(late->fd, &name.sa, &name.len)));
			EXPECT_AT(&late->place, 0, port_of(&name));
			expect_address(_metadata, &name, is_ip6(contest->host) ? "::" : "0.0.0.0",
				       late->about);
		}
		close(late->fd);
		settle(_metadata);
		expect_free(_metadata, &late->place);
	}
	refusal_end(_metadata, &refusal);
	EXPECT_EQ(users, wait_for_users(users));
}

/*
 * The first bind() is refused while another one waits for the lock; that one
 * then gets the port.
 */
TEST_F(any, winner_refused)
{
	struct late *late = &self->late;
	const struct contest *contest = late->contest;
	struct call bind_ = {
		.make = do_bind, .host = contest->late, .port = OTHER_PORT,
	};
	struct call winner = {
		.make = do_win, .host = contest->host, .port = late->port,
	};
	struct place place = late->place;
	long users = wait_for_users(0);
	struct refusal refusal;

	refusal_make(_metadata, &refusal, contest->host);
	if (!refusal_is_undone(_metadata, &refusal, contest)) {
		refusal_end(_metadata, &refusal);
		SKIP(return, NOT_UNDONE);
	}
	tell_about(late, "a bind() that a program has refused");
	hold_late(_metadata, late, &bind_);
	winner.fd = late->fd;
	refusal_on(_metadata, &refusal);
	call_start(_metadata, &winner);
	EXPECT_EQ(-EPERM, call_end(_metadata, &winner));
	refusal_off(_metadata, &refusal);
	EXPECT_EQ(0, call_release(_metadata, &bind_));
	expect_free(_metadata, &late->place);
	EXPECT_EQ(OTHER_PORT, local_port(late->fd));
	place.host = contest->late;
	place.port = OTHER_PORT;
	EXPECT_AT(&place, -EADDRINUSE,
		  try_bind(_metadata, &place, place.host));
	close(late->fd);
	refusal_end(_metadata, &refusal);
	EXPECT_EQ(users, wait_for_users(users));
}

/*
 * The first bind() is refused by a program, and the late call runs before the first has
 * restored everything: for a TCP socket on port 0, before the module takes the lock for
 * that. Returns false on kernels where a refused bind() leaves the socket bound.
 */
static bool refuse_winner(struct __test_metadata *_metadata, struct late *self,
			  struct call *late, const char *about)
{
	/* Before Linux 6.1, bind() takes the lock once more, for programs. */
	bool restores = self->contest->type == SOCK_STREAM && !self->port &&
			!is_older_than(6, 1);
	struct call winner = {
		.make = do_bind, .host = self->contest->host, .port = self->port,
	};
	struct refusal refusal;
	bool undone;

	refusal_make(_metadata, &refusal, self->contest->host);
	undone = refusal_is_undone(_metadata, &refusal, self->contest);
	if (undone) {
		tell_about(self, about);
		hold_late(_metadata, self, late);
		winner.fd = self->fd;
		if (!self->port)
			require_mark(_metadata, self->fd);
		refusal_on(_metadata, &refusal);
		call_hold(_metadata, &winner,
			  restores ? BEFORE_RELOCK : AFTER_UNLOCK);
		refusal_off(_metadata, &refusal);
		EXPECT_EQ(0, call_release(_metadata, late));
		EXPECT_EQ(-EPERM, call_release(_metadata, &winner));
	}
	refusal_end(_metadata, &refusal);
	return undone;
}

/* The late call writes an address without a port. */
TEST_F(any, winner_refused_and_late_without_port)
{
	struct late *late = &self->late;
	struct call bind_ = { .make = do_bind, .host = late->contest->late };
	struct addr name = { .len = sizeof(name.v6) };
	long users = wait_for_users(0);

	late->no_port = true;
	if (!refuse_winner(_metadata, late, &bind_,
			   "a bind() that a program has refused, and a late one"))
		SKIP(return, NOT_UNDONE);
	EXPECT_EQ(0, rc(getsockname(late->fd, &name.sa, &name.len)));
	EXPECT_EQ(0, port_of(&name));
	expect_address(_metadata, &name, late->contest->late, late->about);
	expect_free(_metadata, &late->place);
	close(late->fd);
	EXPECT_EQ(users, wait_for_users(users));
}

/* The same for a socket that has an address without a port from the start */
TEST_F(any, winner_refused_after_an_address)
{
	struct late *late = &self->late;
	const struct contest *contest = late->contest;
	struct place place = late->place;
	long users = wait_for_users(0);
	int with_port;

	late->no_port = true;
	late->early = contest->late;
	for (with_port = 0; with_port < 2; with_port++) {
		struct addr name = { .len = sizeof(name.v6) };
		struct call bind_ = { .make = do_bind, .host = contest->late };

		if (with_port)
			bind_.port = OTHER_PORT;
		else if (!strcmp(contest->late, contest->host) &&
			 contest->type == SOCK_STREAM && !late->port)
			continue;	/* The module cannot tell that address from the refused one. */
		if (!refuse_winner(_metadata, late, &bind_,
				   "a refused bind() and a late one, after an address"))
			SKIP(return, NOT_UNDONE);
		EXPECT_EQ(0, rc(getsockname(late->fd, &name.sa, &name.len)));
		EXPECT_EQ(bind_.port, port_of(&name));
		expect_address(_metadata, &name, contest->late, late->about);
		if (with_port) {
			place.host = contest->late;
			place.port = OTHER_PORT;
			EXPECT_AT(&place, -EADDRINUSE,
				  try_bind(_metadata, &place, place.host));
		}
		expect_free(_metadata, &late->place);
		close(late->fd);
		EXPECT_EQ(users, wait_for_users(users));
	}
}

/* The late call gives the socket an ephemeral port. */
TEST_F(tcp, winner_refused_and_late_listen)
{
	struct late *late = &self->late;
	struct call listen_ = { .make = do_listen };
	const char *dest = late->contest->dest;
	long users = wait_for_users(0);
	int client, child, port;

	if (!refuse_winner(_metadata, late, &listen_,
			   "a bind() that a program has refused, and a late listen()"))
		SKIP(return, NOT_UNDONE);
	/*
	 * Connections to the refused address reach it, whatever getsockname() returns.
	 */
	port = local_port(late->fd);
	EXPECT_TRUE(is_ephemeral(port));
	client = new_socket(_metadata, dest, SOCK_STREAM);
	EXPECT_AT(&late->place, 0, connect_to(client, dest, port));
	child = wait_readable(late->fd) ? rc(accept(late->fd, NULL, NULL)) :
					  -EAGAIN;
	EXPECT_LE(0, child);
	EXPECT_AT(&late->place, port, local_port(child));
	reset_on_close(client);
	close(client);
	close(child);
	expect_free(_metadata, &late->place);
	close(late->fd);
	EXPECT_EQ(users, wait_for_users(users));
}

/* ---- a socket that is refused and bound again at once ---- */

#define ROUNDS	50

FIXTURE(again) {};

FIXTURE_VARIANT(again) {
	const char *host, *refused;
	int type, port;
};

ON_BOTH_PORTS(again, ip4_tcp, .host = "127.0.0.1", .refused = "127.0.0.2",
	      .type = SOCK_STREAM);
ON_BOTH_PORTS(again, ip4_udp, .host = "127.0.0.1", .refused = "127.0.0.2",
	      .type = SOCK_DGRAM);
ON_BOTH_PORTS(again, ip6_udp, .host = "::1", .refused = "fd00::2",
	      .type = SOCK_DGRAM);

FIXTURE_SETUP(again)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	if (!have_cgroup())
		SKIP(return, NO_CGROUP);
	enter_netns(_metadata);
	stay_on_one_cpu(_metadata);
}

FIXTURE_TEARDOWN(again) {}

/* Refuses the address whose last 32 bits these are. */
static void refuse_address(struct __test_metadata *_metadata,
			   struct refusal *refusal, const char *host)
{
	const struct addr addr = addr_of(host, 0);
	const bool ip6 = is_ip6(host);
	const int last = ip6 ? addr.v6.sin6_addr.s6_addr32[3] :
			       addr.v4.sin_addr.s_addr;

	refusal->type = ip6 ? BPF_CGROUP_INET6_POST_BIND :
			      BPF_CGROUP_INET4_POST_BIND;
	refusal->program = LOAD_PROGRAM(BPF_PROG_TYPE_CGROUP_SOCK, refusal->type,
		LOAD(R2, R1, ip6 ? offsetof(struct bpf_sock, src_ip6[3]) :
				   offsetof(struct bpf_sock, src_ip4)),
		MOV_IMM(R0, 1),
		SKIP_UNLESS(R2, last, 1),
		MOV_IMM(R0, 0),
		RETURN());
	cgroup_enter(_metadata, &refusal->cgroup);
}

/*
 * A watch that is about to be freed must not change the socket. Without the real-time
 * priority, the kernel's worker would often free it before the second bind().
 */
TEST_F(again, bind_after_refused)
{
	const struct sched_param first = { .sched_priority = 1 }, usual = {};
	struct call thread = { .make = do_nothing };
	int end[2], round, fd, undone;
	long users = wait_for_users(0);
	struct refusal refusal;

	refuse_address(_metadata, &refusal, variant->refused);
	refusal_on(_metadata, &refusal);
	fd = new_socket(_metadata, variant->host, variant->type);
	EXPECT_EQ(-EPERM, bind_to(fd, variant->refused, CONTROL_PORT));
	undone = !bind_to(fd, variant->host, CONTROL_PORT);
	close(fd);
	/* A call can be late only if there are other threads. */
	ASSERT_EQ(0, rc(pipe(end)));
	thread.fd = end[0];
	call_start(_metadata, &thread);
	sched_setscheduler(0, SCHED_FIFO, &first);
	for (round = 0; undone && round < ROUNDS; round++) {
		struct addr name = { .len = sizeof(name.v6) };

		fd = socket_for(_metadata, variant->host, variant->type,
				variant->port);
		EXPECT_EQ(-EPERM, bind_to(fd, variant->refused, variant->port));
		EXPECT_EQ(0, bind_to(fd, variant->host, variant->port));
		expect_port(_metadata, fd, variant->port);
		EXPECT_EQ(0, rc(getsockname(fd, &name.sa, &name.len)));
		expect_address(_metadata, &name, variant->host,
			       "a bind() that was refused");
		close(fd);
	}
	sched_setscheduler(0, SCHED_OTHER, &usual);
	close(end[1]);
	EXPECT_EQ(0, call_end(_metadata, &thread));
	refusal_off(_metadata, &refusal);
	refusal_end(_metadata, &refusal);
	EXPECT_EQ(users, wait_for_users(users));
	if (!undone)
		SKIP(return, NOT_UNDONE);
}

/* ---- the lock under which a refused bind() gives a TCP port back ---- */

#define CHAIN		"/sys/module/port0_chain/parameters/"

FIXTURE(chain) {};
FIXTURE_VARIANT(chain) { const char *host; };
FIXTURE_VARIANT_ADD(chain, ip4) { .host = "127.0.0.1" };
FIXTURE_VARIANT_ADD(chain, ip6) { .host = "::1" };

FIXTURE_SETUP(chain)
{
	int err;

	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	if (!have_cgroup())
		SKIP(return, NO_CGROUP);
	enter_netns(_metadata);
	stay_on_one_cpu(_metadata);
	err = test_module_load("port0_chain");
	if (err == -ENOENT || err == -ENOEXEC)
		SKIP(return, "modules/port0_chain.ko is not built for this kernel");
	if (err == -EOPNOTSUPP)
		SKIP(return, "this kernel has no chain for each address, or no slab_nomerge");
	ASSERT_EQ(0, err);
}

FIXTURE_TEARDOWN(chain)
{
	test_module_unload("port0_chain");
}

/*
 * The chain is chosen by the address. On an ordinary port, the kernel zeroes the address of
 * a socket that a program refuses and then locks the chain of the wildcard address. On
 * port 0 it must be the chain that the socket is in.
 */
TEST_F(chain, locked_after_refused)
{
	int fd = socket_for(_metadata, variant->host, SOCK_STREAM, 0);
	struct refusal refusal;

	refusal_make(_metadata, &refusal, variant->host);
	EXPECT_EQ(0, bind_to(fd, variant->host, 0));
	close(fd);
	EXPECT_EQ(1, read_number(CHAIN "freed"));
	EXPECT_EQ(0, read_number(CHAIN "unlocked"));

	fd = socket_for(_metadata, variant->host, SOCK_STREAM, 0);
	refusal_on(_metadata, &refusal);
	EXPECT_EQ(-EPERM, bind_to(fd, variant->host, 0));
	refusal_off(_metadata, &refusal);
	close(fd);
	EXPECT_EQ(2, read_number(CHAIN "freed"));
	EXPECT_EQ(0, read_number(CHAIN "unlocked"));
	refusal_end(_metadata, &refusal);
}

/*
 * The watch on a socket that has given port 0 back is taken out of the wait queue of the
 * socket lock before the module can be unloaded, since the next owner of the lock walks
 * that queue.
 */
TEST(lock_is_used_after_unload)
{
	const struct contest contest = { .host = "127.0.0.1", .type = SOCK_DGRAM };
	struct module_state before = module_found();
	struct call winner = { .make = do_win, .host = contest.host };
	struct refusal refusal;

	if (!getenv("PORT0_KO"))
		SKIP(return, "PORT0_KO does not name the module's file");
	enter_netns(_metadata);
	refusal_make(_metadata, &refusal, contest.host);
	if (!refusal_is_undone(_metadata, &refusal, &contest)) {
		refusal_end(_metadata, &refusal);
		SKIP(return, NOT_UNDONE);
	}
	winner.fd = new_socket(_metadata, contest.host, contest.type);
	refusal_on(_metadata, &refusal);
	call_start(_metadata, &winner);
	EXPECT_EQ(-EPERM, call_end(_metadata, &winner));
	refusal_off(_metadata, &refusal);
	EXPECT_EQ(0, module_take_out());
	EXPECT_EQ(0, set_int(winner.fd, SOL_SOCKET, SO_KEEPALIVE, 1));
	EXPECT_EQ(0, module_bring_back(&before));
	close(winner.fd);
	refusal_end(_metadata, &refusal);
}

/* The first watch after the module was loaded is found like any other. */
TEST(first_watch)
{
	static const struct contest contest = {
		.host = "127.0.0.2", .dest = "127.0.0.2", .late = "127.0.0.3",
		.other = "127.0.0.1", .type = SOCK_DGRAM,
	};
	struct module_state before = module_found();
	struct call bind_ = {
		.make = do_bind, .host = contest.late, .next = BEFORE_UNLOCK,
	};
	struct late late = { .no_port = true };

	if (!getenv("PORT0_KO"))
		SKIP(return, "PORT0_KO does not name the module's file");
	if (!hold_load())
		SKIP(return, NO_HOLD);
	ASSERT_EQ(0, module_take_out());
	ASSERT_EQ(0, module_load(before.args));
	late_set_up(_metadata, &late, &contest, 0);
	tell_about(&late, "half a late bind(), the first watch");
	hold_late(_metadata, &late, &bind_);
	win(_metadata, &late);
	call_release_to_next(_metadata, &bind_);
	others_bind(_metadata, &late);
	call_release(_metadata, &bind_);
	close(late.fd);
	settle(_metadata);
	expect_free(_metadata, &late.place);
	EXPECT_EQ(0, module_bring_back(&before));
}

/* ---- a program that chooses the port ---- */

FIXTURE(chosen) {};

FIXTURE_VARIANT(chosen) {
	const char *host;
	int type, port;
};

ON_BOTH_PORTS(chosen, ip4_tcp, .host = "127.0.0.1", .type = SOCK_STREAM);
ON_BOTH_PORTS(chosen, ip6_tcp, .host = "::1", .type = SOCK_STREAM);
ON_BOTH_PORTS(chosen, ip4_udp, .host = "127.0.0.1", .type = SOCK_DGRAM);
ON_BOTH_PORTS(chosen, ip6_udp, .host = "::1", .type = SOCK_DGRAM);

FIXTURE_SETUP(chosen)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	if (!have_cgroup())
		SKIP(return, NO_CGROUP);
	if (access(DRAIN, W_OK))
		SKIP(return, "the module is not loaded");
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(chosen)
{
	write_file(DRAIN, "0");
}

/*
 * While the module drains, port 0 means any free port on a marked socket as on others,
 * also if a BPF program replaces the caller's port by 0. No socket may get port 0.
 */
TEST_F(chosen, program_chooses_port_0)
{
	const int type = is_ip6(variant->host) ? BPF_CGROUP_INET6_BIND :
						 BPF_CGROUP_INET4_BIND;
	int program = WITH_ADDRESS(type,
				   MOV_IMM(R3, 0),
				   STORE(R1, ADDR(user_port), R3),
				   MOV_IMM(R0, 1),
				   RETURN());
	struct cgroup cgroup;
	int fd;

	cgroup_enter(_metadata, &cgroup);
	attach(_metadata, cgroup.fd, program, type);
	/* Programs run for the control group that a socket was made in. */
	fd = socket_for(_metadata, variant->host, variant->type, variant->port);
	EXPECT_EQ(0, write_file(DRAIN, "1"));
	EXPECT_EQ(0, bind_to(fd, variant->host, OTHER_PORT));
	EXPECT_EQ(0, write_file(DRAIN, "0"));
	EXPECT_TRUE(is_ephemeral(local_port(fd))) {
		TH_LOG("it is bound to port %d", local_port(fd));
	}
	EXPECT_TRUE(variant->port || holds_zero(fd) == 0);
	detach(_metadata, cgroup.fd, program, type);
	close(program);
	cgroup_leave(_metadata, &cgroup);
	close(fd);
}

/* A late bind() is undone, too, if a program has chosen the port of the winner. */
TEST_F(chosen, program_chooses_the_port_of_the_winner)
{
	const int type = is_ip6(variant->host) ? BPF_CGROUP_INET6_BIND :
						 BPF_CGROUP_INET4_BIND;
	const char *other = is_ip6(variant->host) ? SECOND_IP6 : "127.0.0.2";
	int program = WITH_ADDRESS(type,
				   MOV_IMM(R3, htons(variant->port)),
				   STORE(R1, ADDR(user_port), R3),
				   MOV_IMM(R0, 1),
				   RETURN());
	struct call late = { .make = do_bind, .host = other, .port = PEER_PORT };
	struct place place = {
		.host = variant->host, .dest = variant->host, .other = other,
		.type = variant->type, .port = variant->port,
		.about = "a late bind() beside a program",
	};
	struct cgroup cgroup;

	if (!hold_load())
		SKIP(return, NO_HOLD);
	stay_on_one_cpu(_metadata);
	cgroup_enter(_metadata, &cgroup);
	late.fd = new_socket(_metadata, variant->host, variant->type);
	call_hold(_metadata, &late, BEFORE_LOCK);
	if (!variant->port)
		require_mark(_metadata, late.fd);
	attach(_metadata, cgroup.fd, program, type);
	EXPECT_EQ(0, bind_to(late.fd, variant->host, OTHER_PORT));
	detach(_metadata, cgroup.fd, program, type);
	EXPECT_EQ(-EINVAL, late_answer(call_release(_metadata, &late), variant->port));
	expect_filed(_metadata, late.fd, &place);
	close(late.fd);
	close(program);
	cgroup_leave(_metadata, &cgroup);
}

/* Other late calls find the socket bound, and must behave like that. */
static void race_late_call(struct __test_metadata *_metadata, struct late *self,
			   struct call *late, const char *about)
{
	tell_about(self, about);
	hold_late(_metadata, self, late);
	win(_metadata, self);
	EXPECT_EQ(0, call_release(_metadata, late));
}

TEST_F(tcp, listen)
{
	struct late *late = &self->late;
	struct call listen_ = { .make = do_listen };

	race_late_call(_metadata, late, &listen_, "a late listen()");
	expect_connections(_metadata, late->fd, &late->place);
	expect_filed(_metadata, late->fd, &late->place);
}

TEST_F(any, connect)
{
	struct late *late = &self->late;
	struct call connect_ = {
		.make = do_connect, .host = late->contest->dest,
		.port = PEER_PORT,
	};

	race_late_call(_metadata, late, &connect_, "a late connect()");
	EXPECT_EQ(1, rc(send(late->fd, "c", 1, 0)));
	expect_peer(_metadata, late);
	EXPECT_EQ(0, disconnect(late->fd));
	expect_back(_metadata, late);
}

static int do_send_whole(struct call *call)
{
	int sent = do_send(call);

	return sent == (int)strlen(call->text) ? 0 : sent;
}

TEST_F(udp, send)
{
	struct late *late = &self->late;
	struct call send_ = {
		.make = do_send_whole, .host = late->contest->dest,
		.port = PEER_PORT, .text = "s",
	};

	race_late_call(_metadata, late, &send_, "a late send()");
	expect_peer(_metadata, late);
	expect_filed(_metadata, late->fd, &late->place);
}

TEST_F(any, device)
{
	struct late *late = &self->late;
	struct call device = { .make = do_device };
	struct slow_page slow;

	if (!have_slow_pages())
		SKIP(return, NO_SLOW_PAGES);
	slow_page_make(_metadata, &slow);
	tell_about(late, "a late SO_BINDTODEVICE");
	late->fd = new_socket(_metadata, late->contest->host,
			      late->contest->type);
	device.fd = late->fd;
	device.page = slow.page;
	call_start(_metadata, &device);
	slow_page_is_read(_metadata, &slow);
	win(_metadata, late);
	slow_page_put(_metadata, &slow, "lo");
	EXPECT_EQ(0, call_end(_metadata, &device));
	expect_filed(_metadata, late->fd, &late->place);
	close(slow.uffd);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * Threads against each other on one socket.
 *
 * A race is two or three calls that are made at the same moment, over and over
 * on fresh sockets, for a bounded time. Any of them may win. Each result must be
 * possible if the calls run one after the other, the socket must end up on port 0, on
 * an ephemeral port or on none, and when all is closed, the port must be free and the
 * module unused.
 */
#include <linux/filter.h>

#include "stress.h"

#define MAX_ROLES	3
#define CALLS		4

#ifndef IPV6_ADDRFORM
#define IPV6_ADDRFORM	1
#endif

struct race {
	const char *host;
	int type;
	bool listening;		/* the socket listens when the race begins */
	bool group;		/* SO_REUSEPORT on every socket */
	int fd;
	int peer;		/* a listener or a bound socket on another port */
	struct addr peer_addr;
	atomic_bool closed;
	atomic_int here, round;
	atomic_bool over;
	atomic_ulong calls;
	atomic_int wrong;	/* the first result that is impossible */
	const char *wrong_call;
};

typedef void role_t(struct race *race);

/* The errors that a call may return; its socket may also be closed. */
#define MAY(...)	((const int[]){ EBADF, ##__VA_ARGS__, 0 })

static void check(struct race *race, const char *call, int err,
		  const int *may)
{
	atomic_fetch_add(&race->calls, 1);
	if (err >= 0)
		return;
	for (; *may; may++)
		if (err == -*may)
			return;
	if (!atomic_exchange(&race->wrong, err))
		race->wrong_call = call;
}

#define CHECK(call, ...) check(race, #call, call, MAY(__VA_ARGS__))

static void race_bind(struct race *race)
{
	CHECK(bind_to(race->fd, race->host, 0), EINVAL, EAFNOSUPPORT);
}

static void race_bind_other(struct race *race)
{
	CHECK(bind_to(race->fd, race->host, OTHER_PORT), EINVAL, EADDRINUSE);
}

static void race_close(struct race *race)
{
	if (!atomic_exchange(&race->closed, true))
		CHECK(rc(close(race->fd)));
}

static void race_mark(struct race *race)
{
	CHECK(set_mark(race->fd, 0), EBUSY);
	CHECK(set_mark(race->fd, 1));
}

static void race_options(struct race *race)
{
	CHECK(set_int(race->fd, SOL_SOCKET, SO_REUSEADDR, 1));
	CHECK(set_int(race->fd, SOL_SOCKET, SO_REUSEADDR, 0));
	CHECK(get_mark(race->fd));
	CHECK(holds_zero(race->fd));
}

static void race_listen(struct race *race)
{
	CHECK(rc(listen(race->fd, 4)), EINVAL, EADDRINUSE);
}

static void race_accept(struct race *race)
{
	struct addr addr = { .len = sizeof(addr.v6) };
	int fd = rc(accept4(race->fd, &addr.sa, &addr.len, SOCK_NONBLOCK));

	check(race, "accept", fd,
	      MAY(EAGAIN, EINVAL, ENOTSOCK));
	if (fd < 0)
		return;
	/* If its peer has reset the connection, the child can be bound. */
	CHECK(bind_to(fd, race->host, 0), EINVAL, EADDRINUSE);
	CHECK(holds_zero(fd));
	reset_on_close(fd);
	close(fd);
}

/* Connect or send to the socket under test, from a socket that no other thread uses */
static void race_visit(struct race *race)
{
	int fd = socket(is_ip6(race->host) ? AF_INET6 : AF_INET,
			race->type | SOCK_NONBLOCK, 0);

	reset_on_close(fd);
	connect_to(fd, race->host, 0);
	peer_port(fd);
	send(fd, "x", 1, MSG_NOSIGNAL);
	close(fd);
}

static void race_connect(struct race *race)
{
	check(race, "connect", rc(connect(race->fd, &race->peer_addr.sa,
					  race->peer_addr.len)),
	      MAY(EINPROGRESS, EALREADY, EISCONN, ECONNREFUSED, EADDRNOTAVAIL,
		  ECONNABORTED, EINVAL, ECONNRESET, EAFNOSUPPORT));
}

static void race_disconnect(struct race *race)
{
	CHECK(disconnect(race->fd), EINVAL, EALREADY, ECONNREFUSED);
}

static void race_shutdown(struct race *race)
{
	CHECK(rc(shutdown(race->fd, SHUT_RDWR)), ENOTCONN);
}

static void race_send(struct race *race)
{
	struct addr self = addr_of(race->host, 0);
	char byte;

	check(race, "sendto", rc(sendto(race->fd, "x", 1, MSG_NOSIGNAL |
					MSG_DONTWAIT, &self.sa, self.len)),
	      MAY(ECONNREFUSED, EINVAL, EPIPE, EAGAIN, ENOTCONN, EISCONN,
		  ENETUNREACH, ENOTSOCK));
	recv(race->fd, &byte, 1, MSG_DONTWAIT);
}

static void race_names(struct race *race)
{
	int port = local_port(race->fd);

	check(race, "getsockname", port, MAY());
	check(race, "getpeername", peer_port(race->fd), MAY(ENOTCONN));
	CHECK(get_mark(race->fd));
	CHECK(holds_zero(race->fd));
}

/* Another socket joins the SO_REUSEPORT group and leaves it. */
static void race_group(struct race *race)
{
	int fd = socket(is_ip6(race->host) ? AF_INET6 : AF_INET, race->type, 0);

	set_mark(fd, 1);
	set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	check(race, "bind of another", bind_to(fd, race->host, 0),
	      MAY(EADDRINUSE));
	if (race->type == SOCK_STREAM)
		check(race, "listen of another", rc(listen(fd, 1)),
		      MAY(EADDRINUSE));
	close(fd);
}

static void race_addrform(struct race *race)
{
	set_int(race->fd, SOL_IPV6, IPV6_ADDRFORM, AF_INET);
}

/*
 * All threads start together; they spin, so that they start at nearly the same
 * time.
 */
static void start_together(struct race *race, int roles)
{
	int round = atomic_load(&race->round);

	if (atomic_fetch_add(&race->here, 1) == roles) {
		atomic_store(&race->here, 0);
		atomic_fetch_add(&race->round, 1);
		return;
	}
	while (atomic_load(&race->round) == round)
		sched_yield();
}

struct runner {
	struct race *race;
	role_t *role;
	int roles;
	pthread_t thread;
};

static void *run_role(void *data)
{
	struct runner *runner = data;
	struct race *race = runner->race;
	int i;

	for (;;) {
		start_together(race, runner->roles);
		if (atomic_load(&race->over))
			return NULL;
		for (i = 0; i < CALLS; i++)
			runner->role(race);
		start_together(race, runner->roles);
	}
}

static void set_up_round(struct __test_metadata *_metadata, struct race *race)
{
	race->fd = socket(is_ip6(race->host) ? AF_INET6 : AF_INET,
			  race->type | SOCK_NONBLOCK, 0);
	ASSERT_LE(0, race->fd);
	ASSERT_EQ(0, set_mark(race->fd, 1));
	reset_on_close(race->fd);
	if (race->group) {
		ASSERT_EQ(0, set_int(race->fd, SOL_SOCKET, SO_REUSEPORT, 1));
	}
	if (race->listening) {
		ASSERT_EQ(0, bind_to(race->fd, race->host, 0));
		if (race->type == SOCK_STREAM)
			ASSERT_EQ(0, rc(listen(race->fd, 4)));
	}
	atomic_store(&race->closed, false);
}

static void end_round(struct __test_metadata *_metadata, struct race *race)
{
	int port, zero;

	ASSERT_EQ(0, atomic_load(&race->wrong)) {
		TH_LOG("%s: %s", race->wrong_call,
		       strerror(-atomic_load(&race->wrong)));
	}
	if (atomic_load(&race->closed))
		return;
	port = local_port(race->fd);
	zero = holds_zero(race->fd);
	if (zero) {
		ASSERT_EQ(0, port);
	}
	ASSERT_TRUE(!port || is_ephemeral(port) || port == OTHER_PORT) {
		TH_LOG("ended on port %d", port);
	}
	close(race->fd);
}

static void make_peer(struct __test_metadata *_metadata, struct race *race)
{
	race->peer_addr = addr_of(race->host, CONTROL_PORT);
	race->peer = bound_socket(_metadata, race->host, race->type,
				  CONTROL_PORT);
	if (race->type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(race->peer, 1)));
}

/* Keep the peer's queue from filling. */
static void drain(struct race *race)
{
	int fd;

	if (race->type != SOCK_STREAM)
		return;
	while ((fd = accept4(race->peer, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
		reset_on_close(fd);
		close(fd);
	}
}

static void run_race(struct __test_metadata *_metadata, struct race *race,
		     role_t *roles[])
{
	struct runner runners[MAX_ROLES];
	long rounds = 0, users;
	double deadline;
	int n, i, fd;

	users = wait_for_users(0);
	make_peer(_metadata, race);
	ASSERT_EQ(0, rc(fcntl(race->peer, F_SETFL, O_NONBLOCK)));
	for (n = 0; n < MAX_ROLES && roles[n]; n++)
		;
	for (i = 0; i < n; i++) {
		runners[i] = (struct runner){
			.race = race, .role = roles[i], .roles = n,
		};
		ASSERT_EQ(0, pthread_create(&runners[i].thread, NULL, run_role,
					    &runners[i]));
	}

	deadline = now() + scaled(100, 4000) / 1e3;
	do {
		set_up_round(_metadata, race);
		start_together(race, n);
		start_together(race, n);
		end_round(_metadata, race);
		drain(race);
		rounds++;
	} while (now() < deadline);

	atomic_store(&race->over, true);
	start_together(race, n);
	for (i = 0; i < n; i++)
		pthread_join(runners[i].thread, NULL);
	close(race->peer);

	/* No socket and no reference is left. */
	EXPECT_EQ(users, wait_for_users(users));
	fd = bound_socket(_metadata, race->host, race->type, 0);
	close(fd);
	TH_LOG("%ld rounds, %lu calls", rounds, atomic_load(&race->calls));
}

/* The kinds of sockets for races */
#define RACES(fixture)							\
	FIXTURE(fixture) {};						\
	FIXTURE_VARIANT(fixture) {					\
		const char *host;					\
		int type;						\
	};								\
	FIXTURE_SETUP(fixture)						\
	{								\
		if (!have_family_of(variant->host))			\
			SKIP(return, "no IPv6");			\
		enter_netns(_metadata);					\
	}								\
	FIXTURE_TEARDOWN(fixture) {}

#define VARIANT(fixture, name, _host, _type)				\
	FIXTURE_VARIANT_ADD(fixture, name) { .host = _host, .type = _type }

#define ON_TCP(fixture)							\
	VARIANT(fixture, ip4_tcp, "127.0.0.1", SOCK_STREAM);		\
	VARIANT(fixture, ip6_tcp, "::1", SOCK_STREAM);			\
	VARIANT(fixture, mapped_tcp, "::ffff:127.0.0.1", SOCK_STREAM)

#define ON_UDP(fixture)							\
	VARIANT(fixture, ip4_udp, "127.0.0.1", SOCK_DGRAM);		\
	VARIANT(fixture, ip6_udp, "::1", SOCK_DGRAM);			\
	VARIANT(fixture, mapped_udp, "::ffff:127.0.0.1", SOCK_DGRAM)

RACES(any);
ON_TCP(any);
ON_UDP(any);

RACES(tcp);
ON_TCP(tcp);

RACES(udp);
ON_UDP(udp);

RACES(mapped);
VARIANT(mapped, tcp, "::ffff:127.0.0.1", SOCK_STREAM);
VARIANT(mapped, udp, "::ffff:127.0.0.1", SOCK_DGRAM);

/* RACE(fixture, name, how the socket begins, roles...) */
#define RACE(fixture, name, begin, ...)					\
	TEST_F_TIMEOUT(fixture, name, STRESS_TIMEOUT_SEC)		\
	{								\
		role_t *roles[MAX_ROLES + 1] = { __VA_ARGS__ };		\
		struct race race = { .host = variant->host,		\
				     .type = variant->type, begin };	\
									\
		run_race(_metadata, &race, roles);			\
	}

#define UNBOUND		.listening = false
#define BOUND		.listening = true
#define GROUP		.listening = true, .group = true

RACE(any, bind_bind, UNBOUND, race_bind, race_bind)
RACE(any, bind_bind_other, UNBOUND, race_bind, race_bind_other)
RACE(any, bind_close, UNBOUND, race_bind, race_close)
RACE(any, bind_mark, UNBOUND, race_bind, race_mark)
RACE(any, bind_options, UNBOUND, race_bind, race_options)
RACE(tcp, bind_listen, UNBOUND, race_bind, race_listen)
RACE(any, bind_connect, UNBOUND, race_bind, race_connect)
RACE(any, bind_connect_disconnect, UNBOUND, race_bind, race_connect,
     race_disconnect)
RACE(mapped, bind_connect_addrform, UNBOUND, race_bind,
     race_connect, race_addrform)
RACE(tcp, bind_shutdown_listen, UNBOUND, race_bind, race_shutdown, race_listen)
RACE(tcp, listen_close, BOUND, race_listen, race_close, race_visit)
RACE(tcp, accept_close, BOUND, race_accept, race_close, race_visit)
RACE(tcp, accept_shutdown, BOUND, race_accept, race_shutdown, race_visit)
RACE(any, mark_close, BOUND, race_mark, race_close)
RACE(udp, send_bind_close, UNBOUND, race_send, race_bind, race_close)
RACE(udp, send_mark, UNBOUND, race_send, race_mark, race_options)
RACE(udp, send_send, BOUND, race_send, race_send, race_visit)
RACE(udp, send_disconnect, BOUND, race_send, race_connect, race_disconnect)
RACE(any, names_bind_close, UNBOUND, race_names, race_bind, race_close)
RACE(any, names_connect_disconnect, BOUND, race_names, race_connect,
     race_disconnect)
RACE(tcp, names_accept, BOUND, race_names, race_accept, race_visit)
RACE(any, group_join_leave, GROUP, race_group, race_group, race_visit)
RACE(any, group_close, GROUP, race_group, race_close, race_visit)

/*
 * A namespace is removed with sockets on port 0 in it: connected, listening, in
 * all states between, and connections to port 0 that were just closed.
 */
TEST_F_TIMEOUT(any, netns_exit, STRESS_TIMEOUT_SEC)
{
	long users = wait_for_users(0), rounds = 0;
	double deadline = now() + scaled(200, 5000) / 1e3;

	do {
		int listener, client, fd, i;

		enter_netns(_metadata);
		listener = bound_socket(_metadata, variant->host,
					variant->type, 0);
		if (variant->type == SOCK_STREAM)
			ASSERT_EQ(0, rc(listen(listener, 8)));
		for (i = 0; i < 4; i++) {
			client = new_socket(_metadata, variant->host,
					    variant->type);
			ASSERT_EQ(0, connect_to(client, variant->host, 0));
			if (variant->type == SOCK_STREAM && i & 1) {
				fd = rc(accept(listener, NULL, NULL));
				ASSERT_LE(0, fd);
				close(fd);
			}
			close(client);
		}
		ASSERT_EQ(0, rc(unshare(CLONE_NEWNET)));
		close(listener);
		rounds++;
	} while (now() < deadline);

	EXPECT_EQ(users, wait_for_users(users));
	TH_LOG("%ld namespaces", rounds);
}

/*
 * Late calls: they pass the hooks before another thread marks and binds the socket, and
 * get the socket lock after that. In order_bind each happens in every run; here they
 * happen by chance, at any point.
 */
struct late_race {
	const char *host, *other;
	int type;
	void (*call)(struct late_race *race);
	int fd;
	int bystander;		/* UDP: bound to @other and port 0 during the whole race */
	int port, err;		/* of bind_late() */
	atomic_bool go, over;
	pthread_t thread;
};

static void *be_late(void *data)
{
	struct late_race *race = data;

	for (;;) {
		while (!atomic_load(&race->go)) {
			if (atomic_load(&race->over))
				return NULL;
			sched_yield();
		}
		race->call(race);
		atomic_store(&race->go, false);
	}
}

/*
 * A filter that takes the kernel long to compile, while it holds the socket
 * lock. Calls that find the lock taken sleep, and others get it first while
 * they wake up.
 */
static void keep_lock(int fd)
{
	static struct sock_filter insns[BPF_MAXINSNS];
	struct sock_fprog filter = { .len = BPF_MAXINSNS, .filter = insns };

	insns[BPF_MAXINSNS - 1] = (struct sock_filter){
		.code = BPF_RET | BPF_K, .k = -1,
	};
	setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof(filter));
}

/* Each thread runs on its own CPU, if there are two. */
static void late_begin(struct __test_metadata *_metadata,
		       struct late_race *race)
{
	cpu_set_t cpu;

	ASSERT_EQ(0, pthread_create(&race->thread, NULL, be_late, race));
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		return;
	CPU_ZERO(&cpu);
	CPU_SET(0, &cpu);
	pthread_setaffinity_np(pthread_self(), sizeof(cpu), &cpu);
	CPU_ZERO(&cpu);
	CPU_SET(1, &cpu);
	pthread_setaffinity_np(race->thread, sizeof(cpu), &cpu);
}

static void late_end(struct late_race *race)
{
	atomic_store(&race->over, true);
	pthread_join(race->thread, NULL);
}

/* The late call begins, and another thread marks the socket and binds it. */
static void run_late(struct late_race *race, long round)
{
	volatile int spin;

	atomic_store(&race->go, true);
	if (round & 1)
		keep_lock(race->fd);
	else
		for (spin = round * 7 % 600; spin > 0; spin--)
			;
	set_mark(race->fd, 1);
	bind_to(race->fd, race->host, 0);
	while (atomic_load(&race->go))
		sched_yield();
}

static void bind_late(struct late_race *race)
{
	race->err = bind_to(race->fd, race->other, race->port);
}

/* The one of the two addresses that the socket has */
static const char *winner_of(const struct late_race *race)
{
	struct addr name = { .len = sizeof(name.v6) };
	struct addr other = addr_of(race->other, 0);

	getsockname(race->fd, &name.sa, &name.len);
	return memcmp(&name.v6, &other.v6, name.len) ? race->host : race->other;
}

static int bind_rival(const struct late_race *race, const char *host)
{
	int fd = socket(is_ip6(host) ? AF_INET6 : AF_INET, race->type, 0);
	int err = set_mark(fd, 1) ?: bind_to(fd, host, 0);

	close(fd);
	return err;
}

/* Expect that the socket is filed under the address that it has, and under no other. */
static void expect_place(struct __test_metadata *_metadata,
			 const struct late_race *race, long round,
			 const char *after)
{
	const char *mine = winner_of(race);
	const char *other = mine == race->host ? race->other : race->host;

	ASSERT_EQ(-EADDRINUSE, bind_rival(race, mine)) {
		TH_LOG("two on %s after %ld rounds and %s", mine, round, after);
	}
	ASSERT_EQ(0, bind_rival(race, other)) {
		TH_LOG("bound to %s, but conflicts with %s after %ld rounds and %s",
		       mine, other, round, after);
	}
}

/*
 * UDP looks for conflicts among all sockets of the port, so bind() does not show a
 * wrong address. Instead, another socket is bound to that address, and must still
 * receive what is sent there.
 */
static void expect_bystander(struct __test_metadata *_metadata,
			     const struct late_race *race, long round,
			     const char *after)
{
	char byte;

	ASSERT_STREQ(race->host, winner_of(race)) {
		TH_LOG("bound beside another after %ld rounds and %s", round,
		       after);
	}
	ASSERT_EQ(1, send_to(race->bystander, race->other, 0, "x", 0));
	ASSERT_EQ(1, rc(recv(race->bystander, &byte, 1, 0))) {
		TH_LOG("another socket's datagram received after %ld rounds and %s",
		       round, after);
	}
	ASSERT_EQ(-EADDRINUSE, bind_rival(race, race->host));
}

/*
 * A call after which a socket that is not filed under its address would be filed in the
 * wrong chain
 */
static const char *move(const struct late_race *race, long round, int peer_port)
{
	switch (round / 2 % 4) {
	case 0:
		return "nothing else";
	case 1:
		set_int(race->fd, SOL_SOCKET, SO_BINDTOIFINDEX,
			if_nametoindex("lo"));
		return "SO_BINDTODEVICE";
	case 2:
		if (race->type == SOCK_STREAM)
			listen(race->fd, 1);
		else
			send(race->fd, "x", 1, 0);
		return "listen() or send()";
	default:
		connect_to(race->fd, race->host, peer_port);
		return "connect()";
	}
}

FIXTURE(late) {};

FIXTURE_VARIANT(late) {
	const char *host, *other;
	int type;
};

#define LATE(name, _host, _other, _type)				\
	FIXTURE_VARIANT_ADD(late, name) {				\
		.host = _host, .other = _other, .type = _type		\
	}
LATE(ip4_tcp, "127.0.0.1", "127.0.0.2", SOCK_STREAM);
LATE(ip6_tcp, "::1", "fd00::2", SOCK_STREAM);
LATE(mapped_tcp, "::ffff:127.0.0.1", "::ffff:127.0.0.2", SOCK_STREAM);
LATE(ip4_udp, "127.0.0.1", "127.0.0.2", SOCK_DGRAM);
LATE(ip6_udp, "::1", "fd00::2", SOCK_DGRAM);
LATE(mapped_udp, "::ffff:127.0.0.1", "::ffff:127.0.0.2", SOCK_DGRAM);

FIXTURE_SETUP(late)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(late) {}

/* The number of tries matters, not the time: a busy host makes fewer. */
#define LATE_ROUNDS	scaled(300, 3000)
#define LATE_SEC	scaled(2, 20)
#define LATE_MAX_SEC	scaled(10, 100)

static bool late_goes_on(long round, double start)
{
	double spent = now() - start;

	return spent < LATE_SEC ||
	       (round < LATE_ROUNDS && spent < LATE_MAX_SEC);
}

TEST_F_TIMEOUT(late, bind, STRESS_TIMEOUT_SEC)
{
	struct late_race race = {
		.host = variant->host, .other = variant->other,
		.type = variant->type, .call = bind_late,
	};
	long users = wait_for_users(0), round, held = 0;
	struct addr name = { .len = sizeof(name.v6) };
	double start = now();
	const char *after;
	int peer, child;

	peer = new_socket(_metadata, variant->host, variant->type);
	ASSERT_EQ(0, rc(fcntl(peer, F_SETFL, O_NONBLOCK)));
	ASSERT_EQ(0, bind_to(peer, variant->host, 0));
	ASSERT_EQ(0, rc(getsockname(peer, &name.sa, &name.len)));
	if (variant->type == SOCK_DGRAM)
		race.bystander = bound_socket(_metadata, variant->other,
					      SOCK_DGRAM, 0);
	else
		ASSERT_EQ(0, rc(listen(peer, 4)));
	late_begin(_metadata, &race);
	for (round = 0; late_goes_on(round, start); round++) {
		race.fd = new_socket(_metadata, variant->host, variant->type);
		set_int(race.fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, round & 8);
		run_late(&race, round);
		if (holds_zero(race.fd)) {
			held++;
			after = move(&race, round, port_of(&name));
			if (variant->type == SOCK_DGRAM)
				expect_bystander(_metadata, &race, round,
						 after);
			else
				expect_place(_metadata, &race, round, after);
		}
		/*
		 * Otherwise the accept queue is full soon, and connect() waits
		 * for the next SYN.
		 */
		while ((child = accept4(peer, NULL, NULL, SOCK_NONBLOCK)) >= 0)
			close(child);
		reset_on_close(race.fd);
		close(race.fd);
	}
	late_end(&race);
	if (variant->type == SOCK_DGRAM)
		close(race.bystander);
	EXPECT_EQ(users, wait_for_users(users));
	/* Only these rounds test anything. */
	EXPECT_LT(0, held);
	TH_LOG("%ld rounds, %ld on port 0", round, held);
}

static void v6only_late(struct late_race *race)
{
	set_int(race->fd, SOL_IPV6, IPV6_V6ONLY, 0);
}

FIXTURE(v6only) {};

FIXTURE_VARIANT(v6only) {
	int type;
	bool marked;
};

FIXTURE_VARIANT_ADD(v6only, tcp) { .type = SOCK_STREAM };
FIXTURE_VARIANT_ADD(v6only, udp) { .type = SOCK_DGRAM };
FIXTURE_VARIANT_ADD(v6only, marked_tcp) { .type = SOCK_STREAM, .marked = true };
FIXTURE_VARIANT_ADD(v6only, marked_udp) { .type = SOCK_DGRAM, .marked = true };

FIXTURE_SETUP(v6only)
{
	if (!have_family_of("::"))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(v6only) {}

/*
 * A dual-stack socket and an IPv4 socket cannot have the port at the same time.
 */
TEST_F_TIMEOUT(v6only, bind, STRESS_TIMEOUT_SEC)
{
	struct late_race race = {
		.host = "::", .type = variant->type, .call = v6only_late,
	};
	int rival = socket_for(_metadata, "0.0.0.0", variant->type, 0);
	double start = now();
	long round;

	ASSERT_EQ(0, bind_to(rival, "0.0.0.0", 0));
	late_begin(_metadata, &race);
	for (round = 0; late_goes_on(round, start); round++) {
		race.fd = new_socket(_metadata, "::", variant->type);
		set_int(race.fd, SOL_IPV6, IPV6_V6ONLY, 1);
		if (variant->marked)
			set_mark(race.fd, 1);
		run_late(&race, round);
		ASSERT_FALSE(holds_zero(race.fd) &&
			     !get_int(race.fd, SOL_IPV6, IPV6_V6ONLY)) {
			TH_LOG("a socket of both families beside 0.0.0.0:0 after %ld rounds",
			       round);
		}
		close(race.fd);
	}
	late_end(&race);
	TH_LOG("%ld rounds", round);
}

/*
 * Two sockets are bound to the same port at the same moment, on addresses that conflict:
 * one bind() succeeds, and the other one fails.
 */
FIXTURE(two_binds) {};

FIXTURE_VARIANT(two_binds) {
	const char *host, *other;
	int type, port;
};

#define TWO_BINDS(name, _host, _other)					\
	ON_BOTH_PORTS(two_binds, name##_tcp, .host = _host,		\
		      .other = _other, .type = SOCK_STREAM);		\
	ON_BOTH_PORTS(two_binds, name##_udp, .host = _host,		\
		      .other = _other, .type = SOCK_DGRAM)

TWO_BINDS(ip4, "127.0.0.1", "127.0.0.1");
TWO_BINDS(ip6, "::1", "::1");
TWO_BINDS(mapped, "::ffff:127.0.0.1", "::ffff:127.0.0.1");
TWO_BINDS(any4, "0.0.0.0", "127.0.0.1");
TWO_BINDS(any6, "::", "::1");
TWO_BINDS(both_any4, "0.0.0.0", "0.0.0.0");
TWO_BINDS(both_any6, "::", "::");
TWO_BINDS(dual, "::", "0.0.0.0");

FIXTURE_SETUP(two_binds)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(two_binds) {}

#define BIND_ROUNDS	scaled(300, 30000)
#define BIND_MAX_SEC	scaled(1, 60)
#define CHAIN_SOCKETS	512
/* This plus the port has the same chain as the port: a multiple of the table's size */
#define CHAIN_PORT	8192

/*
 * Fill the chain of the port with UDP sockets on another port of the chain. A wildcard is
 * compared with each of them, so that the test for conflicts takes longer.
 */
static void fill_chain(struct __test_metadata *_metadata, int *fds, int port)
{
	int i;

	for (i = 0; i < CHAIN_SOCKETS; i++) {
		fds[i] = new_socket(_metadata, "127.0.0.9", SOCK_DGRAM);
		ASSERT_EQ(0, set_int(fds[i], SOL_SOCKET, SO_REUSEADDR, 1));
		ASSERT_EQ(0, bind_to(fds[i], "127.0.0.9", CHAIN_PORT + port));
	}
}

TEST_F_TIMEOUT(two_binds, one_succeeds, STRESS_TIMEOUT_SEC)
{
	struct late_race second = {
		.other = variant->other, .port = variant->port, .call = bind_late,
	};
	long users = wait_for_users(0), round, first_wins = 0;
	int fd, err, chain[CHAIN_SOCKETS];
	double start = now();
	volatile int spin;

	if (variant->type == SOCK_DGRAM && udp_checks_wildcard(_metadata))
		fill_chain(_metadata, chain, variant->port);
	late_begin(_metadata, &second);
	for (round = 0; round < BIND_ROUNDS && now() - start < BIND_MAX_SEC; round++) {
		fd = socket_for(_metadata, variant->host, variant->type, variant->port);
		second.fd = socket_for(_metadata, variant->other, variant->type,
				       variant->port);
		atomic_store(&second.go, true);
		for (spin = round * 7 % 600; spin > 0; spin--)
			;
		err = bind_to(fd, variant->host, variant->port);
		while (atomic_load(&second.go))
			sched_yield();
		first_wins += !err;
		ASSERT_EQ(-EADDRINUSE, err ?: second.err) {
			TH_LOG("both were bound in round %ld", round);
		}
		ASSERT_EQ(0, err ? second.err : err) {
			TH_LOG("neither was bound in round %ld", round);
		}
		close(fd);
		close(second.fd);
	}
	late_end(&second);
	EXPECT_EQ(users, wait_for_users(users));
	TH_LOG("%ld rounds, in %ld of them the first was bound", round, first_wins);
}

TEST_HARNESS_MAIN

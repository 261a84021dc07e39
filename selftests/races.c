// SPDX-License-Identifier: GPL-2.0
/*
 * Threads against each other on one socket.
 *
 * A race is two or three calls that are made at the same moment, over and over
 * on fresh sockets, for a bounded time. Which of them wins is open. What must
 * hold is that every answer is one that the calls can give one after the other,
 * that the socket ends on port 0, on an ephemeral port or on none, and that the
 * port is free and the module unused when all is closed.
 */
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

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
	atomic_int wrong;	/* the first answer that cannot be */
	const char *wrong_call;
};

typedef void role_t(struct race *race);

/* What a call may answer besides success; and its socket may be closed. */
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
	/* Its peer may have reset it, and then it is free to bind. */
	CHECK(bind_to(fd, race->host, 0), EINVAL, EADDRINUSE);
	CHECK(holds_zero(fd));
	reset_on_close(fd);
	close(fd);
}

/* To the socket that the race is about, from one that is nobody else's. */
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

/* All threads go on together. Spinning makes them meet closely. */
static void meet(struct race *race, int roles)
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
		meet(race, runner->roles);
		if (atomic_load(&race->over))
			return NULL;
		for (i = 0; i < CALLS; i++)
			runner->role(race);
		meet(race, runner->roles);
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
		meet(race, n);
		meet(race, n);
		end_round(_metadata, race);
		drain(race);
		rounds++;
	} while (now() < deadline);

	atomic_store(&race->over, true);
	meet(race, n);
	for (i = 0; i < n; i++)
		pthread_join(runners[i].thread, NULL);
	close(race->peer);

	/* Nothing stays behind. */
	EXPECT_EQ(users, wait_for_users(users));
	fd = bound_socket(_metadata, race->host, race->type, 0);
	close(fd);
	TH_LOG("%ld rounds, %lu calls", rounds, atomic_load(&race->calls));
}

/* What a race can be run on. */
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
 * A namespace goes away with sockets on port 0 in it, connected, listening and
 * in every state between, and connections to port 0 just closed.
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

/* A page of memory that whoever reads it waits for. */
struct slow_page {
	int uffd;
	void *page;
	size_t size;
};

static int slow_page_make(struct slow_page *slow)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };

	slow->uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (slow->uffd < 0)
		return -errno;
	slow->size = sysconf(_SC_PAGESIZE);
	slow->page = mmap(NULL, slow->size, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.range.start = (uintptr_t)slow->page;
	reg.range.len = slow->size;
	return rc(ioctl(slow->uffd, UFFDIO_API, &api)) ?:
	       rc(ioctl(slow->uffd, UFFDIO_REGISTER, &reg));
}

static bool slow_page_is_read(const struct slow_page *slow)
{
	struct pollfd event = { .fd = slow->uffd, .events = POLLIN };

	return poll(&event, 1, IO_TIMEOUT_SEC * 1000) == 1 &&
	       event.revents == POLLIN;
}

static int slow_page_fill(const struct slow_page *slow)
{
	struct uffdio_zeropage zero = {
		.range = { (uintptr_t)slow->page, slow->size },
	};

	return rc(ioctl(slow->uffd, UFFDIO_ZEROPAGE, &zero));
}

/* A call in a thread, and what has become of it. */
struct waiter {
	int (*call)(struct waiter *waiter);
	int fd;
	const char *host;
	void *page;
	pthread_t thread;
	atomic_int tid;
	int result;
};

static void *wait_in_call(void *data)
{
	struct waiter *waiter = data;

	atomic_store(&waiter->tid, syscall(SYS_gettid));
	waiter->result = waiter->call(waiter);
	return NULL;
}

static int wait_in_option(struct waiter *waiter)
{
	return rc(setsockopt(waiter->fd, SOL_IP, IP_OPTIONS, waiter->page, 4));
}

static int wait_in_clear(struct waiter *waiter)
{
	return set_mark(waiter->fd, 0);
}

static int wait_in_send(struct waiter *waiter)
{
	struct addr self = addr_of(waiter->host, 0);

	return rc(sendto(waiter->fd, "x", 1, MSG_MORE, &self.sa, self.len));
}

static void start_waiter(struct __test_metadata *_metadata,
			 struct waiter *waiter)
{
	ASSERT_EQ(0, pthread_create(&waiter->thread, NULL, wait_in_call,
				    waiter));
}

/* It waits for the socket, and cannot be interrupted. */
static void expect_blocked(struct __test_metadata *_metadata,
			   struct waiter *waiter)
{
	double deadline = now() + IO_TIMEOUT_SEC;
	char path[64], state = 0;
	FILE *file;

	do {
		nap_ms(10);
		snprintf(path, sizeof(path), "/proc/self/task/%d/stat",
			 atomic_load(&waiter->tid));
		file = fopen(path, "re");
		if (!file)
			continue;
		if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
			state = 0;
		fclose(file);
	} while (state != 'D' && now() < deadline);
	ASSERT_EQ('D', state);
}

/*
 * A datagram is on its way to port 0 and waits for the socket, in line behind
 * whoever clears the mark. It must go where it was sent.
 */
TEST_F(udp, send_behind_clear)
{
	struct slow_page slow = {};
	struct waiter option = { .call = wait_in_option };
	struct waiter clear = { .call = wait_in_clear };
	struct waiter send_ = { .call = wait_in_send, .host = variant->host };
	int server = bound_socket(_metadata, variant->host, SOCK_DGRAM, 0);
	int client = new_socket(_metadata, variant->host, SOCK_DGRAM);
	struct waiter *waiters[] = { &option, &clear, &send_ };
	int i;

	if (access("/proc/sys/vm/unprivileged_userfaultfd", F_OK))
		SKIP(return, "this kernel has no userfaultfd");
	ASSERT_EQ(0, slow_page_make(&slow));
	ASSERT_EQ(0, set_mark(client, 1));
	ASSERT_EQ(0, bind_to(client, variant->host, OTHER_PORT));
	option.page = slow.page;
	for (i = 0; i < 3; i++) {
		waiters[i]->fd = client;
		start_waiter(_metadata, waiters[i]);
		if (i)
			expect_blocked(_metadata, waiters[i]);
		else
			ASSERT_TRUE(slow_page_is_read(&slow));
	}
	ASSERT_EQ(0, slow_page_fill(&slow));
	for (i = 0; i < 3; i++)
		pthread_join(waiters[i]->thread, NULL);
	EXPECT_EQ(0, option.result);
	EXPECT_EQ(0, clear.result);
	EXPECT_EQ(1, send_.result);
	EXPECT_EQ(0, get_mark(client));

	expect_send(_metadata, client, "y");
	expect_recv(_metadata, server, "xy");
	close(slow.uffd);
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * Loading and unloading again and again, while sockets are in use.
 *
 * While the module is loaded and unloaded, threads make calls that enter the hooks, on
 * marked sockets and on others, some of which were marked under an earlier load.
 * Unloading is tried at random moments: it is refused while a socket holds port 0, and
 * works once none does. Calls that do not use port 0 must work throughout.
 *
 * PORT0_KO names the module's file. The module is left as it was found.
 * PORT0_CYCLES=N makes each test run N cycles, however long that takes.
 */
#include "order.h"

#define CYCLES		200	/* of a long run */
#define QUICK_SEC	15
#define PATIENCE_SEC	2

static struct {
	atomic_bool over;
	atomic_bool pause;		/* no thread binds port 0 from now on */
	atomic_int ready;
	atomic_ulong marked, bound, unmarked, exchanged;
	_Atomic(const char *) wrong;
	atomic_int wrong_err;
} shared;

struct worker {
	void (*make_calls)(struct worker *worker);
	const char *host;
	int type;
	int port;
	pthread_t thread;
	unsigned int random;
};

static void wrong(const char *what, int err)
{
	atomic_store(&shared.wrong_err, err);
	atomic_store(&shared.wrong, what);
}

static int make_socket(const struct worker *worker, int flags)
{
	struct timeval patience = { .tv_sec = IO_TIMEOUT_SEC };
	int fd = socket(is_ip6(worker->host) ? AF_INET6 : AF_INET,
			worker->type | flags, 0);

	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	set_int(fd, SOL_SOCKET, SO_REUSEADDR, worker->type == SOCK_STREAM);
	return fd;
}

/* The calls of an unmarked socket must succeed at any time. */
static void use_unmarked(struct worker *worker)
{
	int server = make_socket(worker, 0), client = make_socket(worker, 0);
	int fd = server, err;
	char byte = 0;

	err = bind_to(server, worker->host, worker->port);
	if (!err && worker->type == SOCK_STREAM)
		err = rc(listen(server, 1));
	if (err)
		wrong("unmarked bind() or listen()", err);
	err = connect_to(client, worker->host, worker->port);
	if (err)
		wrong("unmarked connect()", err);
	if (worker->type == SOCK_STREAM) {
		struct addr addr = { .len = sizeof(addr.v6) };

		fd = rc(accept(server, &addr.sa, &addr.len));
		if (fd < 0)
			wrong("unmarked accept()", fd);
	}
	err = peer_port(client);
	if (err != worker->port)
		wrong("unmarked getpeername()", err);
	err = rc(send(client, "x", 1, MSG_NOSIGNAL));
	if (err == 1)
		err = rc(recv(fd, &byte, 1, 0));
	if (err != 1 || byte != 'x')
		wrong("unmarked send() or recv()", err);
	atomic_fetch_add(&shared.unmarked, 1);

	reset_on_close(client);
	close(client);
	if (fd != server)
		close(fd);
	close(server);
}

/*
 * The module may be unloaded between any two calls here: then a socket that is marked
 * but not bound gets an ephemeral port. While a socket is bound to port 0, the module
 * stays.
 */
static void use_marked(struct worker *worker)
{
	int server = make_socket(worker, 0), client, fd, err, port;
	struct addr dest = addr_of(worker->host, 0);
	char byte = 0;

	err = set_mark(server, 1);
	if (err) {
		if (err != -ENOPROTOOPT)
			wrong("marking", err);
		close(server);
		return;
	}
	atomic_fetch_add(&shared.marked, 1);
	if (atomic_load(&shared.pause)) {
		close(server);
		return;
	}
	err = bind_to(server, worker->host, 0);
	if (err && err != -ENOPROTOOPT && err != -EADDRINUSE)
		wrong("marked bind()", err);
	port = local_port(server);
	if (err || port) {
		if (port && !is_ephemeral(port))
			wrong("port after bind()", port);
		close(server);
		return;
	}
	if (holds_zero(server) != 1)
		wrong("IP_BOUND_PORT_ZERO", holds_zero(server));
	if (module_users() < 1)
		wrong("reference count", module_users());
	atomic_fetch_add(&shared.bound, 1);

	client = make_socket(worker, 0);
	if (worker->type == SOCK_STREAM) {
		err = rc(listen(server, 1));
		if (err)
			wrong("marked listen()", err);
		err = connect_to(client, worker->host, 0);
		fd = rc(accept(server, NULL, NULL));
		if (err || fd < 0)
			wrong("connection to port 0", err ?: fd);
		/*
		 * In half of the cases, close the listener first: the child does not
		 * keep the module loaded.
		 */
		if (next_random(&worker->random) & 1)
			close(server);
		err = rc(send(client, "x", 1, MSG_NOSIGNAL));
		if (err == 1)
			err = rc(recv(fd, &byte, 1, 0));
		/* Half of them leave a TIME_WAIT on port 0, half nothing. */
		if (next_random(&worker->random) & 1)
			reset_on_close(fd);
		close(fd);
	} else {
		set_mark(client, 1);
		err = rc(sendto(client, "x", 1, 0, &dest.sa, dest.len));
		if (err == 1)
			err = rc(recv(server, &byte, 1, 0));
	}
	if (err != 1 || byte != 'x')
		wrong("exchange on port 0", err);
	atomic_fetch_add(&shared.exchanged, 1);
	close(client);
	close(server);
}

/*
 * Each thread has its own file table, so closing a descriptor twice affects no other
 * thread.
 */
static void *work(void *data)
{
	struct worker *worker = data;

	unshare(CLONE_FILES);
	atomic_fetch_add(&shared.ready, 1);
	while (!atomic_load(&shared.over)) {
		worker->make_calls(worker);
		/* Unloading waits until each task has slept. */
		nap_ms(next_random(&worker->random) % 3);
	}
	return NULL;
}

static struct worker workers[] = {
	{ use_unmarked, "127.0.1.1", SOCK_STREAM, .port = OTHER_PORT },
	{ use_unmarked, "::1", SOCK_DGRAM, .port = OTHER_PORT },
	{ use_marked, "127.0.2.1", SOCK_STREAM, .port = 0 },
	{ use_marked, "fd00::2", SOCK_STREAM, .port = 0 },
	{ use_marked, "127.0.2.2", SOCK_DGRAM, .port = 0 },
	{ use_marked, "::1", SOCK_DGRAM, .port = 0 },
};

#define WORKERS	((int)(sizeof(workers) / sizeof(*workers)))

static void start_workers(struct __test_metadata *_metadata, struct worker *team,
			  int count, unsigned int random)
{
	int i;

	for (i = 0; i < count; i++) {
		team[i].random = random + i + 1;
		ASSERT_EQ(0, pthread_create(&team[i].thread, NULL, work,
					    &team[i]));
	}
	/* Until then, the threads share the file table of this one. */
	while (atomic_load(&shared.ready) < count)
		sched_yield();
}

static void stop_workers(struct __test_metadata *_metadata, struct worker *team,
			 int count)
{
	int i;

	atomic_store(&shared.over, true);
	for (i = 0; i < count; i++)
		pthread_join(team[i].thread, NULL);
	EXPECT_EQ(0, wait_for_users(0));
}

static void expect_nothing_wrong(struct __test_metadata *_metadata)
{
	ASSERT_EQ(NULL, atomic_load(&shared.wrong)) {
		TH_LOG("%s: %d", atomic_load(&shared.wrong),
		       atomic_load(&shared.wrong_err));
	}
}

FIXTURE(unload) {
	struct module_state found;
};

FIXTURE_SETUP(unload)
{
	self->found = module_found();
	if (!getenv("PORT0_KO"))
		SKIP(return, "PORT0_KO does not name the module's file");
	if (!have_family_of("::1"))
		SKIP(return, "no IPv6");
	if (module_users() < 0)
		ASSERT_EQ(0, module_load(""));
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(unload)
{
	EXPECT_EQ(0, module_bring_back(&self->found));
}

/* A cycle may take seconds: the kernel waits for every task, hook by hook. */
static bool has_more_cycles(long cycles, double start)
{
	const char *wanted = getenv("PORT0_CYCLES");

	if (wanted)
		return cycles < atol(wanted);
	if (is_long_run())
		return cycles < CYCLES;
	return cycles < 2 || now() - start < QUICK_SEC;
}

/* Try to unload until it succeeds. */
static void unload_when_unused(struct __test_metadata *_metadata, long *refused)
{
	double start = now();
	int err;

	while ((err = module_unload())) {
		ASSERT_EQ(-EWOULDBLOCK, err);
		++*refused;
		if (now() - start > PATIENCE_SEC)
			atomic_store(&shared.pause, true);
		ASSERT_GT(30 * PATIENCE_SEC, now() - start) {
			TH_LOG("%ld users although no socket holds port 0",
			       module_users());
		}
		sched_yield();
	}
	atomic_store(&shared.pause, false);
}

TEST_F_TIMEOUT(unload, while_sockets_are_in_use, STRESS_TIMEOUT_SEC)
{
	long cycle, refused = 0;
	unsigned int random = seed();
	double start = now(), told = start;
	int old[2], i, port;

	TH_LOG("PORT0_SEED=%u", random);
	start_workers(_metadata, workers, WORKERS, random);
	for (cycle = 0; has_more_cycles(cycle, start); cycle++) {
		for (i = 0; i < 2; i++) {
			old[i] = new_socket(_metadata, "127.0.3.1",
					    i ? SOCK_DGRAM : SOCK_STREAM);
			ASSERT_EQ(0, set_mark(old[i], 1));
		}
		nap_ms(next_random(&random) % 50);
		unload_when_unused(_metadata, &refused);

		/* Sockets that were marked under an earlier load */
		ASSERT_EQ(-ENOPROTOOPT, get_mark(old[0]));
		nap_ms(next_random(&random) % 20);
		if (cycle & 1) {
			ASSERT_EQ(0, bind_to(old[0], "127.0.3.1", 0));
			port = local_port(old[0]);
			ASSERT_TRUE(is_ephemeral(port));
		}

		ASSERT_EQ(0, module_load(self->found.args));
		ASSERT_EQ(1, get_mark(old[0]));
		if (!(cycle & 1)) {
			ASSERT_EQ(0, bind_to(old[0], "127.0.3.1", 0));
			expect_port(_metadata, old[0], 0);
		}
		ASSERT_EQ(0, bind_to(old[1], "127.0.3.1", 0));
		expect_port(_metadata, old[1], 0);
		ASSERT_EQ(-EWOULDBLOCK, module_unload());
		refused++;
		for (i = 0; i < 2; i++)
			close(old[i]);
		expect_nothing_wrong(_metadata);
		tell(_metadata, "cycles", cycle + 1, &told);
	}
	stop_workers(_metadata, workers, WORKERS);
	expect_nothing_wrong(_metadata);
	EXPECT_LT(0, (long)atomic_load(&shared.exchanged));
	TH_LOG("%ld cycles, unloading refused %ld times; %lu sockets marked, %lu bound to port 0, %lu exchanges there, %lu uses of unmarked sockets",
	       cycle, refused, atomic_load(&shared.marked),
	       atomic_load(&shared.bound), atomic_load(&shared.exchanged),
	       atomic_load(&shared.unmarked));
}

/*
 * Calls that enter the hooks and leave no reference on the module. So the module can be
 * unloaded at any moment, while calls enter and leave the hooks.
 */
static void enter_hooks(struct worker *worker)
{
	static __thread int fds[4];
	int i;

	for (i = 0; i < 4; i++) {
		if (!fds[i]) {
			fds[i] = make_socket(worker, 0);
			set_mark(fds[i], 1);
		}
		peer_port(fds[i]);
		/*
		 * This host does not have the address: bind() is refused before it
		 * takes the port.
		 */
		bind_to(fds[i], "192.0.2.1", 0);
		atomic_fetch_add(&shared.marked, 1);
	}
	i = next_random(&worker->random) % 4;
	close(fds[i]);
	fds[i] = 0;
}

static struct worker knockers[] = {
	{ enter_hooks, "127.0.0.1", SOCK_STREAM, .port = 0 },
	{ enter_hooks, "127.0.0.1", SOCK_STREAM, .port = 0 },
	{ enter_hooks, "127.0.0.1", SOCK_DGRAM, .port = 0 },
	{ enter_hooks, "127.0.0.1", SOCK_DGRAM, .port = 0 },
};

#define KNOCKERS ((int)(sizeof(knockers) / sizeof(*knockers)))

TEST_F_TIMEOUT(unload, with_calls_in_flight, STRESS_TIMEOUT_SEC)
{
	long cycle, refused = 0;
	double start = now(), told = start;

	start_workers(_metadata, knockers, KNOCKERS, seed());
	for (cycle = 0; has_more_cycles(cycle, start); cycle++) {
		unload_when_unused(_metadata, &refused);
		ASSERT_EQ(0, module_load(self->found.args));
		tell(_metadata, "cycles", cycle + 1, &told);
	}
	stop_workers(_metadata, knockers, KNOCKERS);
	TH_LOG("%ld cycles, unloading refused %ld times, %lu calls", cycle,
	       refused, atomic_load(&shared.marked));
}

static int do_set_from_page(struct call *call)
{
	return rc(setsockopt(call->fd, call->value, IP_BIND_PORT_ZERO, call->page,
			     sizeof(int)));
}

static int do_get_to_page(struct call *call)
{
	socklen_t len = sizeof(int);

	return rc(getsockopt(call->fd, call->value, IP_BIND_PORT_ZERO, call->page,
			     &len));
}

/*
 * The module cannot be unloaded while a handler of its options copies from or to user
 * space, which may take arbitrarily long. For setsockopt() on IPv6 sockets, the kernel
 * copies the value before it calls the handler.
 */
TEST_F(unload, with_an_option_in_flight)
{
	const struct call calls[] = {
		{ .make = do_set_from_page, .value = SOL_IP },
		{ .make = do_get_to_page, .value = SOL_IP },
		{ .make = do_get_to_page, .value = SOL_IPV6 },
	};
	size_t i;

	if (!have_slow_pages())
		SKIP(return, NO_SLOW_PAGES);
	ASSERT_EQ(0, wait_for_users(0));
	for (i = 0; i < sizeof(calls) / sizeof(*calls); i++) {
		struct call option = calls[i];
		struct slow_page slow;

		slow_page_make(_metadata, &slow);
		option.fd = new_socket(_metadata, "::1", SOCK_STREAM);
		option.page = slow.page;
		call_start(_metadata, &option);
		slow_page_is_read(_metadata, &slow);
		EXPECT_EQ(1, module_users());
		EXPECT_EQ(-EWOULDBLOCK, module_unload()) {
			TH_LOG("during call %zu", i);
		}
		slow_page_fill(_metadata, &slow);
		EXPECT_EQ(0, call_end(_metadata, &option));
		close(slow.uffd);
		close(option.fd);
	}
	EXPECT_EQ(0, wait_for_users(0));
}

/*
 * The first send of a socket is held before it takes an ephemeral port, and another
 * send overtakes it. Both must use the port that the second one took, also if the
 * socket was marked under an earlier load, where the module's autobind runs.
 */
TEST_F(unload, first_send_beside_another)
{
	int server = new_socket(_metadata, "127.0.0.1", SOCK_DGRAM);
	int marked, fd, port, i;
	char byte;

	if (!hold_load())
		SKIP(return, NO_HOLD);
	ASSERT_EQ(0, bind_to(server, "127.0.0.1", OTHER_PORT));
	for (marked = 0; marked < 2; marked++) {
		struct call first = {
			.make = do_send, .host = "127.0.0.1", .port = OTHER_PORT,
			.text = "1",
		};

		fd = new_socket(_metadata, "127.0.0.1", SOCK_DGRAM);
		if (marked) {
			ASSERT_EQ(0, set_mark(fd, 1));
			ASSERT_EQ(0, wait_for_users(0));
			ASSERT_EQ(0, module_unload());
			ASSERT_EQ(0, module_load(self->found.args));
		}
		first.fd = fd;
		call_hold(_metadata, &first, BEFORE_LOCK);
		EXPECT_EQ(1, send_to(fd, "127.0.0.1", OTHER_PORT, "2", 0));
		port = local_port(fd);
		EXPECT_TRUE(is_ephemeral(port));
		EXPECT_EQ(1, call_release(_metadata, &first));
		EXPECT_EQ(port, local_port(fd));
		for (i = 0; i < 2; i++) {
			struct addr from = { .len = sizeof(from.v6) };

			EXPECT_EQ(1, rc(recvfrom(server, &byte, 1, 0, &from.sa,
						 &from.len)));
			EXPECT_EQ(port, port_of(&from));
		}
		EXPECT_EQ(1, send_to(server, "127.0.0.1", port, "3", 0));
		expect_recv(_metadata, fd, "3");
		close(fd);
	}
}

TEST_HARNESS_MAIN

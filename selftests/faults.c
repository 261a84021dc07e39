// SPDX-License-Identifier: GPL-2.0
/*
 * Allocations that fail.
 *
 * Each case runs again and again in a new process. The kernel's fault injection
 * fails its first allocation, then its second, and so on, until the case makes
 * fewer allocations than that. Each time the call under test must succeed or
 * report a shortage; afterwards port 0 must be free, and the module unused or not
 * loaded.
 *
 * Needs CONFIG_FAULT_INJECTION and CONFIG_FAILSLAB.
 */
#include <glob.h>
#include <sys/wait.h>

#include "stress.h"

#define FAIL_NTH	"/proc/thread-self/fail-nth"
#define FAILSLAB	"/sys/kernel/debug/failslab/"
#define MAX_NTH		2000

/*
 * Enables fault injection for this thread; has_failed() tells whether an allocation has
 * failed.
 */
static int fail_nth(long nth)
{
	int fd = open(FAIL_NTH, O_RDWR | O_CLOEXEC);

	dprintf(fd, "%ld", nth);
	return fd;
}

static bool has_failed(int fd)
{
	char text[32] = "";

	pread(fd, text, sizeof(text) - 1, 0);
	dprintf(fd, "0");
	close(fd);
	return !atol(text);
}

struct scene {
	const char *host;
	int type;
	int fd;
	int peer;
};

struct fault_case {
	const char *name;
	bool tcp, udp;
	void (*prepare)(struct scene *scene);
	int (*call)(struct scene *scene);
};

static int new_fd(const struct scene *scene)
{
	return socket(is_ip6(scene->host) ? AF_INET6 : AF_INET, scene->type, 0);
}

static void prepare_socket(struct scene *scene)
{
	scene->fd = new_fd(scene);
	reset_on_close(scene->fd);
}

static void prepare_marked(struct scene *scene)
{
	prepare_socket(scene);
	set_mark(scene->fd, 1);
}

/* With a second reference on the file, bind() allocates a watch on the socket. */
static void prepare_shared(struct scene *scene)
{
	prepare_marked(scene);
	scene->peer = dup(scene->fd);
}

static void prepare_bound(struct scene *scene)
{
	prepare_marked(scene);
	bind_to(scene->fd, scene->host, 0);
}

static void prepare_group(struct scene *scene)
{
	int fd = new_fd(scene);

	set_mark(fd, 1);
	set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	bind_to(fd, scene->host, 0);
	prepare_marked(scene);
	set_int(scene->fd, SOL_SOCKET, SO_REUSEPORT, 1);
}

/* A listener or a bound socket on the control port. */
static void prepare_peer(struct scene *scene)
{
	scene->peer = new_fd(scene);
	set_int(scene->peer, SOL_SOCKET, SO_REUSEADDR, 1);
	bind_to(scene->peer, scene->host, CONTROL_PORT);
	if (scene->type == SOCK_STREAM)
		listen(scene->peer, 1);
	prepare_bound(scene);
}

static void prepare_wild_peer(struct scene *scene)
{
	const char *host = scene->host;

	prepare_peer(scene);
	close(scene->fd);
	scene->host = is_ip6(host) ? "::" : "0.0.0.0";
	prepare_bound(scene);
	scene->host = host;
}

static void prepare_server(struct scene *scene)
{
	prepare_bound(scene);
	listen(scene->fd, 1);
	scene->peer = new_fd(scene);
	reset_on_close(scene->peer);
}

static int call_mark(struct scene *scene)
{
	return set_mark(scene->fd, 1);
}

static int call_bind(struct scene *scene)
{
	return bind_to(scene->fd, scene->host, 0);
}

/* A bind() that has failed for lack of memory can be tried again. */
static int call_bind_again(struct scene *scene)
{
	int err = bind_to(scene->fd, scene->host, 0);

	return err && bind_to(scene->fd, scene->host, 0) ? -EPROTO : err;
}

static int call_listen(struct scene *scene)
{
	return rc(listen(scene->fd, 1));
}

static int call_connect_from(struct scene *scene)
{
	return connect_to(scene->fd, scene->host, CONTROL_PORT);
}

static int call_connect_to(struct scene *scene)
{
	int err;

	/* A SYN that is lost is sent again, but later than the test waits. */
	fcntl(scene->peer, F_SETFL, O_NONBLOCK);
	err = connect_to(scene->peer, scene->host, 0);
	return err == -EINPROGRESS ? 0 : err;
}

static int call_send(struct scene *scene)
{
	struct addr self = addr_of(scene->host, 0);
	int err = rc(sendto(scene->fd, "x", 1, 0, &self.sa, self.len));

	return err == 1 ? 0 : err;
}

static int call_cork(struct scene *scene)
{
	struct addr self = addr_of(scene->host, 0);
	int err = rc(sendto(scene->fd, "x", 1, MSG_MORE, &self.sa, self.len));

	if (err == 1)
		err = rc(send(scene->fd, "y", 1, 0));
	return err == 1 ? 0 : err;
}

static int call_close(struct scene *scene)
{
	return rc(close(scene->fd));
}

static const struct fault_case cases[] = {
	{ "setsockopt", true, true, prepare_socket, call_mark },
	{ "bind", true, true, prepare_marked, call_bind },
	{ "bind of a shared file", true, true, prepare_shared, call_bind_again },
	{ "bind into a group", true, true, prepare_group, call_bind },
	{ "listen", true, false, prepare_bound, call_listen },
	{ "connect from port 0", true, true, prepare_peer, call_connect_from },
	{ "connect from port 0, any address", true, true, prepare_wild_peer,
	  call_connect_from },
	{ "connect to port 0", true, false, prepare_server, call_connect_to },
	{ "sendto", false, true, prepare_bound, call_send },
	{ "sendto, unbound", false, true, prepare_marked, call_send },
	{ "sendto with MSG_MORE", false, true, prepare_bound, call_cork },
	{ "close", true, true, prepare_bound, call_close },
};

/*
 * kmemleak and debugobjects allocate for every allocation that they track, and
 * cope with failures: failing theirs would only double the number of cases. False
 * if their slab caches are merged with others and cannot be left out.
 */
static bool exclude_trackers(void)
{
	glob_t caches;
	bool done;
	size_t i;

	done = !glob("/sys/kernel/slab/*/failslab", GLOB_ERR, NULL, &caches);
	for (i = 0; done && i < caches.gl_pathc; i++) {
		const char *path = caches.gl_pathv[i];
		bool watcher = strstr(path, "/kmemleak_") ||
			       strstr(path, "/debug_objects_cache/");

		done = !write_file(path, watcher ? "0" : "1");
	}
	globfree(&caches);
	return done;
}

/* Every allocation may fail, without a message in the log. */
static void allow_faults(struct __test_metadata *_metadata)
{
	ASSERT_EQ(0, write_file(FAILSLAB "cache-filter",
				exclude_trackers() ? "Y" : "N"));
	ASSERT_EQ(0, write_file(FAILSLAB "ignore-gfp-wait", "N"));
	ASSERT_EQ(0, write_file(FAILSLAB "verbose", "0"));
}

/*
 * How the kernel reports a failed allocation, on any port: EADDRINUSE for a bind
 * bucket, ENETUNREACH for an IPv6 route, EINVAL for the IPv6 neighbour of a
 * datagram. No bind() says ENOBUFS.
 */
static bool is_shortage(const struct fault_case *fault, const char *host, int err)
{
	if (err == -EINVAL)
		return !fault->tcp && is_ip6(host);
	if (err == -ENOBUFS)
		return fault->call != call_bind && fault->call != call_bind_again;
	return err == -ENOMEM || err == -EAGAIN || err == -EADDRINUSE ||
	       err == -ENETUNREACH;
}

enum outcome { CLEAN = 10, INJECTED, WRONG };

/* Runs in a process of its own, so that its sockets are closed when it ends. */
static enum outcome try_once(const struct fault_case *fault,
			     struct scene scene, long nth)
{
	bool failed;
	int fd, err;

	fault->prepare(&scene);
	/* Ends the process if the call does not return. */
	alarm(3 * IO_TIMEOUT_SEC);
	fd = fail_nth(nth);
	err = fault->call(&scene);
	failed = has_failed(fd);
	alarm(0);

	if (err && !(failed && is_shortage(fault, scene.host, err))) {
		printf("# %s, allocation %ld%s: %s\n", fault->name, nth,
		       failed ? "" : " not reached", strerror(-err));
		fflush(stdout);
		return WRONG;
	}
	return failed ? INJECTED : CLEAN;
}

static enum outcome try_in_child(struct __test_metadata *_metadata,
				 const struct fault_case *fault,
				 const struct scene *scene, long nth)
{
	pid_t pid = fork();
	int status;

	ASSERT_LE(0, pid);
	if (!pid)
		_exit(try_once(fault, *scene, nth));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	return WEXITSTATUS(status);
}

FIXTURE(faults) {};

FIXTURE_VARIANT(faults) {
	const char *host;
	int type;
};

#define FAULT_VARIANT(name, _host, _type)				\
	FIXTURE_VARIANT_ADD(faults, name) { .host = _host, .type = _type }

FAULT_VARIANT(ip4_tcp, "127.0.0.1", SOCK_STREAM);
FAULT_VARIANT(ip6_tcp, "::1", SOCK_STREAM);
FAULT_VARIANT(ip4_udp, "127.0.0.1", SOCK_DGRAM);
FAULT_VARIANT(ip6_udp, "::1", SOCK_DGRAM);

/*
 * Called in each test, since older harnesses run a test even if its setup has skipped.
 */
static bool can_fail(void)
{
	return !access(FAIL_NTH, W_OK) && !access(FAILSLAB, X_OK);
}

FIXTURE_SETUP(faults)
{
	if (!can_fail())
		return;
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
	allow_faults(_metadata);
}

FIXTURE_TEARDOWN(faults) {}

TEST_F_TIMEOUT(faults, calls, STRESS_TIMEOUT_SEC)
{
	struct scene scene = { .host = variant->host, .type = variant->type };
	long users = wait_for_users(0), nth, total = 0;
	size_t i;
	int fd;

	if (!can_fail())
		SKIP(return, "this kernel has no fault injection");
	for (i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		const struct fault_case *fault = &cases[i];
		enum outcome outcome = INJECTED;

		if (!(variant->type == SOCK_STREAM ? fault->tcp : fault->udp))
			continue;
		/*
		 * Here the kernel itself leaks a route, on any port and without
		 * the module, and kmemleak would report it.
		 */
		if (fault->prepare == prepare_wild_peer &&
		    variant->type == SOCK_STREAM && is_ip6(variant->host))
			continue;
		for (nth = 1; outcome == INJECTED; nth++) {
			ASSERT_GT(MAX_NTH, nth);
			outcome = try_in_child(_metadata, fault, &scene, nth);
			EXPECT_EQ(users, wait_for_users(users));
			fd = bound_socket(_metadata, variant->host,
					  variant->type, 0);
			close(fd);
		}
		ASSERT_EQ(CLEAN, outcome);
		TH_LOG("%s: %ld allocations failed", fault->name, nth - 2);
		total += nth - 2;
	}
	EXPECT_LT(0, total);
	TH_LOG("%ld faults", total);
}

/*
 * The result of bind() when its @nth allocation fails, or 1 if it fails but keeps a port;
 * *failed: an allocation has failed.
 */
static int bind_short_of(struct scene scene, int port, int share, long nth, bool *failed)
{
	int fd, err;

	prepare_marked(&scene);
	set_int(scene.fd, SOL_SOCKET, SO_REUSEPORT, share);
	fd = fail_nth(nth);
	err = bind_to(scene.fd, scene.host, port);
	*failed = has_failed(fd);
	/* A bind() that fails leaves no port behind. */
	if (err && (holds_zero(scene.fd) || local_port(scene.fd)))
		err = 1;
	close(scene.fd);
	return err;
}

TEST_F(faults, bind_fails_as_on_another_port)
{
	struct scene scene = { .host = variant->host, .type = variant->type };
	bool failed, failed_there;
	int share, err, there;
	long nth;

	if (!can_fail())
		SKIP(return, "this kernel has no fault injection");
	/* The first bind() of a marked socket also arms hooks, which allocates memory. */
	close(bound_socket(_metadata, variant->host, variant->type, 0));
	for (share = 0; share < 2; share++) {
		failed = true;
		for (nth = 1; failed; nth++) {
			ASSERT_GT(MAX_NTH, nth);
			there = bind_short_of(scene, CONTROL_PORT, share, nth,
					      &failed_there);
			err = bind_short_of(scene, 0, share, nth, &failed);
			EXPECT_EQ(failed_there, failed);
			EXPECT_EQ(there, err) {
				TH_LOG("SO_REUSEPORT %d, allocation %ld fails", share, nth);
			}
		}
		/* Of the two, UDP allocates memory only for SO_REUSEPORT. */
		EXPECT_LT(variant->type == SOCK_STREAM || share ? 2 : 1, nth);
	}
}

/*
 * With a second reference on the file, bind() fails with ENOMEM rather than do without a
 * watch. Other shortages have another errno.
 */
TEST_F(faults, no_bind_without_its_watch)
{
	struct scene scene = { .host = variant->host, .type = variant->type };
	int fd, err, refused = 0;
	bool failed = true;
	long nth;

	if (!can_fail())
		SKIP(return, "this kernel has no fault injection");
	/* The first bind() of a marked socket also arms hooks, which allocates memory. */
	close(bound_socket(_metadata, variant->host, variant->type, 0));
	for (nth = 1; failed; nth++) {
		ASSERT_GT(MAX_NTH, nth);
		prepare_shared(&scene);
		fd = fail_nth(nth);
		err = bind_to(scene.fd, scene.host, 0);
		failed = has_failed(fd);
		refused += err == -ENOMEM;
		EXPECT_EQ(!err, holds_zero(scene.fd));
		close(scene.peer);
		close(scene.fd);
	}
	EXPECT_LT(0, refused);
}

FIXTURE(loading) {
	struct module_state found;
	bool on_ftrace;
};

FIXTURE_VARIANT(loading) {
	const char *args;
};

FIXTURE_VARIANT_ADD(loading, ftrace) { .args = "hook=ftrace" };
FIXTURE_VARIANT_ADD(loading, kprobe) { .args = "hook=kprobe" };

/* Tell whether the module's kprobes use ftrace; no other kprobes exist here. */
static bool has_probes_on_ftrace(void)
{
	FILE *file = fopen("/sys/kernel/debug/kprobes/list", "re");
	bool found = false;
	char line[256];

	while (file && !found && fgets(line, sizeof(line), file))
		found = strstr(line, "[FTRACE]");
	if (file)
		fclose(file);
	return found;
}

/*
 * The module tries until the kprobe is removed, but the kernel warns at the
 * first failure.
 */
#define NO_DISARMING "the kernel warns when it has no memory to disarm a kprobe"

FIXTURE_SETUP(loading)
{
	int err;

	self->found = module_found();
	if (!can_fail())
		return;
	if (!getenv("PORT0_KO"))
		SKIP(return, "PORT0_KO does not name the module's file");
	enter_netns(_metadata);
	ASSERT_EQ(0, module_take_out());
	err = module_load(variant->args);
	if (err == -EOPNOTSUPP) {
		ASSERT_EQ(0, module_bring_back(&self->found));
		SKIP(return, "this kernel has no function tracer");
	}
	ASSERT_EQ(0, err);
	self->on_ftrace = has_probes_on_ftrace();
	ASSERT_EQ(0, module_unload());
	allow_faults(_metadata);
}

FIXTURE_TEARDOWN(loading)
{
	EXPECT_EQ(0, module_bring_back(&self->found));
}

/* Loading succeeds, or fails and leaves nothing behind. */
TEST_F_TIMEOUT(loading, module, STRESS_TIMEOUT_SEC)
{
	long nth, refused = 0;
	double told = now();
	bool failed = true;
	int fd, err;

	if (!can_fail())
		SKIP(return, "this kernel has no fault injection");
	if (self->on_ftrace)
		SKIP(return, NO_DISARMING);
	for (nth = 1; failed; nth++) {
		ASSERT_GT(MAX_NTH, nth);
		fd = fail_nth(nth);
		err = module_load(variant->args);
		failed = has_failed(fd);
		if (err) {
			ASSERT_TRUE(failed);
			ASSERT_EQ(-1, module_users());
			refused++;
		} else {
			ASSERT_EQ(0, module_unload());
		}
		tell(_metadata, "allocations", nth, &told);
	}
	EXPECT_LT(0, refused);
	TH_LOG("%ld allocations failed, %ld loads with them", nth - 2, refused);
}

/* Arms every late hook: marks a datagram socket, binds it, sends to port 0. */
static int arm_everything(void)
{
	struct scene scene = { .host = "127.0.0.1", .type = SOCK_DGRAM };
	int err;

	scene.fd = new_fd(&scene);
	if (scene.fd < 0)
		return -errno;
	err = set_mark(scene.fd, 1);
	if (!err)
		err = bind_to(scene.fd, scene.host, 0);
	if (!err)
		err = call_send(&scene);
	close(scene.fd);
	return err;
}

TEST_F_TIMEOUT(loading, late_hooks, STRESS_TIMEOUT_SEC)
{
	long nth, refused = 0;
	double told = now();
	bool failed = true;
	int fd, err;

	if (!can_fail())
		SKIP(return, "this kernel has no fault injection");
	if (self->on_ftrace)
		SKIP(return, NO_DISARMING);
	for (nth = 1; failed; nth++) {
		ASSERT_GT(MAX_NTH, nth);
		ASSERT_EQ(0, module_load(variant->args));
		fd = fail_nth(nth);
		err = arm_everything();
		failed = has_failed(fd);
		if (err) {
			ASSERT_TRUE(failed);
			refused++;
		}
		ASSERT_EQ(0, wait_for_users(0));
		/* With memory the same calls succeed. */
		ASSERT_EQ(0, arm_everything());
		ASSERT_EQ(0, module_unload());
		tell(_metadata, "allocations", nth, &told);
	}
	EXPECT_LT(0, refused);
	TH_LOG("%ld allocations failed, %ld calls with them", nth - 2, refused);
}

TEST_HARNESS_MAIN

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared by the C tests on the kselftest harness: sockets that are marked and bound, a
 * network namespace for each test, and fixtures.
 *
 * Most tests are written for "a port" and run twice: on CONTROL_PORT, where
 * the stock kernel shows what is right, and on port 0, which must give the same
 * results. If a test fails on both, the test is wrong; if it fails on port 0 only, it
 * has found a bug.
 */
#ifndef PORT0_TEST_H
#define PORT0_TEST_H

#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <time.h>

#include <linux/capability.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

#include "kselftest_harness.h"

#include "netns.h"

/*
 * The harness's own 30 seconds are too few for a guest that is emulated, full of
 * sanitizers and not alone on its host.
 */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	300

static inline void enter_netns(struct __test_metadata *_metadata)
{
	ASSERT_EQ(0, new_netns()) {
		TH_LOG("a network namespace needs root and CONFIG_NET_NS");
	}
}

/* A socket whose every wait is bounded. */
static inline int new_socket(struct __test_metadata *_metadata,
			     const char *host, int type)
{
	int fd = socket(family_of(host), type, 0);

	ASSERT_GE(fd, 0);
	ASSERT_EQ(0, set_timeouts(fd));
	return fd;
}

static inline void require_mark(struct __test_metadata *_metadata, int fd)
{
	ASSERT_EQ(0, set_mark(fd, 1)) {
		TH_LOG("cannot mark the socket: is port0 loaded?");
	}
}

static inline void *sleep_for_ever(void *unused)
{
	for (;;)
		pause();
	return unused;
}

/*
 * Start another thread. From now on another call may be in flight on each socket when it is
 * bound, so the module watches the sockets, and compares what the watches have noted.
 */
static inline void get_watched(struct __test_metadata *_metadata)
{
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, sleep_for_ever, NULL));
}

/* A socket on which bind() takes @port literally, 0 included. */
static inline int socket_for(struct __test_metadata *_metadata,
			     const char *host, int type, int port)
{
	int fd = new_socket(_metadata, host, type);

	if (!port)
		require_mark(_metadata, fd);
	return fd;
}

/* The socket has @port; 0 counts only if it is bound to it. */
static inline void expect_port(struct __test_metadata *_metadata, int fd,
			       int port)
{
	EXPECT_EQ(port, local_port(fd));
	/* Tested on port 0 only, so that the control runs on a stock kernel. */
	EXPECT_TRUE(port || holds_zero(fd) == 1);
}

static inline int bound_socket(struct __test_metadata *_metadata,
			       const char *host, int type, int port)
{
	int fd = socket_for(_metadata, host, type, port);

	ASSERT_EQ(0, bind_to(fd, host, port));
	expect_port(_metadata, fd, port);
	return fd;
}

/* A bound socket, which listens if it can. */
static inline int new_server(struct __test_metadata *_metadata, const char *host,
			     int type, int port)
{
	int fd = bound_socket(_metadata, host, type, port);

	if (type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(fd, 8)));
	return fd;
}

/*
 * Tell whether bind() of a UDP socket to a wildcard fails if more than ten sockets are on
 * the port. It succeeds on kernels whose udp_lib_get_port() does not call
 * inet_use_hash2_on_bind().
 */
static inline bool udp_checks_wildcard(struct __test_metadata *_metadata)
{
	char host[] = "127.0.0.00";
	int fd[12], i, err;

	for (i = 0; i < 12; i++) {
		snprintf(host, sizeof(host), "127.0.0.%d", i + 1);
		fd[i] = new_socket(_metadata, host, SOCK_DGRAM);
		ASSERT_EQ(0, bind_to(fd[i], host, OTHER_PORT));
	}
	i = new_socket(_metadata, "0.0.0.0", SOCK_DGRAM);
	err = bind_to(i, "0.0.0.0", OTHER_PORT);
	close(i);
	for (i = 0; i < 12; i++)
		close(fd[i]);
	return err == -EADDRINUSE;
}

#define NO_WILDCARD_CHECK	"this kernel lets UDP bind a wildcard beside more than ten sockets"

static inline void expect_send(struct __test_metadata *_metadata, int fd,
			       const char *text)
{
	EXPECT_EQ((int)strlen(text), rc(send(fd, text, strlen(text), 0)));
}

static inline void expect_recv(struct __test_metadata *_metadata, int fd,
			       const char *text)
{
	char buf[256] = "";

	EXPECT_EQ((int)strlen(text), rc(recv(fd, buf, sizeof(buf) - 1, 0)));
	EXPECT_STREQ(text, buf);
}

/* For tests that count packets over loopback, or compare their effects. */
static inline void stay_on_one_cpu(struct __test_metadata *_metadata)
{
	ASSERT_EQ(0, pin_to_this_cpu());
}

/* Waits until all packets that were sent have arrived, for tests on one CPU. */
static inline void settle(struct __test_metadata *_metadata)
{
	int fence = fence_open();

	ASSERT_LE(0, fence);
	ASSERT_EQ(0, fence_pass(fence));
	close(fence);
}

/* Data may arrive a little after the call that sends it, see fence_open(). */
static inline bool wait_readable(int fd)
{
	struct pollfd poll_in = { .fd = fd, .events = POLLIN };

	return poll(&poll_in, 1, IO_TIMEOUT_SEC * 1000) == 1;
}

/* Only where no call can tell what the kernel does: distributions backport changes. */
static inline bool is_older_than(int major, int minor)
{
	struct utsname name;
	int its_major = 0, its_minor = 0;

	uname(&name);
	sscanf(name.release, "%d.%d", &its_major, &its_minor);
	return its_major < major || (its_major == major && its_minor < minor);
}

/* The capability to bind ports below 1024, in this thread. */
static inline void keep_bind_service(struct __test_metadata *_metadata, bool keep)
{
	struct __user_cap_header_struct head = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];
	__u32 *effective = &caps[CAP_TO_INDEX(CAP_NET_BIND_SERVICE)].effective;

	ASSERT_EQ(0, rc(syscall(SYS_capget, &head, caps)));
	*effective &= ~CAP_TO_MASK(CAP_NET_BIND_SERVICE);
	if (keep)
		*effective |= CAP_TO_MASK(CAP_NET_BIND_SERVICE);
	ASSERT_EQ(0, rc(syscall(SYS_capset, &head, caps)));
}

/* net.ipv4.ip_unprivileged_port_start of this namespace */
static inline void set_unprivileged_start(struct __test_metadata *_metadata, int port)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", port);
	ASSERT_EQ(0, write_file("/proc/sys/net/ipv4/ip_unprivileged_port_start", text));
}

/* ---- conversations ---- */

/* A TCP listener, a client, and the child that was accepted for it. */
struct link {
	int listener, client, child;
};

static inline int listener_on(struct __test_metadata *_metadata, const char *host, int port)
{
	int fd = socket_for(_metadata, host, SOCK_STREAM, port);

	ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1));
	ASSERT_EQ(0, bind_to(fd, host, port));
	ASSERT_EQ(0, rc(listen(fd, 8)));
	expect_port(_metadata, fd, port);
	return fd;
}

/* An unmarked client of the port, connected to that listener. */
static inline struct link link_to(struct __test_metadata *_metadata, const char *host, int port,
				  int listener)
{
	struct link link = { .listener = listener };

	link.client = new_socket(_metadata, host, SOCK_STREAM);
	ASSERT_EQ(0, connect_to(link.client, host, port));
	EXPECT_EQ(port, peer_port(link.client));
	link.child = rc(accept(listener, NULL, NULL));
	ASSERT_LE(0, link.child);
	expect_port(_metadata, link.child, port);
	return link;
}

static inline struct link link_up(struct __test_metadata *_metadata, const char *host, int port)
{
	return link_to(_metadata, host, port, listener_on(_metadata, host, port));
}

static inline void talk(struct __test_metadata *_metadata, int one, int two)
{
	expect_send(_metadata, one, "question");
	expect_recv(_metadata, two, "question");
	expect_send(_metadata, two, "answer");
	expect_recv(_metadata, one, "answer");
}

static inline struct tcp_info tcp_info_of(struct __test_metadata *_metadata, int fd)
{
	struct tcp_info info = {};
	socklen_t len = sizeof(info);

	ASSERT_EQ(0, rc(getsockopt(fd, SOL_TCP, TCP_INFO, &info, &len)));
	return info;
}

/* In seconds, for tests that bound how long they run */
static inline double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/* ---- SO_REUSEPORT groups ---- */

#define GROUP_SIZE	4
#define GROUP_CLIENTS	64

/* Counts in @shares what each member gets of one call or datagram per client. */
static inline void count_shares(struct __test_metadata *_metadata, const char *host, int type,
				int port, const int *group, size_t members, int *shares)
{
	int client, fd, all = 0, i;
	size_t member;
	char byte;

	for (i = 0; i < GROUP_CLIENTS; i++) {
		client = new_socket(_metadata, host, type);
		ASSERT_EQ(0, connect_to(client, host, port));
		if (type == SOCK_DGRAM)
			expect_send(_metadata, client, "x");
		settle(_metadata);
		close(client);
	}
	for (member = 0; member < members; member++) {
		ASSERT_EQ(0, rc(fcntl(group[member], F_SETFL, O_NONBLOCK)));
		for (shares[member] = 0; ; shares[member]++) {
			fd = type == SOCK_DGRAM ? rc(recv(group[member], &byte, 1, 0)) :
						  rc(accept(group[member], NULL, NULL));
			if (fd == -EAGAIN)
				break;
			ASSERT_LE(0, fd);
			if (type == SOCK_STREAM)
				close(fd);
		}
		all += shares[member];
	}
	EXPECT_EQ(GROUP_CLIENTS, all);
}

/* Every member of a group gets a share, also after one of them has left. */
static inline void share_out(struct __test_metadata *_metadata, const char *host, int type,
			     int port)
{
	int group[GROUP_SIZE], shares[GROUP_SIZE];
	size_t i;

	for (i = 0; i < GROUP_SIZE; i++) {
		group[i] = socket_for(_metadata, host, type, port);
		ASSERT_EQ(0, set_int(group[i], SOL_SOCKET, SO_REUSEPORT, 1));
		ASSERT_EQ(0, bind_to(group[i], host, port));
		expect_port(_metadata, group[i], port);
		if (type == SOCK_STREAM)
			ASSERT_EQ(0, rc(listen(group[i], GROUP_CLIENTS)));
	}
	count_shares(_metadata, host, type, port, group, GROUP_SIZE, shares);
	for (i = 0; i < GROUP_SIZE; i++)
		EXPECT_LT(0, shares[i]);
	close(group[0]);
	count_shares(_metadata, host, type, port, group + 1, GROUP_SIZE - 1, shares);
	for (i = 0; i < GROUP_SIZE - 1; i++)
		EXPECT_LT(0, shares[i]);
}

/* ---- fixtures ---- */

/* One variant of a fixture for the control, one for port 0. */
#define ON_BOTH_PORTS(fixture, name, ...)				\
	FIXTURE_VARIANT_ADD(fixture, name##_control) {			\
		__VA_ARGS__, .port = CONTROL_PORT			\
	};								\
	FIXTURE_VARIANT_ADD(fixture, name##_zero) {			\
		__VA_ARGS__, .port = 0					\
	}

/*
 * A server, and a client that reaches it at @dest from @source:
 * the fixture of every test that moves data.
 */
#define LINK_FIXTURE(fixture)						\
	FIXTURE(fixture) {};						\
	FIXTURE_VARIANT(fixture) {					\
		const char *server;					\
		const char *dest;					\
		const char *source;					\
		int port;						\
	};								\
	FIXTURE_SETUP(fixture)						\
	{								\
		if (!have_family_of(variant->server) ||			\
		    !have_family_of(variant->dest))			\
			SKIP(return, "no IPv6");			\
		enter_netns(_metadata);					\
		stay_on_one_cpu(_metadata);				\
	}								\
	FIXTURE_TEARDOWN(fixture) {}

#define LINK_VARIANT(fixture, name, _server, _dest, _source)		\
	ON_BOTH_PORTS(fixture, name, .server = _server, .dest = _dest,	\
		      .source = _source)

/* Links whose two ends may both sit on the same port. */
#define SPECIFIC_LINKS(fixture)						\
	LINK_VARIANT(fixture, ip4, "127.0.0.1", "127.0.0.1",		\
		     "127.0.0.2");					\
	LINK_VARIANT(fixture, ip6, "::1", "::1", "fd00::2");		\
	LINK_VARIANT(fixture, mapped_server, "::ffff:127.0.0.1",	\
		     "127.0.0.1", "127.0.0.2");				\
	LINK_VARIANT(fixture, mapped_client, "127.0.0.1",		\
		     "::ffff:127.0.0.1", "::ffff:127.0.0.2")

#define WILDCARD_LINKS(fixture)						\
	LINK_VARIANT(fixture, any4, "0.0.0.0", "127.0.0.1",		\
		     "127.0.0.2");					\
	LINK_VARIANT(fixture, dual_ip4, "::", "127.0.0.1",		\
		     "127.0.0.2");					\
	LINK_VARIANT(fixture, dual_ip6, "::", "::1", "fd00::2")

/* Two addresses of one family, over IPv4 and over IPv6, on both ports. */
#define FEATURE_FIXTURE(fixture)					\
	FIXTURE(fixture) {};						\
	FIXTURE_VARIANT(fixture) {					\
		const char *home;					\
		const char *second;					\
		int port;						\
	};								\
	FIXTURE_SETUP(fixture)						\
	{								\
		if (!have_family_of(variant->home))			\
			SKIP(return, "no IPv6");			\
		enter_netns(_metadata);					\
		stay_on_one_cpu(_metadata);				\
	}								\
	FIXTURE_TEARDOWN(fixture) {}					\
	ON_BOTH_PORTS(fixture, ip4, .home = "127.0.0.1",		\
		      .second = "127.0.0.2");				\
	ON_BOTH_PORTS(fixture, ip6, .home = "::1", .second = "fd00::2")

#endif /* PORT0_TEST_H */

// SPDX-License-Identifier: GPL-2.0
/*
 * Who may bind: the capability, net.ipv4.ip_unprivileged_port_start, and the order in
 * which bind() checks for errors, for the first bind() and the second.
 */
#include "port0_test.h"

FIXTURE(privilege) {};

FIXTURE_VARIANT(privilege) {
	const char *host;
	int type, port;
};

FIXTURE_SETUP(privilege)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(privilege)
{
	keep_bind_service(_metadata, true);
}

#define PRIVILEGE(name, _host)						\
	ON_BOTH_PORTS(privilege, name##_tcp, .host = _host,		\
		      .type = SOCK_STREAM);				\
	ON_BOTH_PORTS(privilege, name##_udp, .host = _host,		\
		      .type = SOCK_DGRAM)

PRIVILEGE(ip4, "127.0.0.1");
PRIVILEGE(ip6, "::1");
PRIVILEGE(any4, "0.0.0.0");
PRIVILEGE(any6, "::");
PRIVILEGE(mapped, "::ffff:127.0.0.1");

/*
 * Values of the limit: the lowest, around each of the tested ports, and above
 */
static const int starts[] = {
	0, 1, 2, 3, CONTROL_PORT - 1, CONTROL_PORT, CONTROL_PORT + 1, 1024, OTHER_PORT + 1,
};

/* The ports that bind() gets; 0 stands for the port under test. */
static const int ports[] = { 0, 1, 2, CONTROL_PORT, 80, 1023, 1024, OTHER_PORT };

static bool is_allowed(int port, int start, bool capable)
{
	return capable || port >= start;
}

TEST_F(privilege, first_bind)
{
	int capable, fd;
	size_t i;

	for (capable = 0; capable < 2; capable++) {
		keep_bind_service(_metadata, capable);
		for (i = 0; i < ARRAY_SIZE(starts); i++) {
			set_unprivileged_start(_metadata, starts[i]);
			fd = socket_for(_metadata, variant->host, variant->type,
					variant->port);
			EXPECT_EQ(is_allowed(variant->port, starts[i], capable) ?
				  0 : -EACCES,
				  bind_to(fd, variant->host, variant->port)) {
				TH_LOG("ip_unprivileged_port_start %d, %scapable",
				       starts[i], capable ? "" : "not ");
			}
			close(fd);
		}
	}
}

/* A refused bind() leaves the socket as it was. */
TEST_F(privilege, refused_then_allowed)
{
	int fd = socket_for(_metadata, variant->host, variant->type, variant->port);

	keep_bind_service(_metadata, false);
	set_unprivileged_start(_metadata, variant->port + 1);
	EXPECT_EQ(-EACCES, bind_to(fd, variant->host, variant->port));
	EXPECT_EQ(0, local_port(fd));
	if (!variant->port)
		EXPECT_EQ(0, holds_zero(fd));
	set_unprivileged_start(_metadata, variant->port);
	EXPECT_EQ(0, bind_to(fd, variant->host, variant->port));
	expect_port(_metadata, fd, variant->port);
}

/* A second bind() fails with EACCES, for lack of privilege, before EINVAL. */
static void expect_no_second_bind(struct __test_metadata *_metadata, int fd,
				  const char *host, int own)
{
	int capable, port;
	size_t i, j;

	for (capable = 0; capable < 2; capable++) {
		keep_bind_service(_metadata, capable);
		for (i = 0; i < ARRAY_SIZE(starts); i++) {
			set_unprivileged_start(_metadata, starts[i]);
			for (j = 0; j < ARRAY_SIZE(ports); j++) {
				/*
				 * For an unmarked socket, port 0 means any
				 * port.
				 */
				port = ports[j] ?: own;
				EXPECT_EQ(is_allowed(port, starts[i], capable) ?
					  -EINVAL : -EACCES,
					  bind_to(fd, host, port)) {
					TH_LOG("port %d, start %d, %scapable",
					       port, starts[i],
					       capable ? "" : "not ");
				}
			}
		}
	}
	expect_port(_metadata, fd, own);
}

TEST_F(privilege, second_bind)
{
	int fd = bound_socket(_metadata, variant->host, variant->type,
			      variant->port);

	expect_no_second_bind(_metadata, fd, variant->host, variant->port);
}

TEST_F(privilege, second_bind_of_an_accepted_socket)
{
	struct link link;

	if (variant->type != SOCK_STREAM)
		return;
	link = link_up(_metadata, variant->host, variant->port);
	expect_no_second_bind(_metadata, link.child, variant->host, variant->port);
}

/*
 * Which of several faults of an address bind() reports. The expected errno is that of
 * an ordinary port, since it depends on the kernel.
 */
struct fault {
	const char *host;
	int family, port, length;
};

static const struct fault faults[] = {
	{ "192.0.2.1", AF_INET, -1, 0 },
	{ "192.0.2.1", AF_UNSPEC, -1, 0 },
	{ "192.0.2.1", AF_UNIX, -1, 0 },
	{ "192.0.2.1", AF_INET, OTHER_PORT, 0 },
	{ "0.0.0.0", AF_UNSPEC, -1, 0 },
	{ "0.0.0.0", AF_UNSPEC, OTHER_PORT, 0 },
	{ "127.0.0.1", AF_UNSPEC, -1, 0 },
	{ "127.0.0.1", AF_INET6, -1, 0 },
	{ "224.0.0.1", AF_INET, -1, 0 },
	{ "224.0.0.1", AF_INET, OTHER_PORT, 0 },
	{ "255.255.255.255", AF_INET, -1, 0 },
	{ "127.255.255.255", AF_INET, -1, 0 },
	{ "2001:db8::1", AF_INET6, -1, 0 },
	{ "2001:db8::1", AF_INET6, OTHER_PORT, 0 },
	{ "2001:db8::1", AF_UNSPEC, -1, 0 },
	{ "::", AF_UNSPEC, -1, 0 },
	{ "::1", AF_INET, -1, 0 },
	{ "::1", AF_UNIX, OTHER_PORT, 0 },
	{ "::ffff:192.0.2.1", AF_INET6, -1, 0 },
	{ "::ffff:192.0.2.1", AF_INET6, OTHER_PORT, 0 },
	{ "ff02::1", AF_INET6, -1, 0 },
	{ "ff02::1", AF_INET6, OTHER_PORT, 0 },
	{ "fe80::1", AF_INET6, -1, 0 },
	{ "::1", AF_INET6, -1, 24 },
	{ "::1", AF_INET6, OTHER_PORT, 23 },
	{ "127.0.0.1", AF_INET, -1, 15 },
};

static int bind_fault(int fd, const struct fault *fault, int port)
{
	struct addr addr = addr_of(fault->host,
				   fault->port < 0 ? port : fault->port);

	addr.sa.sa_family = fault->family;
	return rc(bind(fd, &addr.sa, fault->length ?: (int)addr.len));
}

/* Store the result of bind() for each fault. Each gets a new socket. */
static void faults_on(struct __test_metadata *_metadata, const char *host, int type,
		      int port, bool bound, int *answers)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(faults); i++) {
		int fd = socket_for(_metadata, host, type, port);

		if (bound) {
			keep_bind_service(_metadata, true);
			ASSERT_EQ(0, bind_to(fd, host, port));
			keep_bind_service(_metadata, false);
		}
		answers[i] = bind_fault(fd, &faults[i], port);
		if (bound)
			expect_port(_metadata, fd, port);
		close(fd);
	}
}

TEST_F(privilege, faults)
{
	int control[ARRAY_SIZE(faults)], got[ARRAY_SIZE(faults)];
	int bound, start;
	size_t i;

	for (bound = 0; bound < 2; bound++) {
		for (start = 0; start <= 1024; start += 1024) {
			set_unprivileged_start(_metadata, start);
			keep_bind_service(_metadata, false);
			faults_on(_metadata, variant->host, variant->type,
				  CONTROL_PORT, bound, control);
			faults_on(_metadata, variant->host, variant->type,
				  variant->port, bound, got);
			for (i = 0; i < ARRAY_SIZE(faults); i++) {
				EXPECT_EQ(control[i], got[i]) {
					TH_LOG("%s family %d port %d, %sbound, start %d",
					       faults[i].host, faults[i].family,
					       faults[i].port, bound ? "" : "un",
					       start);
				}
			}
		}
	}
}

/*
 * The options that allow an address that the host does not have apply to a second
 * bind(), too.
 */
TEST_F(privilege, foreign_addresses)
{
	static const struct {
		const char *name;
		int level, option;
	} frees[] = {
		{ "IP_FREEBIND", SOL_IP, IP_FREEBIND },
		{ "IP_TRANSPARENT", SOL_IP, IP_TRANSPARENT },
	};
	const char *foreign = is_ip6(variant->host) ? "2001:db8::1" : "192.0.2.1";
	size_t i;

	for (i = 0; i < ARRAY_SIZE(frees); i++) {
		int fd = socket_for(_metadata, variant->host, variant->type,
				    variant->port);

		EXPECT_EQ(-EADDRNOTAVAIL, bind_to(fd, foreign, variant->port));
		ASSERT_EQ(0, bind_to(fd, variant->host, variant->port));
		EXPECT_EQ(is_ip6(variant->host) ? -EINVAL : -EADDRNOTAVAIL,
			  bind_to(fd, foreign, variant->port));
		ASSERT_EQ(0, set_int(fd, frees[i].level, frees[i].option, 1));
		EXPECT_EQ(-EINVAL, bind_to(fd, foreign, variant->port)) {
			TH_LOG("%s", frees[i].name);
		}
		close(fd);
	}
	ASSERT_EQ(0, write_file("/proc/sys/net/ipv4/ip_nonlocal_bind", "1"));
	if (!is_ip6(variant->host)) {
		int fd = bound_socket(_metadata, foreign, variant->type,
				      variant->port);

		EXPECT_EQ(-EINVAL, bind_to(fd, "192.0.2.2", variant->port));
	}
}

/* The limit is that of the socket's network namespace, not of the caller's. */
TEST_F(privilege, limit_of_the_sockets_namespace)
{
	static const int limits[] = { 0, 1024 };
	int home = rc(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC)), away;
	int allowed, bound, fd[ARRAY_SIZE(limits)];
	size_t i;

	ASSERT_LE(0, home);
	ASSERT_EQ(0, rc(unshare(CLONE_NEWNET)));
	away = rc(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
	ASSERT_LE(0, away);
	/* Without a routing table, every address would count as a broadcast address. */
	ASSERT_EQ(0, set_lo_up_elsewhere());
	for (allowed = 0; allowed < 2; allowed++) {
		ASSERT_EQ(0, rc(setns(home, CLONE_NEWNET)));
		set_unprivileged_start(_metadata, variant->port + !allowed);
		for (i = 0; i < ARRAY_SIZE(limits); i++)
			fd[i] = socket_for(_metadata, variant->host, variant->type,
					   variant->port);
		bound = bound_socket(_metadata, variant->host, variant->type,
				     variant->port);

		/* The other one does not have the address. */
		ASSERT_EQ(0, rc(setns(away, CLONE_NEWNET)));
		for (i = 0; i < ARRAY_SIZE(limits); i++) {
			set_unprivileged_start(_metadata, limits[i]);
			keep_bind_service(_metadata, false);
			EXPECT_EQ(allowed ? -EINVAL : -EACCES,
				  bind_to(bound, variant->host, variant->port)) {
				TH_LOG("second bind(), the caller's limit is %d",
				       limits[i]);
			}
			keep_bind_service(_metadata, true);
		}
		close(bound);
		for (i = 0; i < ARRAY_SIZE(limits); i++) {
			set_unprivileged_start(_metadata, limits[i]);
			keep_bind_service(_metadata, false);
			EXPECT_EQ(allowed ? 0 : -EACCES,
				  bind_to(fd[i], variant->host, variant->port)) {
				TH_LOG("first bind(), the caller's limit is %d",
				       limits[i]);
			}
			keep_bind_service(_metadata, true);
			close(fd[i]);
		}
	}
	close(home);
	close(away);
}

/* Root of another user namespace has no privilege here, for any kind of socket. */
TEST_F(privilege, second_bind_from_a_user_namespace)
{
	int fd = bound_socket(_metadata, variant->host, variant->type,
			      variant->port);

	if (unshare(CLONE_NEWUSER))
		SKIP(return, "no user namespaces");
	EXPECT_EQ(-EACCES, bind_to(fd, variant->host, variant->port));
	EXPECT_EQ(-EACCES, bind_to(fd, variant->host, 80));
	EXPECT_EQ(-EINVAL, bind_to(fd, variant->host, OTHER_PORT));
}

/* That it has the capability in another network namespace, which it is in, does not count. */
TEST_F(privilege, from_a_network_that_the_user_namespace_owns)
{
	int bound = bound_socket(_metadata, variant->host, variant->type,
				 variant->port);
	int fd = socket_for(_metadata, variant->host, variant->type, variant->port);

	set_unprivileged_start(_metadata, variant->port + 1);
	if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
		SKIP(return, "no user namespaces");
	EXPECT_EQ(-EACCES, bind_to(bound, variant->host, variant->port));
	EXPECT_EQ(-EACCES, bind_to(fd, variant->host, variant->port));
}

/* In a network namespace of its own it has the capability. */
TEST_F(privilege, second_bind_where_the_user_namespace_is_the_owner)
{
	int fd;

	if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
		SKIP(return, "no user namespaces");
	ASSERT_EQ(0, set_lo_up());
	fd = bound_socket(_metadata, variant->host, variant->type,
			  variant->port);
	EXPECT_EQ(-EINVAL, bind_to(fd, variant->host, variant->port));
	expect_port(_metadata, fd, variant->port);
}

TEST_HARNESS_MAIN

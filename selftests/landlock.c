// SPDX-License-Identifier: GPL-2.0
/*
 * Landlock's rules for ports, on an ordinary port and on port 0.
 *
 * Landlock checks the port that is passed to bind(), also if it is 0. By its
 * definition, a rule for port 0 also allows ephemeral ports.
 */
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "port0_test.h"

/* linux/landlock.h, which older headers lack or have a part of */
#define BIND_TCP	(1 << 0)	/* Linux 6.7 */
#define BIND_UDP	(1 << 2)	/* Linux 7.2 */
#define RULE_NET_PORT	2

#ifndef __NR_landlock_create_ruleset
#define __NR_landlock_create_ruleset	444
#define __NR_landlock_add_rule		445
#define __NR_landlock_restrict_self	446
#endif

struct ruleset {
	uint64_t fs, net;
};

struct net_port {
	uint64_t access, port;
} __attribute__((packed));

FIXTURE(landlock) {
	int ruleset;
	uint64_t right;
};

FIXTURE_VARIANT(landlock) {
	const char *host;
	int type;
	int port;
};

#define LANDLOCK(name, _host, _type)					\
	ON_BOTH_PORTS(landlock, name, .host = _host, .type = _type)
LANDLOCK(ip4_tcp, "127.0.0.1", SOCK_STREAM);
LANDLOCK(ip6_tcp, "::1", SOCK_STREAM);
LANDLOCK(ip4_udp, "127.0.0.1", SOCK_DGRAM);
LANDLOCK(ip6_udp, "::1", SOCK_DGRAM);

FIXTURE_SETUP(landlock)
{
	struct ruleset attr;

	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	self->right = variant->type == SOCK_STREAM ? BIND_TCP : BIND_UDP;
	attr = (struct ruleset){ .net = self->right };
	self->ruleset = rc(syscall(__NR_landlock_create_ruleset, &attr,
				   sizeof(attr), 0));
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(landlock) {}

/*
 * Called in each test, since older harnesses run a test even if its setup has skipped.
 */
#define NEED_RULESET(ruleset) do {					\
	if ((ruleset) < 0)						\
		SKIP(return, "this kernel's Landlock has no such rule");	\
} while (0)

static void allow(struct __test_metadata *_metadata, int ruleset,
		  uint64_t right, int port)
{
	struct net_port rule = { .access = right, .port = port };

	ASSERT_EQ(0, rc(syscall(__NR_landlock_add_rule, ruleset, RULE_NET_PORT,
				&rule, 0)));
}

static void enter_sandbox(struct __test_metadata *_metadata, int ruleset)
{
	ASSERT_EQ(0, rc(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)));
	ASSERT_EQ(0, rc(syscall(__NR_landlock_restrict_self, ruleset, 0)));
}

/* A rule for the port allows a bind() to it, and one for another does not. */
TEST_F(landlock, bind_with_rule)
{
	int fd = socket_for(_metadata, variant->host, variant->type,
			    variant->port);

	NEED_RULESET(self->ruleset);
	allow(_metadata, self->ruleset, self->right, variant->port);
	enter_sandbox(_metadata, self->ruleset);
	EXPECT_EQ(0, bind_to(fd, variant->host, variant->port));
	expect_port(_metadata, fd, variant->port);
}

TEST_F(landlock, bind_without_rule)
{
	int fd = socket_for(_metadata, variant->host, variant->type,
			    variant->port);

	NEED_RULESET(self->ruleset);
	allow(_metadata, self->ruleset, self->right, OTHER_PORT);
	enter_sandbox(_metadata, self->ruleset);
	EXPECT_EQ(-EACCES, bind_to(fd, variant->host, variant->port));
	EXPECT_TRUE(variant->port || !holds_zero(fd));
}

/*
 * A known difference: Landlock takes a UDP socket whose inet_num is 0 for
 * unbound. It then checks whether the first send may bind an ephemeral port. A
 * rule for port 0 allows that.
 */
TEST_F(landlock, bound_before)
{
	int refused = variant->port || variant->type == SOCK_STREAM ? 0 :
		      -EACCES;
	int peer = new_socket(_metadata, variant->host, variant->type);
	int fd = bound_socket(_metadata, variant->host, variant->type,
			      variant->port);
	struct addr to = addr_of(variant->host, OTHER_PORT);

	NEED_RULESET(self->ruleset);
	ASSERT_EQ(0, bind_to(peer, variant->host, OTHER_PORT));
	if (variant->type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(peer, 1)));
	enter_sandbox(_metadata, self->ruleset);
	if (variant->type == SOCK_DGRAM)
		EXPECT_EQ(refused ?: 1, rc(sendto(fd, "x", 1, 0, &to.sa,
						  to.len)));
	EXPECT_EQ(refused, rc(connect(fd, &to.sa, to.len)));
}

TEST_F(landlock, bound_before_with_rule)
{
	int peer = new_socket(_metadata, variant->host, variant->type);
	int fd = bound_socket(_metadata, variant->host, variant->type,
			      variant->port);
	struct addr to = addr_of(variant->host, OTHER_PORT);

	NEED_RULESET(self->ruleset);
	ASSERT_EQ(0, bind_to(peer, variant->host, OTHER_PORT));
	if (variant->type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(peer, 1)));
	allow(_metadata, self->ruleset, self->right, variant->port);
	enter_sandbox(_metadata, self->ruleset);
	if (variant->type == SOCK_DGRAM)
		EXPECT_EQ(1, rc(sendto(fd, "x", 1, 0, &to.sa, to.len)));
	EXPECT_EQ(0, rc(connect(fd, &to.sa, to.len)));
}

TEST_HARNESS_MAIN

// SPDX-License-Identifier: GPL-2.0
/*
 * BPF programs on socket calls, on an ordinary port and on port 0. A program refuses
 * the call if it sees another port than it expects, so a call that succeeds shows that
 * the program saw the right port.
 */

#include "cgroup.h"
#include "ring.h"

/* BPF_SK_REUSEPORT_SELECT, which Linux 5.10's header does not have */
#define SK_REUSEPORT_SELECT	39
#define LIE		7777	/* the port that a program changes the port to */

static int make_map(struct __test_metadata *_metadata, int type, int value_size)
{
	union bpf_attr attr = {
		.map_type = type, .key_size = 4, .value_size = value_size, .max_entries = 2,
	};
	int fd = bpf(BPF_MAP_CREATE, &attr);

	ASSERT_LE(0, fd);
	return fd;
}

static void put_socket(struct __test_metadata *_metadata, int map, __u32 key, __u64 fd)
{
	union bpf_attr attr = {
		.map_fd = map, .key = (uintptr_t)&key, .value = (uintptr_t)&fd,
	};

	ASSERT_EQ(0, bpf(BPF_MAP_UPDATE_ELEM, &attr));
}

/* ---- programs of a control group ---- */

#define CGROUP_FIXTURE(fixture)							\
	FIXTURE(fixture) { struct cgroup cgroup; };				\
	FIXTURE_VARIANT(fixture) {						\
		const char *home, *second;					\
		int port, type;							\
	};									\
	FIXTURE_SETUP(fixture)							\
	{									\
		if (!have_cgroup())						\
			SKIP(return, NO_CGROUP);				\
		enter_netns(_metadata);						\
		cgroup_enter(_metadata, &self->cgroup);				\
	}									\
	FIXTURE_TEARDOWN(fixture)						\
	{									\
		cgroup_leave(_metadata, &self->cgroup);				\
	}									\
	ON_BOTH_PORTS(fixture, udp4, .home = "127.0.0.1", .second = "127.0.0.2",\
		      .type = SOCK_DGRAM);					\
	ON_BOTH_PORTS(fixture, udp6, .home = "::1", .second = "fd00::2",	\
		      .type = SOCK_DGRAM)

CGROUP_FIXTURE(message);
CGROUP_FIXTURE(socket);
ON_BOTH_PORTS(socket, tcp4, .home = "127.0.0.1", .second = "127.0.0.2", .type = SOCK_STREAM);
ON_BOTH_PORTS(socket, tcp6, .home = "::1", .second = "fd00::2", .type = SOCK_STREAM);

/* The attach type for the family of the test */
#define BY_FAMILY(name)								\
	(is_ip6(variant->home) ? BPF_CGROUP_##name(6) : BPF_CGROUP_##name(4))
#define BPF_CGROUP_BIND(family)		BPF_CGROUP_INET##family##_BIND
#define BPF_CGROUP_POST_BIND(family)	BPF_CGROUP_INET##family##_POST_BIND
#define BPF_CGROUP_CONNECT(family)	BPF_CGROUP_INET##family##_CONNECT
#define BPF_CGROUP_GETSOCKNAME(family)	BPF_CGROUP_INET##family##_GETSOCKNAME
#define BPF_CGROUP_GETPEERNAME(family)	BPF_CGROUP_INET##family##_GETPEERNAME
#define BPF_CGROUP_SENDMSG(family)	BPF_CGROUP_UDP##family##_SENDMSG
#define BPF_CGROUP_RECVMSG(family)	BPF_CGROUP_UDP##family##_RECVMSG

#define ON(type, program)	attach(_metadata, self->cgroup.fd, program, type)
#define OFF(type, program)	detach(_metadata, self->cgroup.fd, program, type)

/* A program that replaces the port @from by @to */
#define REPLACE_PORT(type, from, to)						\
	WITH_ADDRESS(type,							\
		     LOAD(R2, R1, ADDR(user_port)),				\
		     SKIP_UNLESS(R2, htons(from), 2),				\
		     MOV_IMM(R3, htons(to)),					\
		     STORE(R1, ADDR(user_port), R3),				\
		     MOV_IMM(R0, 1),						\
		     RETURN())

TEST_F(socket, bind_sees_the_port)
{
	const int type = BY_FAMILY(BIND);
	int fd = socket_for(_metadata, variant->home, variant->type, variant->port);

	ON(type, EXPECT_ADDRESS(type, variant->port));
	EXPECT_EQ(0, bind_to(fd, variant->home, variant->port));
	expect_port(_metadata, fd, variant->port);
}

TEST_F(socket, bind_refused)
{
	const int type = BY_FAMILY(BIND);
	int refuse = EXPECT_ADDRESS(type, OTHER_PORT);
	int fd = socket_for(_metadata, variant->home, variant->type, variant->port);
	int second = socket_for(_metadata, variant->home, variant->type, variant->port);

	ON(type, refuse);
	EXPECT_EQ(-EPERM, bind_to(fd, variant->home, variant->port));
	EXPECT_EQ(0, local_port(fd));
	OFF(type, refuse);
	EXPECT_EQ(0, bind_to(second, variant->home, variant->port));
	close(second);
	EXPECT_EQ(0, bind_to(fd, variant->home, variant->port));
	expect_port(_metadata, fd, variant->port);
}

TEST_F(socket, bind_to_another_address)
{
	const int type = BY_FAMILY(BIND);
	struct addr want = addr_of(variant->second, variant->port);
	struct addr got = { .len = sizeof(got.v6) };
	const __u32 *ip6 = (const __u32 *)&want.v6.sin6_addr;
	int fd = socket_for(_metadata, variant->home, variant->type, variant->port);
	int program = is_ip6(variant->home) ?
		WITH_ADDRESS(type,
			     MOV_IMM(R2, ip6[0]), STORE(R1, ADDR(user_ip6[0]), R2),
			     MOV_IMM(R2, ip6[3]), STORE(R1, ADDR(user_ip6[3]), R2),
			     MOV_IMM(R0, 1), RETURN()) :
		WITH_ADDRESS(type,
			     MOV_IMM(R2, want.v4.sin_addr.s_addr), STORE(R1, ADDR(user_ip4), R2),
			     MOV_IMM(R0, 1), RETURN());

	ON(type, program);
	EXPECT_EQ(0, bind_to(fd, variant->home, variant->port));
	expect_port(_metadata, fd, variant->port);
	ASSERT_EQ(0, rc(getsockname(fd, &got.sa, &got.len)));
	EXPECT_EQ(0, memcmp(&want.sa, &got.sa, want.len));
}

TEST_F(socket, bind_sent_to_the_port)
{
	const int type = BY_FAMILY(BIND);
	int fd = socket_for(_metadata, variant->home, variant->type, variant->port);

	ON(type, REPLACE_PORT(type, OTHER_PORT, variant->port));
	EXPECT_EQ(0, bind_to(fd, variant->home, OTHER_PORT));
	expect_port(_metadata, fd, variant->port);
}

TEST_F(socket, bind_sent_away_from_the_port)
{
	const int type = BY_FAMILY(BIND);
	int fd = socket_for(_metadata, variant->home, variant->type, variant->port);
	int second = socket_for(_metadata, variant->home, variant->type, variant->port);
	int program = REPLACE_PORT(type, variant->port, OTHER_PORT);

	ON(type, program);
	EXPECT_EQ(0, bind_to(fd, variant->home, variant->port));
	EXPECT_EQ(OTHER_PORT, local_port(fd));
	OFF(type, program);
	EXPECT_EQ(0, bind_to(second, variant->home, variant->port));
	expect_port(_metadata, second, variant->port);
}

/* Bit 1 of the program's result stands in for the capability, if the kernel takes it. */
static bool result_is_a_capability(int type)
{
	const struct bpf_insn insns[] = { MOV_IMM(R0, 3), RETURN() };
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_CGROUP_SOCK_ADDR, .expected_attach_type = type,
		.insns = (uintptr_t)insns, .insn_cnt = ARRAY_SIZE(insns),
		.license = (uintptr_t)"GPL",
	};
	int fd = bpf(BPF_PROG_LOAD, &attr);

	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

#define NO_CAPABILITY	"no program can stand in for the capability in this kernel"

TEST_F(socket, bind_without_the_capability)
{
	const int type = BY_FAMILY(BIND);
	int program, fd;

	if (!result_is_a_capability(type))
		SKIP(return, NO_CAPABILITY);
	program = WITH_ADDRESS(type, MOV_IMM(R0, 3), RETURN());
	fd = socket_for(_metadata, variant->home, variant->type, variant->port);
	keep_bind_service(_metadata, false);
	EXPECT_EQ(-EACCES, bind_to(fd, variant->home, variant->port));
	ON(type, program);
	EXPECT_EQ(0, bind_to(fd, variant->home, variant->port));
	expect_port(_metadata, fd, variant->port);
}

/*
 * The result is the same for every ip_unprivileged_port_start, since the program grants
 * the capability.
 */
TEST_F(socket, bind_without_the_capability_whatever_the_limit)
{
	const int starts[] = { 0, 1, 2, variant->port, variant->port + 1, 1024 };
	const int type = BY_FAMILY(BIND);
	char text[16];
	int program, fd;
	size_t i;

	if (!result_is_a_capability(type))
		SKIP(return, NO_CAPABILITY);
	program = WITH_ADDRESS(type, MOV_IMM(R0, 3), RETURN());
	keep_bind_service(_metadata, false);
	for (i = 0; i < ARRAY_SIZE(starts); i++) {
		snprintf(text, sizeof(text), "%d", starts[i]);
		ASSERT_EQ(0, write_file("/proc/sys/net/ipv4/ip_unprivileged_port_start",
					text));
		fd = socket_for(_metadata, variant->home, variant->type, variant->port);
		EXPECT_EQ(variant->port < starts[i] ? -EACCES : 0,
			  bind_to(fd, variant->home, variant->port));
		close(fd);

		ON(type, program);
		fd = socket_for(_metadata, variant->home, variant->type, variant->port);
		EXPECT_EQ(0, bind_to(fd, variant->home, variant->port));
		expect_port(_metadata, fd, variant->port);
		/*
		 * It applies to a second bind(), too, which fails with the
		 * errno for that.
		 */
		EXPECT_EQ(-EINVAL, bind_to(fd, variant->home, variant->port));
		EXPECT_EQ(-EINVAL, bind_to(fd, variant->home, 80));
		OFF(type, program);
		EXPECT_EQ(variant->port < starts[i] ? -EACCES : -EINVAL,
			  bind_to(fd, variant->home, variant->port));
		close(fd);
	}
}

#define EXPECT_SOURCE(type, port)						\
	LOAD_PROGRAM(BPF_PROG_TYPE_CGROUP_SOCK, type,				\
		     LOAD(R2, R1, offsetof(struct bpf_sock, src_port)),		\
		     MOV_IMM(R0, 0),						\
		     SKIP_UNLESS(R2, port, 1),					\
		     MOV_IMM(R0, 1),						\
		     RETURN())

TEST_F(socket, post_bind_sees_the_port)
{
	const int type = BY_FAMILY(POST_BIND);
	int fd = socket_for(_metadata, variant->home, variant->type, variant->port);

	ON(type, EXPECT_SOURCE(type, variant->port));
	EXPECT_EQ(0, bind_to(fd, variant->home, variant->port));
	expect_port(_metadata, fd, variant->port);
}

static bool has_no_address(int fd)
{
	struct addr addr = { .len = sizeof(addr.v6) };

	getsockname(fd, &addr.sa, &addr.len);
	return addr.sa.sa_family == AF_INET ?
	       !addr.v4.sin_addr.s_addr :
	       IN6_IS_ADDR_UNSPECIFIED(&addr.v6.sin6_addr);
}

/*
 * Older kernels leave a socket bound that a program has refused, to an ordinary port
 * as well: it cannot be bound again.
 */
static bool refused_is_bound(struct __test_metadata *_metadata, int cgroup, int type,
			     int refuse, const char *home)
{
	int fd = new_socket(_metadata, home, SOCK_STREAM), err;

	attach(_metadata, cgroup, refuse, type);
	EXPECT_EQ(-EPERM, bind_to(fd, home, 80));
	err = bind_to(fd, home, 80);
	detach(_metadata, cgroup, refuse, type);
	close(fd);
	return err == -EINVAL;
}

#define REFUSED_IS_BOUND(type, refuse)						\
	refused_is_bound(_metadata, self->cgroup.fd, type, refuse, variant->home)
#define KEEPS_REFUSED	"this kernel leaves bound what a program has refused"

/* A bind that is refused after it took the port releases port and address. */
TEST_F(socket, post_bind_refused)
{
	const int type = BY_FAMILY(POST_BIND);
	int refuse = EXPECT_SOURCE(type, OTHER_PORT);
	int fd = socket_for(_metadata, variant->home, variant->type, variant->port);
	int second = socket_for(_metadata, variant->home, variant->type, variant->port);

	if (REFUSED_IS_BOUND(type, refuse))
		SKIP(return, KEEPS_REFUSED);
	ON(type, refuse);
	EXPECT_EQ(-EPERM, bind_to(fd, variant->home, variant->port));
	EXPECT_EQ(0, local_port(fd));
	EXPECT_TRUE(has_no_address(fd));
	EXPECT_EQ(-EPERM, bind_to(fd, variant->home, variant->port));
	OFF(type, refuse);
	EXPECT_EQ(0, bind_to(second, variant->home, variant->port));
	close(second);
	EXPECT_EQ(0, bind_to(fd, variant->home, variant->port));
	expect_port(_metadata, fd, variant->port);
}

/* The same for a socket that has lost another port, which getsockname() still shows */
TEST_F(socket, post_bind_refused_after_a_lost_port)
{
	const int type = BY_FAMILY(POST_BIND);
	int refuse = EXPECT_SOURCE(type, OTHER_PORT);
	int fd = socket_for(_metadata, variant->home, variant->type, variant->port);
	int second = socket_for(_metadata, variant->home, variant->type, variant->port);

	if (variant->type != SOCK_STREAM)
		return;
	if (REFUSED_IS_BOUND(type, refuse))
		SKIP(return, KEEPS_REFUSED);
	ASSERT_EQ(0, rc(listen(fd, 1)));
	ASSERT_EQ(0, rc(shutdown(fd, SHUT_RDWR)));
	ON(type, refuse);
	EXPECT_EQ(-EPERM, bind_to(fd, variant->home, variant->port));
	EXPECT_TRUE(has_no_address(fd));
	OFF(type, refuse);
	EXPECT_EQ(0, bind_to(second, variant->home, variant->port));
	close(second);
	EXPECT_EQ(0, bind_to(fd, variant->home, variant->port));
	expect_port(_metadata, fd, variant->port);
}

/* The refused socket must be like a new one. */
TEST_F(socket, post_bind_refused_leaves_nothing)
{
	const char *any = is_ip6(variant->home) ? "::" : "0.0.0.0";
	const int type = BY_FAMILY(POST_BIND);
	int refuse = EXPECT_SOURCE(type, OTHER_PORT);
	int fd = socket_for(_metadata, variant->home, variant->type, variant->port);
	struct addr name = { .len = sizeof(name.v6) };
	int server, second;

	if (REFUSED_IS_BOUND(type, refuse))
		SKIP(return, KEEPS_REFUSED);
	ON(type, refuse);
	EXPECT_EQ(-EPERM, bind_to(fd, variant->home, variant->port));
	/* The kernel allows this option only on sockets that are not bound. */
	if (is_ip6(variant->home))
		EXPECT_EQ(0, set_int(fd, SOL_IPV6, IPV6_V6ONLY, 1));
	EXPECT_EQ(0, bind_to(fd, variant->home, OTHER_PORT));
	EXPECT_EQ(OTHER_PORT, local_port(fd));
	close(fd);
	OFF(type, refuse);

	/*
	 * connect() gives the refused socket an ephemeral port, and an address by the
	 * route.
	 */
	server = bound_socket(_metadata, variant->home, variant->type, OTHER_PORT);
	if (variant->type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(server, 4)));
	fd = socket_for(_metadata, variant->home, variant->type, variant->port);
	ON(type, refuse);
	EXPECT_EQ(-EPERM, bind_to(fd, variant->second, variant->port));
	OFF(type, refuse);
	EXPECT_EQ(0, connect_to(fd, variant->home, OTHER_PORT));
	EXPECT_TRUE(is_ephemeral(local_port(fd)));
	ASSERT_EQ(0, rc(getsockname(fd, &name.sa, &name.len)));
	EXPECT_TRUE(is_ip6(variant->home) ?
		    IN6_IS_ADDR_LOOPBACK(&name.v6.sin6_addr) :
		    name.v4.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
	/* A disconnect releases a port that bind() did not choose. */
	EXPECT_EQ(0, disconnect(fd));
	EXPECT_TRUE(variant->port || holds_zero(fd) == 0);
	EXPECT_EQ(0, bind_to(fd, any, variant->port));
	expect_port(_metadata, fd, variant->port);
	second = socket_for(_metadata, variant->home, variant->type, variant->port);
	EXPECT_EQ(-EADDRINUSE, bind_to(second, variant->second, variant->port));
}

/* An IPv6 address makes a socket v6-only; a refused one does not. */
TEST_F(socket, post_bind_refused_is_not_v6only)
{
	const int type = BY_FAMILY(POST_BIND);
	int refuse = EXPECT_SOURCE(type, OTHER_PORT);
	int fd = socket_for(_metadata, variant->home, variant->type, variant->port);

	if (!is_ip6(variant->home))
		return;
	if (REFUSED_IS_BOUND(type, refuse))
		SKIP(return, KEEPS_REFUSED);
	ON(type, refuse);
	EXPECT_EQ(-EPERM, bind_to(fd, variant->home, variant->port));
	OFF(type, refuse);
	EXPECT_EQ(0, get_int(fd, SOL_IPV6, IPV6_V6ONLY));
	EXPECT_EQ(0, bind_to(fd, "::ffff:127.0.0.1", variant->port));
	expect_port(_metadata, fd, variant->port);
}

TEST_F(socket, post_bind_refused_keeps_the_device)
{
	const int type = BY_FAMILY(POST_BIND);
	int refuse = EXPECT_SOURCE(type, OTHER_PORT);
	int fd = socket_for(_metadata, variant->home, variant->type, variant->port);
	char device[IFNAMSIZ] = "";
	socklen_t len = sizeof(device);

	if (REFUSED_IS_BOUND(type, refuse))
		SKIP(return, KEEPS_REFUSED);
	ASSERT_EQ(0, set_device(fd, "lo"));
	ON(type, refuse);
	EXPECT_EQ(-EPERM, bind_to(fd, variant->home, variant->port));
	OFF(type, refuse);
	EXPECT_EQ(0, rc(getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, &len)));
	EXPECT_STREQ("lo", device);
	EXPECT_EQ(0, bind_to(fd, variant->home, variant->port));
	expect_port(_metadata, fd, variant->port);
}

TEST_F(socket, post_bind_refused_keeps_buffer_locks)
{
	const int type = BY_FAMILY(POST_BIND);
	int refuse = EXPECT_SOURCE(type, OTHER_PORT);
	int fd = socket_for(_metadata, variant->home, variant->type, variant->port);

	if (REFUSED_IS_BOUND(type, refuse))
		SKIP(return, KEEPS_REFUSED);
	ASSERT_EQ(0, lock_buffers(fd));
	if (buffer_locks(fd) == -ENOPROTOOPT)
		SKIP(return, NO_BUFFER_LOCKS);
	ON(type, refuse);
	EXPECT_EQ(-EPERM, bind_to(fd, variant->home, variant->port));
	OFF(type, refuse);
	EXPECT_EQ(BOTH_BUFFERS, buffer_locks(fd));
	EXPECT_EQ(0, bind_to(fd, variant->home, variant->port));
	expect_port(_metadata, fd, variant->port);
}

/*
 * The refused address is removed, also if an earlier bind() has set one without a port.
 */
TEST_F(socket, post_bind_refused_after_an_address)
{
	const int type = BY_FAMILY(POST_BIND);
	int refuse = EXPECT_SOURCE(type, OTHER_PORT);
	int fd = new_socket(_metadata, variant->home, variant->type), second;

	if (REFUSED_IS_BOUND(type, refuse))
		SKIP(return, KEEPS_REFUSED);
	ASSERT_EQ(0, set_int(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1));
	ASSERT_EQ(0, bind_to(fd, variant->second, 0));
	ASSERT_EQ(0, local_port(fd));
	if (!variant->port)
		require_mark(_metadata, fd);
	ON(type, refuse);
	EXPECT_EQ(-EPERM, bind_to(fd, variant->home, variant->port));
	OFF(type, refuse);
	EXPECT_EQ(0, local_port(fd));
	EXPECT_TRUE(has_no_address(fd));
	second = bound_socket(_metadata, variant->home, variant->type, variant->port);
	close(second);
	EXPECT_EQ(0, bind_to(fd, variant->home, variant->port));
	expect_port(_metadata, fd, variant->port);
}

/* A reuseport group is unchanged after a socket was refused in it. */
TEST_F(socket, post_bind_refused_in_a_group)
{
	const int type = BY_FAMILY(POST_BIND);
	int refuse = EXPECT_SOURCE(type, OTHER_PORT);
	int fd[3], i;

	if (REFUSED_IS_BOUND(type, refuse))
		SKIP(return, KEEPS_REFUSED);
	for (i = 0; i < 3; i++) {
		fd[i] = socket_for(_metadata, variant->home, variant->type, variant->port);
		ASSERT_EQ(0, set_int(fd[i], SOL_SOCKET, SO_REUSEPORT, 1));
	}
	ASSERT_EQ(0, bind_to(fd[0], variant->home, variant->port));
	ON(type, refuse);
	for (i = 1; i < 3; i++)
		EXPECT_EQ(-EPERM, bind_to(fd[i], variant->home, variant->port));
	expect_port(_metadata, fd[0], variant->port);
	OFF(type, refuse);
	for (i = 1; i < 3; i++) {
		EXPECT_EQ(0, bind_to(fd[i], variant->home, variant->port));
		expect_port(_metadata, fd[i], variant->port);
	}
}

static int server_on(struct __test_metadata *_metadata, const char *host, int type, int port)
{
	int fd = bound_socket(_metadata, host, type, port);

	if (type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(fd, 4)));
	return fd;
}

/* Receive one word from a client that is connected. */
static void expect_word(struct __test_metadata *_metadata, int server, int client, int type)
{
	int fd = server;

	if (type == SOCK_STREAM) {
		fd = rc(accept(server, NULL, NULL));
		ASSERT_LE(0, fd);
	}
	expect_send(_metadata, client, "word");
	expect_recv(_metadata, fd, "word");
}

TEST_F(socket, connect_sees_the_port)
{
	const int type = BY_FAMILY(CONNECT);
	int server = server_on(_metadata, variant->home, variant->type, variant->port);
	int client = new_socket(_metadata, variant->home, variant->type);

	ON(type, EXPECT_ADDRESS(type, variant->port));
	EXPECT_EQ(0, connect_to(client, variant->home, variant->port));
	expect_word(_metadata, server, client, variant->type);
}

TEST_F(socket, connect_sent_to_the_port)
{
	const int type = BY_FAMILY(CONNECT);
	int server = server_on(_metadata, variant->home, variant->type, variant->port);
	int client = new_socket(_metadata, variant->home, variant->type);

	ON(type, REPLACE_PORT(type, OTHER_PORT, variant->port));
	EXPECT_EQ(0, connect_to(client, variant->home, OTHER_PORT));
	EXPECT_EQ(variant->port, peer_port(client));
	expect_word(_metadata, server, client, variant->type);
}

TEST_F(socket, connect_sent_away_from_the_port)
{
	const int type = BY_FAMILY(CONNECT);
	int server = server_on(_metadata, variant->home, variant->type, OTHER_PORT);
	int client = new_socket(_metadata, variant->home, variant->type);

	ON(type, REPLACE_PORT(type, variant->port, OTHER_PORT));
	EXPECT_EQ(0, connect_to(client, variant->home, variant->port));
	EXPECT_EQ(OTHER_PORT, peer_port(client));
	expect_word(_metadata, server, client, variant->type);
}

/* The program sees the destination's port, not the source port under test. */
TEST_F(socket, connect_from_the_port)
{
	const int type = BY_FAMILY(CONNECT);
	int server = server_on(_metadata, variant->home, variant->type, OTHER_PORT);
	int client = bound_socket(_metadata, variant->second, variant->type, variant->port);

	ON(type, EXPECT_ADDRESS(type, OTHER_PORT));
	EXPECT_EQ(0, connect_to(client, variant->home, OTHER_PORT));
	expect_port(_metadata, client, variant->port);
	expect_word(_metadata, server, client, variant->type);
}

/*
 * A program that binds the socket to @to when it connects, and refuses the connect() if
 * the result is not @want
 */
static int program_that_binds(struct __test_metadata *_metadata, int type,
			      const struct addr *to, int want)
{
	const int len = to->len, words = len / sizeof(__u32);
	const struct bpf_insn rest[] = {
		MOV(R2, R10), ADD_IMM(R2, -len),
		MOV_IMM(R3, len),
		CALL(bind),
		SKIP_UNLESS(R0, want, 2),
		MOV_IMM(R0, 1), RETURN(),
		MOV_IMM(R0, 0), RETURN(),
	};
	struct bpf_insn insns[sizeof(to->v6) / sizeof(__u32) + ARRAY_SIZE(rest)];
	__u32 word;
	int i;

	for (i = 0; i < words; i++) {
		memcpy(&word, (const char *)&to->sa + i * sizeof(word), sizeof(word));
		insns[i] = (struct bpf_insn)STORE_IMM(R10, i * (int)sizeof(word) - len, word);
	}
	memcpy(insns + words, rest, sizeof(rest));
	return load_program(_metadata, BPF_PROG_TYPE_CGROUP_SOCK_ADDR, type, insns,
			    words + ARRAY_SIZE(rest));
}

/*
 * For bpf_bind(), port 0 means any port, on a marked socket as on others. Port 1, which
 * the module passes to the kernel instead of 0, is a port like any other.
 */
TEST_F(socket, bind_by_a_connect_program)
{
	static const int ports[] = { 0, 1, OTHER_PORT };
	const int type = BY_FAMILY(CONNECT);
	int server = server_on(_metadata, variant->home, variant->type, OTHER_PORT);
	int program, fd;
	struct addr to;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ports); i++) {
		struct addr name = { .len = sizeof(name.v6) };

		to = addr_of(variant->second, ports[i]);
		program = program_that_binds(_metadata, type, &to, 0);
		fd = socket_for(_metadata, variant->home, variant->type, variant->port);
		ON(type, program);
		EXPECT_EQ(0, connect_to(fd, variant->home, OTHER_PORT));
		OFF(type, program);
		EXPECT_EQ(0, rc(getsockname(fd, &name.sa, &name.len)));
		EXPECT_TRUE(ports[i] ? port_of(&name) == ports[i] :
				       is_ephemeral(port_of(&name))) {
			TH_LOG("bound to port %d, it has %d", ports[i], port_of(&name));
		}
		EXPECT_EQ(0, is_ip6(variant->home) ?
			  memcmp(&to.v6.sin6_addr, &name.v6.sin6_addr, 16) :
			  memcmp(&to.v4.sin_addr, &name.v4.sin_addr, 4));
		expect_word(_metadata, server, fd, variant->type);
		close(fd);
		close(program);
	}

	/*
	 * A socket that has the port already keeps it. The program does not name port 0
	 * here, but no port, for which no capability is needed.
	 */
	for (i = 0; i < 2; i++) {
		to = addr_of(variant->home, i ? 0 : OTHER_PORT + 1);
		program = program_that_binds(_metadata, type, &to, -EINVAL);
		fd = bound_socket(_metadata, variant->second, variant->type, variant->port);
		if (!port_of(&to))
			keep_bind_service(_metadata, false);
		ON(type, program);
		EXPECT_EQ(0, connect_to(fd, variant->home, OTHER_PORT));
		OFF(type, program);
		expect_port(_metadata, fd, variant->port);
		expect_word(_metadata, server, fd, variant->type);
		reset_on_close(fd);
		close(fd);
		close(program);
	}
}

TEST_F(socket, names_are_rewritten)
{
	const int own = BY_FAMILY(GETSOCKNAME), peer = BY_FAMILY(GETPEERNAME);
	int server = server_on(_metadata, variant->home, variant->type, variant->port);
	int client = new_socket(_metadata, variant->home, variant->type);
	int lie_about_own = REPLACE_PORT(own, variant->port, LIE);
	int lie_about_peer = REPLACE_PORT(peer, variant->port, LIE);

	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	ON(own, lie_about_own);
	EXPECT_EQ(LIE, local_port(server));
	OFF(own, lie_about_own);
	EXPECT_EQ(variant->port, local_port(server));
	ON(peer, lie_about_peer);
	EXPECT_EQ(LIE, peer_port(client));
	OFF(peer, lie_about_peer);
	EXPECT_EQ(variant->port, peer_port(client));
}

/* The program runs for accept() with an address, too. */
TEST_F(socket, accepted_name_is_rewritten)
{
	const int type = BY_FAMILY(GETPEERNAME);
	int lie = REPLACE_PORT(type, variant->port, LIE);
	struct addr peer = { .len = sizeof(peer.v6) };
	int listener, client, child;

	if (variant->type != SOCK_STREAM)
		return;
	listener = server_on(_metadata, variant->home, SOCK_STREAM, OTHER_PORT);
	client = bound_socket(_metadata, variant->second, SOCK_STREAM, variant->port);
	ASSERT_EQ(0, connect_to(client, variant->home, OTHER_PORT));
	ON(type, lie);
	child = rc(accept(listener, &peer.sa, &peer.len));
	OFF(type, lie);
	ASSERT_LE(0, child);
	EXPECT_EQ(LIE, port_of(&peer));
	EXPECT_EQ(variant->port, peer_port(child));
}

/* The scope of a name is that of the address that the program has written. */
TEST_F(socket, rewritten_name_has_its_own_scope)
{
	const int type = BPF_CGROUP_INET6_GETPEERNAME;
	const int lo = if_nametoindex("lo");
	struct addr name = { .len = sizeof(name.v6) };
	int client, program;

	if (!is_ip6(variant->home))
		return;
	server_on(_metadata, variant->home, variant->type, variant->port);
	client = new_socket(_metadata, variant->home, variant->type);
	ASSERT_EQ(0, set_device(client, "lo"));
	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	program = WITH_ADDRESS(type,
			       MOV_IMM(R2, htonl(0xfe800000)),
			       STORE(R1, ADDR(user_ip6[0]), R2),
			       MOV_IMM(R0, 1), RETURN());
	ON(type, program);
	ASSERT_EQ(0, rc(getpeername(client, &name.sa, &name.len)));
	EXPECT_TRUE(IN6_IS_ADDR_LINKLOCAL(&name.v6.sin6_addr));
	EXPECT_EQ(lo, (int)name.v6.sin6_scope_id);
	OFF(type, program);
	ASSERT_EQ(0, rc(getpeername(client, &name.sa, &name.len)));
	EXPECT_TRUE(IN6_IS_ADDR_LOOPBACK(&name.v6.sin6_addr));
	EXPECT_EQ(0, (int)name.v6.sin6_scope_id);
}

TEST_F(message, sendmsg_sees_the_port)
{
	const int type = BY_FAMILY(SENDMSG);
	int server = server_on(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int client = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int expect = EXPECT_ADDRESS(type, variant->port);
	int refuse = EXPECT_ADDRESS(type, OTHER_PORT);

	ON(type, expect);
	EXPECT_EQ(4, send_to(client, variant->home, variant->port, "word", 0));
	expect_recv(_metadata, server, "word");
	OFF(type, expect);
	ON(type, refuse);
	EXPECT_EQ(-EPERM, send_to(client, variant->home, variant->port, "word", 0));
	OFF(type, refuse);
	EXPECT_EQ(4, send_to(client, variant->home, variant->port, "free", 0));
	expect_recv(_metadata, server, "free");
}

/* See KNOWN_BPF_SENDMSG. */
TEST_F(message, sendmsg_sent_to_the_port)
{
	const int type = BY_FAMILY(SENDMSG);
	int server = server_on(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int client = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);

	ON(type, REPLACE_PORT(type, OTHER_PORT, variant->port));
	if (!variant->port) {
		EXPECT_EQ(-EINVAL, send_to(client, variant->home, OTHER_PORT, "word", 0));
		return;
	}
	EXPECT_EQ(4, send_to(client, variant->home, OTHER_PORT, "word", 0));
	expect_recv(_metadata, server, "word");
}

TEST_F(message, sendmsg_sent_away_from_the_port)
{
	const int type = BY_FAMILY(SENDMSG);
	int server = server_on(_metadata, variant->home, SOCK_DGRAM, OTHER_PORT);
	int client = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);

	ON(type, REPLACE_PORT(type, variant->port, OTHER_PORT));
	EXPECT_EQ(4, send_to(client, variant->home, variant->port, "word", 0));
	expect_recv(_metadata, server, "word");
}

/*
 * The program redirects datagrams to one port, and must not change others nor the
 * caller's address. Port 1 is the neighbour of 0.
 */
TEST_F(message, sendmsg_sent_to_neighbours)
{
	static const int ports[] = { 1, 2, CONTROL_PORT + 1, OTHER_PORT, 65535 };
	const int type = BY_FAMILY(SENDMSG);
	struct addr to = addr_of(variant->home, variant->port);
	struct iovec iov = { .iov_base = "word", .iov_len = 4 };
	struct msghdr msg = {
		.msg_name = &to.sa, .msg_namelen = to.len, .msg_iov = &iov, .msg_iovlen = 1,
	};
	int server = server_on(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int client = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int other, program;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ports); i++) {
		other = server_on(_metadata, variant->home, SOCK_DGRAM, ports[i]);
		program = REPLACE_PORT(type, variant->port, ports[i]);
		ON(type, program);
		EXPECT_EQ(4, rc(sendmsg(client, &msg, 0)));
		expect_recv(_metadata, other, "word");
		EXPECT_EQ(variant->port, port_of(&to));
		/* A port that the program does not look for is not changed. */
		EXPECT_EQ(4, send_to(client, variant->home, ports[i], "kept", 0));
		expect_recv(_metadata, other, "kept");
		OFF(type, program);
		EXPECT_EQ(4, rc(sendmsg(client, &msg, 0)));
		expect_recv(_metadata, server, "word");
		EXPECT_EQ(-EAGAIN, rc(recv(other, "", 0, MSG_DONTWAIT)));
		close(other);
	}
}

/* To another address of the port, in one piece and in several. */
TEST_F(message, sendmsg_sent_to_another_address)
{
	const int type = BY_FAMILY(SENDMSG);
	struct addr want = addr_of(variant->second, variant->port);
	const __u32 *ip6 = (const __u32 *)&want.v6.sin6_addr;
	int home = server_on(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int second = server_on(_metadata, variant->second, SOCK_DGRAM, variant->port);
	int client = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int program = is_ip6(variant->home) ?
		WITH_ADDRESS(type,
			     MOV_IMM(R2, ip6[0]), STORE(R1, ADDR(user_ip6[0]), R2),
			     MOV_IMM(R2, ip6[3]), STORE(R1, ADDR(user_ip6[3]), R2),
			     MOV_IMM(R0, 1), RETURN()) :
		WITH_ADDRESS(type,
			     MOV_IMM(R2, want.v4.sin_addr.s_addr), STORE(R1, ADDR(user_ip4), R2),
			     MOV_IMM(R0, 1), RETURN());

	ON(type, program);
	EXPECT_EQ(4, send_to(client, variant->home, variant->port, "word", 0));
	expect_recv(_metadata, second, "word");
	EXPECT_EQ(3, send_to(client, variant->home, variant->port, "two", MSG_MORE));
	EXPECT_EQ(5, send_to(client, variant->home, variant->port, "parts", 0));
	expect_recv(_metadata, second, "twoparts");
	OFF(type, program);
	EXPECT_EQ(4, send_to(client, variant->home, variant->port, "back", 0));
	expect_recv(_metadata, home, "back");
	EXPECT_EQ(-EAGAIN, rc(recv(second, "", 0, MSG_DONTWAIT)));
}

/* From another address, which the program writes into what the kernel passes beside. */
TEST_F(message, sendmsg_sent_from_another_address)
{
	const int type = BY_FAMILY(SENDMSG);
	struct addr want = addr_of(variant->second, 0), from = { .len = sizeof(from.v6) };
	const __u32 *ip6 = (const __u32 *)&want.v6.sin6_addr;
	int server = server_on(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int client = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int program = is_ip6(variant->home) ?
		WITH_ADDRESS(type,
			     MOV_IMM(R2, ip6[0]), STORE(R1, ADDR(msg_src_ip6[0]), R2),
			     MOV_IMM(R2, ip6[3]), STORE(R1, ADDR(msg_src_ip6[3]), R2),
			     MOV_IMM(R0, 1), RETURN()) :
		WITH_ADDRESS(type,
			     MOV_IMM(R2, want.v4.sin_addr.s_addr),
			     STORE(R1, ADDR(msg_src_ip4), R2),
			     MOV_IMM(R0, 1), RETURN());
	char text[8];

	ON(type, program);
	EXPECT_EQ(4, send_to(client, variant->home, variant->port, "word", 0));
	OFF(type, program);
	EXPECT_EQ(4, rc(recvfrom(server, text, sizeof(text), 0, &from.sa, &from.len)));
	EXPECT_EQ(local_port(client), port_of(&from));
	EXPECT_EQ(0, is_ip6(variant->home) ?
		  memcmp(&want.v6.sin6_addr, &from.v6.sin6_addr, 16) :
		  memcmp(&want.v4.sin_addr, &from.v4.sin_addr, 4));
}

/*
 * A program is attached between the parts of a corked datagram: the first part decides
 * where all of it goes.
 */
TEST_F(message, sendmsg_of_parts_sent_away)
{
	const int type = BY_FAMILY(SENDMSG);
	int server = server_on(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int other = server_on(_metadata, variant->home, SOCK_DGRAM, OTHER_PORT);
	int client = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int program = REPLACE_PORT(type, variant->port, OTHER_PORT);

	ON(type, program);
	EXPECT_EQ(3, send_to(client, variant->home, variant->port, "two", MSG_MORE));
	OFF(type, program);
	EXPECT_EQ(5, send_to(client, variant->home, variant->port, "parts", 0));
	expect_recv(_metadata, other, "twoparts");
	EXPECT_EQ(3, send_to(client, variant->home, variant->port, "two", MSG_MORE));
	ON(type, program);
	EXPECT_EQ(5, send_to(client, variant->home, variant->port, "parts", 0));
	OFF(type, program);
	expect_recv(_metadata, server, "twoparts");
}

/*
 * If an IPv6 socket sends to a v4-mapped address, the IPv6 program runs on that
 * address; then the datagram is sent as IPv4.
 */
TEST_F(message, sendmsg_to_a_mapped_address)
{
	static const int sees[] = { BPF_CGROUP_UDP4_SENDMSG, BPF_CGROUP_UDP6_SENDMSG };
	int server = server_on(_metadata, "127.0.0.1", SOCK_DGRAM, variant->port);
	int other = server_on(_metadata, "127.0.0.1", SOCK_DGRAM, 1);
	int client = socket_for(_metadata, "::", SOCK_DGRAM, variant->port);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sees); i++) {
		int allow = EXPECT_ADDRESS(sees[i], variant->port);
		int move = REPLACE_PORT(sees[i], variant->port, 1);
		int err;

		ON(sees[i], allow);
		EXPECT_EQ(4, send_to(client, "::ffff:127.0.0.1", variant->port, "word", 0));
		expect_recv(_metadata, server, "word");
		OFF(sees[i], allow);
		ON(sees[i], move);
		err = send_to(client, "::ffff:127.0.0.1", variant->port, "move", 0);
		EXPECT_EQ(4, err);
		/*
		 * Only one of the two programs runs, and redirects the
		 * datagram.
		 */
		expect_recv(_metadata, sees[i] == BPF_CGROUP_UDP4_SENDMSG ? other : server,
			    "move");
		OFF(sees[i], move);
		EXPECT_EQ(4, send_to(client, "::ffff:127.0.0.1", variant->port, "back", 0));
		expect_recv(_metadata, server, "back");
	}
}

/* If there is control data, a program also runs for a message without an address. */
TEST_F(message, sendmsg_without_an_address)
{
	const bool ip6 = is_ip6(variant->home);
	const int type = BY_FAMILY(SENDMSG), ttl = 7;
	int refuse = WITH_ADDRESS(type, MOV_IMM(R0, 0), RETURN());
	char control[CMSG_SPACE(sizeof(ttl))] = "";
	struct iovec iov = { .iov_base = "word", .iov_len = 4 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	int server = server_on(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int client = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);

	cmsg->cmsg_level = ip6 ? SOL_IPV6 : SOL_IP;
	cmsg->cmsg_type = ip6 ? IPV6_HOPLIMIT : IP_TTL;
	cmsg->cmsg_len = CMSG_LEN(sizeof(ttl));
	memcpy(CMSG_DATA(cmsg), &ttl, sizeof(ttl));
	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	ON(type, refuse);
	EXPECT_EQ(-EPERM, rc(sendmsg(client, &msg, 0)));
	OFF(type, refuse);
	ON(type, WITH_ADDRESS(type, MOV_IMM(R0, 1), RETURN()));
	EXPECT_EQ(4, rc(sendmsg(client, &msg, 0)));
	expect_recv(_metadata, server, "word");
}

/*
 * io_uring repeats a send that found the buffer full, with the address that the program
 * has written; by then the program is detached.
 */
TEST_F(message, sendmsg_sent_away_and_retried)
{
	const int type = BY_FAMILY(SENDMSG);
	struct addr to = addr_of(variant->home, variant->port);
	struct iovec iov = { .iov_base = "ring", .iov_len = 4 };
	struct msghdr msg = {
		.msg_name = &to.sa, .msg_namelen = to.len, .msg_iov = &iov, .msg_iovlen = 1,
	};
	int server = server_on(_metadata, variant->home, SOCK_DGRAM, OTHER_PORT);
	int client = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int program = REPLACE_PORT(type, variant->port, OTHER_PORT);
	struct ring ring;
	int error = ring_open(&ring);

	if (error)
		SKIP(return, "no io_uring: %s", strerror(-error));
	ASSERT_LT(0, fill_send_buffer(_metadata, client, is_ip6(variant->home)));
	ON(type, program);
	ASSERT_EQ(0, ring_submit(&ring, (struct io_uring_sqe){
		.opcode = IORING_OP_SENDMSG, .fd = client, .addr = (uintptr_t)&msg, .len = 1 }));
	OFF(type, program);
	EXPECT_EQ(4, ring_result(&ring));
	expect_recv(_metadata, server, "ring");
}

/*
 * The program rewrites a copy of a v4-mapped address, so the repeated send has the
 * original one.
 */
TEST_F(message, sendmsg_to_a_mapped_address_retried)
{
	const int type = BPF_CGROUP_UDP4_SENDMSG;
	struct addr to = addr_of("::ffff:127.0.0.1", variant->port);
	struct iovec iov = { .iov_base = "ring", .iov_len = 4 };
	struct msghdr msg = {
		.msg_name = &to.sa, .msg_namelen = to.len, .msg_iov = &iov, .msg_iovlen = 1,
	};
	int server = server_on(_metadata, "127.0.0.1", SOCK_DGRAM, variant->port);
	int client = socket_for(_metadata, "::", SOCK_DGRAM, variant->port);
	int program = REPLACE_PORT(type, variant->port, OTHER_PORT);
	struct ring ring;
	int error = ring_open(&ring);

	if (error)
		SKIP(return, "no io_uring: %s", strerror(-error));
	ASSERT_LT(0, fill_send_buffer(_metadata, client, true));
	ON(type, program);
	ASSERT_EQ(0, ring_submit(&ring, (struct io_uring_sqe){
		.opcode = IORING_OP_SENDMSG, .fd = client, .addr = (uintptr_t)&msg, .len = 1 }));
	OFF(type, program);
	EXPECT_EQ(4, ring_result(&ring));
	expect_recv(_metadata, server, "ring");
}

TEST_F(message, recvmsg_is_rewritten)
{
	const int type = BY_FAMILY(RECVMSG);
	int server = server_on(_metadata, variant->home, SOCK_DGRAM, OTHER_PORT);
	int client = server_on(_metadata, variant->second, SOCK_DGRAM, variant->port);
	struct addr from = { .len = sizeof(from.v6) };
	char text[8];

	ON(type, REPLACE_PORT(type, variant->port, LIE));
	EXPECT_EQ(4, send_to(client, variant->home, OTHER_PORT, "word", 0));
	EXPECT_EQ(4, rc(recvfrom(server, text, sizeof(text), 0, &from.sa, &from.len)));
	EXPECT_EQ(LIE, port_of(&from));
}

/* ---- programs that choose a socket ---- */

FEATURE_FIXTURE(choice);

static int join_group(struct __test_metadata *_metadata, const char *host, int type, int port)
{
	int fd = socket_for(_metadata, host, type, port);

	ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1));
	ASSERT_EQ(0, bind_to(fd, host, port));
	expect_port(_metadata, fd, port);
	if (type == SOCK_STREAM)
		ASSERT_EQ(0, rc(listen(fd, 4)));
	return fd;
}

/* The program gives everything to the second socket of the group. */
static void second_of_a_group(struct __test_metadata *_metadata, const char *host, int type,
			      int port)
{
	int map = make_map(_metadata, BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, 8);
	int program = LOAD_PROGRAM(BPF_PROG_TYPE_SK_REUSEPORT, SK_REUSEPORT_SELECT,
		STORE_IMM(R10, -4, 1),
		LOAD_MAP(R2, map),
		MOV(R3, R10), ADD_IMM(R3, -4),
		MOV_IMM(R4, 0),
		CALL(sk_select_reuseport),
		SKIP_IF(R0, 0, 2),
		MOV_IMM(R0, SK_DROP), RETURN(),
		MOV_IMM(R0, SK_PASS), RETURN());
	int group[2], client, round;

	group[0] = join_group(_metadata, host, type, port);
	group[1] = join_group(_metadata, host, type, port);
	put_socket(_metadata, map, 0, group[0]);
	put_socket(_metadata, map, 1, group[1]);
	ASSERT_EQ(0, set_int(group[0], SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, program));
	for (round = 0; round < 8; round++) {
		client = new_socket(_metadata, host, type);
		ASSERT_EQ(0, connect_to(client, host, port));
		expect_word(_metadata, group[1], client, type);
	}
}

TEST_F(choice, reuseport_stream)
{
	second_of_a_group(_metadata, variant->home, SOCK_STREAM, variant->port);
}

TEST_F(choice, reuseport_dgram)
{
	second_of_a_group(_metadata, variant->home, SOCK_DGRAM, variant->port);
}

/* A socket that is bound with SO_REUSEPORT is a group, which takes a program. */
TEST_F(choice, reuseport_group_of_one)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	int program = LOAD_PROGRAM(BPF_PROG_TYPE_SK_REUSEPORT, SK_REUSEPORT_SELECT,
		MOV_IMM(R0, SK_DROP), RETURN());
	size_t i;
	char byte;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		int fd = join_group(_metadata, variant->home, types[i], variant->port);
		int client = new_socket(_metadata, variant->home, types[i]);

		EXPECT_EQ(0, set_int(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, program));
		if (types[i] == SOCK_STREAM) {
			EXPECT_EQ(-ECONNREFUSED,
				  connect_to(client, variant->home, variant->port));
		} else {
			ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
			expect_send(_metadata, client, "dropped");
			settle(_metadata);
			EXPECT_EQ(-EAGAIN, rc(recv(fd, &byte, 1, MSG_DONTWAIT)));
		}
		close(client);
		close(fd);
	}
}

/* A bound socket without SO_REUSEPORT is in no group, and takes no program for one. */
TEST_F(choice, reuseport_program_needs_a_group)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	int program = LOAD_PROGRAM(BPF_PROG_TYPE_SK_REUSEPORT, SK_REUSEPORT_SELECT,
		MOV_IMM(R0, SK_PASS), RETURN());
	int type, reuse, fd;

	for (type = 0; type < 2; type++) {
		for (reuse = 0; reuse < 2; reuse++) {
			fd = socket_for(_metadata, variant->home, types[type], variant->port);
			ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_REUSEADDR, reuse));
			ASSERT_EQ(0, bind_to(fd, variant->home, variant->port));
			EXPECT_EQ(-EINVAL, set_int(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF,
						   program));
			if (types[type] == SOCK_STREAM)
				ASSERT_EQ(0, rc(listen(fd, 1)));
			EXPECT_EQ(-EINVAL, set_int(fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF,
						   program));
			expect_port(_metadata, fd, variant->port);
			close(fd);
		}
	}
}

/*
 * A program of a group is told whether the group is bound to the wildcard: this one
 * drops datagrams if that is not as expected. @late: the first socket sets SO_REUSEPORT
 * after its bind(), so that it has no group until the second one is bound.
 */
static void told_of_any(struct __test_metadata *_metadata, const char *home, const char *host,
			int type, int port, bool late)
{
	bool any = !strcmp(host, "::") || !strcmp(host, "0.0.0.0");
	int program = LOAD_PROGRAM(BPF_PROG_TYPE_SK_REUSEPORT, SK_REUSEPORT_SELECT,
		LOAD(R2, R1, offsetof(struct sk_reuseport_md, bind_inany)),
		MOV_IMM(R0, SK_DROP),
		SKIP_UNLESS(R2, any, 1),
		MOV_IMM(R0, SK_PASS), RETURN());
	struct pollfd group[2];
	int client, i;

	for (i = 0; i < 2; i++) {
		int fd = socket_for(_metadata, host, type, port);

		if (i || !late)
			ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1));
		ASSERT_EQ(0, bind_to(fd, host, port));
		if (!i && late)
			ASSERT_EQ(0, set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1));
		group[i] = (struct pollfd){ .fd = fd, .events = POLLIN };
	}
	for (i = 0; i < 2; i++)
		if (type == SOCK_STREAM)
			ASSERT_EQ(0, rc(listen(group[i].fd, 4)));
	ASSERT_EQ(0, set_int(group[0].fd, SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, program));
	client = new_socket(_metadata, home, type);
	ASSERT_EQ(0, connect_to(client, home, port));
	if (type == SOCK_DGRAM)
		expect_send(_metadata, client, "word");
	EXPECT_EQ(1, poll(group, 2, IO_TIMEOUT_SEC * 1000));
	for (i = 0; i < 2; i++)
		close(group[i].fd);
	close(client);
}

TEST_F(choice, told_of_any_address)
{
	const char *any = is_ip6(variant->home) ? "::" : "0.0.0.0";
	int late;

	for (late = 0; late < 2; late++) {
		told_of_any(_metadata, variant->home, any, SOCK_DGRAM, variant->port, late);
		told_of_any(_metadata, variant->home, variant->home, SOCK_DGRAM,
			    variant->port, late);
		/* ::ffff:0.0.0.0 is a wildcard, but not that of IPv6. */
		if (!is_ip6(variant->home))
			told_of_any(_metadata, variant->home, "::ffff:0.0.0.0", SOCK_DGRAM,
				    variant->port, late);
	}
	told_of_any(_metadata, variant->home, any, SOCK_STREAM, variant->port, false);
	told_of_any(_metadata, variant->home, variant->home, SOCK_STREAM, variant->port, false);
}

/*
 * Attach a program that gives connections and datagrams to @port to the socket in the
 * map.
 */
static int steer(struct __test_metadata *_metadata, int port, int map)
{
	int program = LOAD_PROGRAM(BPF_PROG_TYPE_SK_LOOKUP, BPF_SK_LOOKUP,
		MOV(R6, R1),
		LOAD(R2, R1, offsetof(struct bpf_sk_lookup, local_port)),
		SKIP_UNLESS(R2, port, 14),
		STORE_IMM(R10, -4, 0),
		LOAD_MAP(R1, map),
		MOV(R2, R10), ADD_IMM(R2, -4),
		CALL(map_lookup_elem),
		SKIP_IF(R0, 0, 7),
		MOV(R7, R0),
		MOV(R1, R6), MOV(R2, R7), MOV_IMM(R3, 0),
		CALL(sk_assign),
		MOV(R1, R7),
		CALL(sk_release),
		MOV_IMM(R0, SK_PASS), RETURN());
	union bpf_attr attr = {
		.link_create.prog_fd = program,
		.link_create.target_fd = open("/proc/thread-self/ns/net", O_RDONLY),
		.link_create.attach_type = BPF_SK_LOOKUP,
	};
	int link = bpf(BPF_LINK_CREATE, &attr);

	ASSERT_LE(0, link);
	return link;
}

/*
 * The program gives connections to the port to a listener on another port. Their
 * accepted sockets are on the port, so bind() of another socket to their address is
 * refused, as beside any accepted socket. A listener on the port itself works at the
 * same time.
 */
TEST_F(choice, sk_lookup_beside_a_literal_listener)
{
	int map = make_map(_metadata, BPF_MAP_TYPE_SOCKMAP, 8);
	int steered = listener_on(_metadata, variant->home, OTHER_PORT);
	int program, client, literal, second;
	struct link link;

	put_socket(_metadata, map, 0, steered);
	program = steer(_metadata, variant->port, map);
	link = link_to(_metadata, variant->home, variant->port, steered);
	talk(_metadata, link.client, link.child);
	/* It holds port 0 without a mark. */
	EXPECT_TRUE(variant->port || holds_zero(link.child) == 1);

	second = socket_for(_metadata, variant->home, SOCK_STREAM, variant->port);
	EXPECT_EQ(-EADDRINUSE, bind_to(second, variant->home, variant->port));
	EXPECT_EQ(0, bind_to(second, variant->second, variant->port));
	literal = listener_on(_metadata, variant->home, variant->port);
	talk(_metadata, link.client, link.child);
	close(program);
	close(link.client);
	expect_recv(_metadata, link.child, "");
	close(link.child);

	/* Without the program the listener on the port gets every connection. */
	client = new_socket(_metadata, variant->home, SOCK_STREAM);
	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	expect_word(_metadata, literal, client, SOCK_STREAM);
}

TEST_F(choice, sk_lookup_to_a_listener_on_the_port)
{
	int map = make_map(_metadata, BPF_MAP_TYPE_SOCKMAP, 8);
	int listener = listener_on(_metadata, variant->home, variant->port), client, child;

	put_socket(_metadata, map, 0, listener);
	steer(_metadata, OTHER_PORT, map);
	client = new_socket(_metadata, variant->second, SOCK_STREAM);
	ASSERT_EQ(0, connect_to(client, variant->second, OTHER_PORT));
	child = rc(accept(listener, NULL, NULL));
	ASSERT_LE(0, child);
	EXPECT_EQ(OTHER_PORT, local_port(child));
	EXPECT_EQ(0, holds_zero(child) == 1);
	talk(_metadata, client, child);
	close(listener);
	close(client);
	expect_recv(_metadata, child, "");
}

TEST_F(choice, sk_lookup_datagrams)
{
	int map = make_map(_metadata, BPF_MAP_TYPE_SOCKMAP, 8);
	int server = bound_socket(_metadata, variant->home, SOCK_DGRAM, OTHER_PORT);
	int client = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int literal = bound_socket(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int link;

	put_socket(_metadata, map, 0, server);
	link = steer(_metadata, variant->port, map);
	EXPECT_EQ(4, send_to(client, variant->home, variant->port, "word", 0));
	expect_recv(_metadata, server, "word");
	close(link);
	EXPECT_EQ(4, send_to(client, variant->home, variant->port, "word", 0));
	expect_recv(_metadata, literal, "word");
}

/*
 * A program can choose a UDP socket only if it has SOCK_RCU_FREE, which bind() must
 * have set.
 */
TEST_F(choice, sk_lookup_datagrams_to_the_port)
{
	int map = make_map(_metadata, BPF_MAP_TYPE_SOCKMAP, 8);
	int literal = bound_socket(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int client = new_socket(_metadata, variant->home, SOCK_DGRAM);
	int link;

	put_socket(_metadata, map, 0, literal);
	link = steer(_metadata, OTHER_PORT, map);
	EXPECT_EQ(4, send_to(client, variant->home, OTHER_PORT, "word", 0));
	expect_recv(_metadata, literal, "word");
	close(link);
}

/* ---- sockets in a map ---- */

/* A program on the map makes the kernel send back whatever the child receives. */
TEST_F(choice, sockmap_echo)
{
	int map = make_map(_metadata, BPF_MAP_TYPE_SOCKMAP, 8);
	int verdict = LOAD_PROGRAM(BPF_PROG_TYPE_SK_SKB, BPF_SK_SKB_STREAM_VERDICT,
		LOAD_MAP(R2, map),
		MOV_IMM(R3, 0),
		MOV_IMM(R4, 0),
		CALL(sk_redirect_map),
		RETURN());
	struct link link;

	attach(_metadata, map, verdict, BPF_SK_SKB_STREAM_VERDICT);
	link = link_up(_metadata, variant->home, variant->port);
	put_socket(_metadata, map, 0, link.child);
	expect_port(_metadata, link.child, variant->port);
	expect_send(_metadata, link.client, "echo");
	expect_recv(_metadata, link.client, "echo");
	expect_port(_metadata, link.child, variant->port);
	ASSERT_EQ(0, rc(shutdown(link.client, SHUT_WR)));
	close(link.child);
	expect_recv(_metadata, link.client, "");
	close(link.listener);
	close(link.client);
	close(map);

	/* The port is free again. */
	close(listener_on(_metadata, variant->home, variant->port));
}

TEST_F(choice, sockmap_listener_and_datagrams)
{
	int map = make_map(_metadata, BPF_MAP_TYPE_SOCKMAP, 8);
	int listener = listener_on(_metadata, variant->home, variant->port);
	int server = bound_socket(_metadata, variant->home, SOCK_DGRAM, variant->port);
	int client = new_socket(_metadata, variant->home, SOCK_STREAM);
	int sender = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);

	put_socket(_metadata, map, 0, listener);
	put_socket(_metadata, map, 1, server);
	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	expect_word(_metadata, listener, client, SOCK_STREAM);
	EXPECT_EQ(4, send_to(sender, variant->home, variant->port, "word", 0));
	expect_recv(_metadata, server, "word");
	close(map);
	expect_port(_metadata, listener, variant->port);
	expect_port(_metadata, server, variant->port);
}

TEST_HARNESS_MAIN

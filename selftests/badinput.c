// SPDX-License-Identifier: GPL-2.0
/*
 * Bad arguments: every option with wrong lengths, values, levels, families,
 * states and pointers; addresses of the wrong family and length; and many random
 * calls.
 */
#include <sys/mman.h>
#include <sys/syscall.h>

#include "stress.h"

#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP	262
#endif
#ifndef IPPROTO_UDPLITE
#define IPPROTO_UDPLITE	136
#endif

/* An address that is not mapped */
#define NOWHERE		((void *)8)

static int set_raw(int fd, int level, int name, const void *value, long len)
{
	return rc(syscall(SYS_setsockopt, fd, level, name, value, len));
}

static int get_raw(int fd, int level, int name, void *value, void *len)
{
	return rc(syscall(SYS_getsockopt, fd, level, name, value, len));
}

FIXTURE(badinput) {
	int fd;
	int level;
};

FIXTURE_VARIANT(badinput) {
	const char *host;
	int type;
	bool level6;
};

#define INPUT_VARIANT(name, _host, _type, _level6)			\
	FIXTURE_VARIANT_ADD(badinput, name) {				\
		.host = _host, .type = _type, .level6 = _level6 }

INPUT_VARIANT(ip4_tcp, "127.0.0.1", SOCK_STREAM, false);
INPUT_VARIANT(ip4_udp, "127.0.0.1", SOCK_DGRAM, false);
INPUT_VARIANT(ip6_tcp, "::1", SOCK_STREAM, false);
INPUT_VARIANT(ip6_udp, "::1", SOCK_DGRAM, false);
INPUT_VARIANT(ip6_tcp_level6, "::1", SOCK_STREAM, true);
INPUT_VARIANT(ip6_udp_level6, "::1", SOCK_DGRAM, true);

FIXTURE_SETUP(badinput)
{
	if (!have_family_of(variant->host))
		SKIP(return, "no IPv6");
	enter_netns(_metadata);
	self->fd = new_socket(_metadata, variant->host, variant->type);
	self->level = variant->level6 ? SOL_IPV6 : SOL_IP;
}

FIXTURE_TEARDOWN(badinput)
{
	close(self->fd);
}

TEST_F(badinput, set_values_and_lengths)
{
	static const struct {
		long len;
		int value;
		int err;
	} table[] = {
		{ -2147483648, 1, -EINVAL },
		{ -1, 1, -EINVAL },
		{ 0, 1, -EINVAL },
		{ 1, 1, -EINVAL },
		{ 2, 1, -EINVAL },
		{ 3, 1, -EINVAL },
		{ 4, 1, 0 },
		{ 4, 0, 0 },
		{ 4, 2, -EINVAL },
		{ 4, -1, -EINVAL },
		{ 4, 0x100, -EINVAL },
		{ 4, 0x01000000, -EINVAL },
		{ 4, -2147483647 - 1, -EINVAL },
		{ 4, 2147483647, -EINVAL },
		{ 5, 1, 0 },
		{ 8, 0, 0 },
		{ 4096, 1, 0 },
		{ 2147483647, 0, 0 },
	};
	char buf[4096] = "";
	int mark = 0;
	size_t i;

	for (i = 0; i < sizeof(table) / sizeof(*table); i++) {
		memcpy(buf, &table[i].value, sizeof(int));
		EXPECT_EQ(table[i].err, set_raw(self->fd, self->level,
						IP_BIND_PORT_ZERO, buf,
						table[i].len)) {
			TH_LOG("value %d, length %ld", table[i].value,
			       table[i].len);
		}
		if (!table[i].err)
			mark = table[i].value;
		EXPECT_EQ(mark, get_mark(self->fd));
		EXPECT_EQ(-ENOPROTOOPT, set_raw(self->fd, self->level,
						IP_BOUND_PORT_ZERO, buf,
						table[i].len < 0 ? 0 :
						table[i].len));
	}
}

/* Pointers to the end of a page, to read-only memory and to none. */
TEST_F(badinput, pointers)
{
	char *pages = mmap(NULL, 8192, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static const int names[] = { IP_BIND_PORT_ZERO, IP_BOUND_PORT_ZERO };
	socklen_t len = sizeof(int);
	int i, back;

	ASSERT_NE(MAP_FAILED, pages);
	ASSERT_EQ(0, rc(munmap(pages + 4096, 4096)));
	for (back = 0; back < 4; back++)
		EXPECT_EQ(-EFAULT, set_raw(self->fd, self->level,
					   IP_BIND_PORT_ZERO,
					   pages + 4096 - back, sizeof(int)));
	EXPECT_EQ(-EFAULT, set_raw(self->fd, self->level, IP_BIND_PORT_ZERO,
				   NULL, sizeof(int)));
	EXPECT_EQ(-EFAULT, set_raw(self->fd, self->level, IP_BIND_PORT_ZERO,
				   NOWHERE, sizeof(int)));
	EXPECT_EQ(-EFAULT, set_raw(self->fd, self->level, IP_BIND_PORT_ZERO,
				   (void *)-1L, sizeof(int)));
	EXPECT_EQ(0, get_mark(self->fd));

	for (i = 0; i < 2; i++) {
		for (back = 0; back < 4; back++)
			EXPECT_EQ(-EFAULT, get_raw(self->fd, self->level,
						   names[i],
						   pages + 4096 - back, &len));
		EXPECT_EQ(-EFAULT, get_raw(self->fd, self->level, names[i],
					   NULL, &len));
		EXPECT_EQ(-EFAULT, get_raw(self->fd, self->level, names[i],
					   NOWHERE, &len));
		EXPECT_EQ(-EFAULT, get_raw(self->fd, self->level, names[i],
					   pages, NULL));
		EXPECT_EQ(-EFAULT, get_raw(self->fd, self->level, names[i],
					   pages, NOWHERE));
	}
	ASSERT_EQ(0, rc(mprotect(pages, 4096, PROT_READ)));
	EXPECT_EQ(-EFAULT, get_raw(self->fd, self->level, IP_BIND_PORT_ZERO,
				   pages, &len));
	munmap(pages, 4096);
}

/* IPV6_V6ONLY, of any length and at any pointer, does the same to both sockets. */
static void expect_same_v6only(struct __test_metadata *_metadata, int other,
			       int fd)
{
	int i, len, want, one = 1;
	const void *values[] = { &one, NULL, NOWHERE };

	for (i = 0; i < 3; i++) {
		for (len = 0; len <= 5; len++) {
			want = set_raw(other, SOL_IPV6, IPV6_V6ONLY, values[i], len);
			EXPECT_EQ(want, set_raw(fd, SOL_IPV6, IPV6_V6ONLY, values[i], len)) {
				TH_LOG("pointer %d, length %d", i, len);
			}
			EXPECT_EQ(get_int(other, SOL_IPV6, IPV6_V6ONLY),
				  get_int(fd, SOL_IPV6, IPV6_V6ONLY));
		}
	}
}

/* As on a socket that is bound to another port */
TEST_F(badinput, v6only_of_a_bound_socket)
{
	int other = new_socket(_metadata, variant->host, variant->type);

	ASSERT_EQ(0, bind_to(other, variant->host, OTHER_PORT));
	ASSERT_EQ(0, set_mark(self->fd, 1));
	ASSERT_EQ(0, bind_to(self->fd, variant->host, 0));
	expect_same_v6only(_metadata, other, self->fd);
	EXPECT_EQ(1, holds_zero(self->fd));
	close(other);
}

/* As on a socket without the mark */
TEST_F(badinput, v6only_of_a_marked_socket)
{
	int other = new_socket(_metadata, variant->host, variant->type);

	ASSERT_EQ(0, set_mark(self->fd, 1));
	expect_same_v6only(_metadata, other, self->fd);
	close(other);
}

TEST_F(badinput, get_lengths)
{
	static const int names[] = { IP_BIND_PORT_ZERO, IP_BOUND_PORT_ZERO };
	static const int lens[] = { -2147483647 - 1, -1, 0, 1, 3, 4, 5, 4096,
				    2147483647 };
	unsigned char buf[16];
	size_t i, j;
	int len, k;

	for (i = 0; i < 2; i++) {
		for (j = 0; j < sizeof(lens) / sizeof(*lens); j++) {
			len = lens[j];
			memset(buf, 0xaa, sizeof(buf));
			EXPECT_EQ(lens[j] < 4 ? -EINVAL : 0,
				  get_raw(self->fd, self->level, names[i], buf,
					  &len)) {
				TH_LOG("length %d", lens[j]);
			}
			/*
			 * Either an int is written or nothing, and no byte behind it.
			 */
			for (k = lens[j] < 4 ? 0 : 4; k < 16; k++)
				EXPECT_EQ(0xaa, buf[k]);
			EXPECT_EQ(lens[j] < 4 ? lens[j] : 4, len);
		}
	}
}

/* Option numbers and levels next to the module's. */
TEST_F(badinput, numbers_and_levels)
{
	static const int levels[] = { SOL_IP, SOL_IPV6, SOL_SOCKET,
				      IPPROTO_TCP, IPPROTO_UDP, 255, -1,
				      0x7fffffff };
	int one = 1, name, known;
	bool has6 = is_ip6(variant->host);
	size_t i;

	for (i = 0; i < sizeof(levels) / sizeof(*levels); i++) {
		for (name = IP_BIND_PORT_ZERO - 2;
		     name <= IP_BOUND_PORT_ZERO + 2; name++) {
			socklen_t len = sizeof(one);
			int value, err;

			known = levels[i] == SOL_IP ||
				(has6 && levels[i] == SOL_IPV6);
			err = set_raw(self->fd, levels[i], name, &one,
				      sizeof(one));
			EXPECT_EQ(known && name == IP_BIND_PORT_ZERO, !err);
			err = get_raw(self->fd, levels[i], name, &value, &len);
			EXPECT_EQ(known && (name == IP_BIND_PORT_ZERO ||
					    name == IP_BOUND_PORT_ZERO), !err);
		}
	}
}

/* The mark cannot be cleared while the socket holds port 0. */
TEST_F(badinput, states)
{
	struct addr peer = addr_of(variant->host, OTHER_PORT);
	int zero = 0, two = 2;

	ASSERT_EQ(0, set_mark(self->fd, 1));
	ASSERT_EQ(0, bind_to(self->fd, variant->host, 0));
	EXPECT_EQ(-EBUSY, set_raw(self->fd, self->level, IP_BIND_PORT_ZERO,
				  &zero, sizeof(zero)));
	EXPECT_EQ(-EINVAL, set_raw(self->fd, self->level, IP_BIND_PORT_ZERO,
				   &two, sizeof(two)));
	ASSERT_EQ(0, variant->type == SOCK_STREAM ?
		     rc(listen(self->fd, 1)) :
		     rc(connect(self->fd, &peer.sa, peer.len)));
	EXPECT_EQ(-EBUSY, set_raw(self->fd, self->level, IP_BIND_PORT_ZERO,
				  &zero, sizeof(zero)));
	EXPECT_EQ(0, set_mark(self->fd, 1));
	expect_port(_metadata, self->fd, 0);
}

/* Bad addresses fail on a marked socket as on an unmarked one with a port. */
TEST_F(badinput, addresses)
{
	int other = new_socket(_metadata, variant->host, variant->type);
	unsigned char bytes[256];
	static const int families[] = { AF_UNSPEC, AF_UNIX, AF_INET, AF_INET6,
					AF_PACKET, 255, 65535 };
	int len, i, err, want;
	struct addr addr;

	ASSERT_EQ(0, set_mark(self->fd, 1));
	for (i = 0; i < (int)(sizeof(families) / sizeof(*families)); i++) {
		for (len = 0; len <= 140; len++) {
			addr = addr_of(variant->host, CONTROL_PORT);
			memset(bytes, 0, sizeof(bytes));
			memcpy(bytes, &addr.sa, addr.len);
			((struct sockaddr *)bytes)->sa_family = families[i];
			want = rc(syscall(SYS_bind, other, bytes, len));
			((struct sockaddr_in *)bytes)->sin_port = 0;
			err = rc(syscall(SYS_bind, self->fd, bytes, len));
			EXPECT_EQ(want, err) {
				TH_LOG("family %d, length %d", families[i],
				       len);
			}
			if (err)
				continue;
			expect_port(_metadata, self->fd, 0);
			close(self->fd);
			close(other);
			self->fd = new_socket(_metadata, variant->host,
					      variant->type);
			other = new_socket(_metadata, variant->host,
					   variant->type);
			ASSERT_EQ(0, set_mark(self->fd, 1));
		}
	}
	EXPECT_EQ(-EFAULT, rc(syscall(SYS_bind, self->fd, NOWHERE, addr.len)));
	EXPECT_EQ(-EINVAL, rc(syscall(SYS_bind, self->fd, bytes, -1)));
	EXPECT_EQ(-EINVAL, rc(syscall(SYS_bind, self->fd, bytes, 4096)));
	EXPECT_EQ(0, holds_zero(self->fd));
	close(other);
}

/* Sockets that are neither TCP nor UDP refuse the options. */
TEST(foreign_sockets)
{
	static const struct {
		const char *name;
		int family, type, protocol;
	} table[] = {
		{ "raw", AF_INET, SOCK_RAW, IPPROTO_UDP },
		{ "raw6", AF_INET6, SOCK_RAW, IPPROTO_TCP },
		{ "icmp", AF_INET, SOCK_RAW, IPPROTO_ICMP },
		{ "ping", AF_INET, SOCK_DGRAM, IPPROTO_ICMP },
		{ "ping6", AF_INET6, SOCK_DGRAM, IPPROTO_ICMPV6 },
		{ "udplite", AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE },
		{ "udplite6", AF_INET6, SOCK_DGRAM, IPPROTO_UDPLITE },
		{ "mptcp", AF_INET, SOCK_STREAM, IPPROTO_MPTCP },
		{ "mptcp6", AF_INET6, SOCK_STREAM, IPPROTO_MPTCP },
		{ "sctp", AF_INET, SOCK_STREAM, IPPROTO_SCTP },
		{ "sctp6", AF_INET6, SOCK_SEQPACKET, IPPROTO_SCTP },
		{ "unix", AF_UNIX, SOCK_STREAM, 0 },
		{ "unix datagrams", AF_UNIX, SOCK_DGRAM, 0 },
		{ "netlink", AF_NETLINK, SOCK_RAW, 0 },
		{ "packet", AF_PACKET, SOCK_RAW, 0 },
	};
	int tried = 0, fd, level;
	size_t i;

	enter_netns(_metadata);
	ASSERT_EQ(0, write_file("/proc/sys/net/ipv4/ping_group_range", "0 0"));
	for (i = 0; i < sizeof(table) / sizeof(*table); i++) {
		fd = socket(table[i].family, table[i].type, table[i].protocol);
		if (fd < 0) {
			TH_LOG("no %s here", table[i].name);
			continue;
		}
		tried++;
		for (level = SOL_IP; level <= SOL_IPV6;
		     level += SOL_IPV6 - SOL_IP) {
			EXPECT_GT(0, set_int(fd, level, IP_BIND_PORT_ZERO, 1)) {
				TH_LOG("%s was marked", table[i].name);
			}
			EXPECT_GT(0, get_int(fd, level, IP_BIND_PORT_ZERO));
			EXPECT_GT(0, get_int(fd, level, IP_BOUND_PORT_ZERO));
		}
		close(fd);
	}
	EXPECT_LE(8, tried);
}

/*
 * Random calls on a few sockets. The kernel must survive them, and the module's
 * use count must be right afterwards.
 */
#define SOCKETS	8

static int random_socket(unsigned int *random)
{
	static const int protocols[] = { 0, 0, 0, IPPROTO_MPTCP };
	unsigned int pick = next_random(random);

	return socket(pick & 1 ? AF_INET : AF_INET6,
		      (pick & 2 ? SOCK_STREAM : SOCK_DGRAM) | SOCK_NONBLOCK,
		      pick & 2 ? protocols[pick >> 2 & 3] : 0);
}

static void random_address(unsigned int *random, struct addr *addr)
{
	static const char *const hosts[] = {
		"127.0.0.1", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1",
		"127.0.0.2", "fd00::2", "224.0.0.1", "ff02::1", "192.0.2.1",
	};
	unsigned int pick = next_random(random);

	*addr = addr_of(hosts[pick % 10], pick & 0x3000 ? 0 :
			(pick >> 16) | 2);
	if (!(pick & 0xf00))
		addr->sa.sa_family = pick >> 24;
	if (!(pick & 0xf0000))
		addr->len = pick >> 20 & 63;
}

static void random_call(unsigned int *random, int *fds)
{
	unsigned int pick = next_random(random), what = pick >> 8 & 15;
	int *fd = &fds[pick & 7];
	int value = pick >> 12 & 3 ? (int)(pick >> 14 & 1) : (int)pick;
	int name = IP_BIND_PORT_ZERO + (int)(pick >> 16 & 3) - 1;
	int level = pick >> 18 & 1 ? SOL_IP : SOL_IPV6;
	socklen_t len = pick >> 20 & 3 ? sizeof(int) : pick >> 22;
	struct addr addr;
	char room[1024];

	random_address(random, &addr);
	switch (what) {
	case 0:
		close(*fd);
		*fd = random_socket(random);
		break;
	case 1: case 2: case 3: case 4:
		memcpy(room, &value, sizeof(value));
		set_raw(*fd, level, name, pick >> 19 & 31 ? room : NOWHERE,
			len);
		break;
	case 5: case 6: case 7:
		get_raw(*fd, level, name, pick >> 19 & 31 ? room : NOWHERE,
			&len);
		break;
	case 8: case 9: case 10:
		bind(*fd, &addr.sa, addr.len);
		break;
	case 11:
		listen(*fd, value);
		break;
	case 12:
		connect(*fd, &addr.sa, addr.len);
		break;
	case 13:
		sendto(*fd, room, 1, MSG_NOSIGNAL | MSG_DONTWAIT |
		       (pick & 0x10000 ? MSG_MORE : 0), &addr.sa, addr.len);
		break;
	case 14:
		if (pick & 0x10000)
			set_int(*fd, SOL_SOCKET, pick & 0x20000 ? SO_REUSEADDR :
				SO_REUSEPORT, value);
		else
			disconnect(*fd);
		break;
	default:
		addr.len = sizeof(addr.v6);
		if (pick & 0x10000)
			getpeername(*fd, &addr.sa, &addr.len);
		else
			close(accept4(*fd, &addr.sa, &addr.len, SOCK_NONBLOCK));
	}
}

FIXTURE(random_calls) {};

FIXTURE_SETUP(random_calls)
{
	enter_netns(_metadata);
}

FIXTURE_TEARDOWN(random_calls) {}

TEST_F_TIMEOUT(random_calls, on_any_socket, STRESS_TIMEOUT_SEC)
{
	unsigned int random = seed() | 1;
	long calls = scaled(50000, 1000000), i;
	long users = wait_for_users(0), bound = 0;
	int fds[SOCKETS], port;

	TH_LOG("PORT0_SEED=%u", random);
	for (i = 0; i < SOCKETS; i++)
		fds[i] = random_socket(&random);
	for (i = 0; i < calls; i++) {
		random_call(&random, fds);
		if (i % 64)
			continue;
		port = local_port(fds[i / 64 % SOCKETS]);
		if (holds_zero(fds[i / 64 % SOCKETS]) == 1) {
			ASSERT_EQ(0, port);
			bound++;
		}
		/*
		 * The module passes port 1 to the kernel instead of 0; no socket may
		 * get port 1.
		 */
		ASSERT_NE(1, port);
	}
	for (i = 0; i < SOCKETS; i++)
		close(fds[i]);
	EXPECT_EQ(users, wait_for_users(users));
	EXPECT_LT(0, bound);
	TH_LOG("%ld calls; a socket that was checked was on port 0 %ld times", calls, bound);
}

TEST_HARNESS_MAIN

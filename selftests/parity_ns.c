// SPDX-License-Identifier: GPL-2.0
/*
 * One port in network namespaces and VRFs, on devices and beside proxies.
 */
#include <stdio.h>
#include <stdlib.h>

#include "module.h"
#include "port0_test.h"

FEATURE_FIXTURE(place);

/* Shell commands that prepare a namespace, the way kselftests do it. */
static void shell(struct __test_metadata *_metadata, const char *commands)
{
	ASSERT_EQ(0, system(commands)) {
		TH_LOG("%s", commands);
	}
}

#define NAMESPACES	20

static void next_namespace(struct __test_metadata *_metadata)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int fd;

	ASSERT_EQ(0, rc(unshare(CLONE_NEWNET)));
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	ASSERT_EQ(0, rc(ioctl(fd, SIOCSIFFLAGS, &lo)));
	close(fd);
}

/* The same port in many namespaces at once, and every socket in its own. */
TEST_F(place, many_namespaces)
{
	int stream[NAMESPACES], dgram[NAMESPACES], i;
	struct link link;

	for (i = 0; i < NAMESPACES; i++) {
		next_namespace(_metadata);
		stream[i] = listener_on(_metadata, variant->home, variant->port);
		dgram[i] = bound_socket(_metadata, variant->home, SOCK_DGRAM, variant->port);
	}
	/* The caller is in the last of these namespaces. */
	link = link_to(_metadata, variant->home, variant->port, stream[NAMESPACES - 1]);
	talk(_metadata, link.client, link.child);
	for (i = 0; i < NAMESPACES; i++) {
		expect_port(_metadata, stream[i], variant->port);
		expect_port(_metadata, dgram[i], variant->port);
		close(stream[i]);
		close(dgram[i]);
	}
}

/* A namespace is deleted while it has listeners, children and a TIME_WAIT. */
TEST_F(place, deleted_namespace)
{
	struct link alive, dead;
	int round, dgram;

	for (round = 0; round < 5; round++) {
		next_namespace(_metadata);
		alive = link_up(_metadata, variant->home, variant->port);
		dgram = bound_socket(_metadata, variant->home, SOCK_DGRAM, variant->port);
		dead = link_to(_metadata, variant->home, variant->port, alive.listener);
		close(dead.child);
		close(dead.client);

		/* Sockets outlive the name of their namespace, and still work. */
		next_namespace(_metadata);
		talk(_metadata, alive.client, alive.child);
		expect_port(_metadata, alive.listener, variant->port);
		close(alive.child);
		close(alive.listener);
		close(alive.client);
		close(dgram);
	}
}

/* ---- calls of a task that is in another namespace than the socket ---- */

static int enter_another_namespace(struct __test_metadata *_metadata)
{
	int home = rc(open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC));

	ASSERT_LE(0, home);
	enter_netns(_metadata);
	return home;
}

static void go_home(struct __test_metadata *_metadata, int home)
{
	ASSERT_EQ(0, rc(setns(home, CLONE_NEWNET)));
	close(home);
}

/* More than this, and UDP searches its second table. */
#define CROWD	12

/* A socket on the wildcard conflicts with one on an address, in either order. */
TEST_F(place, conflicts_from_another_namespace)
{
	const char *any = is_ip6(variant->home) ? "::" : "0.0.0.0";
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	int home, wild, one, crowd[CROWD], order, i;
	size_t t;

	for (t = 0; t < ARRAY_SIZE(types); t++) {
		for (order = 0; order < 2; order++) {
			wild = socket_for(_metadata, any, types[t], variant->port);
			one = socket_for(_metadata, variant->home, types[t], variant->port);
			home = enter_another_namespace(_metadata);
			if (!order)
				EXPECT_EQ(0, bind_to(wild, any, variant->port));
			EXPECT_EQ(order ? 0 : -EADDRINUSE,
				  bind_to(one, variant->home, variant->port));
			if (order)
				EXPECT_EQ(-EADDRINUSE, bind_to(wild, any, variant->port));
			close(wild);
			close(one);
			go_home(_metadata, home);
		}
	}

	/* With many sockets on the port, which share it by SO_REUSEADDR */
	wild = socket_for(_metadata, any, SOCK_DGRAM, variant->port);
	one = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);
	for (i = 0; i < CROWD; i++)
		crowd[i] = socket_for(_metadata, variant->second, SOCK_DGRAM, variant->port);
	home = enter_another_namespace(_metadata);
	ASSERT_EQ(0, set_int(wild, SOL_SOCKET, SO_REUSEADDR, 1));
	ASSERT_EQ(0, bind_to(wild, any, variant->port));
	for (i = 0; i < CROWD; i++) {
		ASSERT_EQ(0, set_int(crowd[i], SOL_SOCKET, SO_REUSEADDR, 1));
		ASSERT_EQ(0, bind_to(crowd[i], variant->second, variant->port));
	}
	EXPECT_EQ(-EADDRINUSE, bind_to(one, variant->home, variant->port));
	close(wild);
	EXPECT_EQ(0, bind_to(one, variant->home, variant->port));
	expect_port(_metadata, one, variant->port);
	go_home(_metadata, home);
}

/* Sockets that are bound from there are one group. */
TEST_F(place, group_from_another_namespace)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	int home, group[2], shares[2], i;
	size_t t;

	for (t = 0; t < ARRAY_SIZE(types); t++) {
		for (i = 0; i < 2; i++) {
			group[i] = socket_for(_metadata, variant->home, types[t],
					      variant->port);
			ASSERT_EQ(0, set_int(group[i], SOL_SOCKET, SO_REUSEPORT, 1));
		}
		home = enter_another_namespace(_metadata);
		for (i = 0; i < 2; i++) {
			ASSERT_EQ(0, bind_to(group[i], variant->home, variant->port));
			if (types[t] == SOCK_STREAM)
				ASSERT_EQ(0, rc(listen(group[i], GROUP_CLIENTS)));
		}
		go_home(_metadata, home);
		count_shares(_metadata, variant->home, types[t], variant->port, group, 2, shares);
		for (i = 0; i < 2; i++) {
			EXPECT_LT(0, shares[i]);
			close(group[i]);
		}
	}
}

/* The socket's namespace may have a table of UDP sockets of its own. */
TEST_F(place, table_of_another_namespace)
{
	const char *size = "/proc/sys/net/ipv4/udp_child_hash_entries";
	int home, server, client, second;

	if (access(size, W_OK))
		SKIP(return, "all namespaces have the same table of UDP sockets");
	ASSERT_EQ(0, write_file(size, "256"));
	enter_netns(_metadata);
	server = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);
	second = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);
	home = enter_another_namespace(_metadata);
	EXPECT_EQ(0, bind_to(server, variant->home, variant->port));
	EXPECT_EQ(-EADDRINUSE, bind_to(second, variant->home, variant->port));
	go_home(_metadata, home);
	expect_port(_metadata, server, variant->port);
	client = new_socket(_metadata, variant->home, SOCK_DGRAM);
	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	expect_send(_metadata, client, "x");
	expect_recv(_metadata, server, "x");
	close(server);
	EXPECT_EQ(0, bind_to(second, variant->home, variant->port));
	expect_port(_metadata, second, variant->port);
}

static int socket_on(struct __test_metadata *_metadata, const char *device, const char *host,
		     int type, int port)
{
	int fd = socket_for(_metadata, host, type, port);

	ASSERT_EQ(0, rc(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, strlen(device))));
	return fd;
}

/* TCP ports in a VRF are separate, unless tcp_l3mdev_accept is set. */
TEST_F(place, vrf)
{
	const char *any = is_ip6(variant->home) ? "::" : "0.0.0.0";
	int inside, outside, second;

	shell(_metadata, "ip link add port0vrf type vrf table 10 && ip link set port0vrf up");
	inside = socket_on(_metadata, "port0vrf", any, SOCK_STREAM, variant->port);
	ASSERT_EQ(0, bind_to(inside, any, variant->port));
	expect_port(_metadata, inside, variant->port);
	ASSERT_EQ(0, rc(listen(inside, 1)));

	outside = socket_for(_metadata, any, SOCK_STREAM, variant->port);
	EXPECT_EQ(0, bind_to(outside, any, variant->port));
	expect_port(_metadata, outside, variant->port);
	EXPECT_EQ(0, rc(listen(outside, 1)));

	second = socket_on(_metadata, "port0vrf", any, SOCK_STREAM, variant->port);
	EXPECT_EQ(-EADDRINUSE, bind_to(second, any, variant->port));
	close(inside);
	EXPECT_EQ(0, bind_to(second, any, variant->port));
	expect_port(_metadata, second, variant->port);
}

/*
 * A bound socket that is moved into a VRF stays where it is bound. On an ordinary port the
 * kernel warns when it then listens, so there is no control.
 */
TEST_F(place, moved_into_a_vrf)
{
	const char * const hosts[] = { is_ip6(variant->home) ? "::" : "0.0.0.0", variant->home };
	int rival, moved;
	size_t i;

	if (variant->port)
		return;
	shell(_metadata, "ip link add port0vrf type vrf table 10 && ip link set port0vrf up");
	for (i = 0; i < ARRAY_SIZE(hosts); i++) {
		rival = socket_for(_metadata, hosts[i], SOCK_STREAM, 0);
		moved = socket_for(_metadata, hosts[i], SOCK_STREAM, 0);
		ASSERT_EQ(0, set_int(rival, SOL_SOCKET, SO_REUSEADDR, 1));
		ASSERT_EQ(0, set_int(moved, SOL_SOCKET, SO_REUSEADDR, 1));
		ASSERT_EQ(0, bind_to(rival, hosts[i], 0));
		ASSERT_EQ(0, bind_to(moved, hosts[i], 0));
		ASSERT_EQ(0, rc(listen(rival, 1)));
		ASSERT_EQ(0, set_device(moved, "port0vrf"));
		EXPECT_EQ(-EADDRINUSE, rc(listen(moved, 1)));
		expect_port(_metadata, moved, 0);
		close(rival);
		EXPECT_EQ(0, rc(listen(moved, 1)));
		expect_port(_metadata, moved, 0);
		rival = socket_for(_metadata, hosts[i], SOCK_STREAM, 0);
		EXPECT_EQ(-EADDRINUSE, bind_to(rival, hosts[i], 0));
		close(moved);
		EXPECT_EQ(0, bind_to(rival, hosts[i], 0));
		close(rival);
	}
}

/* With tcp_l3mdev_accept, a VRF is like any other device. */
TEST_F(place, vrf_accepting_for_all)
{
	const char *any = is_ip6(variant->home) ? "::" : "0.0.0.0";
	int inside, outside, second;

	shell(_metadata, "ip link add port0vrf type vrf table 10 && ip link set port0vrf up");
	ASSERT_EQ(0, write_file("/proc/sys/net/ipv4/tcp_l3mdev_accept", "1"));
	inside = socket_on(_metadata, "port0vrf", any, SOCK_STREAM, variant->port);
	ASSERT_EQ(0, bind_to(inside, any, variant->port));
	expect_port(_metadata, inside, variant->port);
	second = socket_on(_metadata, "port0vrf", any, SOCK_STREAM, variant->port);
	EXPECT_EQ(-EADDRINUSE, bind_to(second, any, variant->port));
	outside = socket_for(_metadata, any, SOCK_STREAM, variant->port);
	EXPECT_EQ(-EADDRINUSE, bind_to(outside, any, variant->port));
	close(inside);
	EXPECT_EQ(0, bind_to(outside, any, variant->port));
	expect_port(_metadata, outside, variant->port);
	EXPECT_EQ(-EADDRINUSE, bind_to(second, any, variant->port));
	/* On another device it does not conflict. */
	inside = socket_on(_metadata, "lo", any, SOCK_STREAM, variant->port);
	close(outside);
	EXPECT_EQ(0, bind_to(second, any, variant->port));
	EXPECT_EQ(0, bind_to(inside, any, variant->port));
	expect_port(_metadata, inside, variant->port);
}

#define L3MDEV_ACCEPT	"/proc/sys/net/ipv4/tcp_l3mdev_accept"

#define NO_DOMAIN	"modules/port0_domain.ko is not built, or this kernel has no VRF"

static bool have_domain_module(void)
{
	int err = test_module_load("port0_domain");

	test_module_unload("port0_domain");
	return err != -ENOENT && err != -ENOEXEC && err != -EOPNOTSUPP;
}

/* bind() on a VRF that gets into the domain of all other devices just then */
static int bind_while_moved(struct __test_metadata *_metadata, int fd, const char *host,
			    int port)
{
	int err;

	ASSERT_EQ(0, test_module_load("port0_domain"));
	err = bind_to(fd, host, port);
	EXPECT_EQ(1, read_number("/sys/module/port0_domain/parameters/moved"));
	test_module_unload("port0_domain");
	EXPECT_EQ(0, write_file(L3MDEV_ACCEPT, "0"));
	return err;
}

/* Whichever domain the bind() has found, it must be the same one in all that it does. */
TEST_F(place, moved_while_it_binds)
{
	const char *any = is_ip6(variant->home) ? "::" : "0.0.0.0";
	int outside, inside, second;

	if (!have_domain_module())
		SKIP(return, NO_DOMAIN);
	shell(_metadata, "ip link add port0vrf type vrf table 10 && ip link set port0vrf up");
	outside = socket_for(_metadata, any, SOCK_STREAM, variant->port);
	ASSERT_EQ(0, bind_to(outside, any, variant->port));
	inside = socket_on(_metadata, "port0vrf", any, SOCK_STREAM, variant->port);
	ASSERT_EQ(0, bind_while_moved(_metadata, inside, any, variant->port));
	expect_port(_metadata, inside, variant->port);
	second = socket_on(_metadata, "port0vrf", any, SOCK_STREAM, variant->port);
	EXPECT_EQ(-EADDRINUSE, bind_to(second, any, variant->port));
	close(inside);
	EXPECT_EQ(0, bind_to(second, any, variant->port));
}

/* The bucket of the VRF stays as long as a socket is in it. */
TEST_F(place, moved_while_it_joins)
{
	const char *any = is_ip6(variant->home) ? "::" : "0.0.0.0";
	int fd[3], rival, i;

	if (!have_domain_module())
		SKIP(return, NO_DOMAIN);
	shell(_metadata, "ip link add port0vrf type vrf table 10 && ip link set port0vrf up");
	for (i = 0; i < 3; i++) {
		fd[i] = i ? socket_on(_metadata, "port0vrf", any, SOCK_STREAM, variant->port) :
			    socket_for(_metadata, any, SOCK_STREAM, variant->port);
		ASSERT_EQ(0, set_int(fd[i], SOL_SOCKET, SO_REUSEADDR, 1));
	}
	ASSERT_EQ(0, bind_to(fd[0], any, variant->port));
	ASSERT_EQ(0, bind_to(fd[1], any, variant->port));
	ASSERT_EQ(0, bind_while_moved(_metadata, fd[2], any, variant->port));
	close(fd[1]);
	rival = socket_on(_metadata, "port0vrf", any, SOCK_STREAM, variant->port);
	EXPECT_EQ(-EADDRINUSE, bind_to(rival, any, variant->port));
	close(fd[2]);
	EXPECT_EQ(0, bind_to(rival, any, variant->port));
}

/*
 * For UDP a VRF is like any device: a socket on no device conflicts with one on the
 * VRF.
 */
TEST_F(place, vrf_dgram)
{
	const char *any = is_ip6(variant->home) ? "::" : "0.0.0.0";
	int inside, outside, second;

	shell(_metadata, "ip link add port0vrf type vrf table 10 && ip link set port0vrf up");
	inside = socket_on(_metadata, "port0vrf", any, SOCK_DGRAM, variant->port);
	ASSERT_EQ(0, bind_to(inside, any, variant->port));
	expect_port(_metadata, inside, variant->port);
	outside = socket_for(_metadata, any, SOCK_DGRAM, variant->port);
	EXPECT_EQ(-EADDRINUSE, bind_to(outside, any, variant->port));
	second = socket_on(_metadata, "lo", any, SOCK_DGRAM, variant->port);
	EXPECT_EQ(0, bind_to(second, any, variant->port));
	expect_port(_metadata, second, variant->port);
}

/* An address that only the VRF has, for the first bind() and the second */
TEST_F(place, address_of_a_vrf)
{
	const bool ip6 = is_ip6(variant->home);
	const char *address = ip6 ? "2001:db8::1" : "192.0.2.1";
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	int fd, home;
	size_t i;

	shell(_metadata, "ip link add port0vrf type vrf table 10 && ip link set port0vrf up &&"
	      " ip link add port0a type veth peer name port0b &&"
	      " ip link set port0a master port0vrf && ip link set port0a up");
	shell(_metadata, ip6 ? "ip addr add 2001:db8::1/64 dev port0a nodad" :
			       "ip addr add 192.0.2.1/24 dev port0a");
	for (i = 0; i < ARRAY_SIZE(types); i++) {
		fd = socket_on(_metadata, "port0vrf", address, types[i], variant->port);
		EXPECT_EQ(0, bind_to(fd, address, variant->port));
		EXPECT_EQ(-EINVAL, bind_to(fd, address, variant->port));
		/* The caller's namespace has no such device. */
		home = enter_another_namespace(_metadata);
		EXPECT_EQ(-EINVAL, bind_to(fd, address, variant->port));
		go_home(_metadata, home);
		expect_port(_metadata, fd, variant->port);
		close(fd);
	}
}

/* TCP sockets in a VRF conflict with each other by their addresses, as elsewhere. */
TEST_F(place, addresses_in_a_vrf)
{
	const bool ip6 = is_ip6(variant->home);
	const char *address = ip6 ? "2001:db8::1" : "192.0.2.1", *any = ip6 ? "::" : "0.0.0.0";
	int inside, second, wild, outside;

	shell(_metadata, "ip link add port0vrf type vrf table 10 && ip link set port0vrf up &&"
	      " ip link add port0a type veth peer name port0b &&"
	      " ip link set port0a master port0vrf && ip link set port0a up");
	shell(_metadata, ip6 ? "ip addr add 2001:db8::1/64 dev port0a nodad" :
			       "ip addr add 192.0.2.1/24 dev port0a");
	inside = socket_on(_metadata, "port0vrf", address, SOCK_STREAM, variant->port);
	second = socket_on(_metadata, "port0vrf", address, SOCK_STREAM, variant->port);
	wild = socket_on(_metadata, "port0vrf", any, SOCK_STREAM, variant->port);
	ASSERT_EQ(0, bind_to(inside, address, variant->port));
	EXPECT_EQ(-EADDRINUSE, bind_to(second, address, variant->port));
	EXPECT_EQ(-EADDRINUSE, bind_to(wild, any, variant->port));
	close(inside);
	EXPECT_EQ(0, bind_to(wild, any, variant->port));
	EXPECT_EQ(-EADDRINUSE, bind_to(second, address, variant->port));

	/* Outside the VRF, the same address is another one. */
	outside = socket_for(_metadata, address, SOCK_STREAM, variant->port);
	ASSERT_EQ(0, set_int(outside, SOL_IP, IP_FREEBIND, 1));
	EXPECT_EQ(0, bind_to(outside, address, variant->port));
	close(wild);
	EXPECT_EQ(0, bind_to(second, address, variant->port));
	expect_port(_metadata, second, variant->port);
}

/*
 * When a namespace has a routing rule, its tables "main" and "local" become separate.
 */
TEST_F(place, second_bind_beside_routing_rules)
{
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	size_t i;
	int fd;

	shell(_metadata, is_ip6(variant->home) ? "ip -6 rule add fwmark 1 lookup 100" :
						 "ip -4 rule add fwmark 1 lookup 100");
	for (i = 0; i < ARRAY_SIZE(types); i++) {
		fd = bound_socket(_metadata, variant->home, types[i], variant->port);
		EXPECT_EQ(-EINVAL, bind_to(fd, variant->home, variant->port));
		EXPECT_EQ(-EINVAL, bind_to(fd, variant->second, variant->port));
		expect_port(_metadata, fd, variant->port);
		close(fd);
	}
}

/*
 * A socket is connected to port 1, the port that the module gives the kernel in place of
 * 0. When the lock is released in a send to another port, an expired route to the peer is
 * looked up again, and by the port of the peer.
 */
TEST_F(place, route_to_a_peer_on_port_1)
{
	static const char peer[] = "192.0.2.9";
	int fd;

	if (is_ip6(variant->home))
		SKIP(return, "only IPv4 looks this route up by a hooked function");
	shell(_metadata, "ip link add port0a type veth peer name port0b &&"
	      " ip link set port0a up && ip link set port0b up &&"
	      " ip addr add 192.0.2.1/24 dev port0a");
	fd = socket_for(_metadata, peer, SOCK_DGRAM, variant->port);
	ASSERT_EQ(0, connect_to(fd, peer, 1));
	shell(_metadata, "ip -4 rule add ipproto udp dport 1 prohibit");
	EXPECT_EQ(3, send_to(fd, peer, variant->port, "in ", MSG_MORE));
	EXPECT_EQ(5, send_to(fd, peer, variant->port, "parts", 0));
	EXPECT_EQ(-EACCES, rc(send(fd, "x", 1, 0)));
}

/* Each of two sockets receives what arrives on its own device. */
TEST_F(place, a_socket_for_each_device)
{
	const char *any = is_ip6(variant->home) ? "::" : "0.0.0.0";
	int on_lo, elsewhere, client;

	shell(_metadata, "ip link add port0a type veth peer name port0b && ip link set port0a up");
	on_lo = socket_on(_metadata, "lo", any, SOCK_DGRAM, variant->port);
	elsewhere = socket_on(_metadata, "port0a", any, SOCK_DGRAM, variant->port);
	client = socket_for(_metadata, variant->home, SOCK_DGRAM, variant->port);
	EXPECT_EQ(0, bind_to(elsewhere, any, variant->port));
	EXPECT_EQ(0, bind_to(on_lo, any, variant->port));
	ASSERT_EQ(0, connect_to(client, variant->home, variant->port));
	expect_send(_metadata, client, "for lo");
	expect_recv(_metadata, on_lo, "for lo");
	EXPECT_EQ(-EAGAIN, rc(recv(elsewhere, "", 0, MSG_DONTWAIT)));
}

/* Addresses that the host does not have */
TEST_F(place, foreign_address)
{
	const bool ip6 = is_ip6(variant->home);
	const char *foreign = ip6 ? "2001:db8::1" : "192.0.2.1";
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	static const int options[] = { IP_FREEBIND, IP_TRANSPARENT };
	size_t t, i;
	int fd;

	for (t = 0; t < ARRAY_SIZE(types); t++) {
		fd = socket_for(_metadata, foreign, types[t], variant->port);
		EXPECT_EQ(-EADDRNOTAVAIL, bind_to(fd, foreign, variant->port));
		close(fd);
		for (i = 0; i < ARRAY_SIZE(options); i++) {
			fd = socket_for(_metadata, foreign, types[t], variant->port);
			ASSERT_EQ(0, set_int(fd, SOL_IP, options[i], 1));
			EXPECT_EQ(0, bind_to(fd, foreign, variant->port));
			expect_port(_metadata, fd, variant->port);
			if (types[t] == SOCK_STREAM)
				EXPECT_EQ(0, rc(listen(fd, 1)));
			expect_port(_metadata, fd, variant->port);
			close(fd);
		}
	}
}

/* A transparent proxy (TPROXY) has one address of the port, a listener another. */
TEST_F(place, tproxy_beside_a_literal_listener)
{
	const bool ip6 = is_ip6(variant->home);
	int literal = listener_on(_metadata, variant->home, variant->port);
	int proxy = new_socket(_metadata, variant->home, SOCK_STREAM);
	struct link link;
	char rules[512];
	int again;

	snprintf(rules, sizeof(rules),
		 "ip -%d rule add fwmark 1 lookup 100 && "
		 "ip -%d route add local default dev lo table 100 && "
		 "nft -f - <<-END\n"
		 "table %s port0 {\n"
		 " chain divert {\n"
		 "  type filter hook prerouting priority mangle\n"
		 "  %s daddr %s tcp dport %d tproxy to %s:%d meta mark set 1 accept\n"
		 " }\n"
		 "}\n"
		 "END\n", ip6 ? 6 : 4, ip6 ? 6 : 4, ip6 ? "ip6" : "ip", ip6 ? "ip6" : "ip",
		 variant->second, variant->port, ip6 ? "[::1]" : "127.0.0.1", OTHER_PORT);
	shell(_metadata, rules);
	ASSERT_EQ(0, set_int(proxy, SOL_IP, IP_TRANSPARENT, 1));
	ASSERT_EQ(0, bind_to(proxy, variant->home, OTHER_PORT));
	ASSERT_EQ(0, rc(listen(proxy, 4)));

	link = link_to(_metadata, variant->second, variant->port, proxy);
	talk(_metadata, link.client, link.child);

	/* An accepted socket on the proxied address keeps others from binding it. */
	again = socket_for(_metadata, variant->second, SOCK_STREAM, variant->port);
	EXPECT_EQ(-EADDRINUSE, bind_to(again, variant->second, variant->port));
	link = link_to(_metadata, variant->home, variant->port, literal);
	talk(_metadata, link.client, link.child);
	close(literal);
	literal = listener_on(_metadata, variant->home, variant->port);
}

TEST_HARNESS_MAIN

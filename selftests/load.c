// SPDX-License-Identifier: GPL-2.0
/*
 * Many sockets, many connections, and floods of SYNs and datagrams, on an
 * ordinary port and on port 0. The results must be the same, and afterwards the
 * kernel's slab caches must not hold more objects than before.
 */
#include <linux/ip.h>
#include <linux/udp.h>
#include <sys/resource.h>

#include "stress.h"

#define NAMESPACES	10
#define SERVER		"127.0.0.1"
#define SPOOFED_NET	0xc6120000	/* 198.18.0.0/15, for benchmarks */
#define BURST		64

static void allow_files(struct __test_metadata *_metadata, rlim_t files)
{
	struct rlimit limit = { files, files };

	ASSERT_EQ(0, rc(setrlimit(RLIMIT_NOFILE, &limit)));
}

/* How many objects of a slab cache are in use; -1 if it is merged with others */
static long slab_objects(const char *name)
{
	char path[128], line[512];
	long active = -1;
	FILE *file;

	/* Free objects in per-CPU slabs count as used until the cache is shrunk. */
	snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink", name);
	write_file(path, "1");
	file = fopen("/proc/slabinfo", "re");
	if (!file)
		return -1;
	while (active < 0 && fgets(line, sizeof(line), file))
		if (!strncmp(line, name, strlen(name)) &&
		    line[strlen(name)] == ' ')
			sscanf(line + strlen(name), "%ld", &active);
	fclose(file);
	return active;
}

static const char *const slabs[] = { "tcp_bind_bucket", "tcp_bind2_bucket" };

struct slab_counts {
	long objects[2];
};

static struct slab_counts count_slabs(void)
{
	return (struct slab_counts){ {
		slab_objects(slabs[0]), slab_objects(slabs[1]),
	} };
}

static void expect_slabs(struct __test_metadata *_metadata,
			 const struct slab_counts *before)
{
	double deadline = now() + IO_TIMEOUT_SEC;
	struct slab_counts after;
	int i;

	/* Some buckets are freed a grace period later. */
	do {
		nap_ms(100);
		after = count_slabs();
	} while (memcmp(before, &after, sizeof(after)) && now() < deadline);
	for (i = 0; i < 2; i++) {
		TH_LOG("%s: %ld before, %ld after", slabs[i],
		       before->objects[i], after.objects[i]);
		EXPECT_GE(before->objects[i], after.objects[i]);
	}
}

FIXTURE(load) {
	struct slab_counts slabs;
	long users;
};

FIXTURE_VARIANT(load) {
	int port;
};

FIXTURE_VARIANT_ADD(load, control) { .port = CONTROL_PORT };
FIXTURE_VARIANT_ADD(load, zero) { .port = 0 };

FIXTURE_SETUP(load)
{
	allow_files(_metadata, 100000);
	enter_netns(_metadata);
	stay_on_one_cpu(_metadata);
	self->users = wait_for_users(0);
	self->slabs = count_slabs();
}

FIXTURE_TEARDOWN(load)
{
	expect_slabs(_metadata, &self->slabs);
	EXPECT_EQ(self->users, wait_for_users(self->users));
}

TEST_F_TIMEOUT(load, sockets, STRESS_TIMEOUT_SEC)
{
	long each = scaled(1000, 10000) / NAMESPACES, count = 0, i;
	int *fds = calloc(NAMESPACES * each, sizeof(*fds)), space, fd;
	char host[32];

	for (space = 0; space < NAMESPACES; space++) {
		enter_netns(_metadata);
		for (i = 0; i < each; i++) {
			snprintf(host, sizeof(host), "127.0.%ld.%ld", i / 250,
				 i % 250 + 1);
			fd = socket_for(_metadata, host, i & 1 ? SOCK_DGRAM :
					SOCK_STREAM, variant->port);
			ASSERT_EQ(0, bind_to(fd, host, variant->port));
			ASSERT_EQ(variant->port, local_port(fd));
			if (!(i & 1))
				ASSERT_EQ(0, rc(listen(fd, 1)));
			fds[count++] = fd;
		}
	}
	if (!variant->port)
		EXPECT_EQ(self->users + count, module_users());
	while (count--)
		close(fds[count]);
	TH_LOG("%ld sockets in %d namespaces", each * NAMESPACES, NAMESPACES);
}

/* Connections to the port, from ephemeral ports. */
TEST_F_TIMEOUT(load, connections, STRESS_TIMEOUT_SEC)
{
	long wanted = scaled(1000, 20000), count;
	int *clients = calloc(wanted, sizeof(int));
	int *children = calloc(wanted, sizeof(int));
	int listener = bound_socket(_metadata, SERVER, SOCK_STREAM,
				    variant->port);
	char source[32], byte;

	ASSERT_EQ(0, rc(listen(listener, 128)));
	for (count = 0; count < wanted; count++) {
		/* A few thousand connections from each address */
		snprintf(source, sizeof(source), "127.0.1.%ld",
			 count / 4000 + 1);
		clients[count] = new_socket(_metadata, source, SOCK_STREAM);
		reset_on_close(clients[count]);
		ASSERT_EQ(0, set_int(clients[count], SOL_IP,
				     IP_BIND_ADDRESS_NO_PORT, 1));
		ASSERT_EQ(0, bind_to(clients[count], source, 0));
		ASSERT_EQ(0, connect_to(clients[count], SERVER, variant->port));
		children[count] = rc(accept(listener, NULL, NULL));
		ASSERT_LE(0, children[count]);
	}
	/* All are connected, each to its own peer. */
	for (count = 0; count < wanted; count++) {
		byte = count % 251;
		ASSERT_EQ(1, rc(send(clients[count], &byte, 1, 0)));
	}
	for (count = 0; count < wanted; count++) {
		ASSERT_EQ(1, rc(recv(children[count], &byte, 1, 0)));
		ASSERT_EQ(count % 251, (unsigned char)byte);
		ASSERT_EQ(variant->port, local_port(children[count]));
		ASSERT_EQ(variant->port, peer_port(clients[count]));
	}
	for (count = 0; count < wanted; count++) {
		close(clients[count]);
		close(children[count]);
	}
	close(listener);
	TH_LOG("%ld connections at a time", wanted);
}

struct packet {
	struct iphdr ip;
	union {
		struct tcphdr tcp;
		struct udphdr udp;
	};
};

static unsigned int sum16(const void *data, size_t len, unsigned int sum)
{
	const unsigned short *word = data;

	for (; len > 1; len -= 2)
		sum += *word++;
	return sum;
}

static unsigned short fold(unsigned int sum)
{
	sum = (sum >> 16) + (sum & 0xffff);
	return ~((sum >> 16) + sum);
}

static unsigned int pseudo_header(const struct packet *packet,
				  unsigned short len)
{
	return sum16(&packet->ip.saddr, 8, htons(packet->ip.protocol) +
		     htons(len));
}

static int raw_socket(struct __test_metadata *_metadata)
{
	int fd = socket(AF_INET, SOCK_RAW, IPPROTO_RAW);

	ASSERT_LE(0, fd);
	return fd;
}

static int send_raw(int raw, struct packet *packet, size_t len)
{
	struct sockaddr_in dest = {
		.sin_family = AF_INET, .sin_addr.s_addr = packet->ip.daddr,
	};

	packet->ip.version = 4;
	packet->ip.ihl = 5;
	packet->ip.ttl = 64;
	return rc(sendto(raw, packet, sizeof(packet->ip) + len, 0,
			 (struct sockaddr *)&dest, sizeof(dest)));
}

/* SYNs from addresses that never answer, so that each stays in the queue */
TEST_F_TIMEOUT(load, syn_flood, STRESS_TIMEOUT_SEC)
{
	int listener = bound_socket(_metadata, SERVER, SOCK_STREAM,
				    variant->port);
	long syns = scaled(2000, 50000), i;
	int raw = raw_socket(_metadata), client, child;

	ASSERT_EQ(0, rc(system("ip route add 198.18.0.0/15 dev lo")));
	ASSERT_EQ(0, write_file("/proc/sys/net/ipv4/tcp_syncookies", "1"));
	ASSERT_EQ(0, rc(listen(listener, 64)));
	for (i = 0; i < syns; i++) {
		struct packet packet = {
			.ip.protocol = IPPROTO_TCP,
			.ip.saddr = htonl(SPOOFED_NET + 1 + i % 60000),
			.ip.daddr = inet_addr(SERVER),
			.tcp.source = htons(i * 7),
			.tcp.dest = htons(variant->port),
			.tcp.seq = i,
			.tcp.doff = sizeof(struct tcphdr) / 4,
			.tcp.syn = 1,
			.tcp.window = htons(65535),
		};

		packet.tcp.check = fold(sum16(&packet.tcp, sizeof(packet.tcp),
					      pseudo_header(&packet,
							    sizeof(packet.tcp))));
		ASSERT_LT(0, send_raw(raw, &packet, sizeof(packet.tcp)));
	}
	TH_LOG("%ld SYNs, %ld answered with cookies", syns,
	       netstat_counter("TCPReqQFullDoCookies"));
	EXPECT_LT(0, netstat_counter("TCPReqQFullDoCookies"));

	client = new_socket(_metadata, SERVER, SOCK_STREAM);
	ASSERT_EQ(0, connect_to(client, SERVER, variant->port));
	child = rc(accept(listener, NULL, NULL));
	ASSERT_LE(0, child);
	expect_send(_metadata, client, "after the flood");
	expect_recv(_metadata, child, "after the flood");
	reset_on_close(child);
	close(child);
	close(client);
	close(listener);
	close(raw);
}

/* Datagrams from every source port, including 0; none may be lost. */
TEST_F_TIMEOUT(load, udp_flood, STRESS_TIMEOUT_SEC)
{
	int server = bound_socket(_metadata, SERVER, SOCK_DGRAM,
				  variant->port);
	long packets = scaled(4096, 65536), sent, got = 0, from_zero = 0, i;
	int raw = raw_socket(_metadata);

	for (sent = 0; sent < packets;) {
		for (i = 0; i < BURST; i++, sent++) {
			struct packet packet = {
				.ip.protocol = IPPROTO_UDP,
				.ip.saddr = inet_addr("127.0.0.2"),
				.ip.daddr = inet_addr(SERVER),
				.udp.source = htons(sent),
				.udp.dest = htons(variant->port),
				.udp.len = htons(sizeof(struct udphdr)),
			};

			ASSERT_LT(0, send_raw(raw, &packet,
					      sizeof(packet.udp)));
		}
		for (i = 0; i < BURST; i++, got++) {
			struct addr from = { .len = sizeof(from.v6) };

			ASSERT_EQ(0, rc(recvfrom(server, NULL, 0, 0, &from.sa,
						 &from.len)));
			ASSERT_EQ(got % 65536, port_of(&from));
			from_zero += !port_of(&from);
		}
	}
	EXPECT_EQ(sent, got);
	EXPECT_LT(0, from_zero);
	TH_LOG("%ld datagrams, %ld received, %ld of them from port 0", sent,
	       got, from_zero);
	close(server);
	close(raw);
}

TEST_HARNESS_MAIN

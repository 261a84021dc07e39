// SPDX-License-Identifier: GPL-2.0
/*
 * The far end: answers a question with the address and port that it came from.
 *
 * Its memory does not grow, whatever is sent to it: a datagram is answered or dropped,
 * and a connection has one of a fixed number of places until its question is complete
 * and answered. An answer is never longer than its question and is never itself a
 * question. Answers are limited per origin, so that no client can use up the limit of
 * others; those over UDP and TCP apart, since the source of a datagram may be forged.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <linux/filter.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "port0.h"
#include "port0-probe.h"

#define MAX_SOCKETS	64
#define MAX_WAITING	256	/* connections whose question is not complete */
#define MAX_OF_ONE	16	/* the most from one origin */
#define WAIT		5000	/* ms after which a connection without a complete question is closed */
#define BATCH		64	/* questions answered before the next socket gets its turn */
#define ORIGIN_BITS	12	/* 4096 counters of answers */
#define TOTAL		20	/* limit for all answers, as a multiple of that for one origin */
#define BURST		1000000000LL /* burst: as many answers at once as are allowed in this many ns */

struct waiting {
	uint64_t origin;
	int64_t since;
	union address peer;
	size_t got;
	char text[512];
};

static struct {
	int count, types[MAX_SOCKETS];
	int room;		/* slots for connections: fewer if the limit of descriptors is low */
	struct waiting waiting[MAX_WAITING];
	struct pollfd fds[MAX_SOCKETS + MAX_WAITING];	/* fd -1: free */
	unsigned int rate;
	uint64_t key;
	/* times in ns until which answers are used up, at the allowed rate */
	struct used {
		int64_t total, origins[1 << ORIGIN_BITS];
	} datagrams, connections;
} server;

/* ---- sockets ---- */

/*
 * A filter drops datagrams that do not start like a question, so they do not
 * fill the queue.
 */
static void drop_other_datagrams(int fd)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 8),	/* after the UDP header */
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 'p' << 24 | 'o' << 16 | 'r' << 8 | 't', 0, 1),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog program = { .len = sizeof(code) / sizeof(*code), .filter = code };

	setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));
}

static int open_server(const union address *address, int type, const char *name)
{
	int family = address->sa.sa_family, port = address_port(address), one = 1;
	int fd = socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int timeout = WAIT, linger = WAIT / 1000, error;

	if (fd < 0)
		return -1;
	/*
	 * Needed on every port, since sending a datagram to port 0 needs the
	 * mark
	 */
	error = mark(fd);
	if (error)
		errx(FAILED, "%s", why_no_mark(error));
	if (type == SOCK_STREAM) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		/* Peers that do not close after the answer */
		setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof(timeout));
		setsockopt(fd, IPPROTO_TCP, TCP_LINGER2, &linger, sizeof(linger));
	} else {
		drop_other_datagrams(fd);
	}
	if (family == AF_INET6) {
		setsockopt(fd, SOL_IPV6, IPV6_V6ONLY, &one, sizeof(one));
		setsockopt(fd, SOL_IPV6, IPV6_RECVPKTINFO, &one, sizeof(one));
	} else {
		setsockopt(fd, SOL_IP, IP_PKTINFO, &one, sizeof(one));
	}
	if (!bind(fd, &address->sa, address_len(address)) &&
	    (type != SOCK_STREAM || !listen(fd, SOMAXCONN))) {
		if (!port && !is_on_port_0(fd))
			errx(FAILED, "%s: %s", name, NO_MODULE);
		return fd;
	}
	if (errno == EACCES)
		errx(FAILED, "%s, port %d: %s", name, port,
		     may_bind_low() ? "refused by a security module" : NO_RIGHT);
	if (errno == EADDRINUSE)
		errx(FAILED, "%s, port %d: another socket has it: see port0-ls, or ss -tulnp",
		     name, port);
	if (errno == EADDRNOTAVAIL)
		errx(FAILED, "%s: this host does not have the address: see ip address", name);
	if (errno == EINVAL && is_without_interface(address))
		errx(FAILED, "%s: %s", name, NO_INTERFACE);
	err(FAILED, "%s, port %d", name, port);
}

/* False if the kernel does not have this address family. */
static bool open_servers(const char *name, int control)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST | AI_PASSIVE,
				  .ai_socktype = SOCK_STREAM }, *found;
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	size_t len = strlen(name);
	bool brackets = len > 2 && name[0] == '[' && name[len - 1] == ']';
	union address address = { };
	char host[NI_MAXHOST];
	int rc;

	snprintf(host, sizeof(host), "%.*s", (int)(len - 2 * brackets), name + brackets);
	rc = getaddrinfo(host, "0", &hints, &found);
	if (rc)
		check_interface(host, name);
	if (rc)
		errx(FAILED, "--serve %s: not a numeric address: %s", name, gai_strerror(rc));
	memcpy(&address, found->ai_addr, found->ai_addrlen);
	freeaddrinfo(found);
	unmap(&address);
	if (server.count + 4 > MAX_SOCKETS)
		errx(FAILED, "--serve: more than %d addresses", MAX_SOCKETS / 4);
	for (int n = 0; n < 4; n++) {
		int fd;

		set_port(&address, n & 2 ? control : 0);
		fd = open_server(&address, types[n & 1], name);
		if (fd < 0 && errno == EAFNOSUPPORT)
			return false;
		if (fd < 0)
			err(FAILED, "%s: cannot open a socket", name);
		server.fds[server.count].fd = fd;
		server.types[server.count++] = types[n & 1];
	}
	return true;
}

/* ---- what may be answered ---- */

/* An origin is an IPv4 address or an IPv6 /64. */
static uint64_t origin_of(const union address *peer)
{
	uint64_t origin = 0;

	if (peer->sa.sa_family == AF_INET)
		origin = peer->v4.sin_addr.s_addr;
	else
		memcpy(&origin, &peer->v6.sin6_addr, sizeof(origin));
	return origin;
}

static bool has_turn(int64_t *even, int64_t now, unsigned int rate)
{
	int64_t due = (*even > now ? *even : now) + 1000000000 / rate;

	if (due - now > BURST)
		return false;
	*even = due;
	return true;
}

/*
 * Origins with the same hash share a counter. The key is random, so that no client can
 * choose an address that shares it with another's: multiply-shift hashing, by which any
 * two origins share a counter for at most one in 2048 keys.
 */
static bool may_answer(uint64_t origin, struct used *used)
{
	struct timespec time;
	int64_t *own = &used->origins[origin * (server.key | 1) >> (64 - ORIGIN_BITS)], now;

	clock_gettime(CLOCK_MONOTONIC, &time);
	now = time.tv_sec * 1000000000LL + time.tv_nsec;
	return has_turn(own, now, server.rate) &&
	       has_turn(&used->total, now, server.rate * TOTAL);
}

/* The size of the answer to @text in @to; 0 if there is none. */
static size_t answer(const char *text, size_t size, const union address *peer, char to[512])
{
	const char *token = text + strlen(QUESTION);
	char name[INET6_ADDRSTRLEN];
	size_t len = 0;

	if (size <= strlen(QUESTION) || memcmp(text, QUESTION, strlen(QUESTION)))
		return 0;
	size -= strlen(QUESTION);
	while (len < size && token[len] > ' ' && token[len] <= '~')
		len++;
	if (!len || len > TOKEN_MAX)
		return 0;
	inet_ntop(peer->sa.sa_family, peer->sa.sa_family == AF_INET ?
		  (const void *)&peer->v4.sin_addr : (const void *)&peer->v6.sin6_addr,
		  name, sizeof(name));
	len = (size_t)snprintf(to, 512, ANSWER "%.*s %s %d\n", (int)len, token, name,
			       address_port(peer));
	return len <= size + strlen(QUESTION) ? len : 0;
}

/* ---- datagrams ---- */

/*
 * Sends the answer from the address that the question was sent to, by normal
 * routing. Questions to multicast and broadcast addresses are not answered.
 */
static bool answer_from_there(struct msghdr *msg)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(msg); c; c = CMSG_NXTHDR(msg, c)) {
		if (c->cmsg_level == SOL_IP && c->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo *info = (void *)CMSG_DATA(c);

			info->ipi_ifindex = 0;
			return info->ipi_spec_dst.s_addr == info->ipi_addr.s_addr;
		}
		if (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo *info = (void *)CMSG_DATA(c);

			if (!IN6_IS_ADDR_LINKLOCAL(&info->ipi6_addr))
				info->ipi6_ifindex = 0;
			return !IN6_IS_ADDR_MULTICAST(&info->ipi6_addr);
		}
	}
	return false;
}

static void serve_datagrams(int fd)
{
	for (int n = 0; n < BATCH; n++) {
		char text[512], to[512], control[CMSG_SPACE(sizeof(struct in6_pktinfo))];
		struct iovec data = { text, sizeof(text) };
		union address peer = { };
		struct msghdr msg = {
			.msg_name = &peer, .msg_namelen = sizeof(peer),
			.msg_iov = &data, .msg_iovlen = 1,
			.msg_control = control, .msg_controllen = sizeof(control),
		};
		ssize_t got = recvmsg(fd, &msg, MSG_DONTWAIT);

		if (got < 0)
			return;
		data.iov_base = to;
		data.iov_len = answer(text, (size_t)got, &peer, to);
		if (data.iov_len && answer_from_there(&msg) &&
		    may_answer(origin_of(&peer), &server.datagrams))
			sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
}

/* ---- connections ---- */

/* Closes with a reset, so that no TIME_WAIT is left in the kernel. */
static void drop(int fd)
{
	struct linger now = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

static void drop_waiting(int n)
{
	drop(server.fds[server.count + n].fd);
	server.fds[server.count + n].fd = -1;
}

/* Returns true if the connection has been closed, answered or not. */
static bool read_question(int fd, struct waiting *waiting)
{
	ssize_t got = recv(fd, waiting->text + waiting->got, sizeof(waiting->text) - waiting->got,
			   MSG_DONTWAIT);
	size_t known = strlen(QUESTION);
	char *end, to[512];

	if (got < 0 && errno == EAGAIN)
		return false;
	if (got <= 0) {
		drop(fd);
		return true;
	}
	waiting->got += (size_t)got;
	if (waiting->got < known)
		known = waiting->got;
	end = memchr(waiting->text, '\n', waiting->got);
	if (!memcmp(waiting->text, QUESTION, known) && !end && waiting->got < sizeof(waiting->text))
		return false;
	if (end) {
		size_t size = answer(waiting->text, (size_t)(end + 1 - waiting->text),
				     &waiting->peer, to);

		if (size && may_answer(waiting->origin, &server.connections) &&
		    send(fd, to, size, MSG_DONTWAIT | MSG_NOSIGNAL) == (ssize_t)size) {
			close(fd);
			return true;
		}
	}
	drop(fd);
	return true;
}

static int oldest_waiting(const uint64_t *origin, int *count)
{
	int oldest = -1;

	*count = 0;
	for (int n = 0; n < server.room; n++) {
		if (server.fds[server.count + n].fd < 0 ||
		    (origin && server.waiting[n].origin != *origin))
			continue;
		++*count;
		if (oldest < 0 || server.waiting[n].since < server.waiting[oldest].since)
			oldest = n;
	}
	return oldest;
}

/*
 * Frees a slot if there is none: first by closing a connection of the same
 * origin.
 */
static int place_for(uint64_t origin)
{
	int own, all, own_oldest = oldest_waiting(&origin, &own), n = oldest_waiting(NULL, &all);

	if (own >= MAX_OF_ONE || all >= server.room) {
		if (own >= MAX_OF_ONE)
			n = own_oldest;
		drop_waiting(n);
		return n;
	}
	for (n = 0; server.fds[server.count + n].fd >= 0;)
		n++;
	return n;
}

static void serve_connections(int listener)
{
	for (int n = 0; n < BATCH; n++) {
		struct waiting new = { .since = now_ms() };
		socklen_t len = sizeof(new.peer);
		int fd = accept4(listener, &new.peer.sa, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
		int place, all;

		if (fd < 0) {
			if (errno == EAGAIN)
				return;
			if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
				place = oldest_waiting(NULL, &all);
				if (place >= 0)
					drop_waiting(place);
				else
					usleep(100 * 1000);
				return;
			}
			continue;
		}
		new.origin = origin_of(&new.peer);
		/*
		 * Usually the question has arrived when the connection is
		 * accepted.
		 */
		if (read_question(fd, &new))
			continue;
		place = place_for(new.origin);
		server.waiting[place] = new;
		server.fds[server.count + place].fd = fd;
	}
}

static void serve_waiting(void)
{
	int64_t now = now_ms();

	for (int n = 0; n < server.room; n++) {
		struct pollfd *p = &server.fds[server.count + n];

		if (p->fd < 0)
			continue;
		if (p->revents && read_question(p->fd, &server.waiting[n]))
			p->fd = -1;
		else if (now - server.waiting[n].since > WAIT)
			drop_waiting(n);
	}
}

void serve(char **addresses, int control, unsigned int rate)
{
	static char *any[] = { "0.0.0.0", "::", NULL };
	char names[MAX_SOCKETS * INET6_ADDRSTRLEN] = "", **name;
	struct rlimit limit;

	server.rate = rate;
	if (getrandom(&server.key, sizeof(server.key), 0) != sizeof(server.key))
		err(FAILED, "no random numbers");
	for (name = *addresses ? addresses : any; *name; name++) {
		if (open_servers(*name, control))
			snprintf(names + strlen(names), sizeof(names) - strlen(names), " %s", *name);
		else if (*addresses)
			errx(FAILED, "%s: this kernel has no such addresses", *name);
	}
	if (!server.count)
		errx(FAILED, "this kernel has neither IPv4 nor IPv6");

	server.room = MAX_WAITING;
	if (!getrlimit(RLIMIT_NOFILE, &limit) && limit.rlim_cur < MAX_WAITING + MAX_SOCKETS + 16)
		server.room = (int)limit.rlim_cur - server.count - 16;
	if (server.room < 1)
		errx(FAILED, "too few file descriptors: see ulimit -n");
	for (int n = 0; n < server.count + server.room; n++) {
		server.fds[n].events = POLLIN;
		if (n >= server.count)
			server.fds[n].fd = -1;
	}

	printf("port0-probe: answers on TCP and UDP, port 0 and port %d, of%s\n", control, names);
	if (fflush(stdout))
		err(FAILED, "cannot write");
	for (;;) {
		int all;
		int64_t oldest = oldest_waiting(NULL, &all);

		if (oldest >= 0) {
			oldest = server.waiting[oldest].since + WAIT + 1 - now_ms();
			if (oldest < 0)
				oldest = 0;
		}
		if (poll(server.fds, (nfds_t)(server.count + server.room), (int)oldest) < 0) {
			if (errno != EINTR)
				err(FAILED, "poll");
			continue;
		}
		serve_waiting();
		for (int n = 0; n < server.count; n++) {
			if (!server.fds[n].revents)
				continue;
			if (server.types[n] == SOCK_STREAM)
				serve_connections(server.fds[n].fd);
			else
				serve_datagrams(server.fds[n].fd);
		}
	}
}

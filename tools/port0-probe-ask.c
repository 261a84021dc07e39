// SPDX-License-Identifier: GPL-2.0
/*
 * Sends one question to the far end and finds out its result. Only source port 0 needs
 * privilege: the sender of an ICMP error is read from the socket's error queue.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <linux/errqueue.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/icmp6.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "port0.h"
#include "port0-probe.h"

#define AGAIN 1000	/* ms after which a question is repeated */

/* ---- addresses ---- */

socklen_t address_len(const union address *address)
{
	return address->sa.sa_family == AF_INET ? sizeof(address->v4) : sizeof(address->v6);
}

/* The port is at the same offset in both families. */
int address_port(const union address *address)
{
	return ntohs(address->v4.sin_port);
}

void set_port(union address *address, int port)
{
	address->v4.sin_port = htons((uint16_t)port);
}

bool same_host(const union address *a, const union address *b)
{
	if (a->sa.sa_family != b->sa.sa_family)
		return false;
	if (a->sa.sa_family == AF_INET)
		return a->v4.sin_addr.s_addr == b->v4.sin_addr.s_addr;
	return IN6_ARE_ADDR_EQUAL(&a->v6.sin6_addr, &b->v6.sin6_addr);
}

/* Makes a v4-mapped address an IPv4 one. */
void unmap(union address *address)
{
	struct in_addr mapped;

	if (address->sa.sa_family != AF_INET6 || !IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr))
		return;
	memcpy(&mapped, &address->v6.sin6_addr.s6_addr[12], sizeof(mapped));
	*address = (union address){ .v4 = { .sin_family = AF_INET, .sin_addr = mapped } };
}

/*
 * Names of interfaces and control groups may have any bytes. They must get neither to a
 * terminal nor into JSON as they are.
 */
void make_printable(char *text)
{
	for (; *text; text++) {
		if (*text < ' ' || *text > '~')
			*text = '?';
	}
}

/* The address without the port, in one of four static buffers */
const char *text_of(const union address *address)
{
	static char ring[4][NI_MAXHOST];
	static unsigned int turn;
	char *text = ring[turn++ % 4];

	if (getnameinfo(&address->sa, address_len(address), text, NI_MAXHOST, NULL, 0,
			NI_NUMERICHOST))
		strcpy(text, "?");
	make_printable(text);
	return text;
}

/* Ends the program if the interface behind an address, @name, does not exist. */
void check_interface(const char *name, const char *whole)
{
	const char *interface = strchr(name, '%');

	if (interface && !if_nametoindex(interface + 1))
		errx(FAILED, "%s: there is no interface %s: see ip link", whole, interface + 1);
}

/* A link-local address without an interface */
bool is_without_interface(const union address *address)
{
	return address->sa.sa_family == AF_INET6 && !address->v6.sin6_scope_id &&
	       (IN6_IS_ADDR_LINKLOCAL(&address->v6.sin6_addr) ||
		IN6_IS_ADDR_MC_LINKLOCAL(&address->v6.sin6_addr));
}

int64_t now_ms(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000LL + time.tv_nsec / 1000000;
}

/* Marks a socket for port 0; returns 0 or the errno. */
int mark(int fd)
{
	int one = 1;

	return setsockopt(fd, SOL_IP, IP_BIND_PORT_ZERO, &one, sizeof(one)) ? errno : 0;
}

/* The module may have been unloaded since the socket was marked. */
bool is_on_port_0(int fd)
{
	socklen_t len = sizeof(int);
	int bound = 0;

	return !getsockopt(fd, SOL_IP, IP_BOUND_PORT_ZERO, &bound, &len) && bound == 1;
}

const char *why_no_mark(int error)
{
	switch (error) {
	case ENOPROTOOPT:
		return NO_MODULE;
	case EPERM:
		return "EPERM: the administrator forbids it (the module's parameters drain and init_userns), or a seccomp filter or a BPF program of a control group";
	case EBUSY:
		return "a livepatch, a kprobe or another module is on a kernel function that the module has to hook: dmesg names it";
	case EAGAIN:
	case ENODEV:
	case ENOMEM:
	case EOPNOTSUPP:
		return "the module could not hook a kernel function: dmesg has the reason";
	default:
		return strerror(error);
	}
}

/* ---- results ---- */

bool passes(const struct result *result)
{
	return result->verdict == ANSWERED;
}

/* A router dropped the packet because its hop limit had reached 0. */
bool is_expired(const struct result *result)
{
	return result->verdict == REFUSED && result->by.sa.sa_family &&
	       result->icmp_type == (result->by.sa.sa_family == AF_INET ? ICMP_TIME_EXCEEDED :
				     ICMP6_TIME_EXCEEDED);
}

static bool is_refusal(const struct sock_extended_err *e)
{
	if (e->ee_origin == SO_EE_ORIGIN_ICMP)
		return e->ee_type == ICMP_TIME_EXCEEDED || e->ee_type == ICMP_PARAMETERPROB ||
		       (e->ee_type == ICMP_DEST_UNREACH && e->ee_code != ICMP_FRAG_NEEDED);
	return e->ee_origin == SO_EE_ORIGIN_ICMP6 && e->ee_type != ICMP6_PACKET_TOO_BIG;
}

/* This host's kernel reports that the next hop does not answer ARP or NDP. */
static bool is_no_neighbour(const struct sock_extended_err *e)
{
	if (e->ee_origin == SO_EE_ORIGIN_ICMP)
		return e->ee_code == ICMP_HOST_UNREACH;
	return e->ee_code == ICMP6_DST_UNREACH_ADDR;
}

/* If an ICMP message has come for the socket, it is the result. */
static bool take_icmp(int fd, const struct test *test, struct result *result)
{
	for (;;) {
		char data[512], control[512];
		struct iovec iov = { data, sizeof(data) };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1,
				      .msg_control = control, .msg_controllen = sizeof(control) };
		const struct sock_extended_err *e = NULL;
		const struct sockaddr *by;

		if (recvmsg(fd, &msg, MSG_ERRQUEUE | MSG_DONTWAIT) < 0)
			return false;
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
			if ((c->cmsg_level == SOL_IP && c->cmsg_type == IP_RECVERR) ||
			    (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_RECVERR))
				e = (void *)CMSG_DATA(c);
		}
		if (!e || !is_refusal(e))
			continue;
		by = SO_EE_OFFENDER(e);
		result->why[0] = '\0';
		memset(&result->by, 0, sizeof(result->by));
		if (by->sa_family == AF_INET || by->sa_family == AF_INET6)
			memcpy(&result->by, by, by->sa_family == AF_INET ?
			       sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
		result->verdict = REFUSED;
		result->icmp_type = e->ee_type;
		result->icmp_code = e->ee_code;
		if (!same_host(&result->by, &test->source) || same_host(&result->by, &test->host))
			return true;
		/* The error is from this host's kernel. */
		if (is_no_neighbour(e)) {
			result->verdict = SILENT;
			snprintf(result->why, sizeof(result->why),
				 "nobody on the link answers to the next address (ARP, neighbour discovery)");
		} else {
			result->verdict = STOPPED;
			snprintf(result->why, sizeof(result->why),
				 "rejected by this machine's firewall (nftables or iptables)");
		}
		return true;
	}
}

static bool fail(struct result *result, const struct test *test, enum call call, int error)
{
	static const char *const names[] = { "socket()", "bind()", "connect()", "send()" };
	size_t size = sizeof(result->why);
	char *why = result->why;

	result->verdict = UNTRIED;
	if (call == BIND && error == EACCES && !may_bind_low()) {
		snprintf(why, size, NO_RIGHT);
	} else if (error == EPERM || error == EACCES) {
		result->verdict = STOPPED;
		blame(call, error, test, why, size);
	} else if (error == ENOBUFS && call == SEND) {
		result->verdict = STOPPED;
		snprintf(why, size, "%s: %s: traffic control (tc) or an nftables egress rule", names[call],
			 strerror(error));
	} else if (call == BIND && error == EADDRINUSE) {
		snprintf(why, size, "another socket of this machine has port 0: see port0-ls");
	} else if (call == BIND && error == ENOPROTOOPT) {
		snprintf(why, size, NO_MODULE);
	} else if (call == CONNECT && error == EADDRNOTAVAIL) {
		snprintf(why, size, "an earlier connection between these ports has not ended yet: try again in a minute");
	} else if (call == CONNECT && error == EINVAL) {
		result->verdict = STOPPED;
		snprintf(why, size, "%s: EINVAL: a route that drops it, of the type blackhole (see ip route get)",
			 names[call]);
	} else if (error == ENETUNREACH || error == EHOSTUNREACH) {
		snprintf(why, size, "no route: %s", strerror(error));
	} else {
		snprintf(why, size, "%s: %s", names[call], strerror(error));
	}
	return false;
}

/* ---- questions ---- */

struct question {
	char text[QUESTION_SIZE + 1], token[TOKEN_MAX + 1];
};

static void make_question(struct question *question)
{
	uint64_t token;
	int len;

	if (getrandom(&token, sizeof(token), 0) != sizeof(token))
		err(FAILED, "no random numbers");
	snprintf(question->token, sizeof(question->token), "%016llx", (unsigned long long)token);
	len = snprintf(question->text, sizeof(question->text), QUESTION "%s", question->token);
	memset(question->text + len, ' ', (size_t)(QUESTION_SIZE - len));
	question->text[QUESTION_SIZE - 1] = '\n';
}

static bool is_from_0(const struct test *test)
{
	return test->way == FROM_0 || test->way == FROM_0_TO_0;
}

static int port_asked(const struct test *test)
{
	return test->way == CONTROL || test->way == FROM_0 ? test->control : 0;
}

static bool is_answer(char *text, const struct question *question, const struct test *test,
		      struct result *result)
{
	char token[TOKEN_MAX + 1], name[INET6_ADDRSTRLEN];
	int family = test->host.sa.sa_family;
	unsigned int port;

	if (sscanf(text, ANSWER "%32s %45s %5u", token, name, &port) != 3 || port > 65535 ||
	    strcmp(token, question->token))
		return false;
	result->seen = (union address){ .sa.sa_family = (sa_family_t)family };
	if (inet_pton(family, name, family == AF_INET ? (void *)&result->seen.v4.sin_addr :
		      (void *)&result->seen.v6.sin6_addr) != 1)
		return false;
	set_port(&result->seen, (int)port);
	result->why[0] = '\0';
	result->verdict = is_from_0(test) && port ? REWRITTEN : ANSWERED;
	return true;
}

/* A socket bound to the right source port, or -1 */
static int open_socket(const struct test *test, int hops, struct result *result)
{
	int family = test->host.sa.sa_family, one = 1, none = 0;
	int fd = socket(family, test->type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	union address own = test->source, any = { .sa.sa_family = (sa_family_t)family };
	struct linger reset = { .l_onoff = 1 };
	int error;

	if (fd < 0) {
		fail(result, test, SOCKET, errno);
		return -1;
	}
	if (family == AF_INET6) {
		setsockopt(fd, SOL_IPV6, IPV6_RECVERR, &one, sizeof(one));
		/* Otherwise each socket has another label, and routers may choose by it. */
		setsockopt(fd, SOL_IPV6, IPV6_AUTOFLOWLABEL, &none, sizeof(none));
		if (hops)
			setsockopt(fd, SOL_IPV6, IPV6_UNICAST_HOPS, &hops, sizeof(hops));
	} else {
		setsockopt(fd, SOL_IP, IP_RECVERR, &one, sizeof(one));
		if (hops)
			setsockopt(fd, SOL_IP, IP_TTL, &hops, sizeof(hops));
	}
	/* The next test may use the same addresses and ports. */
	if (test->type == SOCK_STREAM)
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	if (!is_from_0(test)) {
		/* If another program has got the port meanwhile, any other will do. */
		set_port(&any, test->port);
		if (test->port)
			bind(fd, &any.sa, address_len(&any));
		return fd;
	}

	own.sa.sa_family = (sa_family_t)family;
	set_port(&own, 0);
	error = mark(fd);
	if (error) {
		result->verdict = UNTRIED;
		snprintf(result->why, sizeof(result->why), "%s", why_no_mark(error));
	} else if ((test->type == SOCK_STREAM &&
		    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one))) ||
		   bind(fd, &own.sa, address_len(&own))) {
		fail(result, test, BIND, errno);
	} else if (!is_on_port_0(fd)) {
		fail(result, test, BIND, ENOPROTOOPT);
	} else {
		return fd;
	}
	close(fd);
	return -1;
}

static int remaining(int64_t end)
{
	int64_t now = now_ms();

	return now < end ? (int)(end - now) : 0;
}

/*
 * The datagram is sent again each second, since it or its answer may get lost.
 * A received datagram may also be a late answer to an earlier question, or come from
 * another port of the host: a socket connected to port 0 receives those, too.
 */
static void ask_datagram(int fd, const struct test *test, int64_t end, struct result *result)
{
	int64_t again = 0, sent = 0;
	struct question question;

	make_question(&question);
	for (;;) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		union address from = { };
		socklen_t len = sizeof(from);
		int64_t now = now_ms();
		char text[512];
		ssize_t got;

		if (now >= end) {
			if (!sent)
				fail(result, test, SEND, ENOBUFS);
			return;
		}
		if (now >= again) {
			again = now + AGAIN;
			if (send(fd, question.text, QUESTION_SIZE, 0) >= 0) {
				sent++;
			} else if (errno != EAGAIN && errno != ENOBUFS) {
				int error = errno;

				if (take_icmp(fd, test, result))
					return;
				if (error != ECONNREFUSED) {
					fail(result, test, SEND, error);
					return;
				}
			}
		}
		if (poll(&p, 1, remaining(again < end ? again : end)) <= 0)
			continue;
		if (take_icmp(fd, test, result))
			return;
		got = recvfrom(fd, text, sizeof(text) - 1, MSG_DONTWAIT, &from.sa, &len);
		if (got < 0)
			continue;
		text[got] = '\0';
		if (is_answer(text, &question, test, result)) {
			if (address_port(&from) == port_asked(test))
				return;
			result->verdict = OTHER;
			snprintf(result->why, sizeof(result->why), "the answer came from port %d",
				 address_port(&from));
		} else if (strncmp(text, ANSWER, strlen(ANSWER))) {
			result->verdict = OTHER;
			snprintf(result->why, sizeof(result->why), "another datagram came back");
		}
	}
}

/*
 * The kernel counts the SYNs that it retransmits, and separately those that it
 * could send. If something below TCP stops them, only the first counter grows.
 */
static bool is_held_back(int fd)
{
	struct tcp_info info = { };
	socklen_t len = sizeof(info);

	return !getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) &&
	       info.tcpi_total_retrans && !info.tcpi_retrans;
}

/* Tell whether the first @got bytes may be those of an answer. */
static bool begins_answer(const char *text, size_t got)
{
	return !strncmp(text, ANSWER, got < strlen(ANSWER) ? got : strlen(ANSWER));
}

static void ask_connection(int fd, const struct test *test, int64_t end, struct result *result)
{
	struct question question;
	bool connected = false;
	char text[512];
	size_t got = 0;

	make_question(&question);
	for (;;) {
		struct pollfd p = { .fd = fd, .events = connected ? POLLIN : POLLOUT };
		socklen_t len = sizeof(int);
		int error = 0;
		ssize_t more;

		if (poll(&p, 1, remaining(end)) <= 0 && !remaining(end)) {
			if (connected) {
				snprintf(result->why, sizeof(result->why), "it connects, then nothing comes");
			} else if (is_held_back(fd)) {
				result->verdict = STOPPED;
				blame(SEND, 0, test, result->why, sizeof(result->why));
			}
			return;
		}
		if (take_icmp(fd, test, result))
			return;
		getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
		if (error && !connected) {
			if (error == ECONNREFUSED)
				result->verdict = REFUSED;
			else if (error != ETIMEDOUT)
				fail(result, test, CONNECT, error);
			return;
		}
		if (!connected && (p.revents & POLLOUT)) {
			connected = true;
			error = send(fd, question.text, QUESTION_SIZE, MSG_NOSIGNAL) < 0 ? errno : 0;
		}
		more = error ? -1 : recv(fd, text + got, sizeof(text) - 1 - got, MSG_DONTWAIT);
		if (!error && more < 0 && errno == EAGAIN)
			continue;
		if (more <= 0) {
			result->verdict = OTHER;
			result->again = !got;
			snprintf(result->why, sizeof(result->why), "it connects and is closed");
			return;
		}
		got += (size_t)more;
		text[got] = '\0';
		/* Before its end has come, a part of the answer may look like a whole one. */
		if (strchr(text, '\n') && is_answer(text, &question, test, result))
			return;
		if (strchr(text, '\n') || got == sizeof(text) - 1 || !begins_answer(text, got)) {
			result->verdict = OTHER;
			snprintf(result->why, sizeof(result->why), "it connects, but to another program");
			return;
		}
	}
}

static void ask_once(const struct test *test, int hops, int64_t end, struct result *result)
{
	int fd = open_socket(test, hops, result);
	union address to = test->host;
	socklen_t len = sizeof(result->sent);

	if (fd < 0)
		return;
	set_port(&to, port_asked(test));
	if (connect(fd, &to.sa, address_len(&to)) && errno != EINPROGRESS) {
		int error = errno;

		if (take_icmp(fd, test, result))
			;
		else if (error == ECONNREFUSED)
			result->verdict = REFUSED;
		else
			fail(result, test, CONNECT, error);
	} else {
		getsockname(fd, &result->sent.sa, &len);
		if (test->type == SOCK_STREAM)
			ask_connection(fd, test, end, result);
		else
			ask_datagram(fd, test, end, result);
	}
	close(fd);
}

/*
 * Sends one question and waits at most @wait ms; @hops is the hop limit, 0 for the
 * default.
 */
void ask(const struct test *test, int hops, int wait, struct result *result)
{
	int64_t start = now_ms(), end = start + wait;

	for (;;) {
		*result = (struct result){ .verdict = SILENT, .icmp_type = NO_ICMP };
		ask_once(test, hops, end, result);
		if (!result->again || remaining(end) <= AGAIN)
			break;
		usleep(AGAIN * 1000);
	}
	result->ms = (int)(now_ms() - start);
}

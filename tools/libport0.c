// SPDX-License-Identifier: GPL-2.0
/*
 * libport0.so - preloaded by port0-run: makes bind() mean port 0 literally.
 *
 * These functions may be called from a signal handler, between fork() and
 * exec(), and before any constructor has run. So they make system calls
 * directly instead of calling the next library's function, allocate no memory,
 * take no lock, and do not change errno if they succeed. Calls that are
 * cancellation points differ: they have to be made by the C library
 * (libport0-peer.c).
 *
 * No socket silently gets another port: if port 0 cannot be had, or the kernel
 * cannot be asked, the call fails.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "libport0.h"
#include "port0.h"
#include "refusal.h"
#include "settings.h"

/* size of a signal mask in the kernel */
#define MASK_SIZE	(_NSIG / 8)

#define MAX_HELD	128
#define MAX_INHERITED	64
/* The longest entry that held_write() writes */
#define MAX_ENTRY	100
/* The most that held_write() writes, since an environment's size is limited */
#define MAX_WRITTEN	8192
/* The most descriptors that are searched for a socket that dup2() has moved: 10 ms */
#define MAX_MOVED	65536
#define MAX_NOTES	8192

/* Debian bullseye has older headers. */
#ifndef IPPROTO_MPTCP
#define IPPROTO_MPTCP	262
#endif

static const char to_port_0[] = "bind to port 0";

struct settings settings;

static struct { dev_t dev; ino_t ino; } terminal;
static bool ready;

/* Settings ------------------------------------------------------------------ */

/**
 * read_number - read a decimal number
 * @text: where it begins; moved to behind it
 *
 * Return: the number; 0 if there is none.
 */
unsigned long long read_number(const char **text)
{
	unsigned long long n = 0;

	while (**text >= '0' && **text <= '9')
		n = n * 10 + (unsigned long long)(*(*text)++ - '0');
	return n;
}

static int hex(char digit)
{
	return digit <= '9' ? digit - '0' : digit - 'a' + 10;
}

/**
 * read_ports - add to a set of ports
 * @text: the ports, as settings.h has it, or NULL
 * @set: the set
 */
void read_ports(const char *text, ports set)
{
	if (!text)
		return;
	if (*text == 'x') {
		for (int n = 0; text[n + 1] && n < PORT0_SET_HEX; n++)
			set[n / 2] |= (uint8_t)(hex(text[n + 1]) << n % 2 * 4);
		return;
	}
	while (*text) {
		unsigned long long port = read_number(&text), last = port;

		if (*text == '-') {
			text++;
			last = read_number(&text);
		}
		for (; port <= last && port <= 65535; port++)
			set[port / 8] |= (uint8_t)(1 << port % 8);
		if (*text)
			text++;
	}
}

/**
 * has - look for a port in a set
 * @set: the set
 * @port: the port, or -1
 *
 * Return: true if it is there.
 */
bool has(const ports set, int port)
{
	return port >= 0 && set[port / 8] & 1 << port % 8;
}

static void read_sockets(const char *text);

/**
 * settings_read - read the options of port0-run
 *
 * Called at start, since nginx, sshd and others overwrite the environment later. Also
 * called by bind() and others, since the constructor of another library may call these
 * before this constructor has run. If two threads run it at once, both read the same
 * settings.
 */
__attribute__((constructor)) void settings_read(void)
{
	const char *text;

	if (__atomic_load_n(&ready, __ATOMIC_ACQUIRE) || !environ)
		return;
	read_ports(getenv(PORT0_ENV_MAP), settings.mapped);
	read_ports(getenv(PORT0_ENV_TO), settings.reached);
	for (int port = 65535; port > 0; port--) {
		if (has(settings.reached, port))
			settings.reached_name = port;
	}
	text = getenv(PORT0_ENV_STDERR);
	if (text) {
		terminal.dev = read_number(&text);
		text += *text == ':';
		terminal.ino = read_number(&text);
	}
	settings.first = getenv(PORT0_ENV_FIRST);
	settings.from = getenv(PORT0_ENV_FROM);
	settings.client = getenv(PORT0_ENV_CLIENT);
	settings.keep = getenv(PORT0_ENV_KEEP);
	settings.aims = settings.from || settings.client || settings.reached_name ||
			has(settings.reached, 0);
	settings.was_root = !geteuid();
	read_sockets(getenv(PORT0_ENV_SOCKETS));
	peer_settings_read();
	exec_settings_read();
	rights_settings_read();
	__atomic_store_n(&ready, true, __ATOMIC_RELEASE);
}

/* Cancellation -------------------------------------------------------------- */

/**
 * hold_cancel - begin to use calls that are cancellation points, such as open()
 *
 * Callers of bind() and exec(), which are none, do not expect to end there.
 *
 * Return: what allow_cancel() needs. errno is not changed.
 */
int hold_cancel(void)
{
	int before = PTHREAD_CANCEL_ENABLE;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before);
	return before;
}

/**
 * allow_cancel - the thread may be cancelled again, if it could be before
 * @before: what hold_cancel() has returned
 */
void allow_cancel(int before)
{
	pthread_setcancelstate(before, NULL);
}

/* Messages ------------------------------------------------------------------ */

/*
 * Messages are for people, so standard error must be the file that port0-run had, or the
 * terminal: sudo and script give a program another one.
 */
static bool is_for_people(void)
{
	struct stat st;
	pid_t group;

	if (fstat(STDERR_FILENO, &st))
		return false;
	return (st.st_dev == terminal.dev && st.st_ino == terminal.ino) ||
	       (S_ISCHR(st.st_mode) && !ioctl(STDERR_FILENO, TIOCGPGRP, &group));
}

/**
 * report - tell the user
 * @what: what went wrong
 * @reason: why
 *
 * The message is not written if the program has replaced stderr.
 * It neither waits for a full pipe nor raises SIGPIPE, and is no cancellation point,
 * as write() and poll() would be. errno is not changed.
 */
void report(const char *what, const char *reason)
{
	struct pollfd place = { .fd = STDERR_FILENO, .events = POLLOUT };
	const char *const text[] = { "port0: ", what, ": ", reason, "\n" };
	struct iovec parts[sizeof(text) / sizeof(text[0])];
	struct timespec at_once = { 0 };
	int err = errno, count = 0;

	/* All parts fit into a page, which a writable pipe has free. */
	for (; count < (int)(sizeof(text) / sizeof(text[0])); count++)
		parts[count] = (struct iovec){ (char *)text[count],
					       strnlen(text[count], REFUSAL_SIZE) };
	if (is_for_people() &&
	    syscall(SYS_ppoll, &place, 1, &at_once, NULL, 0) == 1 && place.revents == POLLOUT)
		syscall(SYS_writev, STDERR_FILENO, parts, count);
	errno = err;
}

/**
 * report_option - tell the user that a socket cannot be marked
 * @what: what the mark was for
 * @err: the errno; errno is set to it
 */
void report_option(const char *what, int err)
{
	char reason[REFUSAL_SIZE] = "";
	int cancel = hold_cancel();

	refusal_of_option(reason, sizeof(reason), err);
	report(what, reason);
	allow_cancel(cancel);
	errno = err;
}

/* Sockets ------------------------------------------------------------------- */

static int bind_really(int fd, const struct sockaddr *addr, socklen_t len)
{
	return (int)syscall(SYS_bind, fd, addr, len);
}

/**
 * set - set a socket option
 * @fd: the socket
 * @level: SOL_SOCKET, ...
 * @name: the option
 * @value: the new value
 *
 * Return: 0, or -1 with errno.
 */
int set(int fd, int level, int name, int value)
{
	return (int)syscall(SYS_setsockopt, fd, level, name, &value, sizeof(value));
}

/**
 * ask - read a socket option
 * @fd: the socket
 * @level: SOL_SOCKET, ...
 * @name: the option
 *
 * A seccomp filter may let the call return 0 without a value: then this returns -1.
 *
 * Return: the value, or -1 with errno.
 */
int ask(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	errno = EPERM;
	return syscall(SYS_getsockopt, fd, level, name, &value, &len) ? -1 : value;
}

/**
 * cookie_of - get the kernel's unique number of a socket
 * @fd: the socket
 *
 * Return: a number that no other socket has or will have; 0 if unknown.
 */
uint64_t cookie_of(int fd)
{
	uint64_t cookie = 0;
	socklen_t len = sizeof(cookie);

	return syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) ? 0 : cookie;
}

/**
 * mark - mark a socket for port 0, or take the mark away
 * @fd: the socket
 * @value: 1 or 0
 *
 * Return: 0, or -1 with errno; -1 also if a seccomp filter makes the call return 0
 * without marking the socket.
 */
int mark(int fd, int value)
{
	if (set(fd, SOL_IP, IP_BIND_PORT_ZERO, value))
		return -1;
	return ask(fd, SOL_IP, IP_BIND_PORT_ZERO) == value ? 0 : -1;
}

/**
 * kind_of - find out which protocol's ports a socket has
 * @fd: the socket, or something else
 *
 * Return: the kind; KIND_NONE if its address has no TCP or UDP port, as with raw and
 * ping sockets.
 */
enum kind kind_of(int fd)
{
	int domain = ask(fd, SOL_SOCKET, SO_DOMAIN), type, protocol;

	if (domain < 0)
		return errno == EBADF || errno == ENOTSOCK ? KIND_NONE : KIND_UNKNOWN;
	/* Its ports are those of the TCP socket within. The module refuses to mark it. */
	if (domain == AF_SMC)
		return KIND_TCP;
	if (domain != AF_INET && domain != AF_INET6)
		return KIND_NONE;
	type = ask(fd, SOL_SOCKET, SO_TYPE);
	protocol = ask(fd, SOL_SOCKET, SO_PROTOCOL);
	if (type < 0 || protocol < 0)
		return KIND_UNKNOWN;
	if (type == SOCK_RAW || protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6)
		return KIND_NONE;
	if (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP)
		return KIND_TCP;
	return protocol == IPPROTO_UDP ? KIND_UDP : KIND_OTHER;
}

/*
 * For a bad address the kernel returns EFAULT, but reading it here would crash
 * the program. So the kernel is asked first, by rt_sigprocmask(), which
 * sandboxes allow since the C library needs it. With an invalid "how" of -1, it
 * reads the mask and then fails with EINVAL. A NULL pointer means "no mask" to
 * it.
 */
static bool mask_is_readable(uintptr_t addr)
{
	addr &= ~(uintptr_t)(MASK_SIZE - 1);
	return addr && (syscall(SYS_rt_sigprocmask, -1, addr, NULL, MASK_SIZE) != -1 ||
			errno != EFAULT);
}

/**
 * is_readable - see whether memory is there
 * @buf: where it begins
 * @size: its length, at most a page, so that it is enough to test both ends
 *
 * Return: true if reading it does not end the program. errno is not changed.
 */
bool is_readable(const void *buf, size_t size)
{
	int err = errno;
	bool readable = size && mask_is_readable((uintptr_t)buf) &&
			mask_is_readable((uintptr_t)buf + size - 1);

	errno = err;
	return readable;
}

/**
 * port_of - the port in an address
 * @addr: the address, as a program gave it
 * @len: its length
 *
 * It is at the same place in both families; AF_UNSPEC counts as IPv4.
 *
 * Return: the port, or -1 if there is none or the kernel will refuse the address.
 */
int port_of(const struct sockaddr *addr, socklen_t len)
{
	if (!addr || len < sizeof(struct sockaddr_in) ||
	    len > sizeof(struct sockaddr_storage) || !is_readable(addr, len))
		return -1;
	if (addr->sa_family == AF_INET6 && len < offsetof(struct sockaddr_in6, sin6_scope_id))
		return -1;
	if (addr->sa_family != AF_INET && addr->sa_family != AF_INET6 &&
	    addr->sa_family != AF_UNSPEC)
		return -1;
	return ntohs(((const struct sockaddr_in *)addr)->sin_port);
}

/**
 * set_port - copy an address and put another port into it
 * @copy: where to
 * @addr: an address that port_of() has accepted
 * @len: its length
 * @port: the port
 */
void set_port(struct sockaddr_storage *copy, const struct sockaddr *addr, socklen_t len, int port)
{
	memcpy(copy, addr, len);
	((struct sockaddr_in *)copy)->sin_port = htons((uint16_t)port);
}

/* Notes --------------------------------------------------------------------- */

/*
 * Each word has a 48-bit key and a 16-bit value. A newer note may overwrite an
 * older one.
 */
static uint64_t notes[MAX_NOTES];

/**
 * note_put - store a number
 * @key: the key, of which the lower 48 bits count; 0 is none
 * @value: the number
 */
void note_put(uint64_t key, uint16_t value)
{
	if (key)
		__atomic_store_n(&notes[key % MAX_NOTES], key << 16 | value, __ATOMIC_RELAXED);
}

/**
 * note_get - look up a number that was stored
 * @key: the key
 *
 * Return: the number; -1 if there is none, or a newer note has overwritten it.
 */
int note_get(uint64_t key)
{
	uint64_t note = __atomic_load_n(&notes[key % MAX_NOTES], __ATOMIC_RELAXED);

	return key && note >> 16 == (key & ~0ULL >> 16) ? (int)(note & 0xffff) : -1;
}

/* What this program has on port 0 ------------------------------------------- */

/*
 * An address; a v4-mapped one is stored as IPv4, and a link-local one with its interface
 * in bytes that are zero. @dual: an IPv6 wildcard that takes IPv4, too
 */
struct place {
	int family;
	uint8_t addr[16];
	bool any, dual;
};

enum { FREE, TAKEN, VALID };

/*
 * A socket on port 0. @pid: another process that had it, or this one; 0: one that cannot
 * be seen, which is taken to run; @fd: the last descriptor that was seen; @asked: the port
 * that the program asked for; @inherited: over exec()
 */
static struct held {
	int state;
	enum kind kind;
	struct place place;
	uint64_t cookie;
	pid_t pid;
	int fd;
	int asked;
	bool inherited;
} held[MAX_HELD];

static pid_t self;	/* this process; in a child of vfork(), its parent */
static bool has_names;	/* some were inherited and have a port that was asked for */

static struct place place_of(int fd, const struct sockaddr *addr, socklen_t len)
{
	static const uint8_t none[16];
	const uint32_t *scope = &((const struct sockaddr_in6 *)addr)->sin6_scope_id;
	const struct in6_addr *in6 = &((const struct sockaddr_in6 *)addr)->sin6_addr;
	struct place place = { .family = AF_INET };

	if (addr->sa_family != AF_INET6) {
		memcpy(place.addr, &((const struct sockaddr_in *)addr)->sin_addr, 4);
	} else if (IN6_IS_ADDR_V4MAPPED(in6)) {
		memcpy(place.addr, in6->s6_addr + 12, 4);
	} else {
		place.family = AF_INET6;
		memcpy(place.addr, in6, sizeof(*in6));
		if (IN6_IS_ADDR_LINKLOCAL(in6) && len >= sizeof(struct sockaddr_in6))
			memcpy(place.addr + 4, scope, sizeof(*scope));
	}
	place.any = !memcmp(place.addr, none, sizeof(none));
	place.dual = place.family == AF_INET6 && place.any &&
		     ask(fd, SOL_IPV6, IPV6_V6ONLY) != 1;
	return place;
}

/*
 * Tell whether two addresses overlap. If a program has port 0 on one address, binding
 * to the wildcard address of either family is not literal: a resolver that listens on
 * 127.0.0.1 asks others from [::].
 */
static bool overlap(const struct place *a, const struct place *b)
{
	if (a->any && b->any)
		return a->family == b->family || a->dual || b->dual;
	if (a->any || b->any)
		return true;
	return a->family == b->family && !memcmp(a->addr, b->addr, sizeof(a->addr));
}

static bool is_moved(struct held *h)
{
	struct rlimit limit = { .rlim_cur = 1024 };

	getrlimit(RLIMIT_NOFILE, &limit);
	for (int fd = 0; fd < MAX_MOVED && (rlim_t)fd < limit.rlim_cur; fd++) {
		if (cookie_of(fd) == h->cookie) {
			h->fd = fd;
			return true;
		}
	}
	return false;
}

/*
 * Tell whether a process has not ended. One that nobody has waited for yet exists, but has
 * closed its descriptors: then its pidfd is readable. 0, the own process group for kill(),
 * has no pidfd and counts as running.
 */
static bool is_running(pid_t pid)
{
	struct timespec no_time = { 0 };
	struct pollfd end = { .events = POLLIN };
	bool ended;

	if (kill(pid, 0) && errno == ESRCH)
		return false;
	end.fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (end.fd < 0)
		return true;
	ended = syscall(SYS_ppoll, &end, 1, &no_time, NULL, 0) == 1;
	syscall(SYS_close, end.fd);
	return !ended;
}

/*
 * Tell whether a socket is closed. A process that still runs is taken to have it still:
 * other processes' descriptors cannot be seen.
 */
static bool is_gone(struct held *h)
{
	pid_t here = getpid();

	if (cookie_of(h->fd) == h->cookie)
		return false;
	if (h->pid != here && is_running(h->pid))
		return false;
	/* A child of vfork() closes descriptors before exec(): its parent keeps them. */
	if (self && self != here && is_running(self))
		return false;
	return !is_moved(h);
}

/*
 * In a child process, after fork(): note that the parent has the sockets that are open
 * here. The process that bound them may have ended, as when a server goes into the
 * background.
 */
static void after_fork(void)
{
	int err = errno;

	for (struct held *h = held; settings.first && h < held + MAX_HELD; h++) {
		if (__atomic_load_n(&h->state, __ATOMIC_ACQUIRE) == VALID &&
		    cookie_of(h->fd) == h->cookie)
			h->pid = self;
	}
	self = getpid();
	errno = err;
}

__attribute__((constructor)) static void watch_forks(void)
{
	self = getpid();
	pthread_atfork(NULL, NULL, after_fork);
}

/*
 * Tell whether the socket of an entry is open. If not, free the entry, unless it has
 * the port that an inherited socket was asked for.
 */
static bool is_valid(struct held *h)
{
	int state = VALID;

	if (__atomic_load_n(&h->state, __ATOMIC_ACQUIRE) != VALID)
		return false;
	if (!is_gone(h))
		return true;
	if (!h->inherited || !h->asked)
		__atomic_compare_exchange_n(&h->state, &state, FREE, false, __ATOMIC_ACQUIRE,
					    __ATOMIC_RELAXED);
	return false;
}

static struct held *take(void)
{
	for (struct held *h = held; h < held + MAX_HELD; h++) {
		int state = FREE;

		if (!h->inherited || !h->asked)
			is_valid(h);	/* or free it */
		if (__atomic_compare_exchange_n(&h->state, &state, TAKEN, false, __ATOMIC_ACQUIRE,
						__ATOMIC_RELAXED))
			return h;
	}
	return NULL;
}

/* If the table is full, the socket is not stored: then only the kernel decides. */
static void hold(int fd, enum kind kind, const struct sockaddr *addr, socklen_t len, int asked)
{
	struct held *h = take();

	if (!h)
		return;
	h->kind = kind;
	h->place = place_of(fd, addr, len);
	h->cookie = cookie_of(fd);
	h->pid = getpid();
	h->fd = fd;
	h->asked = asked;
	h->inherited = false;
	__atomic_store_n(&h->state, VALID, __ATOMIC_RELEASE);
}

/* Tell whether this program has a socket of that kind on port 0 of that address. */
static bool holds(enum kind kind, const struct place *place)
{
	for (struct held *h = held; h < held + MAX_HELD; h++) {
		if (is_valid(h) && h->kind == kind && overlap(&h->place, place))
			return true;
	}
	return false;
}

/**
 * held_size - find out how much memory held_write() needs
 *
 * Return: the size, which is small if this program has no socket on port 0.
 */
size_t held_size(void)
{
	size_t size = 1;

	for (struct held *h = held; h < held + MAX_HELD; h++) {
		if (__atomic_load_n(&h->state, __ATOMIC_RELAXED) != FREE)
			size += MAX_ENTRY;
	}
	return size < MAX_WRITTEN ? size : MAX_WRITTEN;
}

/* The numbers of an entry, in the order in which they are written */
enum { COOKIE, ASKED, PID, KIND, FAMILY, DUAL, HIGH, LOW, NUMBERS };

/**
 * held_write - write the sockets on port 0 as text, for the next program
 * @buf: where to
 * @size: how much fits
 *
 * Sockets that this program has inherited are passed on.
 *
 * Return: the length; 0 if there is nothing.
 */
size_t held_write(char *buf, size_t size)
{
	buf[0] = '\0';
	for (struct held *h = held; h < held + MAX_HELD && strlen(buf) + MAX_ENTRY < size; h++) {
		bool known = h->inherited && h->asked;
		uint64_t numbers[NUMBERS] = {
			h->cookie, (uint64_t)h->asked, (uint64_t)h->pid, h->kind,
			(uint64_t)h->place.family, h->place.dual,
		};

		if (self && !is_running(h->pid))
			numbers[PID] = (uint64_t)self;
		if (!h->cookie || (!h->asked && !settings.first) || (!known && !is_valid(h)))
			continue;
		memcpy(&numbers[HIGH], h->place.addr, sizeof(h->place.addr));
		text_add(buf, size, *buf ? "," : "");
		for (int n = 0; n < NUMBERS; n++) {
			text_add(buf, size, n ? ":" : "");
			text_add_number(buf, size, numbers[n]);
		}
	}
	return strlen(buf);
}

/*
 * Read the sockets on port 0 of the program that ran in this process before, or has
 * started it.
 */
static void read_sockets(const char *text)
{
	static const uint8_t none[16];

	for (int count = 0; text && *text && count < MAX_INHERITED; count++) {
		struct held *h = &held[count];
		uint64_t numbers[NUMBERS] = { 0 };

		for (int n = 0; n < NUMBERS; n++) {
			numbers[n] = read_number(&text);
			text += *text == ':';
		}
		text += *text == ',';
		if (!numbers[COOKIE])
			break;
		has_names |= numbers[ASKED] > 0;
		h->cookie = numbers[COOKIE];
		h->asked = (int)numbers[ASKED];
		h->pid = (pid_t)numbers[PID];
		/* The first process of a PID namespace does not see those outside. */
		if (getpid() == 1 && !is_running(h->pid))
			h->pid = 0;
		h->kind = (enum kind)numbers[KIND];
		h->place.family = (int)numbers[FAMILY];
		h->place.dual = numbers[DUAL];
		memcpy(h->place.addr, &numbers[HIGH], sizeof(h->place.addr));
		h->place.any = !memcmp(h->place.addr, none, sizeof(none));
		h->fd = -1;
		h->inherited = true;
		h->state = VALID;
	}
}

/* bind() and socket() ------------------------------------------------------- */

/**
 * bind_literal - bind a socket to port 0
 * @fd: the socket
 * @addr: where; its port does not matter
 * @len: the length of @addr
 * @what: what this is for, to tell the user if it fails; or NULL
 * @asked: the port that the program has asked for
 *
 * Return: as bind(). errno is not changed if it succeeds.
 */
int bind_literal(int fd, const struct sockaddr *addr, socklen_t len, const char *what, int asked)
{
	struct sockaddr_storage copy;
	struct attempt attempt = { .addr = (struct sockaddr *)&copy, .len = len, .asked = asked,
				   .was_root = settings.was_root };
	char reason[REFUSAL_SIZE] = "";
	int ret, err = errno;
	bool marked = ask(fd, SOL_IP, IP_BIND_PORT_ZERO) == 1;

	set_port(&copy, addr, len, 0);
	if (mark(fd, 1)) {
		if (what)
			report_option(what, errno);
		return -1;
	}
	ret = bind_really(fd, (struct sockaddr *)&copy, len);
	/* The module may have been unloaded since the socket was marked. */
	if (!ret && ask(fd, SOL_IP, IP_BOUND_PORT_ZERO) != 1) {
		errno = ENOPROTOOPT;
		ret = -1;
	}
	if (ret) {
		err = errno;
		/*
		 * The program may next ask for an ephemeral port, so the mark
		 * is removed.
		 */
		if (!marked)
			mark(fd, 0);
		attempt.domain = ask(fd, SOL_SOCKET, SO_DOMAIN);
		attempt.type = ask(fd, SOL_SOCKET, SO_TYPE);
		attempt.protocol = ask(fd, SOL_SOCKET, SO_PROTOCOL);
		if (what) {
			int cancel = hold_cancel();

			refusal_of_bind(reason, sizeof(reason), err, &attempt);
			allow_cancel(cancel);
		}
		if (*reason)
			report(what, reason);
	}
	errno = err;
	return ret;
}

static int bind_and_hold(int fd, enum kind kind, const struct sockaddr *addr, socklen_t len,
			 const char *what, int asked)
{
	int err = errno;
	int ret = bind_literal(fd, addr, len, what, asked);

	if (!ret) {
		hold(fd, kind, addr, len, asked);
		errno = err;
	}
	return ret;
}

/*
 * Bind a socket that is marked only to send to port 0: without the mark, for this call.
 */
static int bind_ephemeral(int fd, const struct sockaddr *addr, socklen_t len)
{
	int err = errno;
	bool marked = ask(fd, SOL_IP, IP_BIND_PORT_ZERO) == 1 && !mark(fd, 0);
	int ret;

	errno = err;
	ret = bind_really(fd, addr, len);
	err = errno;
	if (marked)
		mark(fd, 1);
	errno = err;
	return ret;
}

/*
 * A program whose own "port 0" is made literal may bind other sockets to 0 to
 * get any port: FTP for data, TFTP for a transfer, a resolver for queries. So
 * only the first binding on an address is literal, and those that share its
 * port (SO_REUSEPORT).
 */
static int bind_first(int fd, enum kind kind, const struct sockaddr *addr, socklen_t len)
{
	static bool said, busy;
	struct timespec moment = { .tv_nsec = 1000000 };
	int err = errno, ret;
	struct place place = place_of(fd, addr, len);
	bool shared = ask(fd, SOL_SOCKET, SO_REUSEPORT) == 1;
	bool taken;

	/*
	 * A second thread waits for the result of the first, but not for ever: the
	 * first may be interrupted by a signal handler that calls this.
	 */
	for (int n = 0; n < 100 && __atomic_exchange_n(&busy, true, __ATOMIC_ACQUIRE); n++) {
		syscall(SYS_ppoll, NULL, 0, &moment, NULL, 0);
		moment = (struct timespec){ .tv_nsec = 1000000 };
	}
	taken = holds(kind, &place);
	if (shared || !taken) {
		errno = err;
		ret = bind_and_hold(fd, kind, addr, len, taken ? NULL : to_port_0, 0);
		if (!ret || !taken || errno != EADDRINUSE) {
			__atomic_store_n(&busy, false, __ATOMIC_RELEASE);
			return ret;
		}
	}
	__atomic_store_n(&busy, false, __ATOMIC_RELEASE);
	errno = err;
	if (!__atomic_exchange_n(&said, true, __ATOMIC_RELAXED))
		report(to_port_0, "this program has it already, so one more socket that it binds to 0 gets any free port (port0-run --map 0: every bind to 0 means port 0)");
	return bind_ephemeral(fd, addr, len);
}

/*
 * With IP_BIND_ADDRESS_NO_PORT, TCP chooses the port in connect() or listen().
 * UDP chooses one at once; for UDP, the option notes that the library may give the port
 * up in connect() or sendto().
 */
static int bind_to_leave(int fd, enum kind kind, const struct sockaddr *addr, socklen_t len)
{
	int err = errno, ret;

	if (kind == KIND_TCP)
		set(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1);
	errno = err;
	ret = bind_ephemeral(fd, addr, len);
	if (kind == KIND_UDP && !ret)
		set(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 1);
	if (!ret)
		errno = err;
	return ret;
}

/*
 * Key of the note that the program itself has marked a socket, so that the mark
 * is kept
 */
static uint64_t own_mark_key(int fd)
{
	uint64_t cookie = cookie_of(fd);

	/* Differs from the key of a socket's last destination. */
	return cookie ? ~cookie * 0x9e3779b97f4a7c15ULL >> 16 : 0;
}

EXPORT int bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	int err = errno;
	int port = port_of(addr, len);
	bool literal, maybe;
	enum kind kind = KIND_NONE;

	settings_read();
	literal = has(settings.mapped, port);
	maybe = !port && (settings.first || settings.aims);
	if (literal || maybe)
		kind = kind_of(fd);
	errno = err;
	if (kind == KIND_UNKNOWN && (literal || settings.first || settings.from)) {
		ask(fd, SOL_SOCKET, SO_DOMAIN);
		report_option(to_port_0, errno);
		return -1;
	}
	if (kind == KIND_NONE || kind == KIND_UNKNOWN)
		return bind_really(fd, addr, len);
	if (literal)
		return bind_and_hold(fd, kind, addr, len, to_port_0, port);
	/*
	 * The program marks the socket itself, or wants connect() to choose the port.
	 */
	if (note_get(own_mark_key(fd)) == 1 ||
	    (settings.first && ask(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT) == 1)) {
		errno = err;
		return bind_really(fd, addr, len);
	}
	errno = err;
	if (settings.first && kind != KIND_OTHER)
		return bind_first(fd, kind, addr, len);
	if (settings.from && kind != KIND_OTHER)
		return bind_to_leave(fd, kind, addr, len);
	return kind == KIND_UDP ? bind_ephemeral(fd, addr, len) : bind_really(fd, addr, len);
}

EXPORT int socket(int domain, int type, int protocol)
{
	int fd = (int)syscall(SYS_socket, domain, type, protocol);
	int err = errno;

	settings_read();
	if (fd >= 0 && settings.client && (domain == AF_INET || domain == AF_INET6) &&
	    (type & 15) == SOCK_DGRAM) {
		enum kind kind = kind_of(fd);

		if ((kind == KIND_UDP || kind == KIND_UNKNOWN) && mark(fd, 1))
			report_option("a socket that may send to port 0", errno);
	}
	errno = err;
	return fd;
}

/* By its symbol: on 32-bit machines, <sys/socket.h> may define the name as the other one. */
int port0_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
	__asm__("setsockopt") EXPORT;

int port0_setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	int before = errno;
	int ret = (int)syscall(SYS_setsockopt, fd, level, name, value, len);
	int err = ret ? errno : before;

	if (!ret && name == IP_BIND_PORT_ZERO && (level == SOL_IP || level == SOL_IPV6))
		note_put(own_mark_key(fd), (uint16_t)ask(fd, SOL_IP, IP_BIND_PORT_ZERO));
	errno = err;
	return ret;
}

#if __WORDSIZE == 32
/* for programs that are built with a 64-bit time_t */
extern typeof(port0_setsockopt) port0_setsockopt64 __asm__("__setsockopt64")
	__attribute__((alias("setsockopt"))) EXPORT;
#endif

/*
 * A server that inherits sockets, as nginx does when it is upgraded, compares
 * their ports with its configuration. So it gets the port that was asked for.
 * For all other sockets, the real port 0 is returned.
 */
static int inherited_port(int fd)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);
	uint64_t cookie;

	switch (kind_of(fd)) {
	case KIND_TCP:
		if (ask(fd, SOL_SOCKET, SO_ACCEPTCONN) != 1)
			return 0;
		break;
	case KIND_UDP:
		if (!syscall(SYS_getpeername, fd, &peer, &len))
			return 0;
		break;
	default:
		return 0;
	}
	cookie = cookie_of(fd);
	for (int n = 0; cookie && n < MAX_INHERITED; n++) {
		if (held[n].inherited && held[n].cookie == cookie)
			return held[n].asked;
	}
	return 0;
}

EXPORT int getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
	struct sockaddr_in *in = (struct sockaddr_in *)addr;
	int err = errno, ret;
	socklen_t room = 0;

	settings_read();
	if (has_names && len && is_readable(len, sizeof(*len)))
		room = *len;
	ret = (int)syscall(SYS_getsockname, fd, addr, len);
	if (!ret && room >= sizeof(*in) && !in->sin_port &&
	    (in->sin_family == AF_INET || in->sin_family == AF_INET6))
		in->sin_port = htons((uint16_t)inherited_port(fd));
	errno = ret ? errno : err;
	return ret;
}

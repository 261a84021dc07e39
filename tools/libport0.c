// SPDX-License-Identifier: GPL-2.0
/*
 * libport0.so - preloaded by port0-run: makes bind() mean port 0 literally.
 *
 * These functions may be called from a signal handler, between fork() and
 * exec(), and before any constructor has run. So bind() and socket() call the
 * kernel itself and not the next library's function, allocate nothing, lock
 * nothing, and leave errno alone where they succeed. connect() differs: threads
 * can be cancelled in it, which only the C library can do.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "port0.h"
#include "settings.h"

#define EXPORT __attribute__((visibility("default")))

/* of a signal mask, as the kernel has it */
#define MASK_SIZE	(_NSIG / 8)

typedef uint8_t ports[65536 / 8];

static ports mapped;		/* bind() */
static ports reached;		/* connect() */
static bool client;
static int (*next_connect)(int fd, const struct sockaddr *addr, socklen_t len);
static struct { dev_t dev; ino_t ino; } terminal;
static bool ready;

static unsigned long long number(const char **text)
{
	unsigned long long n = 0;

	while (**text >= '0' && **text <= '9')
		n = n * 10 + (unsigned long long)(*(*text)++ - '0');
	if (**text)
		(*text)++;
	return n;
}

static void read_ports(const char *text, ports set)
{
	while (text && *text) {
		uint16_t port = (uint16_t)number(&text);

		set[port / 8] |= (uint8_t)(1 << port % 8);
	}
}

static bool has(const ports set, int port)
{
	return port >= 0 && set[port / 8] & 1 << port % 8;
}

/*
 * At start, because nginx, sshd and others take the environment apart later.
 * Another library's constructor may bind before this one has had its turn, and
 * comes here first. Two at once do the same twice.
 */
__attribute__((constructor)) static void settings_read(void)
{
	const char *text;

	if (__atomic_load_n(&ready, __ATOMIC_ACQUIRE) || !environ)
		return;
	read_ports(getenv(PORT0_ENV_MAP), mapped);
	read_ports(getenv(PORT0_ENV_TO), reached);
	text = getenv(PORT0_ENV_STDERR);
	if (text) {
		terminal.dev = number(&text);
		terminal.ino = number(&text);
	}
	client = getenv(PORT0_ENV_CLIENT);
	next_connect = (typeof(next_connect))dlsym(RTLD_NEXT, "connect");
	__atomic_store_n(&ready, true, __ATOMIC_RELEASE);
}

/*
 * Nobody reads this but a person: not written where stderr is another file now,
 * or nobody reads it. A full pipe is not waited for, a broken one kills nobody,
 * and no thread is cancelled in here, which write() and poll() would allow.
 */
static void report(const char *text)
{
	struct pollfd place = { .fd = STDERR_FILENO, .events = POLLOUT };
	struct timespec at_once = { 0 };
	struct stat st;

	if (fstat(STDERR_FILENO, &st) || st.st_dev != terminal.dev || st.st_ino != terminal.ino)
		return;
	if (syscall(SYS_ppoll, &place, 1, &at_once, NULL, 0) == 1 && place.revents == POLLOUT)
		syscall(SYS_write, STDERR_FILENO, text, strlen(text));
}

static int bind_really(int fd, const struct sockaddr *addr, socklen_t len)
{
	return (int)syscall(SYS_bind, fd, addr, len);
}

static int mark(int fd, int value)
{
	return setsockopt(fd, SOL_IP, IP_BIND_PORT_ZERO, &value, sizeof(value));
}

static int ask(int fd, int level, int name)
{
	int value = 0;
	socklen_t len = sizeof(value);

	return getsockopt(fd, level, name, &value, &len) ? -1 : value;
}

/* A socket whose address has a port; on raw and ping sockets it is none. */
static bool has_port(int fd)
{
	int domain = ask(fd, SOL_SOCKET, SO_DOMAIN);
	int protocol = ask(fd, SOL_SOCKET, SO_PROTOCOL);

	return (domain == AF_INET || domain == AF_INET6) &&
	       ask(fd, SOL_SOCKET, SO_TYPE) != SOCK_RAW &&
	       protocol != IPPROTO_ICMP && protocol != IPPROTO_ICMPV6;
}

/*
 * Where the kernel says EFAULT, reading in here would end the program. So it is
 * asked first, by a system call that sandboxes allow, since the C library needs
 * it: this one reads the mask, and then says that -1 is nothing to do with it.
 */
static bool mask_is_readable(uintptr_t addr)
{
	return syscall(SYS_rt_sigprocmask, -1, addr, NULL, MASK_SIZE) != -1 || errno != EFAULT;
}

/* An address is shorter than a page: its ends tell of all of it. */
static bool is_readable(const struct sockaddr *addr, socklen_t len)
{
	return mask_is_readable((uintptr_t)addr) &&
	       mask_is_readable((uintptr_t)addr + len - MASK_SIZE);
}

/* The port is at the same place in both families; AF_UNSPEC counts as IPv4. */
static int port_of(const struct sockaddr *addr, socklen_t len)
{
	if (!addr || len < sizeof(struct sockaddr_in) ||
	    len > sizeof(struct sockaddr_storage) || !is_readable(addr, len))
		return -1;
	if (addr->sa_family != AF_INET && addr->sa_family != AF_INET6 &&
	    addr->sa_family != AF_UNSPEC)
		return -1;
	return ntohs(((const struct sockaddr_in *)addr)->sin_port);
}

static const char *reason(int err)
{
	switch (err) {
	case EACCES:
		return "port0: bind to port 0: no right to ports below 1024: run it as root, give it CAP_NET_BIND_SERVICE, or set net.ipv4.ip_unprivileged_port_start=0\n";
	case EADDRINUSE:
		return "port0: bind to port 0: another socket has it on this address\n";
	case ENOPROTOOPT:
		return "port0: bind to port 0: the module is not loaded any more (modprobe port0), or the socket is not plain TCP or UDP (MPTCP: switch it off)\n";
	}
	return NULL;
}

static void set_port_0(struct sockaddr_storage *copy, const struct sockaddr *addr, socklen_t len)
{
	memcpy(copy, addr, len);
	((struct sockaddr_in *)copy)->sin_port = 0;
}

static int bind_literal(int fd, const struct sockaddr *addr, socklen_t len)
{
	bool marked = ask(fd, SOL_IP, IP_BIND_PORT_ZERO) == 1;
	struct sockaddr_storage copy;
	int ret, err = errno;

	set_port_0(&copy, addr, len);
	ret = mark(fd, 1);
	if (!ret) {
		errno = err;
		ret = bind_really(fd, (struct sockaddr *)&copy, len);
	}
	if (ret) {
		err = errno;
		/* The program may go on to ask for an ephemeral port. */
		if (!marked)
			mark(fd, 0);
		if (reason(err))
			report(reason(err));
		errno = err;
	}
	return ret;
}

/* What socket() has marked only so that it can send to port 0. */
static int bind_ephemeral(int fd, const struct sockaddr *addr, socklen_t len)
{
	int err = errno;
	bool marked = !mark(fd, 0);
	int ret;

	errno = err;
	ret = bind_really(fd, addr, len);
	err = errno;
	if (marked)
		mark(fd, 1);
	errno = err;
	return ret;
}

EXPORT int bind(int fd, const struct sockaddr *addr, socklen_t len)
{
	int err = errno;
	int port = port_of(addr, len);
	bool literal, ephemeral;

	settings_read();
	literal = has(mapped, port) && has_port(fd);
	ephemeral = !literal && client && !port && has_port(fd) &&
		    ask(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_UDP;
	errno = err;
	if (literal)
		return bind_literal(fd, addr, len);
	if (ephemeral)
		return bind_ephemeral(fd, addr, len);
	return bind_really(fd, addr, len);
}

EXPORT int socket(int domain, int type, int protocol)
{
	int fd = (int)syscall(SYS_socket, domain, type, protocol);
	int err = errno;

	settings_read();
	if (fd >= 0 && client && has_port(fd) &&
	    ask(fd, SOL_SOCKET, SO_PROTOCOL) == IPPROTO_UDP && mark(fd, 1))
		report(reason(ENOPROTOOPT));
	errno = err;
	return fd;
}

EXPORT int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	struct sockaddr_storage copy;
	int err = errno;
	int port = port_of(addr, len);

	settings_read();
	errno = err;
	if (has(reached, port) && addr->sa_family != AF_UNSPEC) {
		set_port_0(&copy, addr, len);
		addr = (struct sockaddr *)&copy;
	}
	if (!next_connect)
		return (int)syscall(SYS_connect, fd, addr, len);
	return next_connect(fd, addr, len);
}

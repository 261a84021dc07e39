/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Addresses, sockets and their options, for every C test of port0.
 *
 * Nothing here or in netns.h knows of a test framework: a function that can fail
 * returns a negative errno, and the caller decides what that means.
 */
#ifndef PORT0_NET_H
#define PORT0_NET_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <linux/types.h>

#include "options.h"

/*
 * The ordinary port that port 0 is compared with. Binding it needs the same
 * privilege as binding port 0.
 */
#define CONTROL_PORT	7
#define OTHER_PORT	8080

/* Long enough for an emulated machine, shorter than a test may take. */
#define IO_TIMEOUT_SEC	10

/* ---- results ---- */

/* A system call's result, or the negative errno: comparable in one line. */
static inline int rc(long ret)
{
	return ret < 0 ? -errno : (int)ret;
}

static inline int write_file(const char *path, const char *text)
{
	int fd = rc(open(path, O_WRONLY | O_CLOEXEC)), err;

	if (fd < 0)
		return fd;
	err = rc(write(fd, text, strlen(text)));
	close(fd);
	return err < 0 ? err : 0;
}

/* ---- addresses ---- */

struct addr {
	union {
		struct sockaddr sa;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	};
	socklen_t len;
};

static inline bool is_ip6(const char *host)
{
	return strchr(host, ':');
}

static inline int family_of(const char *host)
{
	return is_ip6(host) ? AF_INET6 : AF_INET;
}

static inline struct addr addr_of(const char *host, int port)
{
	struct addr addr;

	memset(&addr, 0, sizeof(addr));
	if (is_ip6(host)) {
		addr.v6.sin6_family = AF_INET6;
		addr.v6.sin6_port = htons(port);
		inet_pton(AF_INET6, host, &addr.v6.sin6_addr);
		addr.len = sizeof(addr.v6);
	} else {
		addr.v4.sin_family = AF_INET;
		addr.v4.sin_port = htons(port);
		inet_pton(AF_INET, host, &addr.v4.sin_addr);
		addr.len = sizeof(addr.v4);
	}

	return addr;
}

static inline int port_of(const struct addr *addr)
{
	if (addr->sa.sa_family == AF_INET6)
		return ntohs(addr->v6.sin6_port);
	return ntohs(addr->v4.sin_port);
}

static inline bool is_mapped(const struct addr *addr)
{
	return addr->sa.sa_family == AF_INET6 &&
	       IN6_IS_ADDR_V4MAPPED(&addr->v6.sin6_addr);
}

static inline bool is_ephemeral(int port)
{
	/* The range a fresh network namespace starts with. */
	return port >= 32768 && port <= 60999;
}

static inline bool have_family_of(const char *host)
{
	int fd = socket(family_of(host), SOCK_DGRAM, 0);

	if (fd < 0)
		return false;
	close(fd);
	return true;
}

/* ---- socket options ---- */

static inline int set_int(int fd, int level, int name, int value)
{
	return rc(setsockopt(fd, level, name, &value, sizeof(value)));
}

static inline int get_int(int fd, int level, int name)
{
	socklen_t len = sizeof(int);
	int value = -1;
	int err = rc(getsockopt(fd, level, name, &value, &len));

	return err ? err : value;
}

static inline int set_mark(int fd, int value)
{
	return set_int(fd, SOL_IP, IP_BIND_PORT_ZERO, value);
}

static inline int get_mark(int fd)
{
	return get_int(fd, SOL_IP, IP_BIND_PORT_ZERO);
}

static inline int holds_zero(int fd)
{
	return get_int(fd, SOL_IP, IP_BOUND_PORT_ZERO);
}

#ifndef SO_BUF_LOCK
#define SO_BUF_LOCK	72	/* since Linux 5.14 */
#endif

/* The buffers whose size the program has set; the kernel does not change these. */
#define BOTH_BUFFERS	3

static inline int buffer_locks(int fd)
{
	return get_int(fd, SOL_SOCKET, SO_BUF_LOCK);
}

static inline int lock_buffers(int fd)
{
	return set_int(fd, SOL_SOCKET, SO_SNDBUF, 1 << 16) ?:
	       set_int(fd, SOL_SOCKET, SO_RCVBUF, 1 << 16);
}

#define NO_BUFFER_LOCKS	"this kernel does not show which buffers are locked"

static inline int set_device(int fd, const char *device)
{
	return rc(setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, device, strlen(device)));
}

/* Bounds every wait on the socket. */
static inline int set_timeouts(int fd)
{
	struct timeval timeout = { .tv_sec = IO_TIMEOUT_SEC };
	int err = rc(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)));

	return err ?: rc(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)));
}

/* Makes close() send a reset, so that no TIME_WAIT blocks the next bind(). */
static inline void reset_on_close(int fd)
{
	struct linger linger = { .l_onoff = 1 };

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
}

/* ---- calls that take an address ---- */

static inline int bind_to(int fd, const char *host, int port)
{
	struct addr addr = addr_of(host, port);

	return rc(bind(fd, &addr.sa, addr.len));
}

static inline int connect_to(int fd, const char *host, int port)
{
	struct addr addr = addr_of(host, port);

	return rc(connect(fd, &addr.sa, addr.len));
}

static inline int send_to(int fd, const char *host, int port, const char *text, int flags)
{
	struct addr addr = addr_of(host, port);

	return rc(sendto(fd, text, strlen(text), flags, &addr.sa, addr.len));
}

static inline int disconnect(int fd)
{
	struct sockaddr unspec = { .sa_family = AF_UNSPEC };

	return rc(connect(fd, &unspec, sizeof(unspec)));
}

static inline int local_port(int fd)
{
	struct addr addr = { .len = sizeof(addr.v6) };
	int err = rc(getsockname(fd, &addr.sa, &addr.len));

	return err ? err : port_of(&addr);
}

static inline int peer_port(int fd)
{
	struct addr addr = { .len = sizeof(addr.v6) };
	int err = rc(getpeername(fd, &addr.sa, &addr.len));

	return err ? err : port_of(&addr);
}

/* Listens (TCP) or connects (UDP): the next call on a bound socket. */
static inline int listen_or_connect(int fd, int type, const char *host)
{
	if (type == SOCK_STREAM)
		return rc(listen(fd, 1));
	return connect_to(fd, host, OTHER_PORT);
}

#endif /* PORT0_NET_H */

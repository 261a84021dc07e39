// SPDX-License-Identifier: GPL-2.0
/*
 * A 32-bit program on a 64-bit kernel: the options, bind() to port 0 and
 * sendmsg() to it, by 32-bit system calls. It uses no libc, so that a compiler is
 * enough to build it.
 *
 * It ends at the first wrong result, with a line that names the kind of socket,
 * the call and what it returned. compat.py runs it.
 */
#include "options.h"

#define AF_INET		2
#define AF_INET6	10
#define SOCK_STREAM	1
#define SOCK_DGRAM	2
#define SOL_IP		0
#define SOL_IPV6	41

#define EFAULT		14
#define EBUSY		16
#define EINVAL		22

#if defined(__i386__)
enum {
	NR_EXIT = 1, NR_READ = 3, NR_WRITE = 4, NR_CLOSE = 6, NR_SOCKET = 359,
	NR_BIND = 361, NR_CONNECT = 362, NR_LISTEN = 363, NR_ACCEPT4 = 364,
	NR_GETSOCKOPT = 365, NR_SETSOCKOPT = 366, NR_GETSOCKNAME = 367,
	NR_GETPEERNAME = 368, NR_SENDMSG = 370,
};

static long call5(long nr, long a, long b, long c, long d, long e)
{
	long result;

	asm volatile("int $0x80"
		     : "=a" (result)
		     : "a" (nr), "b" (a), "c" (b), "d" (c), "S" (d), "D" (e)
		     : "memory", "cc");
	return result;
}
#elif defined(__arm__)
enum {
	NR_EXIT = 1, NR_READ = 3, NR_WRITE = 4, NR_CLOSE = 6, NR_SOCKET = 281,
	NR_BIND = 282, NR_CONNECT = 283, NR_LISTEN = 284, NR_ACCEPT4 = 366,
	NR_GETSOCKOPT = 295, NR_SETSOCKOPT = 294, NR_GETSOCKNAME = 286,
	NR_GETPEERNAME = 287, NR_SENDMSG = 296,
};

static long call5(long nr, long a, long b, long c, long d, long e)
{
	register long r7 asm("r7") = nr;
	register long r0 asm("r0") = a;
	register long r1 asm("r1") = b;
	register long r2 asm("r2") = c;
	register long r3 asm("r3") = d;
	register long r4 asm("r4") = e;

	asm volatile("svc #0"
		     : "+r" (r0)
		     : "r" (r7), "r" (r1), "r" (r2), "r" (r3), "r" (r4)
		     : "memory", "cc");
	return r0;
}
#endif

#define CALL3(nr, a, b, c)	\
	call5(nr, (long)(a), (long)(b), (long)(c), 0, 0)

/* An address of either family: both have the port at the same offset. */
struct address {
	unsigned short family;
	unsigned short port;
	unsigned char rest[24];
};

struct vector {
	void *base;
	unsigned long len;
};

struct message {
	void *name;
	int namelen;
	struct vector *vectors;
	unsigned long count;
	void *control;
	unsigned long controllen;
	unsigned int flags;
};

static const char *kind;

static void print(const char *text)
{
	long len = 0;

	while (text[len])
		len++;
	CALL3(NR_WRITE, 1, text, len);
}

static void print_number(long value)
{
	unsigned long rest = value < 0 ? -value : value;
	char text[12], *digit = text + sizeof(text) - 1;

	*digit = 0;
	do {
		*--digit = '0' + rest % 10;
		rest /= 10;
	} while (rest);
	if (value < 0)
		*--digit = '-';
	print(digit);
}

static void expect(long want, long got, const char *call)
{
	if (want == got)
		return;
	print(kind);
	print(": ");
	print(call);
	print(" is ");
	print_number(got);
	print(", and not ");
	print_number(want);
	print("\n");
	CALL3(NR_EXIT, 1, 0, 0);
}

static long set_option(int fd, int level, int name, const int *value, int len)
{
	return call5(NR_SETSOCKOPT, fd, level, name, (long)value, len);
}

/* The value of the option, or the negative errno */
static long get_option(int fd, int level, int name)
{
	int value = -1, len = sizeof(value);
	long err = call5(NR_GETSOCKOPT, fd, level, name, (long)&value,
			 (long)&len);

	if (err)
		return err;
	return len == sizeof(value) ? value : -1;
}

/* The port of one of the socket's names, or the negative errno */
static long port_of(int fd, int which)
{
	struct address name = { .port = 0xffff };
	int len = sizeof(name);
	long err = CALL3(which, fd, &name, &len);

	return err ? err : name.port;
}

static void check(const char *name, int family, int type)
{
	struct address address = { .family = family };
	int len = family == AF_INET ? 16 : 28;
	int server = CALL3(NR_SOCKET, family, type, 0);
	int client = CALL3(NR_SOCKET, family, type, 0);
	int level = family == AF_INET ? SOL_IP : SOL_IPV6;
	int one = 1, zero = 0, two = 2, child;
	struct vector vector = { .len = 1 };
	struct message message = {
		.name = &address, .namelen = len,
		.vectors = &vector, .count = 1,
	};
	char byte = 'x';

	kind = name;
	if (family == AF_INET)
		address.rest[0] = 127, address.rest[3] = 1;
	else
		address.rest[19] = 1;
	vector.base = &byte;

	expect(0, get_option(server, level, IP_BIND_PORT_ZERO), "unmarked");
	expect(-EINVAL, set_option(server, level, IP_BIND_PORT_ZERO, &two,
				   sizeof(two)), "value 2");
	expect(-EINVAL, set_option(server, level, IP_BIND_PORT_ZERO, &one, 3),
	       "length 3");
	expect(-EFAULT, set_option(server, level, IP_BIND_PORT_ZERO,
				   (int *)8, sizeof(int)), "bad pointer");
	expect(0, set_option(server, level, IP_BIND_PORT_ZERO, &one,
			     sizeof(one)), "setsockopt");
	expect(1, get_option(server, level, IP_BIND_PORT_ZERO), "marked");
	expect(1, get_option(server, SOL_IP, IP_BIND_PORT_ZERO), "SOL_IP");
	expect(0, get_option(server, level, IP_BOUND_PORT_ZERO), "unbound");
	expect(0, CALL3(NR_BIND, server, &address, len), "bind");
	expect(1, get_option(server, level, IP_BOUND_PORT_ZERO), "bound");
	expect(0, port_of(server, NR_GETSOCKNAME), "getsockname");
	expect(-EBUSY, set_option(server, level, IP_BIND_PORT_ZERO, &zero,
				  sizeof(zero)), "clearing");
	expect(-EINVAL, CALL3(NR_BIND, server, &address, len), "second bind");

	if (type == SOCK_STREAM) {
		expect(0, CALL3(NR_LISTEN, server, 1, 0), "listen");
		expect(0, CALL3(NR_CONNECT, client, &address, len), "connect");
		expect(0, port_of(client, NR_GETPEERNAME), "getpeername");
		child = call5(NR_ACCEPT4, server, 0, 0, 0, 0);
		expect(0, port_of(child, NR_GETSOCKNAME), "the child's name");
		expect(1, CALL3(NR_WRITE, client, &byte, 1), "write");
		expect(1, CALL3(NR_READ, child, &byte, 1), "read");
		CALL3(NR_CLOSE, child, 0, 0);
	} else {
		expect(-EINVAL, CALL3(NR_SENDMSG, client, &message, 0),
		       "sendmsg, unmarked");
		expect(0, set_option(client, level, IP_BIND_PORT_ZERO, &one,
				     sizeof(one)), "setsockopt");
		expect(1, CALL3(NR_SENDMSG, client, &message, 0), "sendmsg");
		expect(1, CALL3(NR_READ, server, &byte, 1), "read");
	}
	CALL3(NR_CLOSE, client, 0, 0);
	CALL3(NR_CLOSE, server, 0, 0);
}

void _start(void)
{
	check("ip4 tcp", AF_INET, SOCK_STREAM);
	check("ip4 udp", AF_INET, SOCK_DGRAM);
	check("ip6 tcp", AF_INET6, SOCK_STREAM);
	check("ip6 udp", AF_INET6, SOCK_DGRAM);
	CALL3(NR_EXIT, 0, 0, 0);
}

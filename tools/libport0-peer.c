// SPDX-License-Identifier: GPL-2.0
/*
 * The other end: destinations that mean port 0 (--to), sockets that leave from
 * port 0 (--from), and UDP sockets that send to port 0 (--reply).
 *
 * Threads can be cancelled in most of these calls, so the C library makes them.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "libport0.h"
#include "port0.h"
#include "refusal.h"

/*
 * The largest number of messages that the kernel sends at a time, and so this
 * library; it sends them in batches, for threads whose stack is small
 */
#define MAX_MESSAGES	1024
#define BATCH		8

/*
 * Declares a replacement for a function of the C library, by its symbol, since
 * <sys/socket.h> may define an inline function of that name.
 */
#define NEXT(type, name, ...)						\
	typedef type name##_fn(__VA_ARGS__);				\
	static name##_fn *next_##name;					\
	name##_fn port0_##name __asm__(#name) EXPORT

NEXT(int, connect, int fd, const struct sockaddr *addr, socklen_t len);
NEXT(ssize_t, sendto, int fd, const void *buf, size_t size, int flags,
     const struct sockaddr *addr, socklen_t len);
NEXT(ssize_t, sendmsg, int fd, const struct msghdr *msg, int flags);
NEXT(int, sendmmsg, int fd, struct mmsghdr *vec, unsigned int count, int flags);
NEXT(ssize_t, recvfrom, int fd, void *buf, size_t size, int flags, struct sockaddr *addr,
     socklen_t *len);
NEXT(ssize_t, __recvfrom_chk, int fd, void *buf, size_t size, size_t room, int flags,
     struct sockaddr *addr, socklen_t *len);
NEXT(ssize_t, recvmsg, int fd, struct msghdr *msg, int flags);
NEXT(int, recvmmsg, int fd, struct mmsghdr *vec, unsigned int count, int flags,
     struct timespec *timeout);
NEXT(int, getpeername, int fd, struct sockaddr *addr, socklen_t *len);
#if __WORDSIZE == 32
/* for programs that are built with a 64-bit time_t */
NEXT(ssize_t, __sendmsg64, int fd, const struct msghdr *msg, int flags);
NEXT(int, __sendmmsg64, int fd, struct mmsghdr *vec, unsigned int count, int flags);
NEXT(ssize_t, __recvmsg64, int fd, struct msghdr *msg, int flags);
NEXT(int, __recvmmsg64, int fd, struct mmsghdr *vec, unsigned int count, int flags,
     struct timespec *timeout);
#endif

#define FIND(name) (next_##name = (name##_fn *)dlsym(RTLD_NEXT, #name))

/**
 * peer_settings_read - find the functions that are replaced here
 */
void peer_settings_read(void)
{
	FIND(connect);
	FIND(sendto);
	FIND(sendmsg);
	FIND(sendmmsg);
	FIND(recvfrom);
	FIND(__recvfrom_chk);
	FIND(recvmsg);
	FIND(recvmmsg);
	FIND(getpeername);
#if __WORDSIZE == 32
	FIND(__sendmsg64);
	FIND(__sendmmsg64);
	FIND(__recvmsg64);
	FIND(__recvmmsg64);
#endif
}

/* The port that a reply is given back under ---------------------------------- */

/*
 * Key of a note: for a socket and an address, or for a socket alone. An IPv6 socket may
 * send to an IPv4 address, and receives from the v4-mapped one.
 */
static uint64_t peer_key(int fd, const struct sockaddr *addr)
{
	const struct sockaddr_in6 *in6 = (const void *)addr;
	const struct sockaddr_in *in = (const void *)addr;
	const uint8_t *bytes = NULL;
	uint64_t key = cookie_of(fd);
	size_t count = 0;

	if (addr && addr->sa_family == AF_INET6) {
		bytes = in6->sin6_addr.s6_addr;
		count = sizeof(in6->sin6_addr);
		if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
			bytes += 12;
			count = 4;
		}
	} else if (addr) {
		bytes = (const uint8_t *)&in->sin_addr;
		count = sizeof(in->sin_addr);
	}
	for (size_t n = 0; n < count; n++)
		key = (key ^ (bytes[n] + 1)) * 0x100000001b3ULL;
	return key * 0x9e3779b97f4a7c15ULL >> 16;
}

static void remember_peer(int fd, const struct sockaddr *addr, int port)
{
	note_put(peer_key(fd, addr), (uint16_t)port);
	note_put(peer_key(fd, NULL), (uint16_t)port);
}

/*
 * Give a reply from port 0 the port that the program has sent to: a program
 * that checks the source would otherwise drop it. @room: size of the program's
 * address buffer; @len: the length that the kernel has stored. errno is not changed.
 */
static void rename_peer(int fd, struct sockaddr *addr, socklen_t room, socklen_t len)
{
	struct sockaddr_in *in = (struct sockaddr_in *)addr;
	struct sockaddr_storage whole = { 0 };
	int err = errno, port;

	if (!settings.reached_name || !addr || !room)
		return;
	if (len > room)
		len = room;
	if (len < offsetof(struct sockaddr_in, sin_addr) || in->sin_port ||
	    (addr->sa_family != AF_INET && addr->sa_family != AF_INET6))
		return;
	if (kind_of(fd) == KIND_UDP) {
		memcpy(&whole, addr, len < sizeof(whole) ? len : sizeof(whole));
		port = note_get(peer_key(fd, (struct sockaddr *)&whole));
		if (port < 0)
			port = note_get(peer_key(fd, NULL));
		in->sin_port = htons((uint16_t)(port < 0 ? settings.reached_name : port));
	}
	errno = err;
}

/* How many bytes of an address the kernel may write; 0 if none */
static socklen_t room_of(const socklen_t *len)
{
	return settings.reached_name && len && is_readable(len, sizeof(*len)) ? *len : 0;
}

/* Leaving from port 0 -------------------------------------------------------- */

/*
 * When a UDP socket is disconnected, it gives up a port that it did not ask for
 * by number, and with the port the device, if any.
 */
static int give_up_port(int fd)
{
	struct sockaddr nobody = { .sa_family = AF_UNSPEC };
	int device = ask(fd, SOL_SOCKET, SO_BINDTOIFINDEX);

	if (syscall(SYS_connect, fd, &nobody, sizeof(nobody)))
		return -1;
	return device > 0 ? set(fd, SOL_SOCKET, SO_BINDTOIFINDEX, device) : 0;
}

/* errno is not changed. */
static bool is_on_port_0(int fd)
{
	int err = errno;
	bool yes = ask(fd, SOL_IP, IP_BOUND_PORT_ZERO) == 1;

	errno = err;
	return yes;
}

/* @shared: the socket is connected, so others may be on port 0, too. */
static int leave_from_port_0(int fd, enum kind kind, bool shared)
{
	static const char what[] = "leave from port 0";
	struct sockaddr_storage own;
	socklen_t len = sizeof(own);
	int err = errno;

	if (kind == KIND_UNKNOWN) {
		ask(fd, SOL_SOCKET, SO_DOMAIN);
		report_option(what, errno);
		return -1;
	}
	if ((kind != KIND_TCP && kind != KIND_UDP) || ask(fd, SOL_IP, IP_BOUND_PORT_ZERO) == 1)
		goto done;
	if (syscall(SYS_getsockname, fd, &own, &len))
		return -1;
	if (port_of((struct sockaddr *)&own, len) > 0) {
		if (kind != KIND_UDP || ask(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT) != 1)
			goto done;
		if (give_up_port(fd))
			return -1;
		len = sizeof(own);
		if (syscall(SYS_getsockname, fd, &own, &len))
			return -1;
		if (port_of((struct sockaddr *)&own, len) > 0)
			goto done;
	}
	if (shared)
		set(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (kind == KIND_TCP)
		set(fd, SOL_IP, IP_BIND_ADDRESS_NO_PORT, 0);
	errno = err;
	if (bind_literal(fd, (struct sockaddr *)&own, len, what, 0) &&
	    (errno != EINVAL || !is_on_port_0(fd)))
		return -1;
	/* Otherwise another thread was first: the socket has port 0 already. */

done:
	errno = err;
	return 0;
}

static void add_hex(char *buf, size_t size, uint32_t number, int digits)
{
	while (digits-- > 0) {
		char digit[] = { "0123456789ABCDEF"[number >> digits * 4 & 15], '\0' };

		text_add(buf, size, digit);
	}
}

/* Write an address in the format of /proc/net. */
static void add_address(char *buf, size_t size, const struct sockaddr_storage *addr)
{
	const struct sockaddr_in6 *in6 = (const void *)addr;
	const struct sockaddr_in *in = (const void *)addr;
	bool is_long = addr->ss_family == AF_INET6;
	const void *bytes = is_long ? (const void *)&in6->sin6_addr : &in->sin_addr;
	size_t count = is_long ? 4 : 1;
	uint32_t words[4];

	memcpy(words, bytes, count * sizeof(*words));
	for (size_t n = 0; n < count; n++)
		add_hex(buf, size, words[n], 8);
	text_add(buf, size, ":");
	add_hex(buf, size, ntohs(in->sin_port), 4);
}

/*
 * Tell whether another UDP socket has the same addresses and ports. The kernel
 * allows that, but one of the two would receive nothing. Without /proc, the answer is
 * no.
 */
static bool has_duplicate(int fd)
{
	struct sockaddr_storage own, peer;
	socklen_t own_len = sizeof(own), peer_len = sizeof(peer);
	char line[100] = " ", text[2048];
	size_t kept = 0, length;
	int file, found = 0;
	ssize_t got;

	if (syscall(SYS_getsockname, fd, &own, &own_len) ||
	    syscall(SYS_getpeername, fd, &peer, &peer_len))
		return false;
	add_address(line, sizeof(line), &own);
	text_add(line, sizeof(line), " ");
	add_address(line, sizeof(line), &peer);
	text_add(line, sizeof(line), " ");
	length = strlen(line);
	file = (int)syscall(SYS_openat, AT_FDCWD, own.ss_family == AF_INET6 ?
			    "/proc/thread-self/net/udp6" : "/proc/thread-self/net/udp",
			    O_RDONLY | O_CLOEXEC);
	if (file < 0)
		return false;
	while ((got = syscall(SYS_read, file, text + kept, sizeof(text) - kept)) > 0) {
		char *end = text + kept + got, *at = text;

		while ((at = memmem(at, (size_t)(end - at), line, length))) {
			found++;
			at += length;
		}
		/*
		 * Keep the start of a line that is continued in the next
		 * buffer.
		 */
		kept = (size_t)(end - text) < length - 1 ? (size_t)(end - text) : length - 1;
		memmove(text, end - kept, kept);
	}
	syscall(SYS_close, file);	/* close() is a cancellation point */
	return found > 1;
}

/* Where a call goes ---------------------------------------------------------- */

/**
 * struct target - a destination
 * @addr: where the kernel is told to go
 * @copy: memory for that
 * @meant: it has port 0 because of --to
 */
struct target {
	const struct sockaddr *addr;
	struct sockaddr_storage copy;
	bool meant;
};

static bool is_mapped(const struct sockaddr *addr, socklen_t len)
{
	return addr->sa_family == AF_INET6 && len >= sizeof(struct sockaddr_in6) &&
	       IN6_IS_ADDR_V4MAPPED(&((const struct sockaddr_in6 *)addr)->sin6_addr);
}

/* Mark a UDP socket that is to send to port 0. errno is not changed. */
static int need_mark(int fd)
{
	int err = errno;

	if (ask(fd, SOL_IP, IP_BIND_PORT_ZERO) != 1 && mark(fd, 1)) {
		report_option("send to port 0", errno);
		return -1;
	}
	errno = err;
	return 0;
}

/*
 * Prepare a socket for a call that has a destination. @connects: the call is connect().
 * Returns 0, or -1 with errno, after telling the user why.
 */
static int aim(int fd, const struct sockaddr *addr, socklen_t len, bool connects,
	       struct target *target)
{
	int err = errno, ret = 0, port;
	bool to, by_address;
	enum kind kind;

	target->addr = addr;
	target->meant = false;
	if (!settings.aims)
		return 0;
	port = port_of(addr, len);
	if (port < 0 || (connects && addr->sa_family == AF_UNSPEC))
		goto done;
	to = has(settings.reached, port);
	/*
	 * On a socket connected to a v4-mapped address, the kernel treats
	 * send() like sendto().
	 */
	by_address = !connects || is_mapped(addr, len);
	if (!(to || settings.from || (settings.client && !port && by_address)))
		goto done;
	kind = kind_of(fd);
	/* The kernel ignores an address in a send on a connected TCP socket. */
	if (kind == KIND_NONE || (!connects && kind != KIND_UDP && kind != KIND_UNKNOWN))
		goto done;
	errno = err;
	if (to) {
		set_port(&target->copy, addr, len, 0);
		target->addr = (struct sockaddr *)&target->copy;
		target->meant = true;
		remember_peer(fd, addr, port);
	}
	if (settings.from)
		ret = leave_from_port_0(fd, kind, connects);
	if (!ret && (to || !port) && (kind == KIND_UDP || kind == KIND_UNKNOWN) && by_address)
		ret = need_mark(fd);
	if (ret)
		return ret;
done:
	errno = err;
	return 0;
}

/* Tell whether this machine has no address of its own to get there, as without IPv6. */
static bool has_no_source(const struct sockaddr *addr)
{
	socklen_t len = addr->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) :
			sizeof(struct sockaddr_in);
	int fd = (int)syscall(SYS_socket, addr->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool none = fd >= 0 && syscall(SYS_connect, fd, addr, len) && errno == EADDRNOTAVAIL;

	if (fd >= 0)
		syscall(SYS_close, fd);
	return none;
}

/* Tell the user once why it failed. errno is not changed. */
static void explain(const struct target *target, bool connects)
{
	static bool said;
	int err = errno;
	const char *reason = NULL;

	if (err == EADDRNOTAVAIL && connects && settings.from &&
	    is_readable(target->addr, sizeof(target->addr->sa_family)) &&
	    !has_no_source(target->addr))
		reason = "there is a socket from port 0 to this address and port, or there was one in the last minute (TIME_WAIT): only one at a time is possible from one port";
	else if (err == EACCES && target->meant)
		reason = "this machine refuses it: a broadcast address without SO_BROADCAST, a route that prohibits it (see ip route get), or a security module, Landlock or SELinux (name_connect): you allowed another port? The kernel sees port 0";
	else if (err == EPERM && target->meant)
		reason = "a firewall rule or a BPF program of the control group on this machine forbids it: you allowed another port? The kernel sees port 0";
	if (reason && !__atomic_exchange_n(&said, true, __ATOMIC_RELAXED))
		report(target->meant ? "send to port 0" : "leave from port 0", reason);
	errno = err;
}

/*
 * Refuse a second UDP connection to one address and port, as TCP does. Returns
 * 0, or -1 with errno.
 */
static int refuse_duplicate(int fd, const struct sockaddr *addr)
{
	struct sockaddr nobody = { .sa_family = AF_UNSPEC };
	int err = errno;

	if (addr->sa_family != AF_UNSPEC && kind_of(fd) == KIND_UDP &&
	    ask(fd, SOL_IP, IP_BOUND_PORT_ZERO) == 1 && has_duplicate(fd)) {
		syscall(SYS_connect, fd, &nobody, sizeof(nobody));
		errno = EADDRNOTAVAIL;
		return -1;
	}
	errno = err;
	return 0;
}

int port0_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
	struct target target;
	int ret;

	settings_read();
	if (aim(fd, addr, len, true, &target))
		return -1;
	if (next_connect)
		ret = next_connect(fd, target.addr, len);
	else
		ret = (int)syscall(SYS_connect, fd, target.addr, len);
	if (!ret && settings.from)
		ret = refuse_duplicate(fd, target.addr);
	if (ret < 0)
		explain(&target, true);
	return ret;
}

/* The C library also has it under this name. */
extern connect_fn port0_connect_too __asm__("__connect") __attribute__((alias("connect"))) EXPORT;

ssize_t port0_sendto(int fd, const void *buf, size_t size, int flags,
		     const struct sockaddr *addr, socklen_t len)
{
	struct target target;
	ssize_t ret;

	settings_read();
	if (aim(fd, addr, len, flags & MSG_FASTOPEN, &target))
		return -1;
	if (next_sendto)
		ret = next_sendto(fd, buf, size, flags, target.addr, len);
	else
		ret = syscall(SYS_sendto, fd, buf, size, flags, target.addr, len);
	if (ret < 0)
		explain(&target, flags & MSG_FASTOPEN);
	return ret;
}

/* The message is copied only if its address has to be changed. */
static bool is_aimed(const struct msghdr *msg)
{
	return settings.aims && is_readable(msg, sizeof(*msg)) && msg->msg_name;
}

static ssize_t send_message(sendmsg_fn *next, int fd, const struct msghdr *msg, int flags)
{
	struct target target = { .meant = false };
	struct msghdr copy;
	ssize_t ret;

	settings_read();
	if (is_aimed(msg)) {
		copy = *msg;
		if (aim(fd, copy.msg_name, copy.msg_namelen, flags & MSG_FASTOPEN, &target))
			return -1;
		copy.msg_name = (void *)target.addr;
		msg = &copy;
	}
	if (next)
		ret = next(fd, msg, flags);
	else
		ret = syscall(SYS_sendmsg, fd, msg, flags);
	if (ret < 0)
		explain(&target, flags & MSG_FASTOPEN);
	return ret;
}

ssize_t port0_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	settings_read();
	return send_message(next_sendmsg, fd, msg, flags);
}

static int send_some(sendmmsg_fn *next, int fd, struct mmsghdr *vec, unsigned int count, int flags)
{
	if (next)
		return next(fd, vec, count, flags);
	return (int)syscall(SYS_sendmmsg, fd, vec, count, flags);
}

/* Send messages with changed addresses; returns how many were sent, or -1. */
static int send_batch(sendmmsg_fn *next, int fd, struct mmsghdr *vec, unsigned int count, int flags)
{
	struct target targets[BATCH];
	struct mmsghdr copies[BATCH];
	unsigned int ready = 0;
	int sent;

	for (; ready < count; ready++) {
		struct msghdr *msg = &copies[ready].msg_hdr;

		if (!is_readable(&vec[ready], sizeof(*vec))) {
			errno = EFAULT;
			break;
		}
		copies[ready] = vec[ready];
		if (aim(fd, msg->msg_name, msg->msg_namelen, flags & MSG_FASTOPEN, &targets[ready]))
			break;
		msg->msg_name = (void *)targets[ready].addr;
	}
	if (!ready)
		return -1;
	sent = send_some(next, fd, copies, ready, flags);
	if (sent < 0)
		explain(&targets[0], flags & MSG_FASTOPEN);
	for (int n = 0; n < sent; n++)
		vec[n].msg_len = copies[n].msg_len;
	return sent;
}

/*
 * Tell whether one of the messages may have an address; on a connected socket, not all
 * need to. Those that cannot be read are looked at one by one later.
 */
static bool has_address(const struct mmsghdr *vec, unsigned int count)
{
	const unsigned int page = 4096 / sizeof(*vec);

	for (unsigned int n = 0; settings.aims && n < count; n++) {
		unsigned int some = count - n < page ? count - n : page;

		if (!(n % page) && !is_readable(&vec[n], some * sizeof(*vec)))
			return true;
		if (vec[n].msg_hdr.msg_name)
			return true;
	}
	return false;
}

static int send_messages(sendmmsg_fn *next, int fd, struct mmsghdr *vec, unsigned int count,
			 int flags)
{
	unsigned int done = 0;
	int err = errno;

	if (count > MAX_MESSAGES)
		count = MAX_MESSAGES;
	if (!has_address(vec, count))
		return send_some(next, fd, vec, count, flags);
	while (done < count) {
		unsigned int some = count - done < BATCH ? count - done : BATCH;
		int sent = send_batch(next, fd, vec + done, some, flags);

		if (sent < 0 && !done)
			return -1;
		if (sent > 0)
			done += (unsigned int)sent;
		if (sent < (int)some)
			break;
	}
	errno = err;	/* A later message may have failed. */
	return (int)done;
}

int port0_sendmmsg(int fd, struct mmsghdr *vec, unsigned int count, int flags)
{
	settings_read();
	return send_messages(next_sendmmsg, fd, vec, count, flags);
}

/* Where it came from --------------------------------------------------------- */

ssize_t port0_recvfrom(int fd, void *buf, size_t size, int flags, struct sockaddr *addr,
		       socklen_t *len)
{
	socklen_t room;
	ssize_t ret;

	settings_read();
	room = room_of(len);
	if (next_recvfrom)
		ret = next_recvfrom(fd, buf, size, flags, addr, len);
	else
		ret = syscall(SYS_recvfrom, fd, buf, size, flags, addr, len);
	if (ret >= 0 && room)
		rename_peer(fd, addr, room, *len);
	return ret;
}

/* The compiler calls this instead of recvfrom() if it knows the size of the buffer. */
ssize_t port0___recvfrom_chk(int fd, void *buf, size_t size, size_t known, int flags,
			     struct sockaddr *addr, socklen_t *len)
{
	socklen_t room;
	ssize_t ret;

	settings_read();
	room = room_of(len);
	if (next___recvfrom_chk)
		ret = next___recvfrom_chk(fd, buf, size, known, flags, addr, len);
	else
		ret = syscall(SYS_recvfrom, fd, buf, size < known ? size : known, flags, addr, len);
	if (ret >= 0 && room)
		rename_peer(fd, addr, room, *len);
	return ret;
}

static socklen_t message_room(const struct msghdr *msg)
{
	return settings.reached_name && is_readable(msg, sizeof(*msg)) ? msg->msg_namelen : 0;
}

static ssize_t receive_message(recvmsg_fn *next, int fd, struct msghdr *msg, int flags)
{
	socklen_t room = message_room(msg);
	ssize_t ret;

	if (next)
		ret = next(fd, msg, flags);
	else
		ret = syscall(SYS_recvmsg, fd, msg, flags);
	if (ret >= 0 && room)
		rename_peer(fd, msg->msg_name, room, msg->msg_namelen);
	return ret;
}

ssize_t port0_recvmsg(int fd, struct msghdr *msg, int flags)
{
	settings_read();
	return receive_message(next_recvmsg, fd, msg, flags);
}

static int receive_messages(recvmmsg_fn *next, int fd, struct mmsghdr *vec, unsigned int count,
			    int flags, struct timespec *timeout)
{
	socklen_t rooms[MAX_MESSAGES];
	int ret;

	/* The kernel has no limit here. */
	if (settings.reached_name && count > MAX_MESSAGES)
		count = MAX_MESSAGES;
	for (unsigned int n = 0; settings.reached_name && n < count; n++)
		rooms[n] = message_room(&vec[n].msg_hdr);
	if (next)
		ret = next(fd, vec, count, flags, timeout);
	else
		ret = (int)syscall(SYS_recvmmsg, fd, vec, count, flags, timeout);
	for (int n = 0; settings.reached_name && n < ret; n++) {
		struct msghdr *msg = &vec[n].msg_hdr;

		if (rooms[n])
			rename_peer(fd, msg->msg_name, rooms[n], msg->msg_namelen);
	}
	return ret;
}

int port0_recvmmsg(int fd, struct mmsghdr *vec, unsigned int count, int flags,
		   struct timespec *timeout)
{
	settings_read();
	return receive_messages(next_recvmmsg, fd, vec, count, flags, timeout);
}

/* A TCP connection keeps port 0 here: only sources of datagrams are changed. */
int port0_getpeername(int fd, struct sockaddr *addr, socklen_t *len)
{
	socklen_t room;
	int ret;

	settings_read();
	room = room_of(len);
	if (next_getpeername)
		ret = next_getpeername(fd, addr, len);
	else
		ret = (int)syscall(SYS_getpeername, fd, addr, len);
	if (!ret && room)
		rename_peer(fd, addr, room, *len);
	return ret;
}

#if __WORDSIZE == 32
ssize_t port0___sendmsg64(int fd, const struct msghdr *msg, int flags)
{
	settings_read();
	return send_message(next___sendmsg64, fd, msg, flags);
}

int port0___sendmmsg64(int fd, struct mmsghdr *vec, unsigned int count, int flags)
{
	settings_read();
	return send_messages(next___sendmmsg64, fd, vec, count, flags);
}

ssize_t port0___recvmsg64(int fd, struct msghdr *msg, int flags)
{
	settings_read();
	return receive_message(next___recvmsg64, fd, msg, flags);
}

int port0___recvmmsg64(int fd, struct mmsghdr *vec, unsigned int count, int flags,
		       struct timespec *timeout)
{
	settings_read();
	return receive_messages(next___recvmmsg64, fd, vec, count, flags, timeout);
}
#endif

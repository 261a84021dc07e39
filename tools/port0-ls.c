// SPDX-License-Identifier: GPL-2.0
/*
 * port0-ls - list the sockets on port 0, and the processes that have them
 *
 * Two sources are put together. The kernel's sock_diag lists the sockets of one
 * network namespace, so each namespace that can be found is entered to list its sockets.
 * It leaves out TCP sockets that are bound and neither listen nor connect: these
 * are found among the descriptors of all processes, which also tell whose a
 * socket is.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <linux/inet_diag.h>
#include <linux/kcmp.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/sock_diag.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pwd.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "port0.h"

/* Exit statuses. */
enum { COMPLETE, INCOMPLETE, FAILED };

/* Since Linux 6.9: a pidfd of one thread */
#ifndef PIDFD_THREAD
#define PIDFD_THREAD O_EXCL
#endif
/* glibc 2.31 (Debian bullseye) does not know it, its kernel headers do. */
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd __NR_pidfd_getfd
#endif
/* Since Linux 6.8: bound and idle */
#define STATE_BOUND 13

static const char usage[] =
"usage: port0-ls [--json]\n"
"\n"
"Lists the TCP and UDP sockets on port 0 of every network namespace that can be\n"
"seen: who holds them, and which of them keep the kernel module port0 loaded.\n"
"Run it as root to see those of other users. See port0-ls(8).\n"
"\n"
"  --json         print JSON, for programs\n"
"  --help, --version\n"
"\n"
"The exit status is 0 if everything could be examined, whether sockets were found\n"
"or not; 1 if there may be more, with the reason on standard error; 2 if port0-ls\n"
"failed.\n";

enum pins { NO, YES, UNKNOWN };

struct place {			/* a network namespace */
	dev_t dev;
	ino_t inode;
	char *name;		/* the name for ip-netns(8), or NULL */
	pid_t pid;		/* a process in it, or 0 */
	bool seen;		/* its sockets were listed */
};

struct entry {			/* a socket on port 0 */
	int family, protocol, state;
	struct in6_addr local, peer;
	in_port_t peer_port;
	char device[IF_NAMESIZE];
	uid_t uid;
	ino_t inode;		/* 0: it has no file any more, or not yet */
	int place;		/* index; -1: unknown */
	enum pins pins;
};

struct owner {			/* a descriptor that refers to a socket */
	ino_t inode;
	pid_t pid;
	int fd;
};

#define LIST(type) struct { struct type *at; int count, room; }
static LIST(place) places;
static LIST(entry) entries;
static LIST(owner) owners;

#define ADD(list, ...) do {							\
	if ((list).count == (list).room) {					\
		(list).room = (list).room * 2 + 16;				\
		(list).at = reallocarray((list).at, (size_t)(list).room,	\
					 sizeof(*(list).at));			\
		if (!(list).at)							\
			err(FAILED, NULL);					\
	}									\
	(list).at[(list).count++] = (__VA_ARGS__);				\
} while (0)

static struct {
	int processes;		/* could not be looked into without more rights */
	int namespaces;
	long unseen;		/* sockets that keep the module loaded and were not found */
	bool loaded;		/* whether the module is loaded */
	long references;	/* to the module; -1: unknown */
	bool failed;		/* another error, which has been printed */
} missing;

static int own_namespace = -1;
static bool foreign_proc;	/* /proc has the numbers of another PID namespace than this */

static char *format(const char *text, ...)
{
	va_list args;
	char *made;

	va_start(args, text);
	if (vasprintf(&made, text, args) < 0)
		err(FAILED, NULL);
	va_end(args);
	return made;
}

static void complain(const char *text, ...)
{
	va_list args;

	va_start(args, text);
	vwarnx(text, args);
	va_end(args);
	missing.failed = true;
}

/* sock_diag */

static void copy_address(struct in6_addr *to, const __be32 *from, int family)
{
	memcpy(to, from, family == AF_INET ? sizeof(struct in_addr) : sizeof(*to));
}

static void add_message(const struct inet_diag_msg *m, int protocol, int place, bool pins)
{
	struct entry e = {
		.family = m->idiag_family, .protocol = protocol, .state = m->idiag_state,
		.peer_port = ntohs(m->id.idiag_dport), .uid = m->idiag_uid,
		.inode = m->idiag_inode, .place = place, .pins = pins ? YES : NO,
	};

	copy_address(&e.local, m->id.idiag_src, e.family);
	copy_address(&e.peer, m->id.idiag_dst, e.family);
	if (m->id.idiag_if && !if_indextoname(m->id.idiag_if, e.device))
		snprintf(e.device, sizeof(e.device), "%u", m->id.idiag_if);
	ADD(entries, e);
}

/*
 * The filter that runs in the kernel, for local port 0. A socket keeps the
 * module loaded if it got the port by bind() and not by accept(); inet_diag
 * calls the latter kind "auto". Each instruction says how far to jump if its
 * condition is true and if it is false. A jump to the end accepts the socket,
 * one beyond that rejects it.
 */
#define OP(op, then, otherwise) { .code = (op), .yes = (then), .no = (otherwise) }
static const struct inet_diag_bc_op filter_auto[] = {
	OP(INET_DIAG_BC_S_LE, 8, 16), OP(0, 0, 0),
	OP(INET_DIAG_BC_AUTO, 4, 8),
}, filter_bound[] = {
	OP(INET_DIAG_BC_S_LE, 8, 20), OP(0, 0, 0),
	OP(INET_DIAG_BC_AUTO, 4, 8),
	OP(INET_DIAG_BC_JMP, 4, 8),
};

/* Returns 0 or a negative errno. */
static int dump(int fd, int family, int protocol, int place, bool bound)
{
	struct {
		struct nlmsghdr head;
		struct inet_diag_req_v2 body;
		struct rtattr attr;
		struct inet_diag_bc_op filter[4];
	} request = {
		.head = { .nlmsg_type = SOCK_DIAG_BY_FAMILY,
			  .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP },
		.body = { .sdiag_family = (__u8)family, .sdiag_protocol = (__u8)protocol,
			  .idiag_states = ~0U },
		.attr = { .rta_type = INET_DIAG_REQ_BYTECODE },
	};
	size_t size = bound ? sizeof(filter_bound) : sizeof(filter_auto);
	static struct nlmsghdr buf[8192];
	ssize_t len;

	memcpy(request.filter, bound ? filter_bound : filter_auto, size);
	request.attr.rta_len = (unsigned short)(sizeof(request.attr) + size);
	request.head.nlmsg_len =
		(__u32)(sizeof(request) - sizeof(request.filter) + size);
	if (send(fd, &request, request.head.nlmsg_len, 0) < 0)
		return -errno;
	for (;;) {
		len = recv(fd, buf, sizeof(buf), MSG_TRUNC);
		if (len < 0)
			return -errno;
		if ((size_t)len > sizeof(buf))
			return -EMSGSIZE;
		for (struct nlmsghdr *h = buf; NLMSG_OK(h, (size_t)len);
		     h = NLMSG_NEXT(h, len)) {
			/* Both begin with an int: 0 or a negative errno. */
			if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR)
				return *(int *)NLMSG_DATA(h);
			if (h->nlmsg_type == SOCK_DIAG_BY_FAMILY)
				add_message(NLMSG_DATA(h), protocol, place, bound);
		}
	}
}

static void dump_protocol(int protocol, const char *name, int place)
{
	static const int families[] = { AF_INET, AF_INET6 };
	int problem = 0;

	for (int n = 0; n < 4; n++) {
		int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
		int result = fd < 0 ? -errno : dump(fd, families[n / 2], protocol, place, n % 2);

		problem = problem ?: result;
		if (fd >= 0)
			close(fd);
	}
	if (problem == -ENOENT)
		complain("the kernel does not list its %s sockets: modprobe %s_diag", name, name);
	else if (problem)
		complain("the kernel does not list its %s sockets: %s", name, strerror(-problem));
}

static void dump_all(int place)
{
	dump_protocol(IPPROTO_TCP, "tcp", place);
	dump_protocol(IPPROTO_UDP, "udp", place);
}

/* Network namespaces */

static int find_place(const struct stat *st)
{
	for (int n = 0; n < places.count; n++)
		if (places.at[n].inode == st->st_ino && places.at[n].dev == st->st_dev)
			return n;
	return -1;
}

/*
 * Gets the numbers of a file that need not be a namespace. Unlike fstat() this does not
 * wait for a FUSE that never answers. Returns 0, or -1 with errno.
 */
static int look_at_file(int fd, const char *path, struct stat *st)
{
	struct statx now;

	if (statx(fd, path, AT_STATX_DONT_SYNC | (*path ? 0 : AT_EMPTY_PATH), STATX_INO, &now))
		return -1;
	*st = (struct stat) { .st_dev = makedev(now.stx_dev_major, now.stx_dev_minor),
			      .st_ino = now.stx_ino };
	return 0;
}

/* List the sockets of the namespace of @fd, unless that was done before. */
static int visit(int fd, const char *name, pid_t pid)
{
	struct place *p;
	struct stat st;
	int n;

	if (fstat(fd, &st))
		return -1;
	n = find_place(&st);
	if (n < 0) {
		n = places.count;
		ADD(places, (struct place) { .dev = st.st_dev, .inode = st.st_ino });
		if (!n) {
			places.at[n].seen = true;
			dump_all(n);
		} else if (!setns(fd, CLONE_NEWNET)) {
			places.at[n].seen = true;
			dump_all(n);
			if (setns(own_namespace, CLONE_NEWNET))
				err(FAILED, "cannot return to my network namespace");
		} else if (errno == EPERM) {
			missing.namespaces++;
		} else {
			complain("cannot enter the network namespace net:[%ju]: %s",
				 (uintmax_t)st.st_ino, strerror(errno));
		}
	}
	p = &places.at[n];
	if (!p->name && name)
		p->name = format("%s", name);
	if (!p->pid)
		p->pid = pid;
	return n;
}

/*
 * Opens a namespace, and nothing else: a process may replace the file by another one at
 * any time, and opening a FIFO would wait, opening a device may do anything. All
 * namespaces are on one file system. Returns -1 with errno; ENOENT if it is another
 * file.
 */
static int open_namespace(const char *path)
{
	int file = open(path, O_PATH | O_CLOEXEC), fd = -1, error;
	struct stat st;
	char *name;

	if (file < 0)
		return -1;
	if (!look_at_file(file, "", &st) && st.st_dev == places.at[0].dev) {
		name = format("/proc/self/fd/%d", file);
		fd = open(name, O_RDONLY | O_CLOEXEC);
		error = errno;
		free(name);
	} else {
		error = ENOENT;
	}
	close(file);
	errno = error;
	return fd;
}

/* Returns 0 or an errno; a missing file is no error. */
static int visit_file(const char *path, const char *name, pid_t pid)
{
	struct stat st;
	int fd, n;

	if (!look_at_file(AT_FDCWD, path, &st)) {
		n = find_place(&st);
		if (n >= 0 && (!pid || places.at[n].pid) && (!name || places.at[n].name))
			return 0;
	}
	fd = open_namespace(path);
	if (fd < 0)
		return errno == ENOENT || errno == ESRCH ? 0 : errno;
	visit(fd, name, pid);
	close(fd);
	return 0;
}

/* Undo the escapes of mountinfo, such as \040 for a blank. */
static void unescape(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (text[0] == '\\' && isdigit(text[1]) && isdigit(text[2]) && isdigit(text[3])) {
			*to++ = (char)((text[1] & 7) << 6 | (text[2] & 7) << 3 | (text[3] & 7));
			text += 3;
		} else {
			*to++ = *text;
		}
	}
	*to = '\0';
}

/* Namespaces with a name are mounted: by ip-netns(8) or container engines. */
static void visit_mounted(void)
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char *line = NULL, path[PATH_MAX + 1];
	size_t size = 0;

	if (!f) {
		complain("/proc/self/mountinfo: %s", strerror(errno));
		return;
	}
	while (getline(&line, &size, f) > 0) {
		if (sscanf(line, "%*s %*s %*s net:[%*u] %4096s", path) != 1)
			continue;
		unescape(path);
		visit_file(path, strrchr(path, '/') + 1, 0);
	}
	free(line);
	fclose(f);
}

/* Processes */

static void set_address(const struct sockaddr_storage *from, struct in6_addr *to, in_port_t *port)
{
	const struct sockaddr_in6 *v6 = (const void *)from;
	const struct sockaddr_in *v4 = (const void *)from;

	if (from->ss_family == AF_INET)
		memcpy(to, &v4->sin_addr, sizeof(v4->sin_addr));
	else
		*to = v6->sin6_addr;
	*port = ntohs(v4->sin_port);
}

static int option(int fd, int level, int name)
{
	socklen_t len = sizeof(int);
	int value = -1;

	return getsockopt(fd, level, name, &value, &len) ? -1 : value;
}

static int tcp_state(int fd)
{
	struct tcp_info info = {};
	socklen_t len = sizeof(info);

	return getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) ? 0 : info.tcpi_state;
}

/*
 * Add a socket on port 0 of a process. Those that sock_diag has listed, too,
 * are merged later. A TCP socket that is bound and idle must have been bound by
 * bind().
 */
static void add_socket(int fd, pid_t pid)
{
	struct entry e = { .place = -1, .pins = UNKNOWN };
	socklen_t len = sizeof(e.device);
	struct sockaddr_storage addr;
	struct stat st;
	in_port_t port;
	int ns;

	e.family = option(fd, SOL_SOCKET, SO_DOMAIN);
	e.protocol = option(fd, SOL_SOCKET, SO_PROTOCOL);
	if (fstat(fd, &st))
		return;
	e.inode = st.st_ino;
	e.uid = st.st_uid;
	getsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, e.device, &len);
	len = sizeof(addr);
	if (!getsockname(fd, (struct sockaddr *)&addr, &len))
		set_address(&addr, &e.local, &port);
	e.state = e.protocol == IPPROTO_TCP ? tcp_state(fd) : TCP_CLOSE;
	len = sizeof(addr);
	if (!getpeername(fd, (struct sockaddr *)&addr, &len)) {
		set_address(&addr, &e.peer, &e.peer_port);
		if (e.protocol == IPPROTO_UDP)
			e.state = TCP_ESTABLISHED;
	}
	if (e.protocol == IPPROTO_UDP || e.state == TCP_CLOSE || e.state == TCP_LISTEN)
		e.pins = YES;
	if (e.protocol == IPPROTO_TCP && e.state == TCP_CLOSE)
		e.state = STATE_BOUND;

	ns = ioctl(fd, SIOCGSKNS);
	if (ns >= 0) {
		e.place = visit(ns, NULL, 0);
		close(ns);
	} else {
		/*
		 * SIOCGSKNS is not permitted; most probably it is in the namespace of
		 * its process.
		 */
		char *path = format("/proc/%d/ns/net", (int)pid);

		if (!stat(path, &st))
			e.place = find_place(&st);
		free(path);
	}
	ADD(entries, e);
}

/*
 * Returns 0 if the file is no socket. A path of /proc/self/fd is a link to its target
 * only as long as the descriptor is open.
 */
static ino_t socket_inode(int dir, const char *name)
{
	char target[64];
	uintmax_t inode;
	ssize_t len = readlinkat(dir, name, target, sizeof(target) - 1);

	if (len < 0)
		return 0;
	target[len] = '\0';
	return sscanf(target, "socket:[%ju]", &inode) == 1 ? (ino_t)inode : 0;
}

/*
 * The protocol of a socket can be read without its descriptor. The process may replace
 * the socket by another file at any time, such as one of a FUSE that never answers: so
 * what is looked at is held, and is a socket. Returns its inode, or 0 if it is no TCP or
 * UDP socket.
 */
static ino_t tcp_or_udp(int dir, const char *name)
{
	int file = openat(dir, name, O_PATH | O_CLOEXEC);
	char path[64], proto[32] = "";
	ino_t inode;
	bool known;

	if (file < 0)
		return 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
	inode = socket_inode(AT_FDCWD, path);
	known = inode && getxattr(path, "system.sockprotoname", proto, sizeof(proto) - 1) >= 0;
	if (inode && !known && errno != ENOTSUP)
		inode = 0;
	close(file);
	if (known && strcmp(proto, "TCP") && strcmp(proto, "TCPv6") &&
	    strcmp(proto, "UDP") && strcmp(proto, "UDPv6"))
		return 0;
	return inode;
}

/* Returns false if it could not be looked at. */
static bool look_at_socket(int pidfd, pid_t pid, int number, ino_t inode)
{
	int fd;

	ADD(owners, (struct owner) { .inode = inode, .pid = pid, .fd = number });
	if (pidfd < 0)
		return foreign_proc;	/* look_at_processes() has reported that */
	fd = (int)syscall(SYS_pidfd_getfd, pidfd, number, 0);
	if (fd < 0)
		return errno == EBADF || errno == ESRCH;
	if (option(fd, SOL_IP, IP_BOUND_PORT_ZERO) == 1)
		add_socket(fd, pid);
	close(fd);
	return true;
}

/*
 * Looks at one descriptor table; returns false if some of it could not be seen.
 */
static bool look_at_descriptors(const char *path, pid_t pid, int pidfd)
{
	DIR *dir = opendir(path);
	struct dirent *d;
	bool all = true;

	if (!dir)
		return errno == ENOENT || errno == ESRCH;
	while ((d = readdir(dir))) {
		char target[64], *file;
		ssize_t len;
		ino_t inode;

		if (!isdigit(d->d_name[0]))
			continue;
		len = readlinkat(dirfd(dir), d->d_name, target, sizeof(target) - 1);
		if (len < 0) {
			all &= errno == ENOENT;
			continue;
		}
		target[len] = '\0';
		if (!strncmp(target, "net:[", 5)) {
			file = format("%s/%s", path, d->d_name);
			all &= !visit_file(file, NULL, 0);
			free(file);
		} else if (!strncmp(target, "socket:[", 8)) {
			inode = tcp_or_udp(dirfd(dir), d->d_name);
			if (inode)
				all &= look_at_socket(pidfd, pid, atoi(d->d_name), inode);
		}
	}
	closedir(dir);
	return all;
}

static bool is_kernel_thread(pid_t pid)
{
	char text[512] = "", *path = format("/proc/%d/stat", (int)pid), *end;
	FILE *f = fopen(path, "re");
	unsigned int flags = 0;

	free(path);
	if (!f)
		return false;
	if (fgets(text, sizeof(text), f)) {
		end = strrchr(text, ')');
		if (end)
			sscanf(end + 1, " %*c %*d %*d %*d %*d %*d %u", &flags);
	}
	fclose(f);
	return flags & 0x00200000;	/* PF_KTHREAD */
}

/* A thread may have a network namespace, and a table of descriptors, of its own. */
static bool look_at_thread(pid_t pid, pid_t tid)
{
	char *ns = format("/proc/%d/task/%d/ns/net", (int)pid, (int)tid);
	char *fds = format("/proc/%d/task/%d/fd", (int)pid, (int)tid);
	bool all = !visit_file(ns, NULL, tid);

	/* In a foreign /proc, the numbers are those of other processes here. */
	if (tid == pid || foreign_proc || syscall(SYS_kcmp, pid, tid, KCMP_FILES, 0, 0) != 0) {
		int pidfd = foreign_proc ? -1 :
			(int)syscall(SYS_pidfd_open, tid, tid == pid ? 0 : PIDFD_THREAD);

		all &= look_at_descriptors(fds, pid, pidfd);
		if (pidfd >= 0)
			close(pidfd);
	}
	/* If it has ended meanwhile, the kernel may have said EACCES. */
	all |= access(fds, F_OK) < 0;
	free(ns);
	free(fds);
	return all;
}

static void look_at_process(pid_t pid)
{
	char *path = format("/proc/%d/task", (int)pid);
	DIR *dir = opendir(path);
	struct dirent *d;
	bool all = true;

	if (!dir)
		missing.processes += errno != ENOENT && errno != ESRCH;
	free(path);
	if (!dir)
		return;
	while ((d = readdir(dir)))
		if (isdigit(d->d_name[0]))
			all &= look_at_thread(pid, atoi(d->d_name));
	closedir(dir);
	if (!all && !is_kernel_thread(pid))
		missing.processes++;
}

/* The number of this process in /proc; 0 if it is not there */
static pid_t number_in_proc(void)
{
	char target[16] = "";

	return readlink("/proc/self", target, sizeof(target) - 1) > 0 ? atoi(target) : 0;
}

static void look_at_processes(void)
{
	pid_t self = number_in_proc();
	DIR *dir = opendir("/proc");
	struct dirent *d;

	if (!dir)
		err(FAILED, "/proc");
	foreign_proc = self != getpid();
	if (foreign_proc)
		complain("/proc is that of another PID namespace, so idle sockets are not found: mount it anew (unshare --mount-proc)");
	/* Every PID namespace has this process. */
	if (access("/proc/1", F_OK))
		complain("/proc does not show the processes of other users (mount option hidepid)%s",
			 geteuid() ? ": run it as root" : "");
	while ((d = readdir(dir)))
		if (isdigit(d->d_name[0]) && atoi(d->d_name) != self)
			look_at_process(atoi(d->d_name));
	closedir(dir);
}

/* Putting together */

/* By inode; of two with the same inode, the one from sock_diag first */
static int by_socket(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	if (x->inode != y->inode)
		return x->inode < y->inode ? -1 : 1;
	return (x->pins == UNKNOWN) - (y->pins == UNKNOWN) ?:
	       (x->state == STATE_BOUND) - (y->state == STATE_BOUND);
}

static int by_place(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;

	return x->place - y->place ?: x->protocol - y->protocol ?:
	       x->family - y->family ?: y->state - x->state ?:
	       memcmp(&x->local, &y->local, sizeof(x->local)) ?:
	       memcmp(&x->peer, &y->peer, sizeof(x->peer)) ?:
	       x->peer_port - y->peer_port;
}

static int by_owner(const void *a, const void *b)
{
	const struct owner *x = a, *y = b;

	if (x->inode != y->inode)
		return x->inode < y->inode ? -1 : 1;
	return x->pid - y->pid ?: x->fd - y->fd;
}

static void sort(void *at, int count, size_t size, int (*compare)(const void *, const void *))
{
	if (count)
		qsort(at, (size_t)count, size, compare);
}

static void remove_duplicates(void)
{
	int kept = 0;

	sort(entries.at, entries.count, sizeof(*entries.at), by_socket);
	for (int n = 0; n < entries.count; n++)
		if (!kept || !entries.at[n].inode ||
		    entries.at[n].inode != entries.at[kept - 1].inode)
			entries.at[kept++] = entries.at[n];
	entries.count = kept;
	sort(entries.at, entries.count, sizeof(*entries.at), by_place);

	/* Of threads that share a table, if kcmp() is refused */
	sort(owners.at, owners.count, sizeof(*owners.at), by_owner);
	kept = 0;
	for (int n = 0; n < owners.count; n++)
		if (!kept || by_owner(&owners.at[n], &owners.at[kept - 1]))
			owners.at[kept++] = owners.at[n];
	owners.count = kept;
}

static long references(void)
{
	FILE *f = fopen("/sys/module/port0/refcnt", "re");
	long count = -1;

	if (!f)
		return -1;
	if (fscanf(f, "%ld", &count) != 1)
		count = -1;
	fclose(f);
	return count;
}

/* In a chroot, /sys may be missing: the option exists as long as the module is loaded. */
static bool is_loaded(void)
{
	static const int families[] = { AF_INET, AF_INET6 };
	bool loaded = false;

	for (int n = 0; n < 2 && !loaded; n++) {
		int fd = socket(families[n], SOCK_DGRAM | SOCK_CLOEXEC, 0);

		loaded = option(fd, SOL_IP, IP_BIND_PORT_ZERO) >= 0;
		if (fd >= 0)
			close(fd);
	}
	return loaded;
}

/*
 * A running call that the module has redirected also counts, mostly for a moment: so look
 * more than once.
 */
static void count_unseen(void)
{
	long found = 0;

	for (int n = 0; n < entries.count; n++)
		found += entries.at[n].pins == YES;
	for (int n = 0; n < 5; n++) {
		missing.references = references();
		missing.unseen = missing.references - found;
		if (missing.unseen <= 0)
			break;
		usleep(20000);
	}
	if (missing.unseen < 0)
		missing.unseen = 0;
	missing.loaded = missing.references >= 0 || is_loaded();
	if (missing.loaded && missing.references < 0)
		complain("cannot read /sys/module/port0/refcnt, so it is unknown whether all sockets were found");
}

/* Output */

/* Names are chosen by users: they must not get to a terminal unescaped. */
static char *printable(const char *text)
{
	char *made = malloc(4 * strlen(text) + 1), *to = made;

	if (!made)
		err(FAILED, NULL);
	for (; *text; text++) {
		if (*text < ' ' || *text > '~' || *text == '\\')
			to += sprintf(to, "\\x%02x", (unsigned char)*text);
		else
			*to++ = *text;
	}
	*to = '\0';
	return made;
}

static void put_json(const char *text)
{
	char *safe;

	if (!text) {
		fputs("null", stdout);
		return;
	}
	safe = printable(text);
	putchar('"');
	for (const char *c = safe; *c; c++) {
		if (*c == '"' || *c == '\\')
			putchar('\\');
		putchar(*c);
	}
	putchar('"');
	free(safe);
}

static const char *user_name(uid_t uid)
{
	const struct passwd *user = getpwuid(uid);

	return user ? user->pw_name : NULL;
}

static char *command_name(pid_t pid)
{
	char *path = format("/proc/%d/comm", (int)pid), text[64] = "";
	FILE *f = fopen(path, "re");
	size_t len;

	free(path);
	if (!f)
		return format("?");
	len = fread(text, 1, sizeof(text) - 1, f);
	fclose(f);
	if (len && text[len - 1] == '\n')
		text[len - 1] = '\0';
	return format("%s", text);
}

static bool is_connected(const struct entry *e)
{
	return e->state != TCP_LISTEN && e->state != STATE_BOUND && e->state != TCP_CLOSE;
}

static const char *state_name(const struct entry *e)
{
	static const char *const names[] = {
		[TCP_ESTABLISHED] = "established", [TCP_SYN_SENT] = "syn-sent",
		[TCP_SYN_RECV] = "syn-recv", [TCP_FIN_WAIT1] = "fin-wait-1",
		[TCP_FIN_WAIT2] = "fin-wait-2", [TCP_TIME_WAIT] = "time-wait",
		[TCP_CLOSE] = "closed", [TCP_CLOSE_WAIT] = "close-wait",
		[TCP_LAST_ACK] = "last-ack", [TCP_LISTEN] = "listen",
		[TCP_CLOSING] = "closing", [12] = "syn-recv", [STATE_BOUND] = "bound",
	};

	if (e->protocol == IPPROTO_UDP)
		return e->state == TCP_ESTABLISHED ? "connected" : "bound";
	if (e->state <= 0 || e->state >= (int)(sizeof(names) / sizeof(*names)))
		return "unknown";
	return names[e->state];
}

static const char *protocol_name(const struct entry *e)
{
	return e->protocol == IPPROTO_TCP ? "tcp" : "udp";
}

static const char *address_text(const struct entry *e, const struct in6_addr *addr)
{
	static char text[INET6_ADDRSTRLEN];

	return inet_ntop(e->family, addr, text, sizeof(text)) ?: "?";
}

static char *end_text(const struct entry *e, const struct in6_addr *addr, in_port_t port,
		      const char *device)
{
	char *safe = printable(device), *text;

	text = format(e->family == AF_INET6 ? "[%s%s%s]:%u" : "%s%s%s:%u",
		      address_text(e, addr), *safe ? "%" : "", safe, (unsigned int)port);
	free(safe);
	return text;
}

static char *place_text(int place)
{
	const struct place *p = &places.at[place];

	if (place < 0)
		return format("?");
	if (!place)
		return format("this");
	if (p->name)
		return printable(p->name);
	return p->pid ? format("of %d", (int)p->pid) : format("net:[%ju]", (uintmax_t)p->inode);
}

/* The first owner of a socket; the others follow. */
static const struct owner *first_owner(ino_t inode)
{
	int low = 0, high = owners.count;

	while (inode && low < high) {
		int middle = (low + high) / 2;

		if (owners.at[middle].inode < inode)
			low = middle + 1;
		else
			high = middle;
	}
	if (!inode || low == owners.count || owners.at[low].inode != inode)
		return NULL;
	return &owners.at[low];
}

static bool is_owner(const struct owner *o, ino_t inode)
{
	return o && o < owners.at + owners.count && o->inode == inode;
}

static char *owners_text(const struct entry *e)
{
	const struct owner *o = first_owner(e->inode);
	char *text = format("");
	pid_t last = 0;

	if (!o && e->inode)
		return format("(no process seen)");
	if (!o)
		return format(e->state == TCP_ESTABLISHED || e->state == TCP_CLOSE_WAIT ||
			      e->state == TCP_SYN_RECV || e->state == 12 ?
			      "(not accepted)" : "(closed)");
	for (; is_owner(o, e->inode); o++) {
		char *name, *safe, *longer;

		if (o->pid == last)
			continue;
		name = command_name(o->pid);
		safe = printable(name);
		longer = format("%s%s%s[%d]", text, last ? ", " : "", safe, (int)o->pid);
		free(name);
		free(safe);
		free(text);
		text = longer;
		last = o->pid;
	}
	return text;
}

enum { COLUMNS = 8 };

static void print_table(void)
{
	static const char *const titles[COLUMNS] = {
		"PROTO", "STATE", "LOCAL", "PEER", "NETNS", "USER", "KEEPS", "PROCESS"
	};
	static const char *const answers[] = { [NO] = "no", [YES] = "yes", [UNKNOWN] = "?" };
	char *(*rows)[COLUMNS] = calloc((size_t)entries.count + 1, sizeof(*rows));
	int width[COLUMNS] = {};

	if (!rows)
		err(FAILED, NULL);
	for (int c = 0; c < COLUMNS; c++)
		rows[0][c] = format("%s", titles[c]);
	for (int n = 0; n < entries.count; n++) {
		const struct entry *e = &entries.at[n];
		const char *user = user_name(e->uid);
		char **row = rows[n + 1];

		row[0] = format("%s%s", protocol_name(e), e->family == AF_INET6 ? "6" : "");
		row[1] = format("%s", state_name(e));
		row[2] = end_text(e, &e->local, 0, e->device);
		row[3] = is_connected(e) ? end_text(e, &e->peer, e->peer_port, "") : format("-");
		row[4] = place_text(e->place);
		row[5] = user ? printable(user) : format("%u", e->uid);
		row[6] = format("%s", answers[e->pins]);
		row[7] = owners_text(e);
	}
	for (int n = 0; n <= entries.count; n++)
		for (int c = 0; c < COLUMNS - 1; c++)
			if (width[c] < (int)strlen(rows[n][c]))
				width[c] = (int)strlen(rows[n][c]);
	for (int n = 0; entries.count && n <= entries.count; n++)
		for (int c = 0; c < COLUMNS; c++)
			printf("%-*s%s", width[c], rows[n][c], c < COLUMNS - 1 ? "  " : "\n");
	for (int n = 0; n <= entries.count; n++)
		for (int c = 0; c < COLUMNS; c++)
			free(rows[n][c]);
	free(rows);
}

static void print_json_end(const char *name, const struct entry *e, const struct in6_addr *addr,
			   in_port_t port)
{
	printf("      \"%s\": {\"address\": \"%s\", \"port\": %u},\n", name,
	       address_text(e, addr), (unsigned int)port);
}

static void print_json_socket(const struct entry *e)
{
	static const char *const answers[] = { [NO] = "false", [YES] = "true", [UNKNOWN] = "null" };
	const struct place *p = e->place < 0 ? NULL : &places.at[e->place];
	const struct owner *o = first_owner(e->inode);
	const char *separator = "";

	printf("    {\n      \"protocol\": \"%s\",\n      \"family\": \"%s\",\n"
	       "      \"state\": \"%s\",\n", protocol_name(e),
	       e->family == AF_INET6 ? "ipv6" : "ipv4", state_name(e));
	print_json_end("local", e, &e->local, 0);
	if (is_connected(e))
		print_json_end("peer", e, &e->peer, e->peer_port);
	else
		printf("      \"peer\": null,\n");
	printf("      \"device\": ");
	put_json(*e->device ? e->device : NULL);
	if (p) {
		printf(",\n      \"netns\": {\"inode\": %ju, \"name\": ", (uintmax_t)p->inode);
		put_json(p->name);
		printf(", \"pid\": ");
		printf(p->pid ? "%d" : "null", (int)p->pid);
		printf(", \"this\": %s},\n", e->place ? "false" : "true");
	} else {
		printf(",\n      \"netns\": null,\n");
	}
	printf("      \"uid\": %u,\n      \"user\": ", e->uid);
	put_json(user_name(e->uid));
	printf(",\n      \"keeps_module\": %s,\n      \"processes\": [", answers[e->pins]);
	while (is_owner(o, e->inode)) {
		char *name = command_name(o->pid);
		pid_t pid = o->pid;

		printf("%s{\"pid\": %d, \"command\": ", separator, (int)pid);
		put_json(name);
		free(name);
		printf(", \"fds\": [%d", o->fd);
		while (is_owner(++o, e->inode) && o->pid == pid)
			printf(", %d", o->fd);
		printf("]}");
		separator = ", ";
	}
	printf("]\n    }");
}

static void print_json(void)
{
	printf("{\n  \"version\": \"%s\",\n  \"sockets\": [", VERSION);
	for (int n = 0; n < entries.count; n++) {
		fputs(n ? ",\n" : "\n", stdout);
		print_json_socket(&entries.at[n]);
	}
	printf("%s],\n  \"module\": {\"loaded\": %s, ", entries.count ? "\n  " : "",
	       missing.loaded ? "true" : "false");
	if (missing.loaded && missing.references < 0)
		printf("\"references\": null, \"unseen\": null},\n");
	else
		printf("\"references\": %ld, \"unseen\": %ld},\n",
		       missing.loaded ? missing.references : 0, missing.unseen);
	printf("  \"no_right\": {\"processes\": %d, \"namespaces\": %d}\n}\n",
	       missing.processes, missing.namespaces);
}

static int print_missing(void)
{
	if (!missing.loaded)
		warnx("the module port0 is not loaded");
	if (missing.processes || missing.namespaces)
		warnx("no right to look into %d process%s and %d other network namespace%s%s",
		      missing.processes, missing.processes == 1 ? "" : "es",
		      missing.namespaces, missing.namespaces == 1 ? "" : "s",
		      geteuid() ? ": run it as root" :
		      ", although root: a container or a security module forbids it");
	if (missing.unseen)
		warnx("%ld more socket%s the module loaded and %s not found%s", missing.unseen,
		      missing.unseen == 1 ? " keeps" : "s keep",
		      missing.unseen == 1 ? "was" : "were",
		      missing.processes || missing.namespaces ? "" :
		      ": in a message between processes, in an io_uring, or of a process that /proc does not show here");
	return missing.processes || missing.namespaces || missing.unseen || missing.failed ?
	       INCOMPLETE : COMPLETE;
}

/*
 * If a standard descriptor is closed, no socket or file may get its number, since
 * output would go there. /dev/null is opened in the wrong direction, so that using it
 * fails as on a closed one.
 */
static void reserve_standard(void)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0)
			open("/dev/null", fd ? O_RDONLY : O_WRONLY);
}

static int say(const char *text)
{
	if (fputs(text, stdout) < 0 || fflush(stdout))
		err(FAILED, "standard output");
	return 0;
}

int main(int argc, char **argv)
{
	enum { JSON = 1, HELP, VERSION_ };
	static const struct option options[] = {
		{ "json", no_argument, NULL, JSON },
		{ "help", no_argument, NULL, HELP },
		{ "version", no_argument, NULL, VERSION_ },
		{ }
	};
	bool json = false;
	int option;

	reserve_standard();
	while ((option = getopt_long(argc, argv, "", options, NULL)) > 0) {
		switch (option) {
		case JSON:
			json = true;
			break;
		case HELP:
			return say(usage);
		case VERSION_:
			return say("port0-ls " VERSION "\n");
		default:
			errx(FAILED, "see port0-ls --help");
		}
	}
	if (argv[optind])
		errx(FAILED, "unexpected argument '%s', see port0-ls --help",
		     printable(argv[optind]));

	own_namespace = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
	if (own_namespace < 0)
		err(FAILED, "/proc/self/ns/net: is /proc mounted?");
	visit(own_namespace, NULL, 0);
	visit_mounted();
	look_at_processes();
	remove_duplicates();
	count_unseen();

	if (json)
		print_json();
	else
		print_table();
	if (fflush(stdout) || ferror(stdout))
		err(FAILED, "standard output");
	return print_missing();
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Finds out why the kernel has refused port 0, as far as possible.
 *
 * EACCES and EPERM have many causes. The kernel checks in a known order: a
 * seccomp filter sees the call first, then security modules and BPF programs of
 * the control group see the address, and the privilege for ports below 1024 is
 * checked last. Binding an unmarked socket to port 0 is checked in the same
 * way, except for that privilege. So a second socket is bound to find out what
 * has refused the first.
 *
 * The library uses this, too: no memory is allocated and no lock is taken.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "refusal.h"

/**
 * text_add - add to a text, as far as there is room
 * @buf: the text
 * @size: of its memory
 * @text: what to add
 */
void text_add(char *buf, size_t size, const char *text)
{
	size_t old = strlen(buf), more = strlen(text);

	if (more > size - old - 1)
		more = size - old - 1;
	memcpy(buf + old, text, more);
	buf[old + more] = '\0';
}

/**
 * text_add_number - add a number to a text, as far as there is room
 * @buf: the text
 * @size: of its memory
 * @number: what to add
 */
void text_add_number(char *buf, size_t size, unsigned long long number)
{
	char digits[24] = "", *at = digits + sizeof(digits) - 1;

	do {
		*--at = (char)('0' + number % 10);
		number /= 10;
	} while (number);
	text_add(buf, size, at);
}

/* Binds another socket; returns 0 or the errno. */
static int try_bind(int domain, int type, int protocol, const struct sockaddr *addr, socklen_t len)
{
	int fd = (int)syscall(SYS_socket, domain, type | SOCK_CLOEXEC, protocol);
	int err;

	if (fd < 0)
		return 0;
	err = syscall(SYS_bind, fd, addr, len) ? errno : 0;
	close(fd);
	return err;
}

/*
 * If binding a Unix socket to an automatic name fails, it is because of a seccomp
 * filter.
 */
static bool filter_denies_bind(int err)
{
	struct sockaddr addr = { .sa_family = AF_UNIX };

	return prctl(PR_GET_SECCOMP, 0, 0, 0, 0) > 0 &&
	       try_bind(AF_UNIX, SOCK_DGRAM, 0, &addr, sizeof(addr.sa_family)) == err;
}

static bool has_capability(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[_LINUX_CAPABILITY_U32S_3] = { 0 };

	return !syscall(SYS_capget, &head, sets) &&
	       sets[0].effective & 1U << CAP_NET_BIND_SERVICE;
}

/* Read a short file; the text is empty if that fails. */
static void read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? 0 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	text[got > 0 ? got : 0] = '\0';
}

/* The label of this process in AppArmor or SELinux; empty if there is none */
static void read_label(char label[static 200])
{
	read_text("/proc/thread-self/attr/current", label, 200);
	label[strcspn(label, "\n")] = '\0';
	if (!strcmp(label, "unconfined"))
		label[0] = '\0';
}

static void add_module(char *buf, size_t size)
{
	char label[200];

	read_label(label);
	if (strchr(label, ':')) {
		text_add(buf, size, "a security module refuses the address: SELinux (this is ");
		text_add(buf, size, label);
		text_add(buf, size, "; ausearch -m avc says more) or the program's own Landlock sandbox");
	} else if (*label) {
		text_add(buf, size, "a security module refuses the address: AppArmor (this is ");
		text_add(buf, size, label);
		text_add(buf, size, "; dmesg says more) or the program's own Landlock sandbox");
	} else {
		text_add(buf, size, "a sandbox refuses the address (this is not about the right to ports below 1024): Landlock, set up by the program or by the one that started it");
	}
}

static void add_right(char *buf, size_t size, const struct attempt *attempt)
{
	if (has_capability()) {
		text_add(buf, size, "no right to ports below 1024: CAP_NET_BIND_SERVICE is there, but not in the user namespace that this network namespace belongs to; set net.ipv4.ip_unprivileged_port_start=0 in it");
		return;
	}
	text_add(buf, size, "no right to ports below 1024: ");
	if (attempt->was_root && geteuid())
		text_add(buf, size, "the program was root and has given it up before it binds. Let it keep the right (port0-run --keep-right), or start it as its user with the capability:");
	else
		text_add(buf, size, "run it as root, give it CAP_NET_BIND_SERVICE:");
	text_add(buf, size, " setpriv --reuid=USER --regid=GROUP --init-groups --inh-caps=+net_bind_service --ambient-caps=+net_bind_service port0-run ..., or set net.ipv4.ip_unprivileged_port_start=0");
}

static void add_mapping(char *buf, size_t size, const struct attempt *attempt)
{
	if (!attempt->asked)
		return;
	text_add(buf, size, ". You allowed port ");
	text_add_number(buf, size, (unsigned long)attempt->asked);
	text_add(buf, size, "? The kernel sees port 0");
}

/* The parameter of the module by which the administrator forbids it, or NULL */
static const char *forbidding_parameter(void)
{
	char text[64];

	read_text("/sys/module/port0/parameters/drain", text, sizeof(text));
	if (*text == 'Y')
		return "drain";
	read_text("/sys/module/port0/parameters/init_userns", text, sizeof(text));
	if (*text != 'Y')
		return NULL;
	/* The initial user namespace has all users. */
	read_text("/proc/self/uid_map", text, sizeof(text));
	return strstr(text, "4294967295") ? NULL : "init_userns";
}

/* If the administrator forbids it, add that. */
static bool add_administrator(char *buf, size_t size, int err)
{
	const char *name = err == EPERM ? forbidding_parameter() : NULL;

	if (!name)
		return false;
	text_add(buf, size, "the administrator forbids it, by the module's parameter ");
	text_add(buf, size, name);
	text_add(buf, size, *name == 'd' ? " (the module is to be unloaded)" :
		 " (only the initial user namespace may use port 0)");
	return true;
}

/* If the module could not hook a kernel function, add that. */
static bool add_hooking(char *buf, size_t size, int err)
{
	if (err == EBUSY)
		text_add(buf, size, "a livepatch, a kprobe or another module is on a kernel function that the module has to hook: dmesg names it");
	else if (err == EAGAIN)
		text_add(buf, size, "the module could not hook a kernel function now: dmesg names it, try again");
	return err == EBUSY || err == EAGAIN;
}

/**
 * refusal_of_bind - say why a marked socket did not get port 0
 * @buf: where to add the reason
 * @size: how long it may be
 * @err: the errno of bind(); one that the program understands adds nothing
 * @attempt: what was tried
 *
 * Context: any; safe in a signal handler; errno may change.
 */
void refusal_of_bind(char *buf, size_t size, int err, const struct attempt *attempt)
{
	int other;

	switch (err) {
	case EADDRINUSE:
		text_add(buf, size, "another socket has it on this address: see port0-ls");
		return;
	case ENOPROTOOPT:
		text_add(buf, size, "the module is not loaded any more (modprobe port0), or the socket is not plain TCP or UDP (for MPTCP: disable MPTCP)");
		return;
	case EACCES:
	case EPERM:
		break;
	default:
		add_hooking(buf, size, err);
		return;
	}
	other = try_bind(attempt->domain, attempt->type, attempt->protocol, attempt->addr,
			 attempt->len);
	if (add_administrator(buf, size, err)) {
		return;
	} else if (filter_denies_bind(err)) {
		text_add(buf, size, "a seccomp filter denies bind() altogether (systemd: SystemCallFilter=)");
	} else if (err == EACCES && other != EACCES) {
		add_right(buf, size, attempt);
	} else if (err == EACCES) {
		add_module(buf, size);
		text_add(buf, size, ". It needs a rule for port 0");
		add_mapping(buf, size, attempt);
	} else {
		text_add(buf, size, "a BPF program of its control group forbids it (systemd: SocketBindDeny=; SocketBindAllow=tcp:0 or udp:0 allows it, with systemd 252 tcp or udp without a port)");
		add_mapping(buf, size, attempt);
	}
}

/**
 * refusal_of_option - say why a socket could not be marked for port 0
 * @buf: where to add the reason
 * @size: how long it may be
 * @err: the errno of getsockopt() or setsockopt()
 *
 * Context: as refusal_of_bind().
 */
void refusal_of_option(char *buf, size_t size, int err)
{
	if (err == ENOPROTOOPT) {
		refusal_of_bind(buf, size, err, NULL);
		return;
	}
	if (add_hooking(buf, size, err) || add_administrator(buf, size, err))
		return;
	if (err == ENOMEM || err == ENODEV || err == EOPNOTSUPP) {
		text_add(buf, size, "the module could not hook a kernel function: dmesg has the reason");
		return;
	}
	text_add(buf, size, "getsockopt() or setsockopt() is refused, ");
	text_add(buf, size, prctl(PR_GET_SECCOMP, 0, 0, 0, 0) > 0 ?
		 "by a seccomp filter: it has to allow them (systemd: SystemCallFilter=@network-io)" :
		 "by a BPF program of the control group, or a security module");
	text_add(buf, size, ", or port0-run opens the sockets (--listen ADDR --fd)");
}

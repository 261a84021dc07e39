// SPDX-License-Identifier: GPL-2.0
/*
 * Finds out what on this machine has refused a call, as far as possible: the
 * call that failed narrows it down, and root can list the BPF programs of
 * control groups.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "port0-probe.h"

#define CGROUPS "/sys/fs/cgroup"

/* The number behind @name in /proc/self/status. */
static unsigned long long status(const char *name, int base)
{
	FILE *f = fopen("/proc/self/status", "re");
	unsigned long long value = 0;
	char line[256];

	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, name, strlen(name)) && line[strlen(name)] == ':')
			value = strtoull(line + strlen(name) + 1, NULL, base);
	}
	if (f)
		fclose(f);
	return value;
}

/* The right to bind ports below 1024, which includes port 0 */
bool may_bind_low(void)
{
	FILE *f = fopen("/proc/sys/net/ipv4/ip_unprivileged_port_start", "re");
	int start = 1024;

	if (f) {
		if (fscanf(f, "%d", &start) != 1)
			start = 1024;
		fclose(f);
	}
	return !start || status("CapEff", 16) >> CAP_NET_BIND_SERVICE & 1;
}

/*
 * The number of BPF programs of this type that are attached there; -1: not
 * permitted
 */
static int count_programs(const char *path, unsigned int type)
{
	union bpf_attr attr = { };
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	long rc;

	if (fd < 0)
		return -1;
	attr.query.target_fd = (unsigned int)fd;
	attr.query.attach_type = type;
	rc = syscall(__NR_bpf, BPF_PROG_QUERY, &attr, sizeof(attr));
	close(fd);
	/*
	 * With no room for the ids, the kernel returns an error and the number.
	 */
	return rc && errno != ENOSPC ? -1 : (int)attr.query.prog_cnt;
}

/*
 * The control group of this process, or a parent of it, that has such a program; "" if
 * none has, NULL if unknown
 */
static const char *group_with(const unsigned int *types, int count)
{
	static char path[4096];
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[4000] = "", *group = NULL;

	while (f && !group && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (!strncmp(line, "0::/", 4))
			group = line + 3;
	}
	if (f)
		fclose(f);
	if (!group)
		return NULL;
	for (;;) {
		snprintf(path, sizeof(path), CGROUPS "%s", group);
		for (int n = 0; n < count; n++) {
			int found = count_programs(path, types[n]);

			if (found < 0)
				return NULL;
			if (found)
				return *group ? path + strlen(CGROUPS) : "/";
		}
		if (!*group)
			return "";
		*strrchr(group, '/') = '\0';
	}
}

static const char *group_for(enum call call, const struct test *test)
{
	bool is6 = test->host.sa.sa_family == AF_INET6;
	unsigned int types[2];
	int count = 1;

	switch (call) {
	case SOCKET:
		types[0] = BPF_CGROUP_INET_SOCK_CREATE;
		break;
	case BIND:
		types[0] = is6 ? BPF_CGROUP_INET6_BIND : BPF_CGROUP_INET4_BIND;
		types[count++] = is6 ? BPF_CGROUP_INET6_POST_BIND : BPF_CGROUP_INET4_POST_BIND;
		break;
	case CONNECT:
		types[0] = is6 ? BPF_CGROUP_INET6_CONNECT : BPF_CGROUP_INET4_CONNECT;
		break;
	default:
		types[0] = BPF_CGROUP_INET_EGRESS;
	}
	return group_with(types, count);
}

/*
 * Stores in @why what has stopped @call with @err; 0: packets are not sent,
 * without an error.
 */
void blame(enum call call, int err, const struct test *test, char *why, size_t size)
{
	static const char *const names[] = { "socket()", "bind()", "connect()", "send()" };
	const char *group = err == EACCES ? "" : group_for(call, test);
	const char *seccomp = status("Seccomp", 10) ? " or seccomp" : "";
	char what[64] = "the packet is not sent", program[4200] = "a BPF program of a control group";

	if (err)
		snprintf(what, sizeof(what), "%s: %s", names[call], err == EPERM ? "EPERM" : "EACCES");
	if (group)
		snprintf(program, sizeof(program), "a BPF program of control group %s", group);
	make_printable(program);

	if (err == EACCES)
		snprintf(why, size, "%s: %s%s", what, test->source.sa.sa_family ?
			 "a security module (Landlock, SELinux, AppArmor)" :
			 "a route that prohibits it (see ip route get) or a security module", seccomp);
	else if (call == SEND && group && !*group)
		snprintf(why, size, "%s: this machine's firewall (nftables or iptables, output%s)", what,
			 err ? "" : "; or tc");
	else if (call == SEND)
		snprintf(why, size, "%s: this machine's firewall (nftables or iptables, output%s) or %s (systemd's IPAddressDeny=)",
			 what, err ? "" : "; or tc", program);
	else if (group && !*group)
		snprintf(why, size, "%s: a security module%s; no control group has a program for it",
			 what, seccomp);
	else
		snprintf(why, size, "%s: %s%s or a security module%s", what, program,
			 call == BIND ? " (systemd's SocketBindDeny=)" : "", seccomp);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Probes: what do the headers of the target kernel have?
 *
 * This file is compiled but never linked. Each function PROBE(NAME) below is a probe.
 * If the compiler reports no error in it, probes.awk writes this line to probed.h:
 *
 *	#define PORT0_HAVE_NAME 1
 *
 * The version of the kernel is not used, since distributions backport changes. There
 * is a probe for each known form of what differs. If a kernel has a form that is not
 * known, none of these is defined, and compat.h or buckets.h stops with an error.
 *
 * Where the answer is no, a probe must cause an error and not just a warning (they
 * are disabled): a name that is not declared, a missing member, a different type. The
 * code must not be in a macro, since the error would be reported at the macro's
 * definition.
 */
#include <linux/bpf-cgroup.h>
#include <linux/ftrace.h>
#include <linux/ipv6.h>
#include <net/inet_connection_sock.h>
#include <net/inet_hashtables.h>
#include <net/inet_sock.h>
#include <net/inet_timewait_sock.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/sock.h>
#include <net/inet_common.h>
#include <net/sock_reuseport.h>
#include <net/tcp.h>
#include <net/udp.h>

/*
 * Kbuild also preprocesses this file twice: with PORT0_PROBES_HEADERS, to learn which
 * headers it depends on, and with PORT0_PROBES_CHECK, to get the errors of compat.h
 * and buckets.h.
 */
#if defined(PORT0_PROBES_CHECK)
#include "buckets.h"
#elif !defined(PORT0_PROBES_HEADERS)

#define PROBE(name)	void port0_probe_##name(void);			\
			void port0_probe_##name(void)

/* One probe that must succeed and one that must fail: see probes.awk. */

PROBE(CONTROL_YES)
{
	(void)((struct sock *)0)->sk_flags;
}

PROBE(CONTROL_NO)
{
	(void)((struct sock *)0)->port0_no_such_member;
}

/* Kernels before 5.10 have none: see probes.awk. */
PROBE(SOCKPTR)
{
	(void)sizeof(sockptr_t);
}

/* The type of a socket address in proto_ops */

PROBE(SOCKADDR_PLAIN)
{
	int (*f)(struct socket *sock, struct sockaddr *uaddr, int len);

	_Static_assert(__builtin_types_compatible_p(typeof(f),
						    typeof(&inet_bind)), "");
}

PROBE(SOCKADDR_UNSIZED)
{
	int (*f)(struct socket *sock, struct sockaddr_unsized *uaddr, int len);

	_Static_assert(__builtin_types_compatible_p(typeof(f),
						    typeof(&inet_bind)), "");
}

/* The macro that runs a cgroup program on an address */

PROBE(SA_PROG_OLD)
{
	struct sock *sk = 0;
	void *addr = 0;

	BPF_CGROUP_RUN_SA_PROG(sk, addr, BPF_CGROUP_INET4_GETPEERNAME);
}

PROBE(SA_PROG_PLAIN)
{
	struct sock *sk = 0;
	void *addr = 0;

	BPF_CGROUP_RUN_SA_PROG(sk, addr, CGROUP_INET4_GETPEERNAME);
}

PROBE(SA_PROG_LEN)
{
	struct sock *sk = 0;
	void *addr = 0;
	int len;

	BPF_CGROUP_RUN_SA_PROG(sk, addr, &len, CGROUP_INET4_GETPEERNAME);
}

/*
 * The function that it calls, which is declared with CONFIG_CGROUP_BPF. Kernels have
 * added the parameter flags, then the length, and have changed the type of the attach
 * type. These are told apart, since a kernel can have only some of them backported.
 * Types that differ from what compat.h makes of that do not compile: see hooked.h.
 */

PROBE(CGROUP_SOCK_ADDR_BARE)
{
	struct sock *sk = 0;

	(void)__cgroup_bpf_run_filter_sock_addr(sk, 0, 0, 0);
}

PROBE(CGROUP_SOCK_ADDR_FLAGS)
{
	struct sock *sk = 0;

	(void)__cgroup_bpf_run_filter_sock_addr(sk, 0, 0, 0, 0);
}

PROBE(CGROUP_SOCK_ADDR_LEN)
{
	struct sock *sk = 0;

	(void)__cgroup_bpf_run_filter_sock_addr(sk, 0, 0, 0, 0, 0);
}

PROBE(CGROUP_ATTACH_TYPE)
{
	(void)sizeof(enum cgroup_bpf_attach_type);
}

/* ftrace. Some of these names are macros on some architectures. */

PROBE(FTRACE_FUNC_REGS)
{
	void (*f)(unsigned long ip, unsigned long parent_ip,
		  struct ftrace_ops *op, struct pt_regs *regs);

	_Static_assert(__builtin_types_compatible_p(typeof(f), ftrace_func_t),
		       "");
}

PROBE(FTRACE_FUNC_FREGS)
{
	void (*f)(unsigned long ip, unsigned long parent_ip,
		  struct ftrace_ops *op, struct ftrace_regs *fregs);

	_Static_assert(__builtin_types_compatible_p(typeof(f), ftrace_func_t),
		       "");
}

/* On arm64, a member of that name can be an array. */
PROBE(FTRACE_REGS_HAS_REGS)
{
	struct ftrace_regs *fregs = 0;

	_Static_assert(__builtin_types_compatible_p(struct pt_regs,
						    typeof(fregs->regs)), "");
}

PROBE(FTRACE_REGS_SET_IP)
{
#ifndef ftrace_regs_set_instruction_pointer
	(void)&ftrace_regs_set_instruction_pointer;
#endif
}

PROBE(FTRACE_REGS_ARGUMENT)
{
#ifndef ftrace_regs_get_argument
	(void)&ftrace_regs_get_argument;
#endif
}

PROBE(FTRACE_SET_FILTER_IPS)
{
	(void)&ftrace_set_filter_ips;
}

PROBE(FTRACE_RECURSION_SAFE)
{
	(void)FTRACE_OPS_FL_RECURSION_SAFE;
}

/* Sockets */

PROBE(SK_UID)
{
	kuid_t (*f)(const struct sock *sk);

	_Static_assert(__builtin_types_compatible_p(typeof(f),
						    typeof(&sk_uid)), "");
}

PROBE(SOCK_I_UID)
{
	kuid_t (*f)(struct sock *sk);

	_Static_assert(__builtin_types_compatible_p(typeof(f),
						    typeof(&sock_i_uid)), "");
}

PROBE(SNDFLOW_BIT)
{
	(void)inet6_test_bit(SNDFLOW, (struct sock *)0);
}

PROBE(SNDFLOW_MEMBER)
{
	(void)((struct ipv6_pinfo *)0)->sndflow;
}

PROBE(ADDR_VALID_OR_NONLOCAL)
{
	(void)&inet_addr_valid_or_nonlocal;
}

PROBE(BIND_NO_CAP)
{
	(void)BIND_NO_CAP_NET_BIND_SERVICE;
}

PROBE(CAN_NONLOCAL_BIND)
{
	(void)&inet_can_nonlocal_bind;
}

PROBE(REUSEPORT_CLOSED)
{
	(void)((struct sock_reuseport *)0)->num_closed_socks;
}

/* Where the hash tables are */

PROBE(PROTO_UDP_TABLE)
{
	struct udp_table **table = &((struct proto *)0)->h.udp_table;

	_Static_assert(__builtin_types_compatible_p(typeof(table),
		       typeof(&((struct proto *)0)->h.udp_table)), "");
}

PROBE(NETNS_UDP_TABLE)
{
	struct udp_table **table = &((struct net *)0)->ipv4.udp_table;

	_Static_assert(__builtin_types_compatible_p(typeof(table),
		       typeof(&((struct net *)0)->ipv4.udp_table)), "");
}

PROBE(DEATH_ROW_EMBEDDED)
{
	(void)((struct net *)0)->ipv4.tcp_death_row.hashinfo;
}

PROBE(DEATH_ROW_POINTER)
{
	(void)((struct net *)0)->ipv4.tcp_death_row->hashinfo;
}

/*
 * __inet_hash_connect(): kernels have changed the offset to 64 bits, then added
 * rcu_lookup, then the hash of the 4-tuple with local port 0.
 */

PROBE(HASH_CONNECT_U32)
{
	int (*f)(struct inet_timewait_death_row *death_row, struct sock *sk,
		 u32 port_offset,
		 int (*check)(struct inet_timewait_death_row *row,
			      struct sock *sk, __u16 lport,
			      struct inet_timewait_sock **twp));

	_Static_assert(__builtin_types_compatible_p(typeof(f),
		       typeof(&__inet_hash_connect)), "");
}

PROBE(HASH_CONNECT_U64)
{
	int (*f)(struct inet_timewait_death_row *death_row, struct sock *sk,
		 u64 port_offset,
		 int (*check)(struct inet_timewait_death_row *row,
			      struct sock *sk, __u16 lport,
			      struct inet_timewait_sock **twp));

	_Static_assert(__builtin_types_compatible_p(typeof(f),
		       typeof(&__inet_hash_connect)), "");
}

PROBE(HASH_CONNECT_RCU)
{
	int (*f)(struct inet_timewait_death_row *death_row, struct sock *sk,
		 u64 port_offset,
		 int (*check)(struct inet_timewait_death_row *row,
			      struct sock *sk, __u16 lport,
			      struct inet_timewait_sock **twp,
			      bool rcu_lookup));

	_Static_assert(__builtin_types_compatible_p(typeof(f),
		       typeof(&__inet_hash_connect)), "");
}

PROBE(HASH_CONNECT_HASH)
{
	int (*f)(struct inet_timewait_death_row *death_row, struct sock *sk,
		 u64 port_offset, u32 hash_port0,
		 int (*check)(struct inet_timewait_death_row *row,
			      struct sock *sk, __u16 lport,
			      struct inet_timewait_sock **twp,
			      bool rcu_lookup, u32 hash));

	_Static_assert(__builtin_types_compatible_p(typeof(f),
		       typeof(&__inet_hash_connect)), "");
}

/* Bind buckets: see buckets.h. */

PROBE(TB_OWNERS)
{
	(void)((struct inet_bind_bucket *)0)->owners.first;
}

PROBE(TB_BHASH2)
{
	(void)((struct inet_bind_bucket *)0)->bhash2.first;
}

PROBE(TB2)
{
	(void)sizeof(struct inet_bind2_bucket);
}

PROBE(TB2_OWNERS)
{
	(void)((struct inet_bind2_bucket *)0)->owners.first;
}

PROBE(TB2_DEATHROW)
{
	(void)((struct inet_bind2_bucket *)0)->deathrow.first;
}

PROBE(TB2_BHASH_NODE)
{
	(void)((struct inet_bind2_bucket *)0)->bhash_node.next;
}

PROBE(TB2_FAMILY)
{
	(void)((struct inet_bind2_bucket *)0)->family;
}

PROBE(TB2_ADDR_TYPE)
{
	(void)((struct inet_bind2_bucket *)0)->addr_type;
}

PROBE(TB2_FASTREUSE)
{
	(void)((struct inet_bind2_bucket *)0)->fastreuseport;
}

PROBE(CSK_BIND2_HASH)
{
	(void)((struct inet_connection_sock *)0)->icsk_bind2_hash->node;
}

/* Kernels that have it in a header do not use UDP's second table for wildcards. */
PROBE(USE_HASH2_ON_BIND)
{
	bool (*f)(const struct sock *sk);

	_Static_assert(__builtin_types_compatible_p(typeof(f),
		       typeof(&inet_use_hash2_on_bind)), "");
}

#endif

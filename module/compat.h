/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Differences between kernels, except for bind buckets (buckets.h). PORT0_HAVE_* are
 * what probes.c has found in the kernel's headers; nothing in the module tests for a
 * version. A function that a kernel lacks is defined under the kernel's own name.
 *
 * checkpatch complains about the typedefs and about parameter lists in macros. They
 * are the only way to name a type or a signature that differs between kernels.
 */
#ifndef _PORT0_COMPAT_H
#define _PORT0_COMPAT_H

#include <linux/bpf-cgroup.h>
#include <linux/ftrace.h>
#include <linux/irq_work.h>
#include <net/inet_hashtables.h>
#include <net/inet_timewait_sock.h>
#include <net/ipv6.h>
#include <net/sock.h>
#include <net/sock_reuseport.h>
#include <net/udp.h>

#include "probed.h"

#ifndef CONFIG_64BIT
#error "port0 is for 64-bit kernels"
#endif
#ifndef CONFIG_KPROBES
#error "port0 needs a kernel with CONFIG_KPROBES"
#endif
#ifndef CONFIG_NETFILTER
#error "port0 needs a kernel with CONFIG_NETFILTER"
#endif
/*
 * Without it, try_module_get() takes no reference and is no memory barrier; the module
 * relies on both.
 */
#ifndef CONFIG_MODULE_UNLOAD
#error "port0 needs a kernel with CONFIG_MODULE_UNLOAD"
#endif

/* The type of a socket address in proto_ops. */
#if defined(PORT0_HAVE_SOCKADDR_UNSIZED)
typedef struct sockaddr_unsized port0_sockaddr_t;
#elif defined(PORT0_HAVE_SOCKADDR_PLAIN)
typedef struct sockaddr port0_sockaddr_t;
#else
#error "this kernel's inet_bind() is new to port0: please report it"
#endif

/*
 * Run a cgroup program on an address. On newer kernels, the program can change the
 * length of the address, too, which @len points to.
 */
#if defined(PORT0_HAVE_SA_PROG_LEN)
#define port0_cgroup_run_sa_prog(sk, uaddr, len, type)			\
	BPF_CGROUP_RUN_SA_PROG(sk, uaddr, len, type)
#elif defined(PORT0_HAVE_SA_PROG_PLAIN)
#define port0_cgroup_run_sa_prog(sk, uaddr, len, type)			\
	BPF_CGROUP_RUN_SA_PROG(sk, uaddr, type)
#elif defined(PORT0_HAVE_SA_PROG_OLD)
#define port0_cgroup_run_sa_prog(sk, uaddr, len, type)			\
	BPF_CGROUP_RUN_SA_PROG(sk, uaddr, BPF_##type)
#else
#error "this kernel's BPF_CGROUP_RUN_SA_PROG() is new to port0: please report it"
#endif

/*
 * ftrace can redirect a call if its callbacks may change the instruction pointer.
 * Without DYNAMIC_FTRACE_WITH_ARGS, ftrace_regs_set_instruction_pointer() may exist and
 * do nothing. So struct pt_regs is used where there is one.
 */
#if defined(CONFIG_DYNAMIC_FTRACE_WITH_ARGS) ||				\
	defined(CONFIG_DYNAMIC_FTRACE_WITH_REGS)

#if defined(PORT0_HAVE_FTRACE_FUNC_REGS)

#define PORT0_HAVE_FTRACE
typedef struct pt_regs port0_fregs_t;
#define port0_ftrace_set_ip(regs, ip)	instruction_pointer_set(regs, ip)
#define port0_ftrace_arg(regs, n)	regs_get_kernel_argument(regs, n)

#elif defined(PORT0_HAVE_FTRACE_REGS_HAS_REGS)

#define PORT0_HAVE_FTRACE
typedef struct ftrace_regs port0_fregs_t;
#define port0_ftrace_set_ip(fregs, ip)					\
	instruction_pointer_set(&(fregs)->regs, ip)
#define port0_ftrace_arg(fregs, n)					\
	regs_get_kernel_argument(&(fregs)->regs, n)

#elif defined(CONFIG_DYNAMIC_FTRACE_WITH_ARGS) &&			\
	defined(PORT0_HAVE_FTRACE_REGS_SET_IP) &&			\
	defined(PORT0_HAVE_FTRACE_REGS_ARGUMENT)

#define PORT0_HAVE_FTRACE
typedef struct ftrace_regs port0_fregs_t;
#define port0_ftrace_set_ip(fregs, ip)					\
	ftrace_regs_set_instruction_pointer(fregs, ip)
#define port0_ftrace_arg(fregs, n)	ftrace_regs_get_argument(fregs, n)

#elif !defined(PORT0_HAVE_FTRACE_FUNC_FREGS)
#error "this kernel's ftrace_func_t is new to port0: please report it"
#endif

#endif /* CONFIG_DYNAMIC_FTRACE_WITH_ARGS || CONFIG_DYNAMIC_FTRACE_WITH_REGS */

#if defined(PORT0_HAVE_FTRACE) && !defined(PORT0_HAVE_FTRACE_SET_FILTER_IPS)
/* Adds or removes all or none, like the kernel's, by one call for each address. */
static inline int ftrace_set_filter_ips(struct ftrace_ops *ops,
					unsigned long *ips, unsigned int cnt,
					int remove, int reset)
{
	unsigned int i;
	int err;

	for (i = 0; i < cnt; i++) {
		err = ftrace_set_filter_ip(ops, ips[i], remove, reset && !i);
		if (err)
			goto err_undo;
	}
	return 0;

err_undo:
	while (i-- > 0)
		ftrace_set_filter_ip(ops, ips[i], !remove, 0);
	return err;
}
#endif

#ifdef PORT0_HAVE_FTRACE
/*
 * Older kernels do not export ftrace_free_filter(), which no header shows, so it is
 * looked up at run time. Without it, ftrace_set_filter() resets the filter, which may
 * fail for lack of memory.
 */
static inline void port0_ftrace_free_filter(struct ftrace_ops *ops)
{
	void (*free_filter)(struct ftrace_ops *ops) =
		symbol_get(ftrace_free_filter);

	if (!free_filter) {
		ftrace_set_filter(ops, NULL, 0, 1);
		return;
	}
	free_filter(ops);
	symbol_put(ftrace_free_filter);
}
#endif

/* Without this flag, older kernels add a recursion guard that is not needed here. */
#ifdef PORT0_HAVE_FTRACE_RECURSION_SAFE
#define PORT0_FTRACE_OPS_FLAGS		FTRACE_OPS_FL_RECURSION_SAFE
#else
#define PORT0_FTRACE_OPS_FLAGS		0
#endif

/*
 * Runs in hard interrupt context, on PREEMPT_RT too: there irq_work_sync() can wait for
 * it on every kernel.
 */
#ifdef IRQ_WORK_INIT_HARD
#define PORT0_IRQ_WORK_INIT(func)	IRQ_WORK_INIT_HARD(func)
#else
#define PORT0_IRQ_WORK_INIT(_func)					\
	((struct irq_work){ .flags = ATOMIC_INIT(IRQ_WORK_HARD_IRQ),	\
			    .func = (_func) })
#endif

/*
 * The amount that the handler of a breakpoint adds to preempt_count(), if it counts as
 * an NMI
 */
#ifdef CONFIG_X86
#define PORT0_BREAKPOINT_OFFSET		(NMI_OFFSET + HARDIRQ_OFFSET)
#else
#define PORT0_BREAKPOINT_OFFSET		0
#endif

static inline kuid_t port0_sk_uid(const struct sock *sk)
{
#if defined(PORT0_HAVE_SK_UID)
	return sk_uid(sk);
#elif defined(PORT0_HAVE_SOCK_I_UID)
	return sock_i_uid((struct sock *)sk);
#else
#error "this kernel's sk_uid() is new to port0: please report it"
#endif
}

/* Tell whether listeners have left a SO_REUSEPORT group that had connections. */
static inline bool port0_group_has_closed(const struct sock_reuseport *group)
{
#ifdef PORT0_HAVE_REUSEPORT_CLOSED
	return READ_ONCE(group->num_closed_socks);
#else
	return false;
#endif
}

static inline bool port0_ipv6_sndflow(const struct sock *sk)
{
#if defined(PORT0_HAVE_SNDFLOW_BIT)
	return inet6_test_bit(SNDFLOW, sk);
#elif defined(PORT0_HAVE_SNDFLOW_MEMBER)
	return inet6_sk(sk)->sndflow;
#else
#error "this kernel's IPV6_FLOWINFO_SEND is new to port0: please report it"
#endif
}

#ifndef PORT0_HAVE_ADDR_VALID_OR_NONLOCAL
static inline bool inet_addr_valid_or_nonlocal(struct net *net,
					       struct inet_sock *inet,
					       __be32 addr, int type)
{
	return inet_can_nonlocal_bind(net, inet) || addr == htonl(INADDR_ANY) ||
	       type == RTN_LOCAL || type == RTN_MULTICAST ||
	       type == RTN_BROADCAST;
}
#endif

/* A flag of __inet_bind(), from cgroup programs that grant the privilege */
#ifndef PORT0_HAVE_BIND_NO_CAP
#define BIND_NO_CAP_NET_BIND_SERVICE	0
#endif

/* The hash tables of TCP */
static inline struct inet_hashinfo *port0_hashinfo(const struct sock *sk)
{
#if defined(PORT0_HAVE_DEATH_ROW_EMBEDDED)
	return sock_net(sk)->ipv4.tcp_death_row.hashinfo;
#elif defined(PORT0_HAVE_DEATH_ROW_POINTER)
	return sock_net(sk)->ipv4.tcp_death_row->hashinfo;
#else
#error "this kernel's netns_ipv4 is new to port0: please report it"
#endif
}

static inline struct udp_table *port0_udp_table_of(struct net *net)
{
	struct udp_table *table = NULL;

#if !defined(PORT0_HAVE_PROTO_UDP_TABLE) && !defined(PORT0_HAVE_NETNS_UDP_TABLE)
#error "this kernel's udp_table is new to port0: please report it"
#endif
#ifdef PORT0_HAVE_PROTO_UDP_TABLE
	table = udp_prot.h.udp_table;
#endif
#ifdef PORT0_HAVE_NETNS_UDP_TABLE
	if (!table)
		table = net->ipv4.udp_table;
#endif
	return table;
}

static inline struct udp_table *port0_udp_table(const struct sock *sk)
{
	return port0_udp_table_of(sock_net(sk));
}

/*
 * The parameters of __inet_hash_connect(), and of its parameter check_established,
 * which claims a 4-tuple. hash_port0, where the kernel has it, is the hash of the
 * 4-tuple with local port 0.
 */
#if defined(PORT0_HAVE_HASH_CONNECT_HASH)
#define PORT0_CHECK_PARAMS		, bool, u32
#define PORT0_CHECK_ARGS		, false, hash_port0
#define PORT0_OFFSET_PARAMS		u64 port_offset, u32 hash_port0
#define PORT0_OFFSET_ARGS		port_offset, hash_port0
#elif defined(PORT0_HAVE_HASH_CONNECT_RCU)
#define PORT0_CHECK_PARAMS		, bool
#define PORT0_CHECK_ARGS		, false
#define PORT0_OFFSET_PARAMS		u64 port_offset
#define PORT0_OFFSET_ARGS		port_offset
#elif defined(PORT0_HAVE_HASH_CONNECT_U64)
#define PORT0_CHECK_PARAMS
#define PORT0_CHECK_ARGS
#define PORT0_OFFSET_PARAMS		u64 port_offset
#define PORT0_OFFSET_ARGS		port_offset
#elif defined(PORT0_HAVE_HASH_CONNECT_U32)
#define PORT0_CHECK_PARAMS
#define PORT0_CHECK_ARGS
#define PORT0_OFFSET_PARAMS		u32 port_offset
#define PORT0_OFFSET_ARGS		port_offset
#else
#error "this kernel's __inet_hash_connect() is new to port0: please report it"
#endif
typedef int (*port0_check_established_t)(struct inet_timewait_death_row *,
					 struct sock *, __u16,
					 struct inet_timewait_sock **
					 PORT0_CHECK_PARAMS);
#define PORT0_HASH_CONNECT_PARAMS					\
	struct inet_timewait_death_row *death_row, struct sock *sk,	\
	PORT0_OFFSET_PARAMS, port0_check_established_t check_established
#define PORT0_HASH_CONNECT_ARGS						\
	death_row, sk, PORT0_OFFSET_ARGS, check_established
#define port0_check_established()					\
	check_established(death_row, sk, 0, NULL PORT0_CHECK_ARGS)

/* The parameters of __cgroup_bpf_run_filter_sock_addr(), with CONFIG_CGROUP_BPF */
#ifdef PORT0_HAVE_CGROUP_ATTACH_TYPE
#define PORT0_ATTACH_TYPE		enum cgroup_bpf_attach_type
#else
#define PORT0_ATTACH_TYPE		enum bpf_attach_type
#endif
#if defined(PORT0_HAVE_CGROUP_SOCK_ADDR_LEN)
#define PORT0_CGROUP_SOCK_ADDR_PARAMS					\
	struct sock *sk, port0_sockaddr_t *uaddr, int *uaddrlen,	\
	PORT0_ATTACH_TYPE atype, void *t_ctx, u32 *flags
#define PORT0_CGROUP_SOCK_ADDR_ARGS					\
	sk, uaddr, uaddrlen, atype, t_ctx, flags
#elif defined(PORT0_HAVE_CGROUP_SOCK_ADDR_FLAGS)
#define PORT0_CGROUP_SOCK_ADDR_PARAMS					\
	struct sock *sk, port0_sockaddr_t *uaddr,			\
	PORT0_ATTACH_TYPE atype, void *t_ctx, u32 *flags
#define PORT0_CGROUP_SOCK_ADDR_ARGS	sk, uaddr, atype, t_ctx, flags
#elif defined(PORT0_HAVE_CGROUP_SOCK_ADDR_BARE)
#define PORT0_CGROUP_SOCK_ADDR_PARAMS					\
	struct sock *sk, port0_sockaddr_t *uaddr,			\
	PORT0_ATTACH_TYPE atype, void *t_ctx
#define PORT0_CGROUP_SOCK_ADDR_ARGS	sk, uaddr, atype, t_ctx
#elif defined(CONFIG_CGROUP_BPF)
#error "this kernel's __cgroup_bpf_run_filter_sock_addr() is new to port0: please report it"
#endif

#endif /* _PORT0_COMPAT_H */

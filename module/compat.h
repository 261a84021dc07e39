/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The one room for what differs between kernels. PORT0_HAVE_* are header
 * probes made in Kbuild; nothing else in the module asks how old a kernel is.
 *
 * checkpatch dislikes the typedefs and the parameter lists in macros: a type or
 * a signature that differs between kernels has no other name to go by.
 */
#ifndef _PORT0_COMPAT_H
#define _PORT0_COMPAT_H

#include <linux/bpf-cgroup.h>
#include <linux/ftrace.h>
#include <net/inet_hashtables.h>
#include <net/inet_timewait_sock.h>
#include <net/ipv6.h>
#include <net/sock.h>
#include <net/udp.h>

/* The type of a socket address in proto_ops. */
#ifdef PORT0_HAVE_SOCKADDR_UNSIZED
typedef struct sockaddr_unsized port0_sockaddr_t;
#else
typedef struct sockaddr port0_sockaddr_t;
#endif

/* The flags of a cgroup program on addresses, before and after it could change
 * their length. @len points to the length where the kernel wants it.
 */
#ifdef PORT0_HAVE_BPF_UADDRLEN
#define port0_cgroup_run_sa_prog(sk, uaddr, len, type)			\
	BPF_CGROUP_RUN_SA_PROG(sk, uaddr, len, type)
#else
#define port0_cgroup_run_sa_prog(sk, uaddr, len, type)			\
	BPF_CGROUP_RUN_SA_PROG(sk, uaddr, type)
#endif

/* Without either, ftrace has nothing to redirect a call with. */
#if defined(CONFIG_DYNAMIC_FTRACE_WITH_ARGS) ||				\
	defined(CONFIG_DYNAMIC_FTRACE_WITH_REGS)
#define PORT0_HAVE_FTRACE

static inline void port0_ftrace_set_ip(struct ftrace_regs *fregs,
				       unsigned long ip)
{
#ifdef PORT0_HAVE_FTRACE_REGS_SET_IP
	ftrace_regs_set_instruction_pointer(fregs, ip);
#else
	/* Not ftrace_instruction_pointer_set(), which does nothing on some. */
	instruction_pointer_set(&fregs->regs, ip);
#endif
}

#ifdef PORT0_HAVE_FTRACE_REGS_SET_IP
#define port0_ftrace_arg(fregs, n)	ftrace_regs_get_argument(fregs, n)
#else
#define port0_ftrace_arg(fregs, n)	\
	regs_get_kernel_argument(&(fregs)->regs, n)
#endif

#endif /* PORT0_HAVE_FTRACE */

/* What a breakpoint adds to preempt_count(), if it counts as an NMI at all. */
#ifdef CONFIG_X86
#define PORT0_BREAKPOINT_OFFSET		(NMI_OFFSET + HARDIRQ_OFFSET)
#else
#define PORT0_BREAKPOINT_OFFSET		0
#endif

static inline kuid_t port0_sk_uid(const struct sock *sk)
{
#ifdef PORT0_HAVE_SK_UID
	return sk_uid(sk);
#else
	return sock_i_uid((struct sock *)sk);
#endif
}

static inline bool port0_ipv6_sndflow(const struct sock *sk)
{
#ifdef PORT0_HAVE_SNDFLOW_BIT
	return inet6_test_bit(SNDFLOW, sk);
#else
	return inet6_sk(sk)->sndflow;
#endif
}

static inline struct udp_table *port0_udp_table_of(struct net *net)
{
	struct udp_table *table = NULL;

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

/* __inet_hash_connect() and the function it is handed to claim a 4-tuple. */
#ifdef PORT0_HAVE_HASH_PORT0
typedef int (*port0_check_established_t)(struct inet_timewait_death_row *,
					 struct sock *, __u16,
					 struct inet_timewait_sock **,
					 bool rcu_lookup, u32 hash);
#define PORT0_HASH_CONNECT_PARAMS					\
	struct inet_timewait_death_row *death_row, struct sock *sk,	\
	u64 port_offset, u32 hash_port0,				\
	port0_check_established_t check_established
#define PORT0_HASH_CONNECT_ARGS						\
	death_row, sk, port_offset, hash_port0, check_established
/* The hash of port 0 is the hash it starts from. */
#define port0_check_established()					\
	check_established(death_row, sk, 0, NULL, false, hash_port0)
#else
typedef int (*port0_check_established_t)(struct inet_timewait_death_row *,
					 struct sock *, __u16,
					 struct inet_timewait_sock **);
#define PORT0_HASH_CONNECT_PARAMS					\
	struct inet_timewait_death_row *death_row, struct sock *sk,	\
	u64 port_offset, port0_check_established_t check_established
#define PORT0_HASH_CONNECT_ARGS						\
	death_row, sk, port_offset, check_established
#define port0_check_established()					\
	check_established(death_row, sk, 0, NULL)
#endif

/* __cgroup_bpf_run_filter_sock_addr(), which is there with CONFIG_CGROUP_BPF */
#ifdef PORT0_HAVE_BPF_UADDRLEN
#define PORT0_CGROUP_SOCK_ADDR_PARAMS					\
	struct sock *sk, port0_sockaddr_t *uaddr, int *uaddrlen,	\
	enum cgroup_bpf_attach_type atype, void *t_ctx, u32 *flags
#define PORT0_CGROUP_SOCK_ADDR_ARGS					\
	sk, uaddr, uaddrlen, atype, t_ctx, flags
#else
#define PORT0_CGROUP_SOCK_ADDR_PARAMS					\
	struct sock *sk, port0_sockaddr_t *uaddr,			\
	enum cgroup_bpf_attach_type atype, void *t_ctx, u32 *flags
#define PORT0_CGROUP_SOCK_ADDR_ARGS	sk, uaddr, atype, t_ctx, flags
#endif

/*
 * TCP bind buckets. A bucket (tb) stands for a port in a namespace and a
 * second-level bucket (tb2) for a port and an address. Older kernels hang a
 * socket on both and keep TIME_WAIT sockets of a tb2 on a list of their own;
 * newer ones hang every socket on its tb2 alone, and the tb2s on the tb.
 * port0_tb_any() and port0_tb2_any() look for a socket that conflicts in one. They
 * are inlined with the test, since a call for each socket would double the price.
 */
struct port0_bidder;
typedef bool (*port0_conflict_t)(const struct port0_bidder *bidder,
				 struct sock *sk2);

#ifdef PORT0_HAVE_TB2_OWNERS_ONLY

static inline bool port0_tb_is_empty(const struct inet_bind_bucket *tb)
{
	return hlist_empty(&tb->bhash2);
}

static inline void port0_tb_init_owners(struct inet_bind_bucket *tb)
{
	INIT_HLIST_HEAD(&tb->bhash2);
}

/* Mirrors inet_bind2_bucket_init(). */
static inline void port0_tb2_init_owners(struct inet_bind2_bucket *tb2,
					 struct inet_bind_bucket *tb,
					 const struct sock *sk)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6) {
		tb2->addr_type = ipv6_addr_type(&sk->sk_v6_rcv_saddr);
		tb2->v6_rcv_saddr = sk->sk_v6_rcv_saddr;
	} else {
		tb2->addr_type = IPV6_ADDR_MAPPED;
		ipv6_addr_set_v4mapped(sk->sk_rcv_saddr, &tb2->v6_rcv_saddr);
	}
#else
	tb2->rcv_saddr = sk->sk_rcv_saddr;
#endif
#ifdef PORT0_HAVE_TB2_FASTREUSE
	tb2->fastreuse = 0;
	tb2->fastreuseport = 0;
#endif
	INIT_HLIST_HEAD(&tb2->owners);
	hlist_add_head(&tb2->bhash_node, &tb->bhash2);
}

/* Mirrors inet_bind2_bucket_addr_match(). */
static inline bool port0_tb2_addr_match(const struct inet_bind2_bucket *tb2,
					const struct sock *sk)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6)
		return ipv6_addr_equal(&tb2->v6_rcv_saddr,
				       &sk->sk_v6_rcv_saddr);
	if (tb2->addr_type != IPV6_ADDR_MAPPED)
		return false;
#endif
	return tb2->rcv_saddr == sk->sk_rcv_saddr;
}

/* The IPv6 address of a tb2, that of an IPv4 one mapped. */
static inline struct in6_addr port0_tb2_addr(const struct inet_bind2_bucket *tb2)
{
#if IS_ENABLED(CONFIG_IPV6)
	return tb2->v6_rcv_saddr;
#else
	struct in6_addr addr;

	ipv6_addr_set_v4mapped(tb2->rcv_saddr, &addr);
	return addr;
#endif
}

/* Mirrors inet_bind2_bucket_match_addr_any(), the address part. */
static inline bool port0_tb2_addr_any(const struct inet_bind2_bucket *tb2,
				      const struct sock *sk)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (tb2->addr_type == IPV6_ADDR_ANY)
		return true;
	if (tb2->addr_type != IPV6_ADDR_MAPPED)
		return false;
	if (sk->sk_family == AF_INET6 &&
	    !ipv6_addr_v4mapped(&sk->sk_v6_rcv_saddr))
		return false;
#endif
	return !tb2->rcv_saddr;
}

static inline void port0_bind_hash(struct sock *sk,
				   struct inet_bind2_bucket *tb2)
{
	sk_add_bind_node(sk, &tb2->owners);
}

static __always_inline bool
port0_tb2_any(struct inet_bind2_bucket *tb2, port0_conflict_t conflicts,
	      const struct port0_bidder *bidder)
{
	struct sock *sk2;

	sk_for_each_bound(sk2, &tb2->owners)
		if (conflicts(bidder, sk2))
			return true;
	return false;
}

static __always_inline bool
port0_tb_any(struct inet_bind_bucket *tb, port0_conflict_t conflicts,
	     const struct port0_bidder *bidder)
{
	struct inet_bind2_bucket *tb2;

	hlist_for_each_entry(tb2, &tb->bhash2, bhash_node)
		if (port0_tb2_any(tb2, conflicts, bidder))
			return true;
	return false;
}

#else /* !PORT0_HAVE_TB2_OWNERS_ONLY */

static inline bool port0_tb_is_empty(const struct inet_bind_bucket *tb)
{
	return hlist_empty(&tb->owners);
}

static inline void port0_tb_init_owners(struct inet_bind_bucket *tb)
{
	INIT_HLIST_HEAD(&tb->owners);
}

/* Mirrors inet_bind2_bucket_init(). */
static inline void port0_tb2_init_owners(struct inet_bind2_bucket *tb2,
					 struct inet_bind_bucket *tb,
					 const struct sock *sk)
{
#if IS_ENABLED(CONFIG_IPV6)
	tb2->family = sk->sk_family;
	if (sk->sk_family == AF_INET6)
		tb2->v6_rcv_saddr = sk->sk_v6_rcv_saddr;
	else
#endif
		tb2->rcv_saddr = sk->sk_rcv_saddr;
	INIT_HLIST_HEAD(&tb2->owners);
	INIT_HLIST_HEAD(&tb2->deathrow);
}

/* Mirrors inet_bind2_bucket_addr_match(). */
static inline bool port0_tb2_addr_match(const struct inet_bind2_bucket *tb2,
					const struct sock *sk)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family != tb2->family) {
		const struct in6_addr *v6 = sk->sk_family == AF_INET ?
			&tb2->v6_rcv_saddr : &sk->sk_v6_rcv_saddr;
		__be32 v4 = sk->sk_family == AF_INET ?
			sk->sk_rcv_saddr : tb2->rcv_saddr;

		return ipv6_addr_v4mapped(v6) && v6->s6_addr32[3] == v4;
	}
	if (sk->sk_family == AF_INET6)
		return ipv6_addr_equal(&tb2->v6_rcv_saddr,
				       &sk->sk_v6_rcv_saddr);
#endif
	return tb2->rcv_saddr == sk->sk_rcv_saddr;
}

/* The IPv6 address of a tb2, that of an IPv4 one mapped. */
static inline struct in6_addr port0_tb2_addr(const struct inet_bind2_bucket *tb2)
{
	struct in6_addr addr;

#if IS_ENABLED(CONFIG_IPV6)
	if (tb2->family == AF_INET6)
		return tb2->v6_rcv_saddr;
#endif
	ipv6_addr_set_v4mapped(tb2->rcv_saddr, &addr);
	return addr;
}

/* Mirrors inet_bind2_bucket_match_addr_any(), the address part. */
static inline bool port0_tb2_addr_any(const struct inet_bind2_bucket *tb2,
				      const struct sock *sk)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family != tb2->family) {
		if (sk->sk_family == AF_INET)
			return ipv6_addr_any(&tb2->v6_rcv_saddr) ||
			       ipv6_addr_v4mapped_any(&tb2->v6_rcv_saddr);
		return ipv6_addr_v4mapped(&sk->sk_v6_rcv_saddr) &&
		       !tb2->rcv_saddr;
	}
	if (sk->sk_family == AF_INET6)
		return ipv6_addr_any(&tb2->v6_rcv_saddr);
#endif
	return !tb2->rcv_saddr;
}

static inline void port0_bind_hash(struct sock *sk,
				   struct inet_bind2_bucket *tb2)
{
	sk_add_bind_node(sk, &inet_csk(sk)->icsk_bind_hash->owners);
	sk_add_bind2_node(sk, &tb2->owners);
}

static __always_inline bool
port0_tb2_any(struct inet_bind2_bucket *tb2, port0_conflict_t conflicts,
	      const struct port0_bidder *bidder)
{
	struct inet_timewait_sock *tw;
	struct sock *sk2;

	sk_for_each_bound_bhash2(sk2, &tb2->owners)
		if (conflicts(bidder, sk2))
			return true;
	twsk_for_each_bound_bhash2(tw, &tb2->deathrow)
		if (conflicts(bidder, (struct sock *)tw))
			return true;
	return false;
}

static __always_inline bool
port0_tb_any(struct inet_bind_bucket *tb, port0_conflict_t conflicts,
	     const struct port0_bidder *bidder)
{
	struct sock *sk2;

	sk_for_each_bound(sk2, &tb->owners)
		if (conflicts(bidder, sk2))
			return true;
	return false;
}

#endif /* PORT0_HAVE_TB2_OWNERS_ONLY */

/* The kernel that keeps fastreuse in tb2 too reads it when the tb2 goes. */
static inline void port0_tb2_sync_fastreuse(const struct inet_bind_bucket *tb,
					    struct inet_bind2_bucket *tb2)
{
#ifdef PORT0_HAVE_TB2_FASTREUSE
	tb2->fastreuse = tb->fastreuse;
	tb2->fastreuseport = tb->fastreuseport;
#endif
}

#endif /* _PORT0_COMPAT_H */

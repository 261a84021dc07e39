/* SPDX-License-Identifier: GPL-2.0 */
/*
 * TCP bind buckets, in the three forms that kernels have had.
 *
 * A bucket (tb) is for one port in a network namespace, and a second-level bucket
 * (tb2) for one port and one address.
 *
 *	A, before 6.1	there is no tb2; sockets are linked to the tb
 *	B, from 6.1	a socket is linked to both; a tb2 has a separate list for
 *			TIME_WAIT sockets, which early 6.1 kernels lack
 *	C, from 6.8	a socket is linked to its tb2 only, and the tb2s to the tb
 *
 * The versions are upstream's; the headers decide which form is compiled. tcp.c uses
 * the functions below and does not depend on the form. In form A,
 * struct inet_bind2_bucket is declared and never defined.
 *
 * port0_tb_any() and port0_tb2_any() look for a socket that conflicts. They are
 * inlined together with the test, since a function call for each socket would double
 * the time.
 *
 * Locking: as in the kernel, a tb and its sockets are guarded by the lock of its
 * chain in bhash, and a tb2 and its sockets by that of its chain in bhash2.
 */
#ifndef _PORT0_BUCKETS_H
#define _PORT0_BUCKETS_H

#include <linux/slab.h>

#include "compat.h"
#include "rules.h"
#include "saddr.h"

struct inet_bind2_bucket;
struct port0_binder;
typedef bool (*port0_conflict_t)(const struct port0_binder *binder,
				 struct sock *sk2);

#if defined(PORT0_HAVE_TB2) && defined(PORT0_HAVE_TB_BHASH2) &&		\
	defined(PORT0_HAVE_TB2_BHASH_NODE) &&				\
	defined(PORT0_HAVE_TB2_OWNERS) &&				\
	(defined(PORT0_HAVE_TB2_ADDR_TYPE) || !IS_ENABLED(CONFIG_IPV6)) &&	\
	!defined(PORT0_HAVE_TB2_DEATHROW) && !defined(PORT0_HAVE_TB_OWNERS)
#define PORT0_BUCKETS_C
#elif defined(PORT0_HAVE_TB2) && defined(PORT0_HAVE_TB_OWNERS) &&	\
	defined(PORT0_HAVE_TB2_OWNERS) &&				\
	(defined(PORT0_HAVE_TB2_FAMILY) || !IS_ENABLED(CONFIG_IPV6)) &&	\
	!defined(PORT0_HAVE_TB_BHASH2) && !defined(PORT0_HAVE_TB2_BHASH_NODE)
#define PORT0_BUCKETS_B
#elif !defined(PORT0_HAVE_TB2) && !defined(PORT0_HAVE_CSK_BIND2_HASH) &&	\
	defined(PORT0_HAVE_TB_OWNERS) && !defined(PORT0_HAVE_TB_BHASH2)
#define PORT0_BUCKETS_A
#elif defined(PORT0_HAVE_TB2)
#error "this kernel's inet_bind2_bucket is new to port0: please report it"
#else
#error "this kernel's inet_bind_bucket is new to port0: please report it"
#endif

/* For all forms */

static inline struct inet_bind_hashbucket *port0_bhash(const struct sock *sk)
{
	struct inet_hashinfo *hinfo = port0_hashinfo(sk);

	return &hinfo->bhash[inet_bhashfn(sock_net(sk), 0, hinfo->bhash_size)];
}

static inline bool port0_tb_is_empty(const struct inet_bind_bucket *tb)
{
#ifdef PORT0_BUCKETS_C
	return hlist_empty(&tb->bhash2);
#else
	return hlist_empty(&tb->owners);
#endif
}

static inline struct inet_bind_bucket *
port0_tb_find(struct inet_bind_hashbucket *head, const struct sock *sk,
	      int l3mdev)
{
	struct inet_bind_bucket *tb;

	inet_bind_bucket_for_each(tb, &head->chain)
		if (net_eq(ib_net(tb), sock_net(sk)) && !tb->port &&
		    tb->l3mdev == l3mdev)
			return tb;
	return NULL;
}

/* Mirrors inet_bind_bucket_create(), except that @tb is allocated by the caller. */
static inline void port0_tb_link(struct inet_bind_bucket *tb,
				 struct inet_bind_hashbucket *head,
				 const struct sock *sk, int l3mdev)
{
	write_pnet(&tb->ib_net, sock_net(sk));
	tb->l3mdev = l3mdev;
	tb->port = 0;
	tb->fastreuse = 0;
	tb->fastreuseport = 0;
#ifdef PORT0_BUCKETS_C
	INIT_HLIST_HEAD(&tb->bhash2);
#else
	INIT_HLIST_HEAD(&tb->owners);
#endif
	/* Newer kernels also read the chain under RCU. */
	hlist_add_head_rcu(&tb->node, &head->chain);
}

#ifdef PORT0_BUCKETS_A

#define PORT0_HAVE_BHASH2	0

static inline bool port0_uses_hash2(const struct sock *sk)
{
	return false;
}

static inline struct inet_bind2_bucket *port0_tb2_of(const struct sock *sk)
{
	return NULL;
}

/* Where a socket is linked does not depend on its address. */
static inline bool port0_tb2_addr_match(const struct inet_bind2_bucket *tb2,
					const struct sock *sk)
{
	return true;
}

static inline struct in6_addr port0_tb2_addr(const struct inet_bind2_bucket *tb2)
{
	return (struct in6_addr){};
}

static inline struct inet_bind_hashbucket *
port0_bhash2_lock(const struct sock *sk, u32 hash)
{
	return NULL;
}

static inline void port0_bhash2_unlock(struct inet_bind_hashbucket *head2)
{
}

static inline struct inet_bind2_bucket *
port0_tb2_find(struct inet_bind_hashbucket *head2, const struct sock *sk,
	       int l3mdev)
{
	return NULL;
}

static inline struct inet_bind2_bucket *port0_tb2_alloc(const struct sock *sk)
{
	return NULL;
}

static inline void port0_tb2_link(struct inet_bind2_bucket *tb2,
				  struct inet_bind_hashbucket *head2,
				  struct inet_bind_bucket *tb,
				  const struct sock *sk)
{
}

static inline void port0_tb2_sync_fastreuse(const struct inet_bind_bucket *tb,
					    struct inet_bind2_bucket *tb2)
{
}

static inline void port0_bind_hash(struct sock *sk, struct inet_bind_bucket *tb,
				   struct inet_bind2_bucket *tb2)
{
	WRITE_ONCE(inet_csk(sk)->icsk_bind_hash, tb);
	sk_add_bind_node(sk, &tb->owners);
}

static __always_inline bool
port0_tb2_any(struct inet_bind2_bucket *tb2, port0_conflict_t conflicts,
	      const struct port0_binder *binder)
{
	return false;
}

static __always_inline bool
port0_tb2s_any(const struct sock *sk, int l3mdev, port0_conflict_t conflicts,
	       const struct port0_binder *binder)
{
	return false;
}

#else /* PORT0_BUCKETS_B or PORT0_BUCKETS_C */

#define PORT0_HAVE_BHASH2	1

/*
 * Mirrors inet_use_hash2_on_bind(). On some kernels it is called
 * inet_use_bhash2_on_bind(), or is not in a header.
 */
static inline bool port0_uses_hash2(const struct sock *sk)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6) {
		if (ipv6_addr_any(&sk->sk_v6_rcv_saddr))
			return false;
		if (!ipv6_addr_v4mapped(&sk->sk_v6_rcv_saddr))
			return true;
		if (port0_rules.mapped_walks)
			return false;
	}
#endif
	return sk->sk_rcv_saddr != htonl(INADDR_ANY);
}

static inline struct inet_bind2_bucket *port0_tb2_of(const struct sock *sk)
{
	return inet_csk(sk)->icsk_bind2_hash;
}

static inline struct inet_bind_hashbucket *
port0_bhash2_lock(const struct sock *sk, u32 hash)
{
	struct inet_hashinfo *hinfo = port0_hashinfo(sk);
	struct inet_bind_hashbucket *head2;

	head2 = &hinfo->bhash2[hash & (hinfo->bhash_size - 1)];
	spin_lock(&head2->lock);
	return head2;
}

static inline void port0_bhash2_unlock(struct inet_bind_hashbucket *head2)
{
	spin_unlock(&head2->lock);
}

static inline bool port0_tb2_is_ours(const struct inet_bind2_bucket *tb2,
				     const struct sock *sk, int l3mdev)
{
	return net_eq(ib2_net(tb2), sock_net(sk)) && !tb2->port &&
	       tb2->l3mdev == l3mdev;
}

static inline struct inet_bind2_bucket *port0_tb2_alloc(const struct sock *sk)
{
	return kmem_cache_alloc(port0_hashinfo(sk)->bind2_bucket_cachep,
				GFP_ATOMIC);
}

/* Newer kernels have fastreuse in tb2, too, and read it when the tb2 is destroyed. */
static inline void port0_tb2_sync_fastreuse(const struct inet_bind_bucket *tb,
					    struct inet_bind2_bucket *tb2)
{
#ifdef PORT0_HAVE_TB2_FASTREUSE
	tb2->fastreuse = tb->fastreuse;
	tb2->fastreuseport = tb->fastreuseport;
#endif
}

#ifdef PORT0_BUCKETS_C

/* Mirrors the part of inet_bind2_bucket_init() that is specific to this form. */
static inline void port0_tb2_init(struct inet_bind2_bucket *tb2,
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

/* Both families have one tb2 for an IPv4 address. */
static inline bool port0_tb2_may_share(const struct inet_bind2_bucket *tb2,
				       const struct sock *sk)
{
	return true;
}

/* The address of a tb2; an IPv4 address as v4-mapped */
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

/* Mirrors the comparison of addresses in inet_bind2_bucket_match_addr_any(). */
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

static inline void port0_bind_hash(struct sock *sk, struct inet_bind_bucket *tb,
				   struct inet_bind2_bucket *tb2)
{
	inet_csk(sk)->icsk_bind2_hash = tb2;
	WRITE_ONCE(inet_csk(sk)->icsk_bind_hash, tb);
	sk_add_bind_node(sk, &tb2->owners);
}

static __always_inline bool
port0_tb2_any(struct inet_bind2_bucket *tb2, port0_conflict_t conflicts,
	      const struct port0_binder *binder)
{
	struct sock *sk2;

	sk_for_each_bound(sk2, &tb2->owners)
		if (conflicts(binder, sk2))
			return true;
	return false;
}

#else /* PORT0_BUCKETS_B */

/* Mirrors the part of inet_bind2_bucket_init() that is specific to this form. */
static inline void port0_tb2_init(struct inet_bind2_bucket *tb2,
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
#ifdef PORT0_HAVE_TB2_DEATHROW
	INIT_HLIST_HEAD(&tb2->deathrow);
#endif
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

/*
 * Tell whether a tb2 that has the address of @sk can be for its family. This is not in
 * port0_tb2_addr_match(), since IPV6_ADDRFORM changes the family of a socket that has
 * a tb2.
 */
static inline bool port0_tb2_may_share(const struct inet_bind2_bucket *tb2,
				       const struct sock *sk)
{
#if IS_ENABLED(CONFIG_IPV6)
	return !port0_rules.mapped_apart || sk->sk_family == tb2->family;
#else
	return true;
#endif
}

/* The address of a tb2; an IPv4 address as v4-mapped */
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

/* Mirrors the comparison of addresses in inet_bind2_bucket_match_addr_any(). */
static inline bool port0_tb2_addr_any(const struct inet_bind2_bucket *tb2,
				      const struct sock *sk)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family != tb2->family) {
		if (sk->sk_family == AF_INET)
			return (!port0_rules.any6_spares4 &&
				ipv6_addr_any(&tb2->v6_rcv_saddr)) ||
			       (!port0_rules.mapped_any_spares4 &&
				ipv6_addr_v4mapped(&tb2->v6_rcv_saddr) &&
				!tb2->v6_rcv_saddr.s6_addr32[3]);
		return ipv6_addr_v4mapped(&sk->sk_v6_rcv_saddr) &&
		       !port0_rules.any4_spares_mapped && !tb2->rcv_saddr;
	}
	if (sk->sk_family == AF_INET6)
		return ipv6_addr_any(&tb2->v6_rcv_saddr);
#endif
	return !tb2->rcv_saddr;
}

static inline void port0_bind_hash(struct sock *sk, struct inet_bind_bucket *tb,
				   struct inet_bind2_bucket *tb2)
{
	inet_csk(sk)->icsk_bind2_hash = tb2;
	WRITE_ONCE(inet_csk(sk)->icsk_bind_hash, tb);
	sk_add_bind_node(sk, &tb->owners);
	sk_add_bind2_node(sk, &tb2->owners);
}

static __always_inline bool
port0_tb2_any(struct inet_bind2_bucket *tb2, port0_conflict_t conflicts,
	      const struct port0_binder *binder)
{
	struct sock *sk2;
#ifdef PORT0_HAVE_TB2_DEATHROW
	struct inet_timewait_sock *tw;

	twsk_for_each_bound_bhash2(tw, &tb2->deathrow)
		if (conflicts(binder, (struct sock *)tw))
			return true;
#endif
	sk_for_each_bound_bhash2(sk2, &tb2->owners)
		if (conflicts(binder, sk2))
			return true;
	return false;
}

#endif /* PORT0_BUCKETS_B */

static inline struct inet_bind2_bucket *
port0_tb2_find(struct inet_bind_hashbucket *head2, const struct sock *sk,
	       int l3mdev)
{
	struct inet_bind2_bucket *tb2;

	inet_bind_bucket_for_each(tb2, &head2->chain)
		if (port0_tb2_is_ours(tb2, sk, l3mdev) &&
		    port0_tb2_addr_match(tb2, sk) &&
		    port0_tb2_may_share(tb2, sk))
			return tb2;
	return NULL;
}

static inline void port0_tb2_link(struct inet_bind2_bucket *tb2,
				  struct inet_bind_hashbucket *head2,
				  struct inet_bind_bucket *tb,
				  const struct sock *sk)
{
	write_pnet(&tb2->ib_net, sock_net(sk));
	tb2->l3mdev = tb->l3mdev;
	tb2->port = 0;
	port0_tb2_init(tb2, tb, sk);
	hlist_add_head(&tb2->node, &head2->chain);
}

/*
 * Mirrors inet_bhash2_addr_any_conflict(): looks for a conflict with sockets that are
 * bound to the wildcard address. Takes the lock of its chain in bhash2.
 */
static __always_inline bool
port0_tb2s_any(const struct sock *sk, int l3mdev, port0_conflict_t conflicts,
	       const struct port0_binder *binder)
{
	struct inet_bind_hashbucket *head2;
	struct inet_bind2_bucket *tb2;
	bool found = false;

	head2 = port0_bhash2_lock(sk, port0_saddr_hash_any(sk));
	inet_bind_bucket_for_each(tb2, &head2->chain) {
		if (!port0_tb2_is_ours(tb2, sk, l3mdev) ||
		    !port0_tb2_addr_any(tb2, sk))
			continue;
		found = port0_tb2_any(tb2, conflicts, binder);
		if (found || port0_rules.first_any_only)
			break;
	}
	port0_bhash2_unlock(head2);
	return found;
}

#endif /* PORT0_BUCKETS_B or PORT0_BUCKETS_C */

static __always_inline bool
port0_tb_any(struct inet_bind_bucket *tb, port0_conflict_t conflicts,
	     const struct port0_binder *binder)
{
#ifdef PORT0_BUCKETS_C
	struct inet_bind2_bucket *tb2;

	hlist_for_each_entry(tb2, &tb->bhash2, bhash_node)
		if (port0_tb2_any(tb2, conflicts, binder))
			return true;
#else
	struct sock *sk2;

	sk_for_each_bound(sk2, &tb->owners)
		if (conflicts(binder, sk2))
			return true;
#endif
	return false;
}

/*
 * Tell whether bind() of a UDP socket may look for conflicts in the second table
 * only. UDP has that table on every kernel. Kernels without this function in a header
 * use it for wildcards, too.
 */
static inline bool port0_udp_uses_hash2(const struct sock *sk)
{
#ifdef PORT0_HAVE_USE_HASH2_ON_BIND
	return inet_use_hash2_on_bind(sk);
#else
	return true;
#endif
}

#endif /* _PORT0_BUCKETS_H */

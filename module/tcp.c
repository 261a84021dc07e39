// SPDX-License-Identifier: GPL-2.0
/*
 * TCP on port 0: binding a socket, and connect() from there.
 *
 * inet_csk_get_port() has two parts: one for a given port and one that chooses a
 * port, which it uses for port 0. This file mirrors the first part for port 0, with
 * the kernel's own tables and rules, so that listen(), accept(), TIME_WAIT and
 * close() work without change. The second part cannot be used: it ignores
 * SO_REUSEADDR and SO_REUSEPORT when it tests for conflicts.
 *
 * Locking is the same as there: first the lock of the port's chain in bhash, then
 * that of the chain of port and address in bhash2, with bottom halves disabled.
 */
#include <linux/slab.h>
#include <net/ipv6.h>
#include <net/sock_reuseport.h>
#include <net/transp_v6.h>

#include "buckets.h"
#include "port0.h"
#include "saddr.h"
#include "watch.h"

/**
 * struct port0_binder - the socket to be bound, as the conflict tests need it
 * @sk: the socket
 * @uid: its owner
 * @reuse: it has SO_REUSEADDR and is not listening
 * @group_ok: it is in no SO_REUSEPORT group, or in one that has closed members
 */
struct port0_binder {
	const struct sock *sk;
	kuid_t uid;
	bool reuse;
	bool group_ok;
};

static struct port0_binder port0_binder_of(const struct sock *sk)
{
	struct port0_binder binder = {
		.sk = sk,
		.uid = port0_sk_uid(sk),
		.reuse = sk->sk_reuse && sk->sk_state != TCP_LISTEN,
	};
	const struct sock_reuseport *group;

	rcu_read_lock();
	group = rcu_dereference(sk->sk_reuseport_cb);
	binder.group_ok = !group || port0_group_has_closed(group);
	rcu_read_unlock();
	return binder;
}

/*
 * Mirrors inet_bind_conflict() for a given port: tells whether @sk2 conflicts,
 * provided that the addresses overlap. @sk2 may be a TIME_WAIT socket, which has only
 * the members of struct sock_common, so no uid.
 */
static __always_inline bool
port0_sock_conflicts(const struct port0_binder *binder, struct sock *sk2)
{
	const struct sock *sk = binder->sk;
	int dev = sk->sk_bound_dev_if, dev2 = port0_sock_device(sk2);

	if (sk == sk2)
		return false;
	if (dev && dev2 && dev != dev2)
		return false;
	if (sk->sk_reuse && sk2->sk_reuse && sk2->sk_state != TCP_LISTEN)
		return false;
	return !sk->sk_reuseport || !sk2->sk_reuseport || !binder->group_ok ||
	       (sk2->sk_state != TCP_TIME_WAIT &&
		!uid_eq(binder->uid, port0_sk_uid(sk2)));
}

/*
 * Tell whether a bound socket takes no IPv4 traffic. If it is watched, what the watch has
 * noted counts: late calls (see watch.c) write sk_ipv6only without the lock of the chain.
 */
static bool port0_sock_is_v6only(const struct sock *sk2)
{
	bool v6only = port0_is_v6only(sk2);
	struct port0_place place;

	return port0_watch_place(sk2, &place) ? place.v6only : v6only;
}

/* Mirrors __inet_bhash2_conflict(), for a socket @sk2 found in a tb2. */
static __always_inline bool
port0_sock_conflicts2(const struct port0_binder *binder, struct sock *sk2)
{
	const struct sock *sk = binder->sk;

	if (!port0_sock_conflicts(binder, sk2))
		return false;
	return !((sk->sk_family == AF_INET ||
		  (ipv6_addr_v4mapped(inet6_rcv_saddr(sk)) &&
		   !port0_rules.v6only_blocks_mapped)) &&
		 port0_sock_is_v6only(sk2));
}

/*
 * Tell whether @sk2, found in a bucket of port 0, is filed under an address that overlaps.
 * If @sk2 is watched, the address that the watch has noted counts. In states other than
 * TCP_CLOSE, its present address counts, too: with net.ipv4.ip_dynaddr, a timer may have
 * changed it, and no late bind() can have, since in these states it fails before it writes.
 */
static bool port0_sock_overlaps(const struct sock *sk, const struct sock *sk2)
{
	struct port0_saddr a = port0_saddr_of(sk), b = port0_saddr_of(sk2);
	bool overlaps = port0_saddr_overlaps(&a, &b, true, true);
	struct port0_place place;

	if (!port0_watch_place(sk2, &place))
		return overlaps;
	b.v6only = place.v6only;
	return port0_place_overlaps(sk, &place, sk2, true) ||
	       (sk2->sk_state != TCP_CLOSE &&
		port0_saddr_overlaps(&a, &b, true, true));
}

/* Mirrors the test of inet_csk_bind_conflict() for a socket @sk2 found in a tb. */
static __always_inline bool
port0_sock_conflicts_any(const struct port0_binder *binder, struct sock *sk2)
{
	return port0_sock_conflicts(binder, sk2) &&
	       port0_sock_overlaps(binder->sk, sk2);
}

/* Mirrors how sk_reuseport_match() compares the fast_* members of @tb with an address. */
static bool port0_tb_fast_overlaps(const struct inet_bind_bucket *tb,
				   const struct sock *sk)
{
	struct port0_saddr fast = {
		.v4 = tb->fast_rcv_saddr,
		.v6only = tb->fast_ipv6_only,
#if IS_ENABLED(CONFIG_IPV6)
		.v6 = tb->fast_sk_family == AF_INET6 ?
			&tb->fast_v6_rcv_saddr : NULL,
#endif
	};
	struct port0_saddr saddr = port0_saddr_of(sk);

	return port0_saddr_overlaps(&fast, &saddr, true, false);
}

/* Mirrors sk_reuseport_match(). fast_* of @tb are valid if fastreuseport > 0. */
static bool port0_tb_reuseport_match(const struct inet_bind_bucket *tb,
				     const struct port0_binder *binder)
{
	if (tb->fastreuseport <= 0 || !binder->sk->sk_reuseport ||
	    rcu_access_pointer(binder->sk->sk_reuseport_cb) ||
	    !uid_eq(tb->fastuid, binder->uid))
		return false;
	return tb->fastreuseport == FASTREUSEPORT_ANY ||
	       port0_tb_fast_overlaps(tb, binder->sk);
}

/*
 * Mirrors the fast path of inet_csk_get_port(): if all sockets of the bucket share the
 * port with this one, they need not be compared one by one.
 */
static bool port0_tb_is_shared(const struct inet_bind_bucket *tb,
			       const struct port0_binder *binder)
{
	return port0_tb_is_empty(tb) ||
	       binder->sk->sk_reuse == SK_FORCE_REUSE ||
	       (tb->fastreuse > 0 && binder->reuse) ||
	       port0_tb_reuseport_match(tb, binder);
}

/* Mirrors inet_csk_update_fastreuse(). */
static void port0_tb_update_fastreuse(struct inet_bind_bucket *tb,
				      const struct port0_binder *binder)
{
	const struct sock *sk = binder->sk;
	bool first = port0_tb_is_empty(tb);

	if (first)
		tb->fastreuse = binder->reuse;
	else if (!binder->reuse)
		tb->fastreuse = 0;

	if (!sk->sk_reuseport) {
		tb->fastreuseport = 0;
		return;
	}
	if (!first && port0_tb_reuseport_match(tb, binder))
		return;
	tb->fastreuseport = first ? FASTREUSEPORT_ANY : FASTREUSEPORT_STRICT;
	tb->fastuid = binder->uid;
	tb->fast_rcv_saddr = sk->sk_rcv_saddr;
	tb->fast_ipv6_only = ipv6_only_sock(sk);
	tb->fast_sk_family = sk->sk_family;
#if IS_ENABLED(CONFIG_IPV6)
	tb->fast_v6_rcv_saddr = sk->sk_v6_rcv_saddr;
#endif
}

/*
 * Mirrors inet_csk_get_port() for a given port, with port 0. If the socket is bound
 * already and starts to listen, this only tests for conflicts again.
 */
static int port0_tcp_bind(struct sock *sk)
{
	struct inet_bind_bucket *tb = inet_csk(sk)->icsk_bind_hash, *new = NULL;
	struct inet_bind_hashbucket *head = port0_bhash(sk), *head2;
	struct port0_binder binder = port0_binder_of(sk);
	struct inet_hashinfo *hinfo = port0_hashinfo(sk);
	struct inet_bind2_bucket *tb2, *new2 = NULL;
	bool bound = tb, shared, conflicts;
	/*
	 * Read once: no lock guards it, since it depends on tcp_l3mdev_accept and on the
	 * device's master. A tb and a tb2 of different domains would be freed separately.
	 */
	int l3mdev = inet_sk_bound_l3mdev(sk);
	int err = -EADDRINUSE;

	spin_lock_bh(&head->lock);
	if (!tb)
		tb = port0_tb_find(head, sk, l3mdev);
	shared = !tb || port0_tb_is_shared(tb, &binder);

	if (!shared && port0_uses_hash2(sk) &&
	    port0_tb2s_any(sk, l3mdev, port0_sock_conflicts2, &binder))
		goto unlock;

	head2 = port0_bhash2_lock(sk, port0_saddr_hash(sk));
	tb2 = bound ? port0_tb2_of(sk) : port0_tb2_find(head2, sk, l3mdev);
	if (shared)
		conflicts = false;
	else if (port0_uses_hash2(sk))
		conflicts = tb2 &&
			    port0_tb2_any(tb2, port0_sock_conflicts2, &binder);
	else
		conflicts = port0_tb_any(tb, port0_sock_conflicts_any, &binder);
	if (conflicts)
		goto unlock2;

	/* Allocate all that is needed before anything is linked. */
	if (!tb) {
		new = kmem_cache_alloc(hinfo->bind_bucket_cachep, GFP_ATOMIC);
		if (!new)
			goto unlock2;
	}
	if (PORT0_HAVE_BHASH2 && !tb2) {
		new2 = port0_tb2_alloc(sk);
		if (!new2) {
			if (new)
				kmem_cache_free(hinfo->bind_bucket_cachep, new);
			goto unlock2;
		}
	}
	err = 0;
	if (new) {
		tb = new;
		port0_tb_link(tb, head, sk, l3mdev);
	}
	if (new2) {
		tb2 = new2;
		port0_tb2_link(tb2, head2, tb, sk);
	}
	port0_tb_update_fastreuse(tb, &binder);
	port0_tb2_sync_fastreuse(tb, tb2);

	if (!bound) {
		WRITE_ONCE(inet_sk(sk)->inet_num, 0);
		port0_bind_hash(sk, tb, tb2);
	}
unlock2:
	port0_bhash2_unlock(head2);
unlock:
	spin_unlock_bh(&head->lock);
	return err;
}

/**
 * port0_tcp_is_filed - tell whether a TCP socket is in the bucket of its address
 * @sk: a TCP socket that holds port 0
 *
 * Context: as port0_place_holds().
 * Return: true if it is; on kernels without bhash2, always.
 */
bool port0_tcp_is_filed(const struct sock *sk)
{
	return port0_tb2_addr_match(port0_tb2_of(sk), sk);
}

/**
 * port0_tcp_readdress - write the address of its bucket into a TCP socket
 * @sk: a TCP socket that holds port 0
 *
 * Context: as port0_place_holds().
 */
void port0_tcp_readdress(struct sock *sk)
{
	struct in6_addr addr = port0_tb2_addr(port0_tb2_of(sk));

	if (ipv6_addr_v4mapped(&addr))
		sk->sk_rcv_saddr = addr.s6_addr32[3];
	else
		sk->sk_rcv_saddr = ipv6_addr_any(&addr) ? 0 : LOOPBACK4_IPV6;
	inet_sk(sk)->inet_saddr = sk->sk_rcv_saddr;
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6) {
		sk->sk_v6_rcv_saddr = addr;
		inet6_sk(sk)->saddr = addr;
	}
#endif
}

/**
 * port0_tcp_get_port - take or keep port 0, in place of inet_csk_get_port()
 * @sk: a marked TCP socket
 * @snum: the stand-in when it binds, 0 when it starts to listen, any port in a late
 * bind() (see watch.c)
 *
 * Mirrors inet_csk_get_port().
 *
 * Context: process, socket locked; may sleep. Takes the locks of the chains.
 * Return: 0; -EADDRINUSE, as in the kernel also if there is no memory for a bucket;
 * -EINVAL for a late bind(); or what port0_bind_claim() returns.
 */
int port0_tcp_get_port(struct sock *sk, unsigned short snum)
{
	struct port0_call *call;
	int err;

	if (port0_sock_holds(sk)) {
		/* The kernel does not autobind TCP: listen() or a late bind() */
		if (sk->sk_state != TCP_LISTEN)
			return port0_bind_refuse(sk);
		return port0_bind_keep(sk, snum) ?: port0_tcp_bind(sk);
	}
	call = port0_bind_claim(sk);
	err = PTR_ERR_OR_ZERO(call) ?: port0_tcp_bind(sk);
	if (!err)
		port0_bind_claimed(sk, call);
	return err;
}

/**
 * port0_tcp_hash_connect - connect() from port 0, in place of
 * __inet_hash_connect()
 * @PORT0_HASH_CONNECT_PARAMS: that function's parameters; of these, @sk is a
 * marked socket on port 0, and @check_established claims a 4-tuple
 *
 * Mirrors __inet_hash_connect() for a socket that is bound. The TIME_WAIT socket
 * takes over the address, so that must be the one that the socket is filed under: see
 * place.c.
 *
 * Context: process, socket locked; does not sleep.
 * Return: 0; -EADDRNOTAVAIL if the 4-tuple is taken or the socket is not filed under
 * its address.
 */
int port0_tcp_hash_connect(PORT0_HASH_CONNECT_PARAMS)
{
	int err;

	if (WARN_ON_ONCE(!port0_tcp_is_filed(sk)))
		return -EADDRNOTAVAIL;
	local_bh_disable();
	err = port0_check_established();
	local_bh_enable();
	return err;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * UDP on port 0: binding a socket.
 *
 * udp_lib_get_port() has two parts: one for a given port and one that chooses a port,
 * which it uses for port 0. This file mirrors the first part for port 0. The second
 * one could be made to choose 0, by [0, 0] as the range of ephemeral ports. But it
 * tests all sockets on the port for conflicts, where the first part stops at the first
 * one whose address overlaps; and if port 0 is taken, it searches the whole table
 * before it fails.
 *
 * Locking is the same as there: the lock of the port's chain, then that of the chain
 * of port and address, with bottom halves disabled.
 */
#include <linux/rwsem.h>
#include <net/net_namespace.h>
#include <net/sock_reuseport.h>

#include "buckets.h"
#include "port0.h"
#include "saddr.h"
#include "watch.h"

/*
 * Tell whether the addresses overlap. If @sk2 is watched, the address that the watch has
 * noted is compared: a late bind() (see watch.c) may have written another one.
 */
static bool port0_udp_overlaps(const struct sock *sk, const struct sock *sk2)
{
	struct port0_place place;
	bool overlaps = port0_rcv_saddr_equal(sk, sk2, true);

	return port0_watch_place(sk2, &place) ?
		port0_place_overlaps(sk, &place, sk2, true) : overlaps;
}

/* Mirrors the condition in udp_lib_lport_inuse(), before SO_REUSEPORT is considered. */
static bool port0_udp_conflicts(const struct sock *sk, const struct sock *sk2)
{
	int dev = sk->sk_bound_dev_if, dev2 = port0_sock_device(sk2);

	return net_eq(sock_net(sk2), sock_net(sk)) && sk2 != sk &&
	       !udp_sk(sk2)->udp_port_hash &&
	       (!sk2->sk_reuse || !sk->sk_reuse) &&
	       (!dev2 || !dev || dev2 == dev) &&
	       port0_udp_overlaps(sk, sk2);
}

/* Tell whether @sk may share the port with @sk2 by SO_REUSEPORT. */
static bool port0_udp_may_join(const struct sock *sk, const struct sock *sk2)
{
	return sk2->sk_reuseport && sk->sk_reuseport &&
	       !rcu_access_pointer(sk->sk_reuseport_cb) &&
	       uid_eq(port0_sk_uid(sk), port0_sk_uid(sk2));
}

/* Mirrors udp_lib_lport_inuse() for one port. Caller holds hslot->lock. */
static bool port0_udp_inuse(const struct sock *sk,
			    const struct udp_hslot *hslot)
{
	struct sock *sk2;

	/* The first one decides, also if it shares the port. */
	sk_for_each(sk2, &hslot->head)
		if (port0_udp_conflicts(sk, sk2))
			return !port0_udp_may_join(sk, sk2);
	return false;
}

/* Mirrors udp_lib_lport_inuse2(). */
static bool port0_udp_inuse2(const struct sock *sk, struct udp_hslot *hslot2)
{
	bool inuse = false;
	struct sock *sk2;

	spin_lock(&hslot2->lock);
	udp_portaddr_for_each_entry(sk2, &hslot2->head) {
		if (port0_udp_conflicts(sk, sk2)) {
			inuse = !port0_udp_may_join(sk, sk2);
			break;
		}
	}
	spin_unlock(&hslot2->lock);
	return inuse;
}

/*
 * Tell whether port 0 is taken. Mirrors udp_lib_get_port(): if the port's chain is
 * long, the second table is searched instead; newer kernels do not do that for
 * wildcards. Caller holds hslot->lock.
 */
static bool port0_udp_is_taken(const struct sock *sk, struct udp_table *table,
			       const struct udp_hslot *hslot)
{
	struct udp_hslot *own = udp_hashslot2(table, port0_saddr_hash(sk));
	struct udp_hslot *any = udp_hashslot2(table, port0_saddr_hash_any(sk));

	if (hslot->count <= 10 || !port0_udp_uses_hash2(sk) ||
	    hslot->count < own->count)
		return port0_udp_inuse(sk, hslot);
	return port0_udp_inuse2(sk, own) ||
	       (any != own && port0_udp_inuse2(sk, any));
}

/*
 * Tell whether both have the same address, IPV6_V6ONLY and device. If @sk2 is watched, those
 * that the watch has noted are compared, as in port0_udp_overlaps(). If its present ones
 * differ, a call on @sk2 has changed them and not returned yet. Then @sk2 counts only if it
 * is in a group: after a late bind() it still is, but connect() and SO_BINDTODEVICE have
 * taken it out, by udp_lib_rehash(), and what the watch has noted is no longer right. Caller
 * holds hslot->lock, as udp_lib_rehash() does.
 */
static bool port0_udp_is_beside(const struct sock *sk, const struct sock *sk2)
{
	int dev = sk->sk_bound_dev_if, dev2 = READ_ONCE(sk2->sk_bound_dev_if);
	bool v6only = ipv6_only_sock(sk);
	bool is_beside = dev2 == dev && ipv6_only_sock(sk2) == v6only &&
			 port0_rcv_saddr_equal(sk, sk2, false);
	struct port0_place place;

	if (!port0_watch_place(sk2, &place))
		return is_beside;
	return (is_beside || rcu_access_pointer(sk2->sk_reuseport_cb)) &&
	       place.bound_dev_if == dev && place.v6only == v6only &&
	       port0_place_overlaps(sk, &place, sk2, false);
}

/* Mirrors udp_reuseport_add_sock(). Caller holds hslot->lock. */
static int port0_udp_join_group(struct sock *sk, const struct udp_hslot *hslot)
{
	bool any = port0_rcv_saddr_any(sk);
	struct sock *sk2;

	sk_for_each(sk2, &hslot->head) {
		if (net_eq(sock_net(sk2), sock_net(sk)) && sk2 != sk &&
		    sk2->sk_family == sk->sk_family &&
		    !udp_sk(sk2)->udp_port_hash &&
		    sk2->sk_reuseport &&
		    uid_eq(port0_sk_uid(sk), port0_sk_uid(sk2)) &&
		    port0_udp_is_beside(sk, sk2))
			return reuseport_add_sock(sk, sk2, any);
	}
	return reuseport_alloc(sk, any);
}

/* Mirrors the end of udp_lib_get_port(). Caller holds hslot->lock. */
static void port0_udp_link(struct sock *sk, struct udp_table *table,
			   struct udp_hslot *hslot)
{
	struct hlist_node *node = &udp_sk(sk)->udp_portaddr_node;
	struct udp_hslot *hslot2;

	sock_set_flag(sk, SOCK_RCU_FREE);
	sk_add_node_rcu(sk, &hslot->head);
	hslot->count++;
	sock_prot_inuse_add(sock_net(sk), sk->sk_prot, 1);

	hslot2 = udp_hashslot2(table, udp_sk(sk)->udp_portaddr_hash);
	spin_lock(&hslot2->lock);
	if (IS_ENABLED(CONFIG_IPV6) && sk->sk_reuseport &&
	    sk->sk_family == AF_INET6)
		hlist_add_tail_rcu(node, &hslot2->head);
	else
		hlist_add_head_rcu(node, &hslot2->head);
	hslot2->count++;
	spin_unlock(&hslot2->lock);
}

static int port0_udp_bind(struct sock *sk)
{
	struct udp_table *table = port0_udp_table(sk);
	struct udp_hslot *hslot = udp_hashslot(table, sock_net(sk), 0);
	int err = -EADDRINUSE;

	spin_lock_bh(&hslot->lock);
	if (port0_udp_is_taken(sk, table, hslot))
		goto unlock;

	WRITE_ONCE(inet_sk(sk)->inet_num, 0);
	udp_sk(sk)->udp_port_hash = 0;
	udp_sk(sk)->udp_portaddr_hash = port0_saddr_hash(sk);
	if (sk->sk_reuseport && port0_udp_join_group(sk, hslot))
		goto unlock;
	port0_udp_link(sk, table, hslot);
	err = 0;
unlock:
	spin_unlock_bh(&hslot->lock);
	return err;
}

/**
 * port0_udp_is_filed - tell whether a UDP socket is in the chain of its address
 * @sk: a UDP socket that holds port 0
 *
 * A UDP socket stores 16 bits of the hash of its address. One in 65,536 addresses has
 * the same hash and is taken for the right one. So what a late call (watch.c) may have
 * written is not compared by this alone: see port0_watch_may_move() and
 * port0_watch_place().
 *
 * Context: as port0_place_holds().
 * Return: true if it is.
 */
bool port0_udp_is_filed(const struct sock *sk)
{
	return udp_sk(sk)->udp_portaddr_hash == (u16)port0_saddr_hash(sk);
}

/**
 * port0_udp_get_port - take port 0, in place of udp_v4_get_port() and
 * udp_v6_get_port()
 * @sk: a marked UDP socket that is being bound
 * @snum: the stand-in
 *
 * Mirrors udp_lib_get_port().
 *
 * Context: process, socket locked; may sleep. Takes the locks of the chains.
 * Return: 0; -EADDRINUSE, as in the kernel also if the SO_REUSEPORT group cannot be
 * enlarged; or what port0_bind_claim() returns.
 */
int port0_udp_get_port(struct sock *sk, unsigned short snum)
{
	struct port0_call *call = port0_bind_claim(sk);
	int err;

	err = PTR_ERR_OR_ZERO(call) ?: port0_udp_bind(sk);
	if (!err)
		port0_bind_claimed(sk, call);
	return err;
}

static bool port0_udp_table_any_marked(struct udp_table *table)
{
	struct udp_hslot *hslot;
	bool found = false;
	unsigned int i;
	struct sock *sk;

	for (i = 0; i <= table->mask && !found; i++) {
		hslot = &table->hash[i];
		if (hlist_empty(&hslot->head))
			continue;
		spin_lock_bh(&hslot->lock);
		sk_for_each(sk, &hslot->head)
			found |= port0_sock_is_marked(sk);
		spin_unlock_bh(&hslot->lock);
		cond_resched();
	}
	return found;
}

/**
 * port0_udp_any_marked - look for a bound UDP socket that is marked
 *
 * Marks stay on sockets when the module is unloaded. A bound marked socket can send to
 * port 0 as soon as the hooks on sendmsg() are armed. A socket that is not bound arms
 * them itself, in port0_inet_autobind().
 *
 * Context: process, no locks held; may sleep. Takes net_rwsem and the locks of the
 * chains.
 * Return: true if there is one in any network namespace.
 */
bool port0_udp_any_marked(void)
{
	struct udp_table *table, *last = NULL;
	bool found = false;
	struct net *net;

	down_read(&net_rwsem);
	for_each_net(net) {
		table = port0_udp_table_of(net);
		/* Namespaces may share one. */
		if (table != last)
			found = port0_udp_table_any_marked(table);
		if (found)
			break;
		last = table;
	}
	up_read(&net_rwsem);
	return found;
}

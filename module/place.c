// SPDX-License-Identifier: GPL-2.0
/*
 * The invariant of place.h, and how it can be broken.
 *
 * The kernel chooses the chain to lock by the address that the socket has at that
 * moment: in connect() and close(), and for TCP again when TIME_WAIT begins and ends,
 * since the TIME_WAIT socket takes over address and bucket. If the address were not the
 * one that the socket is filed under, all of these would change one chain while they
 * hold the lock of another.
 *
 * Two things write another address into a socket that is filed:
 *
 * - A bind() that began before the socket was marked. It waits for the socket lock
 *   while another bind() takes port 0. Then it finds inet_num 0, takes the socket
 *   for unbound and writes its own address. watch.c undoes that before the socket
 *   lock is free again.
 * - A bind() that takes port 0 and is then refused by a BPF program (post_bind). The
 *   kernel zeroes the address before it gives the port back: see
 *   port0_bind_release().
 *
 * port0_place_restore() writes the address back. In the second case this is needed for
 * TCP only: a UDP socket is taken out by the hashes that it stores.
 */
#include <net/inet_sock.h>
#include <net/ipv6.h>

#include "place.h"
#include "port0.h"

/**
 * port0_place_holds - tell whether a socket is filed under the address that it has
 * @sk: a TCP or UDP socket that holds port 0
 *
 * Context: the caller owns the socket lock, which guards the address and the
 * bucket, or nothing else uses the socket any more. Does not sleep.
 * Return: true if the invariant holds.
 */
bool port0_place_holds(const struct sock *sk)
{
	if (sk->sk_protocol == IPPROTO_TCP)
		return port0_tcp_is_filed(sk);
	return port0_udp_is_filed(sk);
}

/**
 * port0_place_read - copy from a socket what a bind() writes into it
 * @place: what to fill in
 * @sk: a TCP or UDP socket, filed under the address that it has
 *
 * Context: as port0_place_holds().
 */
void port0_place_read(struct port0_place *place, const struct sock *sk)
{
	place->v4_rcv_saddr = sk->sk_rcv_saddr;
	place->v4_saddr = inet_sk(sk)->inet_saddr;
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6) {
		place->v6_rcv_saddr = sk->sk_v6_rcv_saddr;
		place->v6_saddr = inet6_sk(sk)->saddr;
	}
#endif
	place->v6only = sk->sk_ipv6only;
	place->addr_locked = sk->sk_userlocks & SOCK_BINDADDR_LOCK;
	place->bound_dev_if = sk->sk_bound_dev_if;
}

/**
 * port0_place_has_address - tell whether a socket has a certain address
 * @place: what port0_place_read() has filled in
 * @sk: the socket
 *
 * Context: as port0_place_holds().
 * Return: true if it has.
 */
bool port0_place_has_address(const struct port0_place *place,
			     const struct sock *sk)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6)
		return ipv6_addr_equal(&place->v6_rcv_saddr,
				       &sk->sk_v6_rcv_saddr);
#endif
	return place->v4_rcv_saddr == sk->sk_rcv_saddr;
}

/**
 * port0_place_restore - write the address back that a socket is filed under
 * @place: what port0_place_read() has read while the invariant held
 * @sk: a TCP or UDP socket that holds port 0
 *
 * Context: as port0_place_holds().
 */
void port0_place_restore(const struct port0_place *place, struct sock *sk)
{
	sk->sk_rcv_saddr = place->v4_rcv_saddr;
	inet_sk(sk)->inet_saddr = place->v4_saddr;
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6) {
		sk->sk_v6_rcv_saddr = place->v6_rcv_saddr;
		inet6_sk(sk)->saddr = place->v6_saddr;
	}
#endif
	sk->sk_ipv6only = place->v6only;
	if (place->addr_locked)
		sk->sk_userlocks |= SOCK_BINDADDR_LOCK;
	else
		sk->sk_userlocks &= ~SOCK_BINDADDR_LOCK;
	sk->sk_bound_dev_if = place->bound_dev_if;

	/*
	 * With net.ipv4.ip_dynaddr, the timer that repeats a SYN may have moved the
	 * socket to another address since. Then the bucket has the right one.
	 */
	if (sk->sk_protocol == IPPROTO_TCP && !port0_tcp_is_filed(sk))
		port0_tcp_readdress(sk);
}

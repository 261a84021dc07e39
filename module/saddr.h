/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Comparing bound addresses. Two addresses overlap if a packet could be for either: then
 * sockets on them conflict, unless they share the port (SO_REUSEADDR, SO_REUSEPORT). The
 * kernel's inet_rcv_saddr_equal() compares the addresses of two sockets, but newer
 * kernels do not export it, and bind buckets have an address without a socket.
 */
#ifndef _PORT0_SADDR_H
#define _PORT0_SADDR_H

#include <net/addrconf.h>
#include <net/ipv6.h>
#include <net/sock.h>

#include "place.h"

/**
 * struct port0_saddr - the address that a socket is bound to
 * @v6: its IPv6 address; NULL for an IPv4 socket
 * @v4: its IPv4 address; 0 is the wildcard, which IPv6 wildcards have here, too
 * @v6only: the socket takes no IPv4 traffic
 */
struct port0_saddr {
	const struct in6_addr *v6;
	__be32 v4;
	bool v6only;
};

/**
 * port0_is_v6only - tell whether a socket takes no IPv4 traffic
 * @sk: a socket; may be a TIME_WAIT socket
 *
 * IPV6_V6ONLY does not count on a v4-mapped address. bind() refuses that pair, but an
 * accepted socket or one in TIME_WAIT can have it: it has copied the option while a late
 * call (watch.c) had set it.
 *
 * Context: any.
 * Return: true if it takes none.
 */
static inline bool port0_is_v6only(const struct sock *sk)
{
	const struct in6_addr *v6 = inet6_rcv_saddr(sk);

	return ipv6_only_sock(sk) && v6 && !ipv6_addr_v4mapped(v6);
}

static inline struct port0_saddr port0_saddr_of(const struct sock *sk)
{
	return (struct port0_saddr){
		.v6 = inet6_rcv_saddr(sk),
		.v4 = sk->sk_rcv_saddr,
		.v6only = port0_is_v6only(sk),
	};
}

/* The same of a place, which port0_place_read() has read from @sk */
static inline struct port0_saddr port0_saddr_at(const struct port0_place *place,
						const struct sock *sk)
{
	return (struct port0_saddr){
		.v6 = inet6_rcv_saddr(sk) ? &place->v6_rcv_saddr : NULL,
		.v4 = place->v4_rcv_saddr,
		.v6only = place->v6only,
	};
}

/* Mirrors ipv4_rcv_saddr_equal(). Parameters as those of port0_saddr_overlaps(). */
static inline bool port0_saddr4_overlaps(const struct port0_saddr *a,
					 const struct port0_saddr *b,
					 bool wild_a, bool wild_b)
{
	if (b->v6only)
		return false;
	return a->v4 == b->v4 || (wild_a && !a->v4) || (wild_b && !b->v4);
}

/**
 * port0_saddr_overlaps - tell whether two addresses overlap
 * @a: the address to be bound
 * @b: an address that is bound already
 * @wild_a: a wildcard in @a overlaps with every address
 * @wild_b: a wildcard in @b overlaps with every address
 *
 * Mirrors inet_rcv_saddr_equal() and ipv6_rcv_saddr_equal(). Like these, it is not
 * symmetric: an IPv4 wildcard in @a overlaps with an IPv6 address in @b, but an IPv6
 * address in @a does not overlap with an IPv4 wildcard in @b.
 *
 * Context: any.
 * Return: true if they overlap.
 */
static inline bool port0_saddr_overlaps(const struct port0_saddr *a,
					const struct port0_saddr *b,
					bool wild_a, bool wild_b)
{
	bool mapped_a, mapped_b, any_a, any_b;

	if (!IS_ENABLED(CONFIG_IPV6) || !a->v6)
		return port0_saddr4_overlaps(a, b, wild_a, wild_b);

	mapped_a = ipv6_addr_v4mapped(a->v6);
	mapped_b = !b->v6 || ipv6_addr_v4mapped(b->v6);
	if (mapped_a && mapped_b)
		return port0_saddr4_overlaps(a, b, wild_a, wild_b);

	any_a = ipv6_addr_any(a->v6);
	any_b = b->v6 && ipv6_addr_any(b->v6);
	if (any_a && any_b)
		return true;
	if (any_b && wild_b && !(b->v6only && mapped_a))
		return true;
	if (any_a && wild_a && !(a->v6only && mapped_b))
		return true;
	return b->v6 && ipv6_addr_equal(a->v6, b->v6);
}

/**
 * port0_rcv_saddr_equal - tell whether the addresses of two sockets overlap
 * @sk: the socket to be bound
 * @sk2: a bound socket; may be a TIME_WAIT socket
 * @wild: a wildcard on either side overlaps with every address
 *
 * Context: any; the caller keeps @sk2 from being freed.
 * Return: true if they overlap.
 */
static inline bool port0_rcv_saddr_equal(const struct sock *sk,
					 const struct sock *sk2, bool wild)
{
	struct port0_saddr a = port0_saddr_of(sk);
	struct port0_saddr b = port0_saddr_of(sk2);

	return port0_saddr_overlaps(&a, &b, wild, wild);
}

/**
 * port0_place_overlaps - tell whether the address of a socket and that of a place overlap
 * @sk: the socket to be bound
 * @place: what @sk2 is filed under, from port0_watch_place()
 * @sk2: a bound socket
 * @wild: as for port0_rcv_saddr_equal()
 *
 * Context: as port0_rcv_saddr_equal().
 * Return: true if they overlap.
 */
static inline bool port0_place_overlaps(const struct sock *sk,
					const struct port0_place *place,
					const struct sock *sk2, bool wild)
{
	struct port0_saddr a = port0_saddr_of(sk);
	struct port0_saddr b = port0_saddr_at(place, sk2);

	return port0_saddr_overlaps(&a, &b, wild, wild);
}

/* Mirrors inet_rcv_saddr_any(). */
static inline bool port0_rcv_saddr_any(const struct sock *sk)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6)
		return ipv6_addr_any(&sk->sk_v6_rcv_saddr);
#endif
	return !sk->sk_rcv_saddr;
}

/**
 * port0_saddr_hash - compute the hash of a socket's address and port 0
 * @sk: the socket
 *
 * The same value as in inet_bhashfn_portaddr() for bhash2, and in UDP's second table.
 *
 * Context: any.
 * Return: the hash, to be masked with the size of the table.
 */
static inline u32 port0_saddr_hash(const struct sock *sk)
{
#if IS_ENABLED(CONFIG_IPV6)
	if (sk->sk_family == AF_INET6)
		return ipv6_portaddr_hash(sock_net(sk), &sk->sk_v6_rcv_saddr,
					  0);
#endif
	return ipv4_portaddr_hash(sock_net(sk), sk->sk_rcv_saddr, 0);
}

/* The same for the wildcard address, which has one hash in both families. */
static inline u32 port0_saddr_hash_any(const struct sock *sk)
{
	return ipv4_portaddr_hash(sock_net(sk), htonl(INADDR_ANY), 0);
}

#endif /* _PORT0_SADDR_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The invariant: a socket that holds port 0 is filed under the address that it has. To
 * be filed under an address is to be linked into the hash chain of that address: in
 * bhash2 for TCP, in the second hash table for UDP.
 */
#ifndef _PORT0_PLACE_H
#define _PORT0_PLACE_H

#include <linux/in6.h>
#include <linux/types.h>

struct sock;

/**
 * struct port0_place - what a bind() writes into a socket, apart from the port
 * @v4_rcv_saddr: sk_rcv_saddr, the IPv4 address that the socket receives on
 * @v4_saddr: inet_saddr, the IPv4 address that it sends from
 * @v6_rcv_saddr: the same for IPv6, if it is an AF_INET6 socket
 * @v6_saddr: the same for IPv6, if it is an AF_INET6 socket
 * @v6only: sk_ipv6only, it takes no IPv4 traffic
 * @addr_locked: SOCK_BINDADDR_LOCK, the address stays when a connection ends
 * @bound_dev_if: sk_bound_dev_if, which bind() to a link-local address sets
 */
struct port0_place {
	__be32 v4_rcv_saddr;
	__be32 v4_saddr;
	struct in6_addr v6_rcv_saddr;
	struct in6_addr v6_saddr;
	bool v6only;
	bool addr_locked;
	int bound_dev_if;
};

bool port0_place_holds(const struct sock *sk);
void port0_place_read(struct port0_place *place, const struct sock *sk);
bool port0_place_has_address(const struct port0_place *place,
			     const struct sock *sk);
void port0_place_restore(const struct port0_place *place, struct sock *sk);

#endif /* _PORT0_PLACE_H */

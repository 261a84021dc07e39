/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The invariant: a socket that holds port 0 is filed in the kernel's tables under
 * the address that it has.
 */
#ifndef _PORT0_PLACE_H
#define _PORT0_PLACE_H

#include <linux/in6.h>
#include <linux/types.h>

struct sock;

/**
 * struct port0_place - what a bind() writes into a socket, apart from the port
 * @v4_rcv_saddr: the IPv4 address that it receives on
 * @v4_saddr: the IPv4 address that it sends from
 * @v6_rcv_saddr: the IPv6 address that it receives on, of an AF_INET6 socket
 * @v6_saddr: the IPv6 address that it sends from, of an AF_INET6 socket
 * @v6only: it takes no IPv4 traffic
 * @addr_locked: the address was asked for, and stays when a connection ends
 * @bound_dev_if: the device, which a link-local address brings along
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

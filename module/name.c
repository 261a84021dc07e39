// SPDX-License-Identifier: GPL-2.0
/*
 * getpeername(), accept() and SO_PEERNAME where the peer is on port 0.
 *
 * The kernel takes a socket whose inet_dport is 0 for one that is not connected. But the
 * peer's port can be 0, so here the state of the socket decides.
 */
#include <linux/bpf-cgroup.h>
#include <net/ipv6.h>

#include "port0.h"

/**
 * port0_sock_has_peer - tell whether a socket is connected
 * @sock: a TCP, MPTCP or UDP socket
 * @peer: 1 for getpeername(), 2 for accept() and SO_PEERNAME, for which a connection
 *	that is closed already has a peer, too
 *
 * Mirrors the test of inet_getname(), but without the port. In TCP_CLOSE, only
 * sock->state shows whether there was a connection.
 *
 * Context: any. The answer may be out of date if the caller does not own the socket
 * lock.
 * Return: true if it has a peer.
 */
bool port0_sock_has_peer(const struct socket *sock, int peer)
{
	switch (sock->sk->sk_state) {
	case TCP_LISTEN:
		return false;
	case TCP_SYN_SENT:
		return peer != 1;
	case TCP_CLOSE:
		return peer != 1 && READ_ONCE(sock->state) != SS_UNCONNECTED;
	default:
		return true;
	}
}

/**
 * port0_inet_getname - getpeername() where inet_dport is 0, in place of
 * inet_getname()
 * @sock: a TCP, MPTCP or UDP socket, marked or not
 * @uaddr: where to store the peer's address
 * @peer: as port0_sock_has_peer()
 *
 * Mirrors inet_getname() with @peer.
 *
 * Context: process, no locks held; may sleep. Takes the socket lock.
 * Return: the length of the address, or -ENOTCONN.
 */
int port0_inet_getname(struct socket *sock, struct sockaddr *uaddr, int peer)
{
	struct sockaddr_in *sin = (struct sockaddr_in *)uaddr;
	struct sock *sk = sock->sk;
	int len = -ENOTCONN;

	sin->sin_family = AF_INET;
	lock_sock(sk);
	if (port0_sock_has_peer(sock, peer)) {
		len = sizeof(*sin);
		sin->sin_port = inet_sk(sk)->inet_dport;
		sin->sin_addr.s_addr = inet_sk(sk)->inet_daddr;
		memset(sin->sin_zero, 0, sizeof(sin->sin_zero));
		port0_cgroup_run_sa_prog(sk, uaddr, &len,
					 CGROUP_INET4_GETPEERNAME);
	}
	release_sock(sk);
	return len;
}

#if IS_ENABLED(CONFIG_IPV6)
/**
 * port0_inet6_getname - getpeername() where inet_dport is 0, in place of
 * inet6_getname()
 * @sock: a TCP, MPTCP or UDP socket, marked or not
 * @uaddr: where to store the peer's address
 * @peer: as port0_sock_has_peer()
 *
 * Mirrors inet6_getname() with @peer.
 *
 * Context: process, no locks held; may sleep. Takes the socket lock.
 * Return: the length of the address, or -ENOTCONN.
 */
int port0_inet6_getname(struct socket *sock, struct sockaddr *uaddr, int peer)
{
	struct sockaddr_in6 *sin = (struct sockaddr_in6 *)uaddr;
	struct sock *sk = sock->sk;
	int len = -ENOTCONN;

	sin->sin6_family = AF_INET6;
	sin->sin6_flowinfo = 0;
	sin->sin6_scope_id = 0;
	lock_sock(sk);
	if (port0_sock_has_peer(sock, peer)) {
		len = sizeof(*sin);
		sin->sin6_port = inet_sk(sk)->inet_dport;
		sin->sin6_addr = sk->sk_v6_daddr;
		if (port0_ipv6_sndflow(sk))
			sin->sin6_flowinfo = inet6_sk(sk)->flow_label;
		port0_cgroup_run_sa_prog(sk, uaddr, &len,
					 CGROUP_INET6_GETPEERNAME);
		sin->sin6_scope_id = ipv6_iface_scope_id(&sin->sin6_addr,
							 sk->sk_bound_dev_if);
	}
	release_sock(sk);
	return len;
}
#endif

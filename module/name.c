// SPDX-License-Identifier: GPL-2.0
/*
 * The name of a peer on port 0.
 *
 * The kernel takes a destination port of 0 for "not connected". On a connected
 * socket it is the peer's port, and the state tells which sockets are connected.
 */
#include <linux/bpf-cgroup.h>
#include <net/ipv6.h>

#include "port0.h"

/*
 * What is left of the test in inet_getname() without the port. accept() asks
 * with @peer 2, which takes a connection that is closed already.
 */
static bool port0_sock_has_peer(const struct sock *sk, int peer)
{
	if (peer == 1 && ((1 << sk->sk_state) & (TCPF_CLOSE | TCPF_SYN_SENT)))
		return false;
	return inet_sk(sk)->inet_dport || sk->sk_state != TCP_LISTEN;
}

/**
 * port0_inet_getname - getpeername() where the peer's port is 0, in place of
 * inet_getname()
 * @sock: a TCP or UDP socket, marked or not
 * @uaddr: where the name goes
 * @peer: 1 for getpeername(), 2 for accept()
 *
 * Context: process, no locks held.
 * Return: the length of the name, or -ENOTCONN.
 */
int port0_inet_getname(struct socket *sock, struct sockaddr *uaddr, int peer)
{
	struct sockaddr_in *sin = (struct sockaddr_in *)uaddr;
	struct sock *sk = sock->sk;
	int len = -ENOTCONN;

	sin->sin_family = AF_INET;
	lock_sock(sk);
	if (port0_sock_has_peer(sk, peer)) {
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
 * port0_inet6_getname - getpeername() where the peer's port is 0, in place of
 * inet6_getname()
 * @sock: a TCP or UDP socket, marked or not
 * @uaddr: where the name goes
 * @peer: 1 for getpeername(), 2 for accept()
 *
 * Context: process, no locks held.
 * Return: the length of the name, or -ENOTCONN.
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
	if (port0_sock_has_peer(sk, peer)) {
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

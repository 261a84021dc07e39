/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of port0 know of each other.
 *
 * A socket carries no pointer into this module. Its mark is one bit of
 * sk_flags, and whether it holds port 0 is read from the kernel's own state, so
 * a socket can outlive the module, and a child can be cloned from a listener,
 * without anybody telling us.
 */
#ifndef _PORT0_H
#define _PORT0_H

#include <linux/module.h>
#include <linux/net.h>
#include <net/inet_connection_sock.h>
#include <net/inet_sock.h>
#include <net/sock.h>
#include <net/tcp.h>
#include <net/udp.h>

#include "compat.h"

/*
 * The mark: a bit of sk->sk_flags far above those in enum sock_flags. Changed
 * under the socket lock, as every flag there; read without. Clearing the mark sets
 * WAS_MARKED, for sends to port 0 that are in flight: they take no turns.
 */
#define PORT0_SOCK_MARK		(BITS_PER_LONG - 2)
#define PORT0_SOCK_WAS_MARKED	(BITS_PER_LONG - 3)

/*
 * The port that __inet_bind() and udp_sendmsg() are shown in place of 0, since
 * they take 0 for "none". It never reaches a hash table or a packet. The lowest
 * there is: it needs the same privilege as 0, unless ip_unprivileged_port_start
 * is 1, which port0_bind_claim() looks after.
 */
#define PORT0_STAND_IN		1

static inline bool port0_sock_is_marked(const struct sock *sk)
{
	return test_bit(PORT0_SOCK_MARK, &sk->sk_flags);
}

/* It is marked, or a call that began when it was may still be under way. */
static inline bool port0_sock_is_known(const struct sock *sk)
{
	return READ_ONCE(sk->sk_flags) &
	       (BIT(PORT0_SOCK_MARK) | BIT(PORT0_SOCK_WAS_MARKED));
}

static inline bool port0_sock_is_tcp_or_udp(const struct sock *sk)
{
	return (sk->sk_type == SOCK_STREAM && sk->sk_protocol == IPPROTO_TCP) ||
	       (sk->sk_type == SOCK_DGRAM && sk->sk_protocol == IPPROTO_UDP);
}

/**
 * port0_sock_holds - tell whether a TCP or UDP socket holds port 0
 * @sk: a full TCP or UDP socket
 *
 * A bound socket whose number is 0. The bind bucket itself is not looked into:
 * without the lock it may be gone.
 *
 * Context: exact under the socket lock. Without it, a socket that is being bound
 * or closed meanwhile may be taken for either; whoever acts on the answer asks
 * again with the lock held.
 * Return: true if it holds port 0.
 */
static inline bool port0_sock_holds(const struct sock *sk)
{
	if (READ_ONCE(inet_sk(sk)->inet_num))
		return false;
	if (sk->sk_protocol == IPPROTO_TCP)
		return READ_ONCE(inet_csk(sk)->icsk_bind_hash);
	return sk_hashed(sk);
}

/**
 * port0_sock_pins - tell whether a socket holds port 0 by its own bind()
 * @sk: a full TCP or UDP socket
 *
 * Such a socket needs the hooks for as long as it holds the port: without them
 * a second bind(), a listen() or a connect() would move it inside the kernel's
 * tables. It therefore keeps a reference on the module. An accepted child does
 * not: all that can happen to it is to be closed.
 *
 * Context: as port0_sock_holds().
 * Return: true if it holds port 0 and keeps the module loaded.
 */
static inline bool port0_sock_pins(const struct sock *sk)
{
	return port0_sock_holds(sk) && (sk->sk_userlocks & SOCK_BINDPORT_LOCK);
}

struct port0_call;

/* main.c */
bool port0_is_loading(void);

/* drain.c */
bool port0_is_draining(void);
bool port0_may_mark(void);
void port0_drain_begin(void);
void port0_drain_end(void);

/* sockopt.c */
int port0_sockopt_register(void);
void port0_sockopt_unregister(void);
int port0_ipv6_setsockopt(struct sock *sk, int level, int optname,
			  sockptr_t optval, unsigned int optlen);

/* bind.c */
int port0_inet_bind(struct socket *sock, port0_sockaddr_t *uaddr, int addr_len);
int port0_inet6_bind(struct socket *sock, port0_sockaddr_t *uaddr,
		     int addr_len);
bool port0_bind_prepare(struct sock *sk, port0_sockaddr_t *uaddr, u32 flags);
int port0_inet_rebind(struct sock *sk, port0_sockaddr_t *uaddr, int addr_len,
		      u32 flags);
int port0_inet6_rebind(struct sock *sk, port0_sockaddr_t *uaddr, int addr_len,
		       u32 flags);
bool port0_bind_wants_port(const struct sock *sk, unsigned short snum);
struct port0_call *port0_bind_claim(struct sock *sk);
void port0_bind_claimed(struct sock *sk, struct port0_call *call);
int port0_bind_keep(const struct sock *sk, unsigned short snum);
void port0_bind_release(struct sock *sk);

/* tcp.c */
bool port0_tcp_is_filed(const struct sock *sk);
void port0_tcp_readdress(struct sock *sk);
int port0_tcp_get_port(struct sock *sk, unsigned short snum);
int port0_tcp_hash_connect(PORT0_HASH_CONNECT_PARAMS);

/* udp.c */
bool port0_udp_is_filed(const struct sock *sk);
int port0_udp_get_port(struct sock *sk, unsigned short snum);
bool port0_udp_any_marked(void);

/* send.c */
bool port0_send_wants(const struct sock *sk, const struct msghdr *msg);
int port0_inet_autobind(struct sock *sk);
int port0_udp_sendmsg(struct sock *sk, struct msghdr *msg, size_t len);
void port0_send_route4(const struct sock *sk, struct flowi4 *fl4);
void port0_send_route6(const struct sock *sk, struct flowi6 *fl6);
void port0_send_append(const struct sock *sk, struct flowi4 *fl4);
bool port0_send_was_routed(void);
#ifdef CONFIG_CGROUP_BPF
bool port0_send_runs_prog(const struct sock *sk, const port0_sockaddr_t *uaddr);
int port0_cgroup_sock_addr_prog(PORT0_CGROUP_SOCK_ADDR_PARAMS);
#endif

/* name.c */
int port0_inet_getname(struct socket *sock, struct sockaddr *uaddr, int peer);
int port0_inet6_getname(struct socket *sock, struct sockaddr *uaddr, int peer);

/* selfcheck.c */
int port0_selfcheck(void);

#endif /* _PORT0_H */

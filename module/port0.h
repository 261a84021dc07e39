/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Declarations that the files of the module share
 *
 * A socket has no pointer to anything in this module. The mark is a bit of sk_flags,
 * and whether a socket holds port 0 is read from the kernel's own state. So a socket
 * can exist longer than the module is loaded, and the kernel can clone one from a
 * listener without a hook.
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
 * The mark: a bit of sk->sk_flags far above those of enum sock_flags. It is written
 * with the socket lock held and read without it. The kernel, too, writes sk_flags with
 * the lock held, except for ioctl(SIOCGSTAMP) on older kernels: see doc/how-it-works.md.
 * Clearing the mark does not wait for sends to port 0 that have begun, since sends take
 * no turns (turn.h). It sets WAS_MARKED, so that the gates still pass these sends.
 */
#define PORT0_SOCK_MARK		(BITS_PER_LONG - 2)
#define PORT0_SOCK_WAS_MARKED	(BITS_PER_LONG - 3)

/*
 * The stand-in: the port that __inet_bind() and udp_sendmsg() get instead of 0, which
 * they take for "no port". It never gets into a hash table or a packet. Port 1 needs
 * the same privilege as port 0, unless ip_unprivileged_port_start is 1:
 * port0_bind_prepare() handles that.
 */
#define PORT0_STAND_IN		1

static inline bool port0_sock_is_marked(const struct sock *sk)
{
	return test_bit(PORT0_SOCK_MARK, &sk->sk_flags);
}

/* Marked now or earlier: a send to port 0 that began then may still be in flight */
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
 * That is, it is bound and its inet_num is 0. The bind bucket is not dereferenced,
 * since it may be freed meanwhile if the socket lock is not held.
 *
 * Context: any. The answer is exact if the caller owns the socket lock. Without the
 * lock, it may be wrong for a socket that is being bound or closed; the caller must
 * then repeat the test under the lock before it acts on the answer.
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
 * Such a socket needs the hooks for as long as it holds the port: without them, a
 * second bind(), listen() or connect() would give it another port. So there is a
 * reference on the module for it. An accepted socket needs none: it can only be
 * closed.
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
bool port0_late_begin(void);
void port0_late_end(void);
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
#if IS_ENABLED(CONFIG_SMC)
bool port0_refuses_ulp(const struct sock *sk, const char *name);
#endif
int port0_bind_refuse(struct sock *sk);
int port0_bind_keep(struct sock *sk, unsigned short snum);
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
void port0_send_arm(void);
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
bool port0_sock_has_peer(const struct socket *sock, int peer);
int port0_inet_getname(struct socket *sock, struct sockaddr *uaddr, int peer);
int port0_inet6_getname(struct socket *sock, struct sockaddr *uaddr, int peer);

/* selfcheck.c */
int port0_selfcheck(void);

#endif /* _PORT0_H */

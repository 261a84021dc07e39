/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Declarations of the hooked functions, as this module expects them.
 *
 * If the kernel's headers declare a function, the compiler reports a difference. On
 * some kernels these are static or declared in private headers: __inet6_bind,
 * inet_autobind, udp_v4_get_port, udp_v6_get_port, udpv6_sendmsg. selftests/module.py
 * compares them with the kernel's BTF.
 */
#ifndef _PORT0_HOOKED_H
#define _PORT0_HOOKED_H

#include <linux/bpf-cgroup.h>
#include <linux/net.h>
#include <linux/sockptr.h>
#include <net/inet_common.h>
#include <net/inet_connection_sock.h>
#include <net/inet_hashtables.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/route.h>
#include <net/tcp.h>
#include <net/transp_v6.h>
#include <net/udp.h>

#include "compat.h"

int inet_bind(struct socket *sock, port0_sockaddr_t *uaddr, int addr_len);
int __inet_bind(struct sock *sk, port0_sockaddr_t *uaddr, int addr_len,
		u32 flags);
int inet_csk_get_port(struct sock *sk, unsigned short snum);
int udp_v4_get_port(struct sock *sk, unsigned short snum);
int inet_autobind(struct sock *sk);
int tcp_set_ulp(struct sock *sk, const char *name);
int __inet_hash_connect(PORT0_HASH_CONNECT_PARAMS);
int inet_getname(struct socket *sock, struct sockaddr *uaddr, int peer);
void inet_put_port(struct sock *sk);
void udp_lib_unhash(struct sock *sk);
int udp_sendmsg(struct sock *sk, struct msghdr *msg, size_t len);
struct rtable *ip_route_output_flow(struct net *net, struct flowi4 *flp,
				    const struct sock *sk);
int ip_append_data(struct sock *sk, struct flowi4 *fl4,
		   int getfrag(void *from, char *to, int offset, int len,
			       int odd, struct sk_buff *skb),
		   void *from, int len, int protolen, struct ipcm_cookie *ipc,
		   struct rtable **rt, unsigned int flags);

#if IS_ENABLED(CONFIG_IPV6)
int inet6_bind(struct socket *sock, port0_sockaddr_t *uaddr, int addr_len);
int __inet6_bind(struct sock *sk, port0_sockaddr_t *uaddr, int addr_len,
		 u32 flags);
int ipv6_setsockopt(struct sock *sk, int level, int optname, sockptr_t optval,
		    unsigned int optlen);
int udp_v6_get_port(struct sock *sk, unsigned short snum);
int inet6_getname(struct socket *sock, struct sockaddr *uaddr, int peer);
int udpv6_sendmsg(struct sock *sk, struct msghdr *msg, size_t len);
struct dst_entry *ip6_sk_dst_lookup_flow(struct sock *sk, struct flowi6 *fl6,
					 const struct in6_addr *final_dst,
					 bool connected);
#endif

#ifdef CONFIG_CGROUP_BPF
int __cgroup_bpf_run_filter_sock_addr(PORT0_CGROUP_SOCK_ADDR_PARAMS);
#endif

#endif /* _PORT0_HOOKED_H */

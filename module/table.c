// SPDX-License-Identifier: GPL-2.0
/*
 * Which kernel functions are hooked, when, and where their calls go.
 *
 * Each hook is one function below: entered with the arguments of the kernel
 * function, it returns the replacement for this call, or NULL to let the call
 * be. It runs for every socket in the system, so it first asks for the mark.
 * Context: as the kernel function's, possibly with preemption off; no sleeping.
 */
#include <linux/net.h>
#include <net/flow.h>
#include <net/ipv6.h>

#include "call.h"
#include "hook.h"
#include "port0.h"

/*
 * PORT0_HOOK(func) { ... } defines the hook on func(), in which ARG(n) is the
 * n-th argument as a pointer and NUM(n) as a number, and the two entries to it:
 * from ftrace and from a kprobe. PORT0_ENTRY() is its line in the table.
 */
#define ARG(n)	((void *)args.arg##n)
#define NUM(n)	((u32)args.arg##n)

struct port0_args {
	unsigned long arg0, arg1, arg2, arg3;
};

#define PORT0_HOOK(func)						\
static __always_inline void *port0_on_##func(struct port0_args args);	\
									\
static void port0_ftrace_##func(unsigned long ip,			\
				unsigned long parent_ip,		\
				struct ftrace_ops *ops,			\
				struct ftrace_regs *fregs)		\
{									\
	void *to = port0_on_##func((struct port0_args){			\
		.arg0 = port0_ftrace_arg(fregs, 0),			\
		.arg1 = port0_ftrace_arg(fregs, 1),			\
		.arg2 = port0_ftrace_arg(fregs, 2),			\
		.arg3 = port0_ftrace_arg(fregs, 3),			\
	});								\
									\
	if (unlikely(to))						\
		port0_ftrace_set_ip(fregs, (unsigned long)to);		\
}									\
									\
static int port0_kprobe_##func(struct kprobe *kp, struct pt_regs *regs)	\
{									\
	void *to = port0_on_##func((struct port0_args){			\
		.arg0 = regs_get_kernel_argument(regs, 0),		\
		.arg1 = regs_get_kernel_argument(regs, 1),		\
		.arg2 = regs_get_kernel_argument(regs, 2),		\
		.arg3 = regs_get_kernel_argument(regs, 3),		\
	});								\
									\
	if (likely(!to))						\
		return 0;						\
	instruction_pointer_set(regs, (unsigned long)to);		\
	return 1;							\
}									\
									\
static __always_inline void *port0_on_##func(struct port0_args args)

#define PORT0_ENTRY(_func, _set, _redirects) {				\
	.func = #_func,							\
	.set = (_set),							\
	.redirects = (_redirects),					\
	.callback = port0_ftrace_##_func,				\
	.handler = port0_kprobe_##_func,				\
}

/*
 * A redirected call holds a reference on the module, which the replacement puts
 * at its end. That keeps the module for calls that sleep; what is left of the
 * replacement after the put is covered by synchronize_rcu_tasks() at unload.
 */
#define port0_redirect(replacement)	\
	(port0_enter() ? (void *)(replacement) : NULL)

/* bind() */

static __always_inline void *port0_on_bind(struct socket *sock,
					   const struct sockaddr_in *addr,
					   void *replacement)
{
	struct sock *sk = sock->sk;

	if (likely(!port0_sock_is_marked(sk)))
		return NULL;
	if (port0_call_find(sk, PORT0_CALL_BIND))
		return NULL;
	if (port0_enter())
		return replacement;
	return addr->sin_port ? NULL : port0_inet_bind_leaving;
}

static __always_inline void *port0_on___bind(struct sock *sk, void *uaddr,
					     u32 flags, void *replacement)
{
	if (likely(!port0_sock_is_marked(sk)))
		return NULL;
	if (!port0_bind_prepare(sk, uaddr, flags))
		return NULL;
	return port0_redirect(replacement);
}

PORT0_HOOK(inet_bind)
{
	return port0_on_bind(ARG(0), ARG(1), port0_inet_bind);
}

PORT0_HOOK(__inet_bind)
{
	return port0_on___bind(ARG(0), ARG(1), NUM(3), port0_inet_rebind);
}

#if IS_ENABLED(CONFIG_IPV6)
PORT0_HOOK(inet6_bind)
{
	return port0_on_bind(ARG(0), ARG(1), port0_inet6_bind);
}

PORT0_HOOK(__inet6_bind)
{
	return port0_on___bind(ARG(0), ARG(1), NUM(3), port0_inet6_rebind);
}
#endif

/*
 * The protocol is asked for a port: by bind(), or because the kernel takes a
 * socket on port 0 for unbound, in listen() and before a send.
 */

PORT0_HOOK(inet_csk_get_port)
{
	struct sock *sk = ARG(0);

	if (likely(!port0_sock_is_marked(sk)))
		return NULL;
	if (!port0_sock_holds(sk) && !port0_bind_wants_port(sk, NUM(1)))
		return NULL;
	return port0_redirect(port0_tcp_get_port);
}

static __always_inline void *port0_on_udp_get_port(struct sock *sk,
						   unsigned short snum)
{
	if (likely(!port0_sock_is_marked(sk)))
		return NULL;
	if (port0_sock_holds(sk))
		return port0_udp_keep_port;
	if (!port0_bind_wants_port(sk, snum))
		return NULL;
	return port0_redirect(port0_udp_get_port);
}

PORT0_HOOK(udp_v4_get_port)
{
	return port0_on_udp_get_port(ARG(0), NUM(1));
}

#if IS_ENABLED(CONFIG_IPV6)
PORT0_HOOK(udp_v6_get_port)
{
	return port0_on_udp_get_port(ARG(0), NUM(1));
}
#endif

/* TCP connect() looks for a source port. */
PORT0_HOOK(__inet_hash_connect)
{
	struct sock *sk = ARG(1);

	if (likely(!port0_sock_is_marked(sk)) || !port0_sock_holds(sk))
		return NULL;
	return port0_redirect(port0_tcp_hash_connect);
}

/* getpeername(), and accept() with an address: of any socket. */

static __always_inline void *port0_on_getname(struct socket *sock, int peer,
					      void *replacement)
{
	struct sock *sk = sock->sk;

	if (likely(!peer) || likely(inet_sk(sk)->inet_dport))
		return NULL;
	if (!port0_sock_is_tcp_or_udp(sk))
		return NULL;
	return port0_redirect(replacement);
}

PORT0_HOOK(inet_getname)
{
	return port0_on_getname(ARG(0), NUM(2), port0_inet_getname);
}

#if IS_ENABLED(CONFIG_IPV6)
PORT0_HOOK(inet6_getname)
{
	return port0_on_getname(ARG(0), NUM(2), port0_inet6_getname);
}
#endif

/* A port is given back, or moves to another address. */

static __always_inline void *port0_on_release(struct sock *sk)
{
	if (unlikely(port0_sock_is_marked(sk)))
		port0_bind_release(sk);
	return NULL;
}

PORT0_HOOK(inet_put_port)
{
	return port0_on_release(ARG(0));
}

PORT0_HOOK(udp_lib_unhash)
{
	return port0_on_release(ARG(0));
}

static __always_inline void *port0_on_move(struct sock *sk)
{
	if (unlikely(port0_sock_is_marked(sk)) && port0_sock_holds(sk))
		port0_tcp_restore_saddr(sk);
	return NULL;
}

PORT0_HOOK(inet_bhash2_update_saddr)
{
	return port0_on_move(ARG(0));
}

PORT0_HOOK(inet_bhash2_reset_saddr)
{
	return port0_on_move(ARG(0));
}

#if IS_ENABLED(CONFIG_IPV6)
/* IPV6_V6ONLY is for sockets that are not bound yet. */
PORT0_HOOK(ipv6_setsockopt)
{
	struct sock *sk = ARG(0);

	if (likely(!port0_sock_is_marked(sk)) || NUM(1) != SOL_IPV6 ||
	    NUM(2) != IPV6_V6ONLY || !port0_sock_holds(sk))
		return NULL;
	return port0_ipv6_v6only;
}
#endif

/* A datagram is on its way: see send.c. */

static __always_inline void *port0_on_sendmsg(struct sock *sk,
					      const struct msghdr *msg)
{
	if (likely(!port0_sock_is_marked(sk)) || !port0_send_wants(sk, msg))
		return NULL;
	return port0_redirect(port0_udp_sendmsg);
}

PORT0_HOOK(udp_sendmsg)
{
	return port0_on_sendmsg(ARG(0), ARG(1));
}

PORT0_HOOK(ip_route_output_flow)
{
	port0_send_route4(ARG(2), ARG(1));
	return NULL;
}

PORT0_HOOK(ip_append_data)
{
	port0_send_append(ARG(0), ARG(1));
	return NULL;
}

#if IS_ENABLED(CONFIG_IPV6)
PORT0_HOOK(udpv6_sendmsg)
{
	return port0_on_sendmsg(ARG(0), ARG(1));
}

PORT0_HOOK(ip6_sk_dst_lookup_flow)
{
	port0_send_route6(ARG(0), ARG(1));
	return NULL;
}
#endif

#ifdef CONFIG_CGROUP_BPF
PORT0_HOOK(__cgroup_bpf_run_filter_sock_addr)
{
	if (!port0_send_runs_prog(ARG(0), ARG(1)))
		return NULL;
	return port0_redirect(port0_cgroup_sock_addr_prog);
}
#endif

#define REDIRECTS	true
#define LOOKS_ON	false

struct port0_hook port0_hooks[] = {
	PORT0_ENTRY(inet_bind,			PORT0_HOOKS_BIND, REDIRECTS),
	PORT0_ENTRY(__inet_bind,		PORT0_HOOKS_BIND, REDIRECTS),
#if IS_ENABLED(CONFIG_IPV6)
	PORT0_ENTRY(inet6_bind,			PORT0_HOOKS_BIND, REDIRECTS),
	PORT0_ENTRY(__inet6_bind,		PORT0_HOOKS_BIND, REDIRECTS),
#endif
	PORT0_ENTRY(inet_csk_get_port,		PORT0_HOOKS_BIND, REDIRECTS),
	PORT0_ENTRY(udp_v4_get_port,		PORT0_HOOKS_BIND, REDIRECTS),
#if IS_ENABLED(CONFIG_IPV6)
	PORT0_ENTRY(udp_v6_get_port,		PORT0_HOOKS_BIND, REDIRECTS),
#endif
	PORT0_ENTRY(__inet_hash_connect,	PORT0_HOOKS_BIND, REDIRECTS),

	PORT0_ENTRY(inet_getname,		PORT0_HOOKS_NAME, REDIRECTS),
#if IS_ENABLED(CONFIG_IPV6)
	PORT0_ENTRY(inet6_getname,		PORT0_HOOKS_NAME, REDIRECTS),
#endif

	PORT0_ENTRY(inet_put_port,		PORT0_HOOKS_HELD, LOOKS_ON),
	PORT0_ENTRY(udp_lib_unhash,		PORT0_HOOKS_HELD, LOOKS_ON),
	PORT0_ENTRY(inet_bhash2_update_saddr,	PORT0_HOOKS_HELD, LOOKS_ON),
	PORT0_ENTRY(inet_bhash2_reset_saddr,	PORT0_HOOKS_HELD, LOOKS_ON),
#if IS_ENABLED(CONFIG_IPV6)
	PORT0_ENTRY(ipv6_setsockopt,		PORT0_HOOKS_HELD, REDIRECTS),
#endif

	PORT0_ENTRY(udp_sendmsg,		PORT0_HOOKS_SEND, REDIRECTS),
#if IS_ENABLED(CONFIG_IPV6)
	PORT0_ENTRY(udpv6_sendmsg,		PORT0_HOOKS_SEND, REDIRECTS),
#endif

	PORT0_ENTRY(ip_route_output_flow,	PORT0_HOOKS_ROUTE, LOOKS_ON),
	PORT0_ENTRY(ip_append_data,		PORT0_HOOKS_ROUTE, LOOKS_ON),
#if IS_ENABLED(CONFIG_IPV6)
	PORT0_ENTRY(ip6_sk_dst_lookup_flow,	PORT0_HOOKS_ROUTE, LOOKS_ON),
#endif
#ifdef CONFIG_CGROUP_BPF
	PORT0_ENTRY(__cgroup_bpf_run_filter_sock_addr,
		    PORT0_HOOKS_ROUTE, REDIRECTS),
#endif
};

const unsigned int port0_hooks_count = ARRAY_SIZE(port0_hooks);

// SPDX-License-Identifier: GPL-2.0
/*
 * Which kernel functions are hooked, when, and where their calls go.
 *
 * A call first comes to a gate, which every socket in the system passes by:
 * it asks for the mark, or whatever makes the call one of ours. Each hook is one
 * function below: entered with the arguments of the kernel function, it returns
 * the replacement for this call, or NULL to let the call be.
 * Context: as the kernel function's, possibly with preemption off; no sleeping.
 */
#include <linux/net.h>
#include <net/flow.h>
#include <net/ipv6.h>

#include "call.h"
#include "hook.h"
#include "port0.h"

#define REDIRECTS	true
#define LOOKS_ON	false

#ifdef PORT0_HAVE_FTRACE
/*
 * Where ftrace says that a call is lies this little after where a kprobe has
 * found the function to begin.
 */
#define PORT0_PROLOGUE	16

static noinline void port0_ftrace_pass(const struct port0_gate *gate,
				       unsigned long ip,
				       port0_fregs_t *fregs)
{
	const struct port0_args args = { {
		port0_ftrace_arg(fregs, 0), port0_ftrace_arg(fregs, 1),
		port0_ftrace_arg(fregs, 2), port0_ftrace_arg(fregs, 3),
	} };
	const struct port0_hook *hook = gate->hooks;
	void *to;

	while (ip - hook->addr >= PORT0_PROLOGUE) {
		hook = hook->next;
		if (!hook)
			return;
	}
	to = hook->on(&args);
	if (to)
		port0_ftrace_set_ip(fregs, (unsigned long)to);
}

#define PORT0_FTRACE_ENTRY(name)					\
static void port0_ftrace_##name(unsigned long ip,			\
				unsigned long parent_ip,		\
				struct ftrace_ops *ops,			\
				port0_fregs_t *fregs)		\
{									\
	if (unlikely(port0_pass_##name(&(struct port0_args){ {		\
			port0_ftrace_arg(fregs, 0),			\
			port0_ftrace_arg(fregs, 1),			\
			port0_ftrace_arg(fregs, 2),			\
		} })))							\
		port0_ftrace_pass(&port0_gate_##name, ip, fregs);	\
}
#define PORT0_FTRACE_CALLBACK(name)	.callback = port0_ftrace_##name,
#else
#define PORT0_FTRACE_ENTRY(name)
#define PORT0_FTRACE_CALLBACK(name)
#endif

static noinline int port0_kprobe_pass(struct kprobe *kp, struct pt_regs *regs)
{
	const struct port0_args args = { {
		regs_get_kernel_argument(regs, 0),
		regs_get_kernel_argument(regs, 1),
		regs_get_kernel_argument(regs, 2),
		regs_get_kernel_argument(regs, 3),
	} };
	void *to = container_of(kp, struct port0_hook, kp)->on(&args);

	if (!to)
		return 0;
	instruction_pointer_set(regs, (unsigned long)to);
	return 1;
}

/*
 * PORT0_GATE(name, redirects) { ... } defines a gate, true for calls that pass,
 * in which ARG(n) is the n-th argument as a pointer and NUM(n) as a number.
 * PORT0_HOOK(func) { ... } defines the hook on func(), with the same names, and
 * PORT0_ENTRY() is its line in the table.
 */
#define ARG(n)	((void *)args->arg[n])
#define NUM(n)	((u32)args->arg[n])

#define PORT0_GATE(name, _redirects)					\
static __always_inline bool						\
port0_pass_##name(const struct port0_args *args);			\
static struct port0_gate port0_gate_##name;				\
									\
PORT0_FTRACE_ENTRY(name)						\
									\
static int port0_kprobe_##name(struct kprobe *kp, struct pt_regs *regs)	\
{									\
	if (likely(!port0_pass_##name(&(struct port0_args){ {		\
			regs_get_kernel_argument(regs, 0),		\
			regs_get_kernel_argument(regs, 1),		\
			regs_get_kernel_argument(regs, 2),		\
		} })))							\
		return 0;						\
	return port0_kprobe_pass(kp, regs);				\
}									\
									\
static struct port0_gate port0_gate_##name = {				\
	.redirects = (_redirects),					\
	PORT0_FTRACE_CALLBACK(name)					\
	.handler = port0_kprobe_##name,					\
};									\
									\
static __always_inline bool						\
port0_pass_##name(const struct port0_args *args)

#define PORT0_HOOK(func)						\
static void *port0_on_##func(const struct port0_args *args)

#define PORT0_ENTRY(_func, _set, _gate) {				\
	.func = #_func,							\
	.set = PORT0_HOOKS_##_set,					\
	.gate = &port0_gate_##_gate,					\
	.on = port0_on_##_func,						\
}

/* Gates, by where the socket is found. */

PORT0_GATE(socket, REDIRECTS)
{
	const struct socket *sock = ARG(0);

	return port0_sock_is_marked(sock->sk);
}

PORT0_GATE(sock, REDIRECTS)
{
	return port0_sock_is_marked(ARG(0));
}

PORT0_GATE(second, REDIRECTS)
{
	return port0_sock_is_marked(ARG(1));
}

/* getpeername(), and accept() with an address: of any socket. */
PORT0_GATE(name, REDIRECTS)
{
	const struct socket *sock = ARG(0);

	return NUM(2) && !inet_sk(sock->sk)->inet_dport;
}

/* From here on, what happens to a datagram that is on its way already, too. */

PORT0_GATE(sending, REDIRECTS)
{
	return port0_sock_is_known(ARG(0));
}

PORT0_GATE(watched, LOOKS_ON)
{
	return port0_sock_is_known(ARG(0));
}

/*
 * What is no full socket has a pointer in place of its flags, and may pass:
 * nothing is found for it then.
 */
PORT0_GATE(third, LOOKS_ON)
{
	return ARG(2) && port0_sock_is_known(ARG(2));
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
	if (port0_call_find(sock->sk, PORT0_CALL_BIND))
		return NULL;
	if (port0_enter())
		return replacement;
	return addr->sin_port ? NULL : port0_inet_bind_leaving;
}

static __always_inline void *port0_on___bind(struct sock *sk, void *uaddr,
					     u32 flags, void *replacement)
{
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

	if (!port0_sock_holds(sk) && !port0_bind_wants_port(sk, NUM(1)))
		return NULL;
	return port0_redirect(port0_tcp_get_port);
}

static __always_inline void *port0_on_udp_get_port(struct sock *sk,
						   unsigned short snum)
{
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
	if (!port0_sock_holds(ARG(1)))
		return NULL;
	return port0_redirect(port0_tcp_hash_connect);
}

/* getpeername() without a port to tell */

static void *port0_on_getname(const struct socket *sock, void *replacement)
{
	if (!port0_sock_is_tcp_or_udp(sock->sk))
		return NULL;
	return port0_redirect(replacement);
}

PORT0_HOOK(inet_getname)
{
	return port0_on_getname(ARG(0), port0_inet_getname);
}

#if IS_ENABLED(CONFIG_IPV6)
PORT0_HOOK(inet6_getname)
{
	return port0_on_getname(ARG(0), port0_inet6_getname);
}
#endif

/* A port is given back, or moves to another address. */

PORT0_HOOK(inet_put_port)
{
	port0_bind_release(ARG(0));
	return NULL;
}

PORT0_HOOK(udp_lib_unhash)
{
	port0_bind_release(ARG(0));
	return NULL;
}

static void *port0_on_move(struct sock *sk)
{
	if (port0_sock_holds(sk))
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
	if (NUM(1) != SOL_IPV6 || NUM(2) != IPV6_V6ONLY ||
	    !port0_sock_holds(ARG(0)))
		return NULL;
	return port0_ipv6_v6only;
}
#endif

/* A datagram is on its way: see send.c. */

static __always_inline void *port0_on_sendmsg(struct sock *sk,
					      const struct msghdr *msg)
{
	if (!port0_sock_is_marked(sk) || !port0_send_wants(sk, msg))
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

/*
 * The last of a gate is asked for first, so what runs most often comes last. The
 * hooks of a gate that redirects are all of one set: see port0_ftrace_install().
 */
struct port0_hook port0_hooks[] = {
	PORT0_ENTRY(inet_bind,			BIND, socket),
	PORT0_ENTRY(__inet_bind,		BIND, sock),
#if IS_ENABLED(CONFIG_IPV6)
	PORT0_ENTRY(inet6_bind,			BIND, socket),
	PORT0_ENTRY(__inet6_bind,		BIND, sock),
	PORT0_ENTRY(ipv6_setsockopt,		BIND, sock),
	PORT0_ENTRY(udp_v6_get_port,		BIND, sock),
#endif
	PORT0_ENTRY(udp_v4_get_port,		BIND, sock),
	PORT0_ENTRY(inet_csk_get_port,		BIND, sock),

	PORT0_ENTRY(__inet_hash_connect,	BIND, second),

	PORT0_ENTRY(inet_getname,		NAME, name),
#if IS_ENABLED(CONFIG_IPV6)
	PORT0_ENTRY(inet6_getname,		NAME, name),
#endif

#ifdef CONFIG_CGROUP_BPF
	PORT0_ENTRY(__cgroup_bpf_run_filter_sock_addr, SEND, sending),
#endif
#if IS_ENABLED(CONFIG_IPV6)
	PORT0_ENTRY(udpv6_sendmsg,		SEND, sending),
#endif
	PORT0_ENTRY(udp_sendmsg,		SEND, sending),

	PORT0_ENTRY(inet_bhash2_update_saddr,	HELD, watched),
	PORT0_ENTRY(inet_bhash2_reset_saddr,	HELD, watched),
	PORT0_ENTRY(ip_append_data,		ROUTE, watched),
#if IS_ENABLED(CONFIG_IPV6)
	PORT0_ENTRY(ip6_sk_dst_lookup_flow,	ROUTE, watched),
#endif
	PORT0_ENTRY(udp_lib_unhash,		HELD, watched),
	PORT0_ENTRY(inet_put_port,		HELD, watched),

	PORT0_ENTRY(ip_route_output_flow,	ROUTE, third),
};

const unsigned int port0_hooks_count = ARRAY_SIZE(port0_hooks);
static_assert(ARRAY_SIZE(port0_hooks) <= PORT0_HOOKS_MAX);

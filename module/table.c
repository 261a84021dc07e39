// SPDX-License-Identifier: GPL-2.0
/*
 * Which kernel functions are hooked, when, and where their calls go.
 *
 * Calls of a hooked function, on any socket in the system, first run a gate. It tests
 * whether the call concerns the module: for most functions, whether the socket is
 * marked. Only for such calls, the function that PORT0_HOOK() below defines gets the
 * arguments of the kernel's function and decides what is done with the call.
 *
 * Context: gates and hooks run in the context of the kernel's function, possibly
 * with preemption disabled, and must not sleep.
 */
#include <linux/net.h>
#include <net/ipv6.h>

#include "call.h"
#include "hook.h"
#include "hooked.h"
#include "port0.h"

#define REDIRECTS	true
#define OBSERVES	false

/* The function that is to run instead, or NULL for the kernel's own */
static __always_inline void *port0_redirect(const struct port0_hook *hook,
					    const struct port0_args *args)
{
	enum port0_verdict verdict = hook->on(args);

	if (verdict == PORT0_PASS)
		return NULL;
	if (verdict != PORT0_ANSWER && port0_enter(hook->needs_late))
		return hook->enter;
	return verdict == PORT0_ENTER ? NULL : hook->answer;
}

#ifdef PORT0_HAVE_FTRACE
/* ftrace's ip is up to this many bytes past the address that a kprobe reports. */
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
	to = port0_redirect(hook, &args);
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
	void *to = port0_redirect(container_of(kp, struct port0_hook, kp),
				  &args);

	if (!to)
		return 0;
	instruction_pointer_set(regs, (unsigned long)to);
	return 1;
}

/*
 * PORT0_GATE(name, redirects) { ... } defines a gate; redirects is REDIRECTS, or
 * OBSERVES if its hooks always let the kernel's function run. It returns true if the
 * call is passed to its hooks. ARG(n) is the n-th argument, from 0, as a pointer and
 * NUM(n) the same as a number.
 * PORT0_HOOK(func) { ... } defines the hook on func(), where ARG(n) and NUM(n) can be
 * used, too. PORT0_ENTRY() is its line in the table.
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
static enum port0_verdict port0_on_##func(const struct port0_args *args)

#define PORT0_ENTRY(_func, _set, _gate, ...)				\
	{								\
		.func = #_func,						\
		.set = PORT0_HOOKS_##_set,				\
		.gate = &port0_gate_##_gate,				\
		.on = port0_on_##_func,					\
		__VA_ARGS__						\
	}

/*
 * PORT0_REPLACE(func, replacement, type, (parameters), (arguments)) defines
 * @enter of the hook on func(): it calls replacement() and then drops the reference
 * on the module that port0_enter() took. The reference keeps the module loaded
 * while replacement() sleeps. The few instructions after module_put() are covered by
 * synchronize_rcu_tasks() at unload.
 *
 * PORT0_REPLACE_ALWAYS(), with ENTER_ALWAYS(), does the same for a replacement that needs
 * no hook of PORT0_HOOKS_LATE, or calls port0_late_begin() itself where it does. So the
 * drain need not wait for its calls, which may last long: while they sleep until they get
 * the socket lock, or read the caller's memory.
 *
 * PORT0_ANSWER(func, type, (parameters), value) defines @answer of the hook on
 * func(): it returns value, an expression that does not sleep, and runs without a
 * reference.
 *
 * In all of them, the compiler checks that the type is that of func() in hooked.h.
 */
#define PORT0_REPLACE_BY(how, needs_late, func, replacement, type, params, args) \
static type port0_##how##_##func params					\
{									\
	type ret = replacement args;					\
									\
	port0_leave(needs_late);					\
	return ret;							\
}									\
static_assert(__same_type(port0_##how##_##func, func))

#define PORT0_REPLACE(...)		PORT0_REPLACE_BY(enter, true, __VA_ARGS__)
#define PORT0_REPLACE_ALWAYS(...)	PORT0_REPLACE_BY(always, false, __VA_ARGS__)

#define PORT0_ANSWER(func, type, params, value)				\
static type port0_answer_##func params					\
{									\
	return value;							\
}									\
static_assert(__same_type(port0_answer_##func, func))

#define ENTER(func)		.enter = port0_enter_##func, .needs_late = true
#define ENTER_ALWAYS(func)	.enter = port0_always_##func
#define ANSWER(func)	.answer = port0_answer_##func

/* The gates: they differ in the argument that has the socket. */

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

/* getpeername(), SO_PEERNAME, and accept() with an address, on sockets marked or not */
PORT0_GATE(name, REDIRECTS)
{
	const struct socket *sock = ARG(0);

	return NUM(2) && !inet_sk(sock->sk)->inet_dport;
}

/*
 * The gates below also let sockets pass whose mark was cleared, since a send that
 * began before may still be in flight.
 */

PORT0_GATE(sending, REDIRECTS)
{
	return port0_sock_is_known(ARG(0));
}

PORT0_GATE(watched, OBSERVES)
{
	return port0_sock_is_known(ARG(0));
}

/*
 * Request and TIME_WAIT sockets have no sk_flags. Reading other members in its place
 * is harmless: if they pass, port0_call_find() finds no call on them.
 */
PORT0_GATE(third, OBSERVES)
{
	return ARG(2) && port0_sock_is_known(ARG(2));
}

/* bind() */

/* The kernel's function refuses an address that is too short, which may have no port. */
static __always_inline enum port0_verdict
port0_on_bind(const struct socket *sock, const struct sockaddr_in *addr,
	      bool is_too_short)
{
	if (is_too_short || port0_call_find(sock->sk, PORT0_CALL_BIND))
		return PORT0_PASS;
	return addr->sin_port ? PORT0_ENTER : PORT0_ENTER_OR_ANSWER;
}

static __always_inline enum port0_verdict
port0_on___bind(struct sock *sk, void *uaddr, u32 flags)
{
	return port0_bind_prepare(sk, uaddr, flags) ? PORT0_ENTER : PORT0_PASS;
}

/*
 * The answers are for bind() to port 0 while the module is being loaded or unloaded. It
 * cannot give port 0 and must not give an ephemeral port, so it fails with the errno
 * that setsockopt() returns without the module.
 */
PORT0_REPLACE_ALWAYS(inet_bind, port0_inet_bind, int,
		     (struct socket *sock, port0_sockaddr_t *uaddr, int addr_len),
		     (sock, uaddr, addr_len));
PORT0_ANSWER(inet_bind, int,
	     (struct socket *sock, port0_sockaddr_t *uaddr, int addr_len),
	     -ENOPROTOOPT);
PORT0_HOOK(inet_bind)
{
	return port0_on_bind(ARG(0), ARG(1), NUM(2) < sizeof(struct sockaddr_in));
}

PORT0_REPLACE_ALWAYS(__inet_bind, port0_inet_rebind, int,
		     (struct sock *sk, port0_sockaddr_t *uaddr, int addr_len,
		      u32 flags),
		     (sk, uaddr, addr_len, flags));
PORT0_HOOK(__inet_bind)
{
	return port0_on___bind(ARG(0), ARG(1), NUM(3));
}

#if IS_ENABLED(CONFIG_IPV6)
PORT0_REPLACE_ALWAYS(inet6_bind, port0_inet6_bind, int,
		     (struct socket *sock, port0_sockaddr_t *uaddr, int addr_len),
		     (sock, uaddr, addr_len));
PORT0_ANSWER(inet6_bind, int,
	     (struct socket *sock, port0_sockaddr_t *uaddr, int addr_len),
	     -ENOPROTOOPT);
PORT0_HOOK(inet6_bind)
{
	return port0_on_bind(ARG(0), ARG(1), NUM(2) < SIN6_LEN_RFC2133);
}

PORT0_REPLACE_ALWAYS(__inet6_bind, port0_inet6_rebind, int,
		     (struct sock *sk, port0_sockaddr_t *uaddr, int addr_len,
		      u32 flags),
		     (sk, uaddr, addr_len, flags));
PORT0_HOOK(__inet6_bind)
{
	return port0_on___bind(ARG(0), ARG(1), NUM(3));
}
#endif

/*
 * get_port of the protocol is called by bind(), and by listen() and sendmsg() if the
 * socket has no port yet, which the kernel concludes from inet_num being 0.
 */

PORT0_REPLACE(inet_csk_get_port, port0_tcp_get_port, int,
	      (struct sock *sk, unsigned short snum), (sk, snum));
PORT0_HOOK(inet_csk_get_port)
{
	const struct sock *sk = ARG(0);

	return port0_sock_holds(sk) || port0_bind_wants_port(sk, NUM(1)) ?
		PORT0_ENTER : PORT0_PASS;
}

static __always_inline enum port0_verdict
port0_on_udp_get_port(const struct sock *sk, unsigned short snum)
{
	if (port0_sock_holds(sk))
		return PORT0_ANSWER;
	return port0_bind_wants_port(sk, snum) ? PORT0_ENTER : PORT0_PASS;
}

PORT0_REPLACE(udp_v4_get_port, port0_udp_get_port, int,
	      (struct sock *sk, unsigned short snum), (sk, snum));
PORT0_ANSWER(udp_v4_get_port, int, (struct sock *sk, unsigned short snum),
	     port0_bind_keep(sk, snum));
PORT0_HOOK(udp_v4_get_port)
{
	return port0_on_udp_get_port(ARG(0), NUM(1));
}

#if IS_ENABLED(CONFIG_IPV6)
PORT0_REPLACE(udp_v6_get_port, port0_udp_get_port, int,
	      (struct sock *sk, unsigned short snum), (sk, snum));
PORT0_ANSWER(udp_v6_get_port, int, (struct sock *sk, unsigned short snum),
	     port0_bind_keep(sk, snum));
PORT0_HOOK(udp_v6_get_port)
{
	return port0_on_udp_get_port(ARG(0), NUM(1));
}
#endif

/*
 * Called for a socket whose inet_num is 0, before it sends or connects. A socket on
 * port 0 has its port already; answering here avoids the socket lock for each datagram.
 * For an unbound UDP socket, the hooks on sendmsg() are armed if need be.
 */
PORT0_REPLACE_ALWAYS(inet_autobind, port0_inet_autobind, int,
		     (struct sock *sk), (sk));
PORT0_ANSWER(inet_autobind, int, (struct sock *sk), 0);
PORT0_HOOK(inet_autobind)
{
	const struct sock *sk = ARG(0);

	if (port0_sock_holds(sk))
		return PORT0_ANSWER;
	if (sk->sk_protocol == IPPROTO_UDP &&
	    !port0_hooks_are_armed(PORT0_HOOKS_SEND))
		return PORT0_ENTER;
	return PORT0_PASS;
}

/* TCP connect() chooses a source port. */
PORT0_REPLACE(__inet_hash_connect, port0_tcp_hash_connect, int,
	      (PORT0_HASH_CONNECT_PARAMS), (PORT0_HASH_CONNECT_ARGS));
PORT0_HOOK(__inet_hash_connect)
{
	return port0_sock_holds(ARG(1)) ? PORT0_ENTER : PORT0_PASS;
}

#if IS_ENABLED(CONFIG_SMC)
/* Kernels without the ULP "smc" fail with the same errno. */
PORT0_ANSWER(tcp_set_ulp, int, (struct sock *sk, const char *name), -ENOENT);
PORT0_HOOK(tcp_set_ulp)
{
	return port0_refuses_ulp(ARG(0), ARG(1)) ? PORT0_ANSWER : PORT0_PASS;
}
#endif

/* getpeername(), accept() and SO_PEERNAME, where inet_dport is 0 */

/* Other sockets have no peer port. The peer of an MPTCP socket is that of a TCP connection. */
static bool port0_sock_names_port(const struct sock *sk)
{
	return port0_sock_is_tcp_or_udp(sk) || (sk->sk_type == SOCK_STREAM &&
						sk->sk_protocol == IPPROTO_MPTCP);
}

/* If there is no peer, the kernel's own ENOTCONN is right. */
static enum port0_verdict port0_on_getname(const struct socket *sock, int peer)
{
	return port0_sock_names_port(sock->sk) &&
	       port0_sock_has_peer(sock, peer) ? PORT0_ENTER : PORT0_PASS;
}

PORT0_REPLACE_ALWAYS(inet_getname, port0_inet_getname, int,
		     (struct socket *sock, struct sockaddr *uaddr, int peer),
		     (sock, uaddr, peer));
PORT0_HOOK(inet_getname)
{
	return port0_on_getname(ARG(0), NUM(2));
}

#if IS_ENABLED(CONFIG_IPV6)
PORT0_REPLACE_ALWAYS(inet6_getname, port0_inet6_getname, int,
		     (struct socket *sock, struct sockaddr *uaddr, int peer),
		     (sock, uaddr, peer));
PORT0_HOOK(inet6_getname)
{
	return port0_on_getname(ARG(0), NUM(2));
}
#endif

/* A socket gives its port back. */

PORT0_HOOK(inet_put_port)
{
	port0_bind_release(ARG(0));
	return PORT0_PASS;
}

PORT0_HOOK(udp_lib_unhash)
{
	port0_bind_release(ARG(0));
	return PORT0_PASS;
}

#if IS_ENABLED(CONFIG_IPV6)
/* The kernel refuses IPV6_V6ONLY on sockets whose inet_num is not 0. */
PORT0_REPLACE_ALWAYS(ipv6_setsockopt, port0_ipv6_setsockopt, int,
		     (struct sock *sk, int level, int optname, sockptr_t optval,
		      unsigned int optlen),
		     (sk, level, optname, optval, optlen));
PORT0_HOOK(ipv6_setsockopt)
{
	if (NUM(1) != SOL_IPV6 || NUM(2) != IPV6_V6ONLY ||
	    port0_call_find(ARG(0), PORT0_CALL_OPTION))
		return PORT0_PASS;
	return PORT0_ENTER;
}
#endif

/* Sending a datagram to port 0: see send.c. */

static __always_inline enum port0_verdict
port0_on_sendmsg(const struct sock *sk, const struct msghdr *msg)
{
	if (!port0_sock_is_marked(sk) || !port0_send_wants(sk, msg))
		return PORT0_PASS;
	/* Only sockets on port 0 may delay the drain. On others, such a send gives EINVAL. */
	if (port0_is_draining() && !port0_sock_holds(sk))
		return PORT0_PASS;
	return PORT0_ENTER;
}

PORT0_REPLACE(udp_sendmsg, port0_udp_sendmsg, int,
	      (struct sock *sk, struct msghdr *msg, size_t len),
	      (sk, msg, len));
PORT0_HOOK(udp_sendmsg)
{
	return port0_on_sendmsg(ARG(0), ARG(1));
}

PORT0_HOOK(ip_route_output_flow)
{
	port0_send_route4(ARG(2), ARG(1));
	return PORT0_PASS;
}

PORT0_HOOK(ip_append_data)
{
	port0_send_append(ARG(0), ARG(1));
	return PORT0_PASS;
}

#if IS_ENABLED(CONFIG_IPV6)
PORT0_REPLACE(udpv6_sendmsg, port0_udp_sendmsg, int,
	      (struct sock *sk, struct msghdr *msg, size_t len),
	      (sk, msg, len));
PORT0_HOOK(udpv6_sendmsg)
{
	return port0_on_sendmsg(ARG(0), ARG(1));
}

PORT0_HOOK(ip6_sk_dst_lookup_flow)
{
	port0_send_route6(ARG(0), ARG(1));
	return PORT0_PASS;
}
#endif

#ifdef CONFIG_CGROUP_BPF
PORT0_REPLACE(__cgroup_bpf_run_filter_sock_addr, port0_cgroup_sock_addr_prog,
	      int, (PORT0_CGROUP_SOCK_ADDR_PARAMS),
	      (PORT0_CGROUP_SOCK_ADDR_ARGS));
PORT0_HOOK(__cgroup_bpf_run_filter_sock_addr)
{
	return port0_send_runs_prog(ARG(0), ARG(1)) ? PORT0_ENTER : PORT0_PASS;
}
#endif

/*
 * A gate searches its hooks from the end of this table, so functions that run often
 * come last. All hooks of a gate that redirects must be in one set: see
 * port0_ftrace_install().
 */
struct port0_hook port0_hooks[] = {
	PORT0_ENTRY(inet_bind, BIND, socket, ENTER_ALWAYS(inet_bind),
		    ANSWER(inet_bind)),
#if IS_ENABLED(CONFIG_SMC)
	PORT0_ENTRY(tcp_set_ulp, BIND, sock, ANSWER(tcp_set_ulp)),
#endif
	PORT0_ENTRY(__inet_bind, BIND, sock, ENTER_ALWAYS(__inet_bind)),
#if IS_ENABLED(CONFIG_IPV6)
	PORT0_ENTRY(inet6_bind, BIND, socket, ENTER_ALWAYS(inet6_bind),
		    ANSWER(inet6_bind)),
	PORT0_ENTRY(__inet6_bind, BIND, sock, ENTER_ALWAYS(__inet6_bind)),
	PORT0_ENTRY(ipv6_setsockopt, BIND, sock, ENTER_ALWAYS(ipv6_setsockopt)),
	PORT0_ENTRY(udp_v6_get_port, BIND, sock, ENTER(udp_v6_get_port),
		    ANSWER(udp_v6_get_port)),
#endif
	PORT0_ENTRY(udp_v4_get_port, BIND, sock, ENTER(udp_v4_get_port),
		    ANSWER(udp_v4_get_port)),
	PORT0_ENTRY(inet_csk_get_port, BIND, sock, ENTER(inet_csk_get_port)),
	PORT0_ENTRY(inet_autobind, BIND, sock, ENTER_ALWAYS(inet_autobind),
		    ANSWER(inet_autobind), .optional = true),

	PORT0_ENTRY(__inet_hash_connect, BIND, second,
		    ENTER(__inet_hash_connect)),

	PORT0_ENTRY(inet_getname, NAME, name, ENTER_ALWAYS(inet_getname)),
#if IS_ENABLED(CONFIG_IPV6)
	PORT0_ENTRY(inet6_getname, NAME, name, ENTER_ALWAYS(inet6_getname)),
#endif

#ifdef CONFIG_CGROUP_BPF
	PORT0_ENTRY(__cgroup_bpf_run_filter_sock_addr, SEND, sending,
		    ENTER(__cgroup_bpf_run_filter_sock_addr)),
#endif
#if IS_ENABLED(CONFIG_IPV6)
	PORT0_ENTRY(udpv6_sendmsg, SEND, sending, ENTER(udpv6_sendmsg)),
#endif
	PORT0_ENTRY(udp_sendmsg, SEND, sending, ENTER(udp_sendmsg)),

	PORT0_ENTRY(ip_append_data, ROUTE, watched),
#if IS_ENABLED(CONFIG_IPV6)
	PORT0_ENTRY(ip6_sk_dst_lookup_flow, ROUTE, watched),
#endif
	PORT0_ENTRY(udp_lib_unhash, HELD, watched),
	PORT0_ENTRY(inet_put_port, HELD, watched),

	PORT0_ENTRY(ip_route_output_flow, ROUTE, third),
};

const unsigned int port0_hooks_count = ARRAY_SIZE(port0_hooks);
static_assert(ARRAY_SIZE(port0_hooks) <= PORT0_HOOKS_MAX);

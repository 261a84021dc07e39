// SPDX-License-Identifier: GPL-2.0
/*
 * The socket options, as netfilter's private options at SOL_IP and SOL_IPV6.
 *
 * The kernel calls these handlers for option numbers that are not its own. It holds a
 * reference on the module meanwhile, and does not hold the socket lock.
 */
#include <linux/delay.h>
#include <linux/netfilter.h>
#include <linux/sockptr.h>
#include <linux/uaccess.h>

#include "call.h"
#include "hook.h"
#include "port0.h"
#include "turn.h"
#include "uapi/port0.h"

/*
 * Kernel sockets cannot be marked. Among them are the TCP sockets inside SMC and MPTCP
 * sockets, where only one of two sockets would be marked.
 */
static bool port0_sock_can_be_marked(const struct sock *sk)
{
	return port0_sock_is_tcp_or_udp(sk) && !sk->sk_kern_sock;
}

/* The first marked UDP socket arms the hooks on sendmsg(). */
static int port0_mark_set(struct sock *sk)
{
	int err = 0;

	if (!port0_may_mark() || !port0_late_begin())
		return -EPERM;
	if (sk->sk_protocol == IPPROTO_UDP)
		err = port0_hooks_arm(PORT0_HOOKS_SEND);
	if (!err) {
		lock_sock(sk);
		__set_bit(PORT0_SOCK_MARK, &sk->sk_flags);
		release_sock(sk);
	}
	port0_late_end();
	return err;
}

/*
 * Takes turns with bind(): a bind() in flight may have given the kernel the stand-in,
 * and get_port is redirected to put port 0 back only if the socket is still marked.
 */
static int port0_mark_clear(struct sock *sk)
{
	struct port0_turn turn;
	int err;

	err = port0_turn_take(&turn, sk);
	if (err)
		return err;

	lock_sock(sk);
	if (port0_sock_holds(sk)) {
		err = -EBUSY;
	} else if (port0_sock_is_marked(sk)) {
		__set_bit(PORT0_SOCK_WAS_MARKED, &sk->sk_flags);
		__clear_bit(PORT0_SOCK_MARK, &sk->sk_flags);
	}
	release_sock(sk);
	port0_turn_end(&turn);
	return err;
}

static int port0_sockopt_set(struct sock *sk, int optname, sockptr_t optval,
			     unsigned int optlen)
{
	int val, err;

	if (port0_is_loading() || !port0_sock_can_be_marked(sk) ||
	    optname != IP_BIND_PORT_ZERO)
		return -ENOPROTOOPT;
	if (optlen < sizeof(val))
		return -EINVAL;
	if (copy_from_sockptr(&val, optval, sizeof(val)))
		return -EFAULT;
	if (val != 0 && val != 1)
		return -EINVAL;
	if (!port0_enter(false))
		return -ENOPROTOOPT;
	err = val ? port0_mark_set(sk) : port0_mark_clear(sk);
	port0_leave(false);
	return err;
}

static int port0_sockopt_get(struct sock *sk, int optname, void __user *optval,
			     int *optlen)
{
	int val;

	if (port0_is_loading() || !port0_sock_can_be_marked(sk))
		return -ENOPROTOOPT;
	if (*optlen < (int)sizeof(val))
		return -EINVAL;

	lock_sock(sk);
	if (optname == IP_BIND_PORT_ZERO)
		val = port0_sock_is_marked(sk);
	else
		val = port0_sock_holds(sk);
	release_sock(sk);

	if (copy_to_user(optval, &val, sizeof(val)))
		return -EFAULT;
	*optlen = sizeof(val);
	return 0;
}

#if IS_ENABLED(CONFIG_IPV6)
/**
 * port0_ipv6_setsockopt - set IPV6_V6ONLY on a marked socket, in place of
 * ipv6_setsockopt()
 * @sk: a marked socket
 * @level: SOL_IPV6
 * @optname: IPV6_V6ONLY
 * @optval: as the caller gave it
 * @optlen: its length
 *
 * The kernel refuses this option on a bound socket, but takes one whose inet_num is 0
 * for unbound. This takes turns with bind(), so that the socket cannot get port 0
 * between the test and the kernel's own work. The value is read before, as
 * ipv6_setsockopt() reads it before it takes the socket lock: a page fault can last long,
 * and must not delay a bind() of the socket.
 *
 * Context: process, no locks held; may sleep. Takes the socket lock.
 * Return: -EFAULT if the value cannot be read; -ERESTARTSYS if the task was killed while
 * it waited for a bind() of the socket; -EINVAL if the socket holds port 0; else what
 * ipv6_setsockopt() returns.
 */
int port0_ipv6_setsockopt(struct sock *sk, int level, int optname,
			  sockptr_t optval, unsigned int optlen)
{
	struct port0_turn turn;
	struct port0_call call;
	bool holds;
	int val, err;

	if (!sockptr_is_null(optval) && optlen >= sizeof(val)) {
		if (copy_from_sockptr(&val, optval, sizeof(val)))
			return -EFAULT;
		optval = KERNEL_SOCKPTR(&val);
	}
	err = port0_turn_take(&turn, sk);
	if (err)
		return err;
	lock_sock(sk);
	holds = port0_sock_holds(sk);
	release_sock(sk);

	if (holds) {
		err = -EINVAL;
	} else {
		port0_call_begin(&call, sk, PORT0_CALL_OPTION);
		err = ipv6_setsockopt(sk, level, optname, optval, optlen);
		port0_call_end(&call);
	}
	port0_turn_end(&turn);
	return err;
}
#endif

static struct nf_sockopt_ops port0_sockopts[] = {
	{
		.pf = PF_INET,
		.set_optmin = IP_BIND_PORT_ZERO,
		.set_optmax = IP_BOUND_PORT_ZERO + 1,
		.set = port0_sockopt_set,
		.get_optmin = IP_BIND_PORT_ZERO,
		.get_optmax = IP_BOUND_PORT_ZERO + 1,
		.get = port0_sockopt_get,
		.owner = THIS_MODULE,
	},
#if IS_ENABLED(CONFIG_IPV6)
	{
		.pf = PF_INET6,
		.set_optmin = IPV6_BIND_PORT_ZERO,
		.set_optmax = IPV6_BOUND_PORT_ZERO + 1,
		.set = port0_sockopt_set,
		.get_optmin = IPV6_BIND_PORT_ZERO,
		.get_optmax = IPV6_BOUND_PORT_ZERO + 1,
		.get = port0_sockopt_get,
		.owner = THIS_MODULE,
	},
#endif
};

/**
 * port0_sockopt_register - offer the options to user space
 *
 * Context: process, in module init, after everything else works; may sleep. The
 * options fail with ENOPROTOOPT until port0_is_loading() returns false.
 * Return: 0; -EBUSY if another module has registered one of the numbers.
 */
int port0_sockopt_register(void)
{
	int refs = module_refcount(THIS_MODULE);
	int i, err;

	for (i = 0; i < ARRAY_SIZE(port0_sockopts); i++) {
		err = nf_register_sockopt(&port0_sockopts[i]);
		if (err)
			goto err_unregister;
	}
	return 0;

err_unregister:
	while (i-- > 0)
		nf_unregister_sockopt(&port0_sockopts[i]);
	/* Calls that have begun hold a reference each; they end soon. */
	while (module_refcount(THIS_MODULE) > refs)
		msleep(20);
	return err;
}

/**
 * port0_sockopt_unregister - withdraw the options
 *
 * Context: process, in module exit; may sleep.
 */
void port0_sockopt_unregister(void)
{
	int i;

	for (i = ARRAY_SIZE(port0_sockopts); i-- > 0;)
		nf_unregister_sockopt(&port0_sockopts[i]);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * bind() on a marked socket.
 *
 * The kernel's own bind does the work. Below port0_inet_bind(), when cgroup
 * programs have run and __inet_bind() is entered, port 0 in the address is
 * covered by PORT0_STAND_IN: that makes __inet_bind() check the privilege, ask
 * for a port even with IP_BIND_ADDRESS_NO_PORT, and lock the port to the
 * socket, all of which it skips for 0. When it then asks the protocol for the
 * stand-in, the protocol's get_port is redirected and takes port 0 instead.
 */
#include <linux/capability.h>
#include <net/sock.h>
#include <net/inet_common.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/l3mdev.h>
#include <net/route.h>

#include "call.h"
#include "hook.h"
#include "port0.h"

/* The port is at the same place in both families. */
static __be16 *port0_sockaddr_port(port0_sockaddr_t *uaddr)
{
	BUILD_BUG_ON(offsetof(struct sockaddr_in, sin_port) !=
		     offsetof(struct sockaddr_in6, sin6_port));
	return &((struct sockaddr_in *)uaddr)->sin_port;
}

static int port0_bind_begin(struct port0_call *call, struct sock *sk)
{
	int err = port0_hooks_arm(PORT0_HOOKS_HELD);

	return err ?: port0_call_begin(call, sk, PORT0_CALL_BIND);
}

static void port0_bind_end(struct port0_call *call, struct sock *sk,
			   port0_sockaddr_t *uaddr, int err)
{
	if (call->stand_in)
		*port0_sockaddr_port(uaddr) = 0;

	/*
	 * A post_bind program may have taken the port away again. Both addresses
	 * had to be put back for that: see port0_bind_release().
	 */
	if (err && call->claimed) {
		lock_sock(sk);
		if (!port0_sock_holds(sk)) {
			sk->sk_userlocks &= ~SOCK_BINDPORT_LOCK;
			if (!inet_sk(sk)->inet_num && sk->sk_state == TCP_CLOSE)
				inet_reset_saddr(sk);
		}
		release_sock(sk);
	}
	port0_call_end(call);
}

/**
 * port0_inet_bind - bind() of a marked socket, in place of inet_bind()
 * @sock: the socket
 * @uaddr: the address, in kernel memory; as it was when this returns
 * @addr_len: its length
 *
 * Context: process, no locks held; a reference on the module is held and put.
 * Return: what inet_bind() returns, or -ERESTARTSYS if killed while another
 * bind() on the socket was under way, or why the release hooks cannot be armed.
 */
int port0_inet_bind(struct socket *sock, port0_sockaddr_t *uaddr, int addr_len)
{
	struct port0_call call;
	int err;

	err = port0_bind_begin(&call, sock->sk);
	if (!err) {
		err = inet_bind(sock, uaddr, addr_len);
		port0_bind_end(&call, sock->sk, uaddr, err);
	}
	module_put(THIS_MODULE);
	return err;
}

#if IS_ENABLED(CONFIG_IPV6)
/**
 * port0_inet6_bind - bind() of a marked socket, in place of inet6_bind()
 * @sock: the socket
 * @uaddr: the address, in kernel memory; as it was when this returns
 * @addr_len: its length
 *
 * Context: as port0_inet_bind().
 * Return: as port0_inet_bind().
 */
int port0_inet6_bind(struct socket *sock, port0_sockaddr_t *uaddr,
		     int addr_len)
{
	struct port0_call call;
	int err;

	err = port0_bind_begin(&call, sock->sk);
	if (!err) {
		err = inet6_bind(sock, uaddr, addr_len);
		port0_bind_end(&call, sock->sk, uaddr, err);
	}
	module_put(THIS_MODULE);
	return err;
}
#endif

/**
 * port0_inet_bind_leaving - bind() to port 0, in place of inet_bind() and
 * inet6_bind(), while the module is being loaded or unloaded
 * @sock: the socket
 * @uaddr: the address
 * @addr_len: its length
 *
 * An ephemeral port would be the wrong answer to a marked socket, and the right
 * one cannot be given yet, or no longer. Says what setsockopt() says then.
 *
 * Context: process; holds no reference on the module, so it must not sleep.
 * Return: -ENOPROTOOPT.
 */
int port0_inet_bind_leaving(struct socket *sock, port0_sockaddr_t *uaddr,
			    int addr_len)
{
	return -ENOPROTOOPT;
}

/**
 * port0_bind_prepare - look at __inet_bind() or __inet6_bind() being entered
 * @sk: a marked socket
 * @uaddr: the address, in kernel memory, as cgroup programs have left it
 * @flags: BIND_*
 *
 * The kernel recognises a second bind by inet_num, which is 0 on port 0, so it
 * is told here. Whoever binds without our bind() around it, a cgroup program by
 * bpf_bind(), asks for no literal port.
 *
 * Context: process; the socket is locked if @flags lack BIND_WITH_LOCK. Without
 * the lock nobody else can give the socket port 0 meanwhile: binds that could
 * take turns, see port0_call_begin().
 * Return: true if this is a second bind, which must be refused.
 */
bool port0_bind_prepare(struct sock *sk, port0_sockaddr_t *uaddr, u32 flags)
{
	__be16 *port = port0_sockaddr_port(uaddr);
	struct port0_call *call;

	if (port0_sock_holds(sk))
		return true;

	call = port0_call_find(sk, PORT0_CALL_BIND);
	if (call && !*port) {
		*port = htons(PORT0_STAND_IN);
		call->stand_in = true;
		call->flags = flags;
	}
	return false;
}

static bool port0_bind_may(const struct sock *sk, __be16 port, u32 flags)
{
	struct net *net = sock_net(sk);

	return (flags & BIND_NO_CAP_NET_BIND_SERVICE) ||
	       !inet_port_requires_bind_service(net, ntohs(port)) ||
	       ns_capable(net->user_ns, CAP_NET_BIND_SERVICE);
}

/**
 * port0_inet_rebind - bind() of a socket that holds port 0 already
 * @sk: the socket
 * @uaddr: the address
 * @addr_len: its length, checked by the caller
 * @flags: BIND_*
 *
 * Stands in for __inet_bind(), which would find -EINVAL after these checks.
 *
 * Context: process; a reference on the module is held and put.
 * Return: -EAFNOSUPPORT, -EADDRNOTAVAIL, -EACCES or -EINVAL.
 */
int port0_inet_rebind(struct sock *sk, port0_sockaddr_t *uaddr, int addr_len,
		      u32 flags)
{
	const struct sockaddr_in *addr = (struct sockaddr_in *)uaddr;
	__be32 saddr = addr->sin_addr.s_addr;
	struct net *net = sock_net(sk);
	int err = -EINVAL, type;
	u32 table;

	table = l3mdev_fib_table_by_index(net, sk->sk_bound_dev_if) ?:
		RT_TABLE_LOCAL;
	type = inet_addr_type_table(net, saddr, table);
	if (addr->sin_family != AF_INET &&
	    (addr->sin_family != AF_UNSPEC || saddr != htonl(INADDR_ANY)))
		err = -EAFNOSUPPORT;
	else if (!inet_addr_valid_or_nonlocal(net, inet_sk(sk), saddr, type))
		err = -EADDRNOTAVAIL;
	else if (!port0_bind_may(sk, addr->sin_port, flags))
		err = -EACCES;
	module_put(THIS_MODULE);
	return err;
}

#if IS_ENABLED(CONFIG_IPV6)
/**
 * port0_inet6_rebind - bind() of a socket that holds port 0 already
 * @sk: the socket
 * @uaddr: the address
 * @addr_len: its length, checked by the caller
 * @flags: BIND_*
 *
 * Stands in for __inet6_bind(), which would find -EINVAL after these checks.
 *
 * Context: process; a reference on the module is held and put.
 * Return: -EAFNOSUPPORT, -EACCES or -EINVAL.
 */
int port0_inet6_rebind(struct sock *sk, port0_sockaddr_t *uaddr, int addr_len,
		       u32 flags)
{
	const struct sockaddr_in6 *addr = (struct sockaddr_in6 *)uaddr;
	bool multicast = ipv6_addr_is_multicast(&addr->sin6_addr);
	int err = -EINVAL;

	if (addr->sin6_family != AF_INET6)
		err = -EAFNOSUPPORT;
	else if (!(multicast && sk->sk_type == SOCK_STREAM) &&
		 !port0_bind_may(sk, addr->sin6_port, flags))
		err = -EACCES;
	module_put(THIS_MODULE);
	return err;
}
#endif

/**
 * port0_bind_wants_port - tell whether get_port is asked for the stand-in
 * @sk: a marked socket that does not hold port 0
 * @snum: the port that is asked for
 *
 * Context: process, socket locked.
 * Return: true if @snum has come down from our bind() and stands for port 0.
 */
bool port0_bind_wants_port(const struct sock *sk, unsigned short snum)
{
	struct port0_call *call;

	if (snum != PORT0_STAND_IN)
		return false;
	call = port0_call_find(sk, PORT0_CALL_BIND);
	return call && call->stand_in;
}

/**
 * port0_bind_claim - see whether the bind() under way may have port 0
 * @sk: the socket that asks for it
 *
 * The kernel has checked the privilege for the stand-in. That is the right
 * answer for 0 as well, but where privileged ports are those below 1.
 *
 * Context: process, socket locked, below port0_inet_bind().
 * Return: the call, for port0_bind_claimed(), or ERR_PTR(-EACCES).
 */
struct port0_call *port0_bind_claim(struct sock *sk)
{
	struct port0_call *call = port0_call_find(sk, PORT0_CALL_BIND);

	if (!inet_port_requires_bind_service(sock_net(sk), PORT0_STAND_IN) &&
	    !port0_bind_may(sk, htons(0), call->flags))
		return ERR_PTR(-EACCES);
	return call;
}

/**
 * port0_bind_claimed - note that a bind() has taken port 0
 * @sk: the socket, on port 0 now
 * @call: as port0_bind_claim() has returned it
 *
 * From here until port0_bind_release() the socket keeps the module loaded. The
 * kernel locks the port to the socket only at the end of __inet_bind(); it is
 * done here so that port0_sock_pins() holds from now on.
 *
 * Context: process, socket locked, below port0_inet_bind().
 */
void port0_bind_claimed(struct sock *sk, struct port0_call *call)
{
	call->claimed = true;
	sk->sk_userlocks |= SOCK_BINDPORT_LOCK;
	__module_get(THIS_MODULE);
}

/**
 * port0_bind_release - note that a socket gives its port back
 * @sk: a marked socket, still bound
 *
 * Called as inet_put_port() or udp_lib_unhash() is entered. Each runs once for
 * a bound socket, so the reference of port0_bind_claimed() is put once.
 *
 * Context: process or softirq, socket locked or no longer in use.
 */
void port0_bind_release(struct sock *sk)
{
	if (!port0_sock_pins(sk))
		return;
	if (sk->sk_protocol == IPPROTO_TCP)
		port0_tcp_restore_saddr(sk);
	module_put(THIS_MODULE);
}

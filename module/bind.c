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
#include "place.h"
#include "port0.h"
#include "turn.h"
#include "watch.h"

/* The port is at the same place in both families. */
static __be16 *port0_sockaddr_port(port0_sockaddr_t *uaddr)
{
	BUILD_BUG_ON(offsetof(struct sockaddr_in, sin_port) !=
		     offsetof(struct sockaddr_in6, sin6_port));
	return &((struct sockaddr_in *)uaddr)->sin_port;
}

/**
 * struct port0_bind - a bind() of a marked socket under way
 * @turn: so that no other bind() of the socket overlaps it
 * @call: what the hooks below it find
 */
struct port0_bind {
	struct port0_turn turn;
	struct port0_call call;
};

/* The hooks that a marked socket may need once it is bound. */
static unsigned int port0_bind_hooks(const struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_UDP ?
		PORT0_HOOKS_HELD | PORT0_HOOKS_SEND : PORT0_HOOKS_HELD;
}

static int port0_bind_begin(struct port0_bind *bind, struct socket *sock,
			    port0_sockaddr_t *uaddr)
{
	struct port0_watch *watch = NULL;
	struct sock *sk = sock->sk;
	bool literal = false;
	int err;

	err = port0_turn_take(&bind->turn, sk);
	if (err)
		return err;
	if (port0_is_draining()) {
		/* A second bind() of a holder is told so. */
		err = *port0_sockaddr_port(uaddr) || port0_sock_holds(sk) ?
			0 : -EPERM;
		if (err)
			goto err_turn;
	} else {
		err = port0_hooks_arm(port0_bind_hooks(sk));
		if (err)
			goto err_turn;
		if (port0_watch_wanted(sock)) {
			watch = port0_watch_make();
			err = watch ? 0 : -ENOMEM;
			if (err)
				goto err_turn;
		}
		literal = true;
	}
	port0_call_begin(&bind->call, sk, PORT0_CALL_BIND);
	bind->call.literal = literal;
	bind->call.watch = watch;
	return 0;

err_turn:
	port0_turn_end(&bind->turn);
	return err;
}

/* Returns what bind() does. */
static int port0_bind_end(struct port0_bind *bind, struct sock *sk,
			  port0_sockaddr_t *uaddr, int err)
{
	struct port0_call *call = &bind->call;

	if (call->stand_in)
		*port0_sockaddr_port(uaddr) = 0;

	/*
	 * A post_bind program has had the port taken away again. The kernel had
	 * zeroed the address, which port0_bind_release() had to restore. A bind()
	 * with IP_BIND_ADDRESS_NO_PORT may have chosen another since.
	 */
	if (err && call->claimed) {
		lock_sock(sk);
		if (!port0_sock_holds(sk) && !inet_sk(sk)->inet_num &&
		    sk->sk_state == TCP_CLOSE && call->place.addr_locked ==
		    !!(sk->sk_userlocks & SOCK_BINDADDR_LOCK))
			inet_reset_saddr(sk);
		release_sock(sk);
	}
	port0_call_end(call);
	if (!call->claimed)
		port0_watch_drop(call->watch);
	port0_turn_end(&bind->turn);
	/* Before 6.1 __inet_bind() makes -EADDRINUSE of whatever get_port() says. */
	return err && call->denied ? -EACCES : err;
}

/**
 * port0_inet_bind - bind() of a marked socket, in place of inet_bind()
 * @sock: the socket
 * @uaddr: the address, in kernel memory; as it was when this returns
 * @addr_len: its length
 *
 * Context: process, no locks held.
 * Return: what inet_bind() returns, or -ERESTARTSYS if killed while another
 * bind() on the socket was under way, or why the hooks for a bound socket cannot be
 * armed, or -EPERM for port 0 while the administrator drains it.
 */
int port0_inet_bind(struct socket *sock, port0_sockaddr_t *uaddr, int addr_len)
{
	struct port0_bind bind;
	int err;

	err = port0_bind_begin(&bind, sock, uaddr);
	if (err)
		return err;
	err = inet_bind(sock, uaddr, addr_len);
	return port0_bind_end(&bind, sock->sk, uaddr, err);
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
	struct port0_bind bind;
	int err;

	err = port0_bind_begin(&bind, sock, uaddr);
	if (err)
		return err;
	err = inet6_bind(sock, uaddr, addr_len);
	return port0_bind_end(&bind, sock->sk, uaddr, err);
}
#endif

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
 * the lock nobody else can give the socket port 0 meanwhile: who could would have
 * to take the turn that this bind() has. A bind() that finds the socket on port 0
 * here is a second one, even if the socket gives the port back before the lock is
 * free.
 * Return: true if this is a second bind, which must be refused.
 */
bool port0_bind_prepare(struct sock *sk, port0_sockaddr_t *uaddr, u32 flags)
{
	__be16 *port = port0_sockaddr_port(uaddr);
	struct port0_call *call;

	if (port0_sock_holds(sk))
		return true;

	call = port0_call_find(sk, PORT0_CALL_BIND);
	if (call && call->literal && !*port) {
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
 * Context: process; the socket is locked if @flags lack BIND_WITH_LOCK.
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
 * Context: process; the socket is locked if @flags lack BIND_WITH_LOCK.
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
	    !port0_bind_may(sk, htons(0), call->flags)) {
		call->denied = true;
		return ERR_PTR(-EACCES);
	}
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
	port0_place_read(&call->place, sk);
	sk->sk_userlocks |= SOCK_BINDPORT_LOCK;
	__module_get(THIS_MODULE);
	if (call->watch)
		port0_watch_start(call->watch, sk);
}

/**
 * port0_bind_keep - judge a get_port on a socket that holds port 0
 * @sk: the socket
 * @snum: the port that is asked for
 *
 * listen() and autobind ask for the number that the socket has, which is 0. A
 * bind() that began before the socket was marked asks for whatever it was called
 * with, after it has written its address: it has come too late, and is told what a
 * second bind() is told. The kernel then zeroes the address, which watch.c undoes
 * when the lock is released.
 *
 * Context: process, socket locked; does not sleep.
 * Return: 0, or -EINVAL for a late bind().
 */
int port0_bind_keep(const struct sock *sk, unsigned short snum)
{
	return snum || !port0_place_holds(sk) ? -EINVAL : 0;
}

/**
 * port0_bind_release - note that a socket gives its port back
 * @sk: a marked socket, still bound
 *
 * Called as inet_put_port() or udp_lib_unhash() is entered. Each runs once for
 * a bound socket, so the reference of port0_bind_claimed() is put once.
 *
 * If a post_bind program has refused the bind(), the kernel has zeroed the address
 * before this. inet_put_port() finds the chain to lock by the address and cannot
 * fail, so the address is restored for it.
 *
 * Context: process or softirq, socket locked or no longer in use; does not sleep.
 */
void port0_bind_release(struct sock *sk)
{
	const struct port0_call *call;

	if (!port0_sock_pins(sk))
		return;
	call = port0_call_find(sk, PORT0_CALL_BIND);
	if (call && call->claimed) {
		sk->sk_userlocks &= ~SOCK_BINDPORT_LOCK;
		if (!port0_place_holds(sk))
			port0_place_restore(&call->place, sk);
	}
	if (!port0_watch_stop(sk))
		module_put(THIS_MODULE);
}

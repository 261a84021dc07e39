// SPDX-License-Identifier: GPL-2.0
/*
 * bind() on a marked socket.
 *
 * The kernel's own inet_bind() does the work, called by port0_inet_bind(). When it
 * calls __inet_bind(), after cgroup programs have run, port 0 in the address is
 * replaced by PORT0_STAND_IN. That makes __inet_bind() check the privilege, call
 * get_port even with IP_BIND_ADDRESS_NO_PORT, and lock the port to the socket, all of
 * which it omits for port 0. It calls get_port of the protocol with the stand-in; that
 * call is redirected to a function that takes port 0.
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

/* The ULP that hands a TCP socket to SMC; newer kernels do not have it. */
#define PORT0_SMC_ULP	"smc"

/* The port has the same offset in addresses of both families. */
static __be16 *port0_sockaddr_port(port0_sockaddr_t *uaddr)
{
	BUILD_BUG_ON(offsetof(struct sockaddr_in, sin_port) !=
		     offsetof(struct sockaddr_in6, sin6_port));
	return &((struct sockaddr_in *)uaddr)->sin_port;
}

/**
 * struct port0_bind - a bind() of a marked socket in flight
 * @turn: held until the bind() returns, so that no other bind() of the socket runs
 * @call: what hooks find that run below the kernel's bind()
 */
struct port0_bind {
	struct port0_turn turn;
	struct port0_call call;
};

/* The sets of hooks that a marked socket needs once it is bound */
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
	bool literal;
	int err;

	err = port0_turn_take(&bind->turn, sk);
	if (err)
		return err;
	literal = port0_may_mark() && port0_late_begin();
	if (!literal) {
		/*
		 * A second bind() fails with EINVAL, as where this is allowed. It is not
		 * left to the kernel: an accepted socket may lose its port before, and
		 * would then get an ephemeral one.
		 */
		err = *port0_sockaddr_port(uaddr) ? 0 :
		      port0_sock_holds(sk) || READ_ONCE(inet_sk(sk)->inet_num) ?
		      -EINVAL : -EPERM;
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
	}
	port0_call_begin(&bind->call, sk, PORT0_CALL_BIND);
	bind->call.literal = literal;
	bind->call.watch = watch;
	return 0;

err_turn:
	if (literal)
		port0_late_end();
	port0_turn_end(&bind->turn);
	return err;
}

/* Returns the result of bind(). */
static int port0_bind_end(struct port0_bind *bind, struct sock *sk,
			  port0_sockaddr_t *uaddr, int err)
{
	struct port0_call *call = &bind->call;

	if (call->stand_in)
		*port0_sockaddr_port(uaddr) = 0;

	/*
	 * A post_bind program has refused the bind(): the kernel zeroed the address,
	 * and port0_bind_release() restored that of a TCP socket to give the port back.
	 * It is zeroed again here, unless another bind(), with IP_BIND_ADDRESS_NO_PORT,
	 * has written an address since.
	 */
	if (err && call->claimed && sk->sk_protocol == IPPROTO_TCP) {
		lock_sock(sk);
		if (!port0_sock_holds(sk) && !inet_sk(sk)->inet_num &&
		    sk->sk_state == TCP_CLOSE && call->place.addr_locked ==
		    !!(sk->sk_userlocks & SOCK_BINDADDR_LOCK) &&
		    port0_place_has_address(&call->place, sk))
			inet_reset_saddr(sk);
		release_sock(sk);
	}
	port0_call_end(call);
	if (!call->claimed)
		port0_watch_drop(call->watch);
	port0_turn_end(&bind->turn);
	/* If the socket could not get port 0, port0_bind_begin() has armed no hooks. */
	if (!call->literal && sk->sk_protocol == IPPROTO_UDP)
		port0_send_arm();
	if (call->literal)
		port0_late_end();
	/* Before 6.1, __inet_bind() turns any errno of get_port() into -EADDRINUSE. */
	return call->refusal ?: err;
}

/**
 * port0_inet_bind - bind() of a marked socket, in place of inet_bind()
 * @sock: the socket
 * @uaddr: the address, in kernel memory; unchanged when this returns
 * @addr_len: its length
 *
 * Context: process, no locks held; may sleep. Takes a turn on the socket, and the
 * socket lock.
 * Return: what inet_bind() returns; -ERESTARTSYS if the task was killed while it
 * waited for another bind() of the socket; -EPERM for port 0 while the parameter
 * "drain" is set, or if "init_userns" forbids it; -ENOMEM if there is no memory for a
 * watch; or what port0_hooks_arm() returns.
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
 * @uaddr: the address, in kernel memory; unchanged when this returns
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

/* The privilege check of __inet_bind() and __inet6_bind(), in two halves */

static bool port0_bind_needs_cap(const struct sock *sk, __be16 port, u32 flags)
{
	struct net *net = sock_net(sk);

	return !(flags & BIND_NO_CAP_NET_BIND_SERVICE) &&
	       inet_port_requires_bind_service(net, ntohs(port));
}

/* Security modules take locks here, which may sleep on PREEMPT_RT. */
static bool port0_bind_has_cap(const struct sock *sk)
{
	return ns_capable(sock_net(sk)->user_ns, CAP_NET_BIND_SERVICE);
}

/* bpf_bind() to port 0 sets BIND_FORCE_ADDRESS_NO_PORT: it binds to an address only. */
static bool port0_bind_may(const struct sock *sk, __be16 port, u32 flags)
{
	if (!port && (flags & BIND_FORCE_ADDRESS_NO_PORT))
		return true;
	return !port0_bind_needs_cap(sk, port, flags) || port0_bind_has_cap(sk);
}

/**
 * port0_bind_prepare - called when __inet_bind() or __inet6_bind() is entered
 * @sk: a marked socket
 * @uaddr: the address, in kernel memory, as cgroup programs have left it
 * @flags: BIND_*
 *
 * Replaces port 0 by the stand-in. The kernel recognises a second bind() by an inet_num
 * that is not 0. On port 0 it is 0, so a second bind() is recognised here. bpf_bind(), by
 * which a cgroup program binds, does not come from port0_inet_bind(): for it, port 0 means
 * an ephemeral port.
 *
 * Context: process; does not sleep. The caller owns the socket lock if @flags lack
 * BIND_WITH_LOCK. Without the lock, the socket cannot get port 0 meanwhile, since
 * only the bind() that has the turn on the socket can give it that. If it holds port
 * 0 here, this is a second bind(), even if the port is given back before
 * __inet_bind() gets the lock.
 * Return: true if this is a second bind(), which must be refused.
 */
bool port0_bind_prepare(struct sock *sk, port0_sockaddr_t *uaddr, u32 flags)
{
	__be16 *port = port0_sockaddr_port(uaddr);
	struct port0_call *call;

	if (port0_sock_holds(sk))
		return true;

	call = port0_call_find(sk, PORT0_CALL_BIND);
	if (call && call->literal && !*port) {
		call->needs_cap = port0_bind_needs_cap(sk, *port, flags);
		*port = htons(PORT0_STAND_IN);
		call->stand_in = true;
	}
	return false;
}

/**
 * port0_inet_rebind - bind() of a socket that holds port 0 already, in place of
 * __inet_bind()
 * @sk: the socket
 * @uaddr: the address
 * @addr_len: its length, checked by the caller
 * @flags: BIND_*
 *
 * Mirrors the checks that __inet_bind() makes before it fails with -EINVAL because
 * the socket is bound.
 *
 * Context: process; the caller owns the socket lock if @flags lack BIND_WITH_LOCK.
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
 * port0_inet6_rebind - bind() of a socket that holds port 0 already, in place of
 * __inet6_bind()
 * @sk: the socket
 * @uaddr: the address
 * @addr_len: its length, checked by the caller
 * @flags: BIND_*
 *
 * Mirrors the checks that __inet6_bind() makes before it fails with -EINVAL because
 * the socket is bound.
 *
 * Context: process; the caller owns the socket lock if @flags lack BIND_WITH_LOCK.
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
 * port0_bind_wants_port - tell whether get_port is called for port 0
 * @sk: a marked socket that does not hold port 0
 * @snum: the port that get_port is called with
 *
 * Context: process, socket locked; does not sleep.
 * Return: true if @snum is the stand-in, put there by port0_bind_prepare().
 */
bool port0_bind_wants_port(const struct sock *sk, unsigned short snum)
{
	struct port0_call *call;

	if (snum != PORT0_STAND_IN)
		return false;
	call = port0_call_find(sk, PORT0_CALL_BIND);
	return call && call->stand_in;
}

/*
 * Tell whether a socket has been handed to SMC, by the ULP "smc". That moves the file of
 * the socket to a new SMC socket. If SMC falls back to TCP, it gives the file back, but
 * calls that found the SMC socket before may still be in flight.
 */
static bool port0_bind_is_smc(const struct sock *sk)
{
#if IS_ENABLED(CONFIG_SMC)
	const struct tcp_ulp_ops *ulp = sk->sk_protocol == IPPROTO_TCP ?
		inet_csk(sk)->icsk_ulp_ops : NULL;

	return ulp && !strcmp(ulp->name, PORT0_SMC_ULP);
#else
	return false;
#endif
}

/**
 * port0_bind_claim - refuse port 0 to a bind() in flight that must not get it
 * @sk: the socket
 *
 * When SMC listens or connects, it overwrites SOCK_BINDPORT_LOCK of a TCP socket that was
 * handed to it, and port0_sock_pins() relies on that. So such a socket does not get port
 * 0, and one on port 0 is not handed over: see port0_refuses_ulp().
 *
 * The kernel has checked the privilege for the stand-in, which needs none if
 * ip_unprivileged_port_start is 1. port0_bind_prepare() has read the limit for port 0 at
 * the same time. It is not read again here, since it may have changed while bind()
 * waited for the socket lock. The capabilities of the task have not.
 *
 * Context: process, socket locked, in get_port called by port0_inet_bind() or
 * port0_inet6_bind(); may sleep.
 * Return: the call, for port0_bind_claimed(); ERR_PTR(-EOPNOTSUPP) if the socket was
 * handed to SMC; ERR_PTR(-EACCES) if port 0 needs a capability that the task lacks.
 */
struct port0_call *port0_bind_claim(struct sock *sk)
{
	struct port0_call *call = port0_call_find(sk, PORT0_CALL_BIND);

	if (port0_bind_is_smc(sk))
		call->refusal = -EOPNOTSUPP;
	else if (call->needs_cap && !port0_bind_has_cap(sk))
		call->refusal = -EACCES;
	else
		return call;
	return ERR_PTR(call->refusal);
}

/**
 * port0_bind_claimed - note that a bind() has taken port 0
 * @sk: the socket, which holds port 0 now
 * @call: as port0_bind_claim() has returned it
 *
 * Takes the reference on the module that port0_bind_release() drops. The kernel sets
 * SOCK_BINDPORT_LOCK only at the end of __inet_bind(); it is set here, so that
 * port0_sock_pins() is true from now on. Starts the watch, if there is one.
 *
 * Context: process, socket locked, in get_port called by port0_inet_bind() or
 * port0_inet6_bind().
 */
void port0_bind_claimed(struct sock *sk, struct port0_call *call)
{
	call->claimed = true;
	port0_place_read(&call->place, sk);
	sk->sk_userlocks |= SOCK_BINDPORT_LOCK;
	port0_use();
	if (call->watch)
		port0_watch_start(call->watch, sk);
}

/**
 * port0_bind_refuse - refuse a late bind() (see watch.c) in get_port
 * @sk: the socket, which holds port 0
 *
 * A bind() to a link-local address has written the device of that address. This is undone
 * here: on a socket that is on the wildcard address, nothing shows later that there was a
 * late call, since the kernel now zeroes the address.
 *
 * Context: process, socket locked; does not sleep.
 * Return: -EINVAL.
 */
int port0_bind_refuse(struct sock *sk)
{
	WRITE_ONCE(sk->sk_bound_dev_if, port0_sock_device(sk));
	return -EINVAL;
}

/**
 * port0_bind_keep - answer get_port for a socket that holds port 0
 * @sk: the socket
 * @snum: the port that get_port is called with
 *
 * listen() and autobind call get_port with inet_num, which is 0: the socket keeps its
 * port. A bind() that began before the socket was marked (a late one, see watch.c)
 * calls it with the port of its caller, after it has written its address. It fails
 * with -EINVAL, as a second bind() does. The kernel then zeroes the address, which
 * watch.c undoes when the socket lock is released.
 *
 * Context: process, socket locked; does not sleep.
 * Return: 0, or -EINVAL for a late bind().
 */
int port0_bind_keep(struct sock *sk, unsigned short snum)
{
	return snum || !port0_place_holds(sk) ? port0_bind_refuse(sk) : 0;
}

#if IS_ENABLED(CONFIG_SMC)
/**
 * port0_refuses_ulp - tell whether a socket must not get an upper layer protocol (ULP)
 * @sk: a marked TCP socket
 * @name: the name of the ULP
 *
 * See port0_bind_claim(). SMC itself refuses a socket that is connecting or connected,
 * with another errno.
 *
 * Context: process, socket locked, in tcp_set_ulp(); does not sleep.
 * Return: true if the socket holds port 0 and would be handed to SMC.
 */
bool port0_refuses_ulp(const struct sock *sk, const char *name)
{
	return !strcmp(name, PORT0_SMC_ULP) && port0_sock_holds(sk) &&
	       sk->sk_socket->state == SS_UNCONNECTED;
}
#endif

/**
 * port0_bind_release - note that a socket gives its port back
 * @sk: a marked socket, still bound
 *
 * Called when inet_put_port() or udp_lib_unhash() is entered. That happens once for a
 * bound socket, so the reference of port0_bind_claimed() is dropped once: here, or
 * after the watch on the socket is removed.
 *
 * If a post_bind program has refused the bind(), the kernel has zeroed the address
 * before this call. inet_put_port() chooses the chain to lock by the address and
 * cannot fail, so the address is restored first. udp_lib_unhash() uses the hashes that
 * the socket stores.
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
		bool v6only = sk->sk_ipv6only;

		sk->sk_userlocks &= ~SOCK_BINDPORT_LOCK;
		if (sk->sk_protocol == IPPROTO_TCP && !port0_place_holds(sk)) {
			port0_place_restore(&call->place, sk);
			/*
			 * Keep the kernel's value: it has reset this, and no chain
			 * depends on it.
			 */
			sk->sk_ipv6only = v6only;
		}
	}
	if (!port0_watch_stop(sk))
		port0_leave(true);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * The self-check at load. A kernel can have every hooked function and still run one
 * without a hook being called, because the compiler has inlined it somewhere. So one
 * socket of each kind is bound to port 0, connects or sends from there, receives, and
 * is closed. A datagram to port 0 is also begun with MSG_MORE, which needs another hook.
 *
 * The module does not load if a socket is not bound as it should be, connects or sends
 * from a port other than 0, or sends to a port other than 0. If nothing arrives, the
 * host's firewall may have dropped it, or IPv6 or the loopback device may be down: this
 * is only logged. Any user can connect and send to these sockets meanwhile, which must
 * not keep the module from loading.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/in6.h>
#include <linux/net.h>
#include <linux/random.h>
#include <linux/uio.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>

#include "hook.h"
#include "port0.h"

/* How often to look for a packet on loopback; if there is none, with a pause of 1 ms */
#define PORT0_CHECK_TRIES	200

/* The errno if the module does not work on this kernel */
#define PORT0_FAULT		(-EOPNOTSUPP)

/**
 * struct port0_check - the check of one kind of socket
 * @family: AF_INET or AF_INET6
 * @type: SOCK_STREAM or SOCK_DGRAM
 */
struct port0_check {
	int family;
	int type;
};

/**
 * union port0_check_name - an address on loopback
 * @any: for calls that take either family
 * @v4: of AF_INET
 * @v6: of AF_INET6
 */
union port0_check_name {
	struct sockaddr_storage any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
};

static const char *port0_check_kind(const struct port0_check *check)
{
	if (check->type == SOCK_STREAM)
		return check->family == AF_INET ? "TCP over IPv4" :
						  "TCP over IPv6";
	return check->family == AF_INET ? "UDP over IPv4" : "UDP over IPv6";
}

static int port0_check_fault(const struct port0_check *check, const char *what)
{
	pr_err("%s: %s: %s; port0 does not work here (the compiler may have inlined a hooked function, or a BPF program interferes)\n",
	       __func__, port0_check_kind(check), what);
	return PORT0_FAULT;
}

/* Log that something could not be tested; the module loads nevertheless. */
static int port0_check_unseen(const struct port0_check *check,
			      const char *what, int err)
{
	pr_info("%s: %s: %s (errno %d): not checked on this host\n", __func__,
		port0_check_kind(check), what, -err);
	return 0;
}

static int port0_check_addr(const struct port0_check *check, __be16 port,
			    union port0_check_name *name)
{
	*name = (union port0_check_name){};
	if (check->family == AF_INET) {
		name->v4.sin_family = AF_INET;
		name->v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		name->v4.sin_port = port;
		return sizeof(name->v4);
	}
	name->v6.sin6_family = AF_INET6;
	name->v6.sin6_addr = in6addr_loopback;
	name->v6.sin6_port = port;
	return sizeof(name->v6);
}

static int port0_check_socket(const struct port0_check *check, bool mark,
			      struct socket **sock)
{
	int err = sock_create_kern(&init_net, check->family, check->type, 0,
				   sock);

	if (err)
		return err;
	ip_sock_set_freebind((*sock)->sk);
	lock_sock((*sock)->sk);
	if (mark)
		__set_bit(PORT0_SOCK_MARK, &(*sock)->sk->sk_flags);
	/* Ignore sockets on port 0 that are left from an earlier load. */
	(*sock)->sk->sk_reuse = SK_FORCE_REUSE;
	release_sock((*sock)->sk);
	return 0;
}

/* Create a socket on an ephemeral port of loopback; *port is that port. */
static int port0_check_peer(const struct port0_check *check,
			    struct socket **sock, __be16 *port)
{
	union port0_check_name name;
	int err, len;

	err = port0_check_socket(check, false, sock);
	if (err)
		return err;
	len = port0_check_addr(check, 0, &name);
	err = kernel_bind(*sock, (void *)&name, len);
	if (!err && check->type == SOCK_STREAM)
		err = kernel_listen(*sock, 1);
	if (err)
		sock_release(*sock);
	else
		*port = inet_sk((*sock)->sk)->inet_sport;
	return err;
}

/* Returns what is wrong with a socket that should hold port 0, or NULL. */
static const char *port0_check_look(const struct sock *sk)
{
	if (inet_sk(sk)->inet_num)
		return "bind() to port 0 gave another port";
	if (!port0_sock_holds(sk))
		return "bind() to port 0 left the socket out of the kernel's tables";
	if (!port0_sock_pins(sk))
		return "bind() to port 0 has not locked the port to the socket";
	return NULL;
}

static int port0_check_bind(const struct port0_check *check,
			    struct socket *sock)
{
	union port0_check_name name;
	int err, len = port0_check_addr(check, 0, &name);
	const char *wrong;

	err = kernel_bind(sock, (void *)&name, len);
	if (err) {
		pr_err("%s: %s: bind() to port 0: errno %d (load it with CAP_NET_BIND_SERVICE, and where no cgroup program forbids bind)\n",
		       __func__, port0_check_kind(check), -err);
		return err;
	}
	wrong = port0_check_look(sock->sk);
	if (!wrong && kernel_bind(sock, (void *)&name, len) != -EINVAL)
		wrong = "a second bind() was not refused";
	return wrong ? port0_check_fault(check, wrong) : 0;
}

/*
 * Accept connections until there is one from port 0. Others are from other programs.
 * Returns 0 or an errno.
 */
static int port0_check_accept(struct socket *peer)
{
	struct socket *child;
	int tries, err;
	__be16 port;

	for (tries = 0; tries < PORT0_CHECK_TRIES; tries++) {
		err = kernel_accept(peer, &child, O_NONBLOCK);
		if (err == -EAGAIN) {
			msleep(1);
			continue;
		}
		if (err)
			return err;
		port = inet_sk(child->sk)->inet_dport;
		sock_release(child);
		if (!port)
			return 0;
	}
	return -EAGAIN;
}

/* Connect from port 0 to an ephemeral port. */
static int port0_check_connect(const struct port0_check *check,
			       struct socket *sock)
{
	union port0_check_name name;
	struct socket *peer;
	int err, len;
	__be16 port;

	err = port0_check_peer(check, &peer, &port);
	if (err)
		return port0_check_unseen(check, "no peer to connect to", err);

	len = port0_check_addr(check, port, &name);
	/* No TIME_WAIT: it would keep port 0 of the address for a minute. */
	sock_no_linger(sock->sk);
	err = kernel_connect(sock, (void *)&name, len, O_NONBLOCK);
	if (err && err != -EINPROGRESS) {
		err = port0_check_unseen(check, "connect() from port 0 fails",
					 err);
		goto out;
	}
	if (inet_sk(sock->sk)->inet_num || inet_sk(sock->sk)->inet_sport) {
		err = port0_check_fault(check, "connect() left port 0");
		goto out;
	}
	err = port0_check_accept(peer);
	if (err)
		err = port0_check_unseen(check,
					 "connections from port 0 do not arrive",
					 err);
out:
	sock_release(peer);
	return err;
}

/* Receive the datagram that holds @token. Returns 0 or an errno. */
static int port0_check_recv(struct socket *sock, u64 token,
			    union port0_check_name *source)
{
	struct msghdr msg = { .msg_name = source };
	int tries, err;
	u64 word;

	for (tries = 0; tries < PORT0_CHECK_TRIES; tries++) {
		struct kvec vec = {
			.iov_base = &word, .iov_len = sizeof(word),
		};

		err = kernel_recvmsg(sock, &msg, &vec, 1, sizeof(word),
				     MSG_DONTWAIT);
		if (err == -EAGAIN) {
			msleep(1);
			continue;
		}
		if (err < 0)
			return err;
		if (err == sizeof(word) && word == token)
			return 0;
	}
	return -EAGAIN;
}

/* Send one datagram, and check that it arrives from @from_port. */
static int port0_check_datagram(const struct port0_check *check,
				struct socket *from, struct socket *to,
				__be16 to_port, __be16 from_port)
{
	union port0_check_name name, source = {};
	struct msghdr msg = {
		.msg_name = &name,
		.msg_flags = MSG_DONTWAIT,
	};
	u64 token = get_random_u64();
	struct kvec vec = { .iov_base = &token, .iov_len = sizeof(token) };
	int err;

	msg.msg_namelen = port0_check_addr(check, to_port, &name);
	err = kernel_sendmsg(from, &msg, &vec, 1, sizeof(token));
	if (err < 0)
		return port0_check_unseen(check, to_port ?
					  "nothing can be sent from port 0" :
					  "nothing can be sent to port 0",
					  err);
	if (!to_port && !port0_send_was_routed())
		return port0_check_fault(check,
					 "sendto() to port 0 has sent to another port");
	err = port0_check_recv(to, token, &source);
	if (err)
		return port0_check_unseen(check, to_port ?
					  "datagrams from port 0 do not arrive" :
					  "datagrams to port 0 do not arrive",
					  err);
	/* The port has the same offset in addresses of both families. */
	if (source.v4.sin_port != from_port)
		return port0_check_fault(check,
					 "a datagram came from another port than it was sent from");
	return 0;
}

/*
 * Begin a datagram to port 0, and check where it would be sent. It is dropped when the
 * socket is closed.
 */
static int port0_check_cork(const struct port0_check *check,
			    struct socket *from)
{
	const struct flowi *flow = &inet_sk(from->sk)->cork.fl;
	union port0_check_name name;
	struct msghdr msg = {
		.msg_name = &name,
		.msg_namelen = port0_check_addr(check, 0, &name),
		.msg_flags = MSG_DONTWAIT | MSG_MORE,
	};
	struct kvec vec = { .iov_base = &name, .iov_len = sizeof(name.v4) };
	__be16 port;
	int err;

	err = kernel_sendmsg(from, &msg, &vec, 1, vec.iov_len);
	if (err < 0)
		return port0_check_unseen(check,
					  "nothing can be sent to port 0 in parts",
					  err);
	port = check->family == AF_INET ? flow->u.ip4.fl4_dport :
					  flow->u.ip6.fl6_dport;
	if (port)
		return port0_check_fault(check,
					 "sendto() to port 0 with MSG_MORE sends to another port");
	return 0;
}

/* Send a datagram to port 0 and one back, and begin one in parts. */
static int port0_check_send(const struct port0_check *check,
			    struct socket *sock)
{
	struct socket *peer;
	__be16 port;
	int err;

	err = port0_check_peer(check, &peer, &port);
	if (err)
		return port0_check_unseen(check, "no peer to send to", err);
	lock_sock(peer->sk);
	__set_bit(PORT0_SOCK_MARK, &peer->sk->sk_flags);
	release_sock(peer->sk);

	err = port0_check_datagram(check, peer, sock, 0, port) ?:
	      port0_check_datagram(check, sock, peer, port, 0) ?:
	      port0_check_cork(check, peer);
	sock_release(peer);
	return err;
}

static int port0_check_run(const struct port0_check *check)
{
	struct socket *sock;
	int err;

	err = port0_check_socket(check, true, &sock);
	if (err == -EAFNOSUPPORT)
		return 0;
	if (err) {
		pr_err("%s: %s: cannot create a socket: errno %d\n", __func__,
		       port0_check_kind(check), -err);
		return err;
	}
	err = port0_check_bind(check, sock);
	if (!err)
		err = check->type == SOCK_STREAM ?
			port0_check_connect(check, sock) :
			port0_check_send(check, sock);
	sock_release(sock);
	if (!err && port0_is_used())
		err = port0_check_fault(check,
					"close() has not dropped the reference on the module");
	return err;
}

/**
 * port0_selfcheck - use port 0 once with each kind of socket
 *
 * In the initial network namespace, on loopback.
 *
 * Context: process, in module init, with all hooks installed; may sleep.
 * Return: 0; -EOPNOTSUPP if the module does not work on this kernel; or the errno
 * with which a socket could not be created or bound. The log has the details.
 */
int port0_selfcheck(void)
{
	static const struct port0_check checks[] = {
		{ AF_INET, SOCK_STREAM },
		{ AF_INET, SOCK_DGRAM },
		{ AF_INET6, SOCK_STREAM },
		{ AF_INET6, SOCK_DGRAM },
	};
	int i, err;

	for (i = 0; i < ARRAY_SIZE(checks); i++) {
		err = port0_check_run(&checks[i]);
		if (err)
			return err;
	}
	return 0;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Does it work? A kernel can have every function that we hook and still call
 * one past its entry, because a compiler inlined it. So each kind of socket
 * takes port 0 once at load, and lets it go.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/in6.h>
#include <linux/net.h>
#include <net/ip.h>
#include <net/ipv6.h>
#include <net/net_namespace.h>

#include "port0.h"

/* What a socket on port 0 must look like. */
static const char *port0_selfcheck_look(const struct sock *sk)
{
	if (inet_sk(sk)->inet_num)
		return "it was given another port";
	if (!port0_sock_holds(sk))
		return "it is not in the kernel's tables";
	if (!port0_sock_pins(sk))
		return "its port is not locked to it";
	return NULL;
}

/*
 * SK_FORCE_REUSE: connections that an earlier load has left on the address are
 * not our concern here. The address need not be up.
 */
static int port0_selfcheck_one(int family, int type)
{
	union {
		struct sockaddr_storage any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} addr = {};
	const char *proto = type == SOCK_STREAM ? "TCP" : "UDP";
	int version = family == AF_INET ? 4 : 6;
	int refs = module_refcount(THIS_MODULE);
	const char *wrong;
	struct socket *sock;
	int err, len;

	err = sock_create_kern(&init_net, family, type, 0, &sock);
	if (err == -EAFNOSUPPORT)
		return 0;
	if (err) {
		pr_err("%s: cannot create a %s socket over IPv%d: errno %d\n",
		       __func__, proto, version, -err);
		return err;
	}

	lock_sock(sock->sk);
	__set_bit(PORT0_SOCK_MARK, &sock->sk->sk_flags);
	sock->sk->sk_reuse = SK_FORCE_REUSE;
	release_sock(sock->sk);
	ip_sock_set_freebind(sock->sk);

	if (family == AF_INET) {
		addr.v4.sin_family = AF_INET;
		addr.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		len = sizeof(addr.v4);
	} else {
		addr.v6.sin6_family = AF_INET6;
		addr.v6.sin6_addr = in6addr_loopback;
		len = sizeof(addr.v6);
	}
	err = kernel_bind(sock, (void *)&addr, len);
	if (err) {
		pr_err("%s: bind() of a %s socket over IPv%d to port 0: errno %d (load it with CAP_NET_BIND_SERVICE, and where no cgroup program forbids bind)\n",
		       __func__, proto, version, -err);
		goto out;
	}
	wrong = port0_selfcheck_look(sock->sk);
	if (!wrong && kernel_bind(sock, (void *)&addr, len) != -EINVAL)
		wrong = "a second bind() was not refused";
	if (wrong) {
		pr_err("%s: a %s socket over IPv%d was bound to port 0, but %s; this kernel calls a hooked function past its entry\n",
		       __func__, proto, version, wrong);
		err = -EOPNOTSUPP;
	}
out:
	sock_release(sock);
	if (!err && module_refcount(THIS_MODULE) != refs) {
		pr_err("%s: a %s socket over IPv%d was closed, but its port was not seen to be given back\n",
		       __func__, proto, version);
		err = -EOPNOTSUPP;
	}
	return err;
}

/**
 * port0_selfcheck - have one socket of each kind take port 0 and give it back
 *
 * Context: module load, hooks in place; in the initial namespace, on loopback.
 * Return: 0; -EOPNOTSUPP if a socket is not where it should be; or why a socket
 * could not be made or bound. The log says which.
 */
int port0_selfcheck(void)
{
	static const int families[] = { AF_INET, AF_INET6 };
	static const int types[] = { SOCK_STREAM, SOCK_DGRAM };
	int i, j, err;

	for (i = 0; i < ARRAY_SIZE(families); i++) {
		for (j = 0; j < ARRAY_SIZE(types); j++) {
			err = port0_selfcheck_one(families[i], types[j]);
			if (err)
				return err;
		}
	}
	return 0;
}

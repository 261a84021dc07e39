/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Watches on sockets that were bound to port 0 while other calls on them might be in
 * flight: see watch.c.
 */
#ifndef _PORT0_WATCH_H
#define _PORT0_WATCH_H

#include <linux/compiler.h>
#include <net/sock.h>

struct port0_watch;

bool port0_watch_wanted(const struct socket *sock);
struct port0_watch *port0_watch_make(void);
void port0_watch_drop(struct port0_watch *watch);
void port0_watch_start(struct port0_watch *watch, struct sock *sk);
bool port0_watch_stop(struct sock *sk);
int port0_watch_device(const struct sock *sk, int device);
void port0_watch_init(void);

/**
 * port0_sock_device - tell which device a socket on port 0 is bound to
 * @sk: a socket that the caller has locked, or one in a chain whose lock the caller holds,
 *	which may be a TIME_WAIT socket
 *
 * A late bind() to a link-local address writes the device of that address without the lock
 * of the chain. That device does not count, since it may be undone.
 *
 * Context: any but the handler of a kprobe. Takes the lock of the bucket.
 * Return: the device that the socket had when its lock was last released, or 0.
 */
static inline int port0_sock_device(const struct sock *sk)
{
	int device = READ_ONCE(sk->sk_bound_dev_if);

	/* Nothing that is late makes this 0. */
	return device ? port0_watch_device(sk, device) : 0;
}

#endif /* _PORT0_WATCH_H */

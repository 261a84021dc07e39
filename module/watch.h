/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Watches on sockets that were bound to port 0 while other calls on them might be in
 * flight: see watch.c.
 */
#ifndef _PORT0_WATCH_H
#define _PORT0_WATCH_H

#include <linux/atomic.h>
#include <linux/compiler.h>
#include <net/sock.h>

#include "place.h"

struct port0_watch;

extern atomic_t port0_watch_count;

bool port0_watch_wanted(const struct socket *sock);
struct port0_watch *port0_watch_make(void);
void port0_watch_drop(struct port0_watch *watch);
void port0_watch_start(struct port0_watch *watch, struct sock *sk);
bool port0_watch_stop(struct sock *sk);
bool port0_watch_find(const struct sock *sk, struct port0_place *place);
void port0_watch_init(void);

/**
 * port0_watch_place - tell what a watched socket is filed under
 * @sk: a socket in a chain whose lock the caller holds, which may be a TIME_WAIT socket,
 *	or one that the caller has locked
 * @place: where to put it
 *
 * For conflict tests, which look at sockets that other tasks may have locked. What a late
 * call has written into one of these must not count, since it will be undone.
 *
 * The caller has read the members of @sk before. If it has read what a late call wrote, it
 * finds the watch here: the watch was started before the lock was released to the late
 * call.
 *
 * Context: any but the handler of a kprobe. May take the lock of the bucket.
 * Return: true if there is a watch. @place is then what was right when the socket lock was
 * last released. If there is no watch, no late call has written to @sk, with one exception:
 * the socket is giving the port back, and its watch has ended since the caller read the
 * members. A bind() may then fail because of the address that the late call wrote, or get
 * the address that is being given back.
 */
static inline bool port0_watch_place(const struct sock *sk,
				     struct port0_place *place)
{
	/* The members that the caller has read are older than the count. */
	smp_rmb();
	return unlikely(atomic_read(&port0_watch_count)) &&
	       port0_watch_find(sk, place);
}

/**
 * port0_sock_device - tell which device a socket on port 0 is bound to
 * @sk: as port0_watch_place()
 *
 * A late bind() to a link-local address writes the device of that address without the lock
 * of the chain.
 *
 * Context: as port0_watch_place().
 * Return: the device that the socket had when its lock was last released, or 0.
 */
static inline int port0_sock_device(const struct sock *sk)
{
	int device = READ_ONCE(sk->sk_bound_dev_if);
	struct port0_place place;

	/* No late call sets the device to 0. */
	if (device && port0_watch_place(sk, &place))
		return place.bound_dev_if;
	return device;
}

#endif /* _PORT0_WATCH_H */

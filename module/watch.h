/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Watches on sockets that were bound to port 0 while other calls on them might be in
 * flight: see watch.c.
 */
#ifndef _PORT0_WATCH_H
#define _PORT0_WATCH_H

struct port0_watch;
struct sock;
struct socket;

bool port0_watch_wanted(const struct socket *sock);
struct port0_watch *port0_watch_make(void);
void port0_watch_drop(struct port0_watch *watch);
void port0_watch_start(struct port0_watch *watch, struct sock *sk);
bool port0_watch_stop(struct sock *sk);
void port0_watch_init(void);

#endif /* _PORT0_WATCH_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Turns: a lock per socket that is held over a whole call. The socket lock is not
 * enough, since the kernel takes and drops it inside each call.
 *
 * bind() on a marked socket gives the kernel a stand-in for port 0, and port 0 is put
 * back when get_port is called. In between, the mark must not be cleared, IPV6_V6ONLY
 * must not be changed, and no second bind() may run on the socket. These calls wait for
 * each other here, first come, first served.
 */
#ifndef _PORT0_TURN_H
#define _PORT0_TURN_H

#include <linux/completion.h>
#include <linux/list.h>

struct sock;

/**
 * struct port0_turn - a turn on a socket, taken or waited for
 * @node: in the table, while the turn is taken
 * @sk: the socket
 * @waiting: the turns that wait for this one to end, linked by their @place
 * @place: in @waiting of the turn that this one waits for
 * @granted: completed when a waiting turn becomes the taken one
 *
 * All but @sk and @granted are guarded by the lock of the bucket.
 */
struct port0_turn {
	struct hlist_node node;
	const struct sock *sk;
	struct list_head waiting;
	struct list_head place;
	struct completion granted;
};

int port0_turn_take(struct port0_turn *turn, const struct sock *sk);
void port0_turn_end(struct port0_turn *turn);
void port0_turn_init(void);

#endif /* _PORT0_TURN_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Turns: calls on one socket that must not overlap, though each of them takes and
 * drops the socket lock on its own.
 *
 * bind() on a marked socket shows the kernel a stand-in for port 0 and takes it
 * back when get_port is asked, so neither a second bind() nor clearing the mark may
 * come in between. They wait for each other here, first come, first served.
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
 * @waiting: turns that wait for this one to end
 * @place: in @waiting of the turn that is waited for
 * @granted: the turn has been handed over
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

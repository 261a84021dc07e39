// SPDX-License-Identifier: GPL-2.0
/*
 * The table of turns, hashed by socket.
 *
 * A task that ends its turn on a socket hands the turn to the task that has waited
 * longest for it, and wakes only that one. Turns are on the stacks of their tasks.
 */
#include <linux/hash.h>
#include <linux/kernel.h>
#include <linux/spinlock.h>

#include "turn.h"

#define PORT0_TURN_BITS		10

/**
 * struct port0_turn_bucket - turns taken on sockets of one hash
 * @lock: guards @head, the turns in it and those that wait for them
 * @head: the turns that are taken, at most one for each socket
 */
static struct port0_turn_bucket {
	spinlock_t lock;
	struct hlist_head head;
} port0_turns[1 << PORT0_TURN_BITS];

static struct port0_turn_bucket *port0_turn_bucket(const struct sock *sk)
{
	return &port0_turns[hash_ptr(sk, PORT0_TURN_BITS)];
}

/* Hand a turn to the first waiter, if there is one. Caller holds bucket->lock. */
static void port0_turn_pass_on(struct port0_turn_bucket *bucket,
			       struct port0_turn *turn)
{
	struct port0_turn *next;

	hlist_del(&turn->node);
	next = list_first_entry_or_null(&turn->waiting, struct port0_turn,
					place);
	if (!next)
		return;
	list_del(&next->place);
	list_splice(&turn->waiting, &next->waiting);
	hlist_add_head(&next->node, &bucket->head);
	complete(&next->granted);
}

/**
 * port0_turn_take - take the turn on a socket, and wait for it if need be
 * @turn: on the caller's stack; need not be initialised
 * @sk: the socket; the caller must hold a reference on it until the turn ends
 *
 * Context: process, no locks held, the socket lock in particular; may sleep.
 * Return: 0, or -ERESTARTSYS if the task was killed while it waited: it then does
 * not have the turn.
 */
int port0_turn_take(struct port0_turn *turn, const struct sock *sk)
{
	struct port0_turn_bucket *bucket = port0_turn_bucket(sk);
	struct port0_turn *taken;
	int err;

	turn->sk = sk;
	INIT_LIST_HEAD(&turn->waiting);
	init_completion(&turn->granted);

	spin_lock(&bucket->lock);
	hlist_for_each_entry(taken, &bucket->head, node)
		if (taken->sk == sk)
			break;
	if (taken)
		list_add_tail(&turn->place, &taken->waiting);
	else
		hlist_add_head(&turn->node, &bucket->head);
	spin_unlock(&bucket->lock);
	if (!taken)
		return 0;

	err = wait_for_completion_killable(&turn->granted);
	if (!err)
		return 0;

	spin_lock(&bucket->lock);
	if (completion_done(&turn->granted))
		port0_turn_pass_on(bucket, turn);
	else
		list_del(&turn->place);
	spin_unlock(&bucket->lock);
	return err;
}

/**
 * port0_turn_end - end a turn and hand it to the next task
 * @turn: what port0_turn_take() has taken
 *
 * Context: process, in the task that took the turn.
 */
void port0_turn_end(struct port0_turn *turn)
{
	struct port0_turn_bucket *bucket = port0_turn_bucket(turn->sk);

	spin_lock(&bucket->lock);
	port0_turn_pass_on(bucket, turn);
	spin_unlock(&bucket->lock);
}

/**
 * port0_turn_init - initialise the locks of the table
 *
 * Context: process, in module init, before hooks are installed.
 */
void port0_turn_init(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(port0_turns); i++)
		spin_lock_init(&port0_turns[i].lock);
}

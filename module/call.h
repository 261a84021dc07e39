/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The context of a task's call: how a hook deep in the kernel knows that it runs
 * below one of our replacements.
 *
 * A replacement puts a struct port0_call on its stack, links it, calls the
 * kernel's own function and unlinks it. A hook that fires meanwhile finds it by
 * task and socket. Only the task that linked a call ever finds it, so what is
 * found stays valid for as long as the hook runs.
 */
#ifndef _PORT0_CALL_H
#define _PORT0_CALL_H

#include <linux/list.h>
#include <linux/sched.h>
#include <linux/types.h>

#include "place.h"

struct port0_watch;
struct sock;

/**
 * enum port0_call_kind - what the replacement is doing
 * @PORT0_CALL_BIND: a bind()
 * @PORT0_CALL_SEND: a sendmsg() to port 0
 * @PORT0_CALL_OPTION: a setsockopt() that a bind() must not overlap
 */
enum port0_call_kind {
	PORT0_CALL_BIND,
	PORT0_CALL_SEND,
	PORT0_CALL_OPTION,
};

/**
 * struct port0_call - one call in flight
 * @node: in the bucket of @task
 * @sk: the socket that the call is made on
 * @task: the task that makes it
 * @kind: what it is
 * @stand_in: the kernel is being shown PORT0_STAND_IN for port 0
 * @literal: bind: port 0 means port 0
 * @flags: bind: the flags __inet_bind() was called with
 * @denied: bind: port 0 is privileged and the caller is not
 * @claimed: bind: the socket has been given port 0
 * @place: bind: where the socket has been filed, once @claimed
 * @watch: bind: for port0_watch_start(), if other calls on the socket may be under
 *	way
 * @name: send: the caller's address, while the stand-in in it is ours
 * @routed: send: the destination port has been set back to 0 in the flow
 */
struct port0_call {
	struct hlist_node node;
	const struct sock *sk;
	const struct task_struct *task;
	enum port0_call_kind kind;
	bool stand_in;

	bool literal;
	u32 flags;
	bool denied;
	bool claimed;
	struct port0_place place;
	struct port0_watch *watch;

	const void *name;
	bool routed;
};

void port0_call_begin(struct port0_call *call, const struct sock *sk,
		      enum port0_call_kind kind);
void port0_call_end(struct port0_call *call);
struct port0_call *port0_call_find(const struct sock *sk,
				   enum port0_call_kind kind);
void port0_call_init(void);

#endif /* _PORT0_CALL_H */

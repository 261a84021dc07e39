/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Calls in flight: by these, a hook finds out that it runs below one of the module's
 * replacements, and for which call.
 *
 * A replacement has a struct port0_call on its stack. It links it into a table,
 * calls the kernel's own function and unlinks it. Hooks that run meanwhile find it
 * by task and socket. Only the task that has linked a call can find it, so it stays
 * valid for as long as the hook runs.
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
 * @PORT0_CALL_OPTION: setsockopt(IPV6_V6ONLY)
 */
enum port0_call_kind {
	PORT0_CALL_BIND,
	PORT0_CALL_SEND,
	PORT0_CALL_OPTION,
};

/**
 * struct port0_call - one call in flight
 * @node: in the bucket of @task; guarded by the lock of the bucket
 * @sk: the socket that the call is made on
 * @task: the task that makes the call
 * @kind: what the replacement is doing
 * @stand_in: the address given to the kernel has PORT0_STAND_IN instead of port 0
 * @literal: bind: port 0 means port 0; false while "drain" is set, or if "init_userns"
 *	forbids it
 * @needs_cap: bind: port 0 needs CAP_NET_BIND_SERVICE; valid if @stand_in
 * @refusal: bind: the errno with which get_port has refused port 0, or 0
 * @claimed: bind: the socket has been given port 0
 * @place: bind: the address that the socket was filed under; valid if @claimed
 * @watch: bind: to be started when port 0 is taken; NULL if no other call on the
 *	socket can be in flight
 * @name: send: the caller's address, for as long as it has the stand-in
 * @routed: send: the destination port in the flow has been set back to 0
 *
 * Only @task uses the members, so all but @node need no lock.
 */
struct port0_call {
	struct hlist_node node;
	const struct sock *sk;
	const struct task_struct *task;
	enum port0_call_kind kind;
	bool stand_in;

	bool literal;
	bool needs_cap;
	int refusal;
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

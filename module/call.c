// SPDX-License-Identifier: GPL-2.0
/*
 * The table of calls in flight, hashed by task: however many calls a user keeps
 * under way, they lengthen the look-ups of next to nobody else.
 *
 * Locking: each bucket has a raw spinlock, since hooks look calls up with
 * preemption off. Linking, unlinking and finding all happen in task context
 * only: port0_call_find() turns away anything that interrupted a task, which
 * could otherwise spin on a lock that the interrupted task holds. Nobody calls a
 * hooked function with a bucket locked, so no hook spins on its own task either.
 */
#include <linux/hash.h>
#include <linux/preempt.h>
#include <linux/processor.h>
#include <linux/spinlock.h>

#include "call.h"
#include "compat.h"

#define PORT0_CALL_BITS		12

/**
 * struct port0_call_bucket - calls of tasks of one hash
 * @lock: guards @head and whatever is linked there
 * @head: the calls
 */
static struct port0_call_bucket {
	raw_spinlock_t lock;
	struct hlist_head head;
} port0_calls[1 << PORT0_CALL_BITS];

static struct port0_call_bucket *
port0_call_bucket(const struct task_struct *task)
{
	return &port0_calls[hash_ptr(task, PORT0_CALL_BITS)];
}

/**
 * port0_call_begin - link a call, so that hooks below it find it
 * @call: on the caller's stack, undefined before
 * @sk: the socket, held by the caller for as long as the call lasts
 * @kind: what the caller is about to do
 *
 * Context: process.
 */
void port0_call_begin(struct port0_call *call, const struct sock *sk,
		      enum port0_call_kind kind)
{
	struct port0_call_bucket *bucket = port0_call_bucket(current);

	*call = (struct port0_call){
		.sk = sk,
		.task = current,
		.kind = kind,
	};
	raw_spin_lock(&bucket->lock);
	hlist_add_head(&call->node, &bucket->head);
	raw_spin_unlock(&bucket->lock);
}

/**
 * port0_call_end - unlink a call
 * @call: what port0_call_begin() has linked
 *
 * Context: process, the same task.
 */
void port0_call_end(struct port0_call *call)
{
	struct port0_call_bucket *bucket = port0_call_bucket(current);

	raw_spin_lock(&bucket->lock);
	hlist_del(&call->node);
	raw_spin_unlock(&bucket->lock);
}

/*
 * in_task(), but for a breakpoint: where a kprobe that could not be put on ftrace
 * runs its handler as if in an NMI, what counts is the context that it broke.
 */
static bool port0_call_in_task(void)
{
	unsigned int count = preempt_count();

	if (count & NMI_MASK)
		count -= PORT0_BREAKPOINT_OFFSET;
	return !(count & (NMI_MASK | HARDIRQ_MASK)) && !in_serving_softirq();
}

/**
 * port0_call_find - find the call that the current task is making
 * @sk: the socket; compared, never dereferenced
 * @kind: what the call must be
 *
 * Context: any; from an interrupt or a softirq it finds nothing, since what
 * runs there does not run for the task.
 * Return: the call, valid until the caller returns to it, or NULL.
 */
struct port0_call *port0_call_find(const struct sock *sk,
				   enum port0_call_kind kind)
{
	struct port0_call_bucket *bucket = port0_call_bucket(current);
	struct port0_call *call, *found = NULL;

	if (hlist_empty(&bucket->head) || !port0_call_in_task())
		return NULL;

	/* In an int3 kprobe, which looks like an NMI, lockdep allows only this. */
	while (!raw_spin_trylock(&bucket->lock))
		cpu_relax();
	hlist_for_each_entry(call, &bucket->head, node) {
		if (call->task == current && call->sk == sk &&
		    call->kind == kind) {
			found = call;
			break;
		}
	}
	raw_spin_unlock(&bucket->lock);
	return found;
}

/**
 * port0_call_init - make the table ready
 *
 * Context: module load, before the first hook.
 */
void port0_call_init(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(port0_calls); i++)
		raw_spin_lock_init(&port0_calls[i].lock);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * The table of calls in flight, hashed by task, so that many calls of some tasks hardly
 * slow down look-ups by others.
 *
 * Locking: each bucket has a raw spinlock, since hooks look calls up with
 * preemption disabled. It is taken in task context only, without disabling
 * interrupts: port0_call_find() returns at once in an interrupt or softirq, which
 * could otherwise spin on a lock that the interrupted task holds. No hooked function
 * is called with a bucket locked, so a hook cannot spin on a lock of its own task.
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
 * @lock: guards @head and its entries
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
 * port0_call_begin - link a call, so that hooks that run below the caller find it
 * @call: on the caller's stack; need not be initialised
 * @sk: the socket; the caller must hold a reference on it until port0_call_end()
 * @kind: what the caller is about to do
 *
 * Context: process. Takes the lock of the bucket.
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
 * Context: process, in the task that called port0_call_begin(). Takes the lock of
 * the bucket.
 */
void port0_call_end(struct port0_call *call)
{
	struct port0_call_bucket *bucket = port0_call_bucket(current);

	raw_spin_lock(&bucket->lock);
	hlist_del(&call->node);
	raw_spin_unlock(&bucket->lock);
}

/*
 * Like in_task(), but in the handler of an int3 kprobe, where preempt_count() shows an
 * NMI, this tells whether the breakpoint has interrupted a task.
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
 * @sk: the socket; compared only, never dereferenced
 * @kind: the kind of call
 *
 * Context: any, including hooks that run with preemption disabled. In an interrupt or
 * softirq it finds nothing, since those do not run on behalf of the task. Takes the
 * lock of the bucket.
 * Return: the call, or NULL. It is on the stack of the current task, in a function
 * that has not returned yet, so it stays valid until the hook returns.
 */
struct port0_call *port0_call_find(const struct sock *sk,
				   enum port0_call_kind kind)
{
	struct port0_call_bucket *bucket = port0_call_bucket(current);
	struct port0_call *call, *found = NULL;

	if (hlist_empty(&bucket->head) || !port0_call_in_task())
		return NULL;

	/* An int3 kprobe looks like an NMI, where lockdep allows only trylock. */
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
 * port0_call_init - initialise the locks of the table
 *
 * Context: process, in module init, before hooks are installed.
 */
void port0_call_init(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(port0_calls); i++)
		raw_spin_lock_init(&port0_calls[i].lock);
}

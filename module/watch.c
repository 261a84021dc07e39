// SPDX-License-Identifier: GPL-2.0
/*
 * Undoing what a late call does to a socket that holds port 0.
 *
 * A call is late if it passed our hooks before the socket was marked and gets the
 * socket lock after another call has bound the socket to port 0. It then finds
 * inet_num 0, as on an unbound socket: bind() writes its address, and setsockopt()
 * changes IPV6_V6ONLY. No function that could be hooked runs between that and the
 * end of the call, and a bind() with IP_BIND_ADDRESS_NO_PORT does not even ask for
 * a port.
 *
 * But the call gives the socket lock back, and release_sock() wakes whoever waits
 * for it before anybody else can take it. So we wait for it, too: an entry in the
 * lock's own wait queue, whose wake function looks whether the socket is still
 * where it was filed, and puts it right. Whoever takes the lock next finds the
 * socket as the bind() to port 0 has left it.
 *
 * Late calls need somebody else who uses the same open file, so the watch is kept
 * only where that is possible: see port0_watch_wanted(). All other sockets have
 * none.
 *
 * Lifetime: a watch holds its socket. The hook that sees the port given back runs
 * with preemption off and cannot take the queue's lock on PREEMPT_RT, so a work item
 * takes the watch out. It puts the reference on the module that the holder had,
 * hence no watch outlives the module.
 */
#include <linux/fdtable.h>
#include <linux/fs.h>
#include <linux/hash.h>
#include <linux/irq_work.h>
#include <linux/list.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "buckets.h"
#include "place.h"
#include "port0.h"
#include "saddr.h"
#include "watch.h"

/**
 * struct port0_watch - the watch on one socket
 * @node: in the bucket of @sk, until the port is given back
 * @wait: in the wait queue of the socket lock
 * @sk: the socket, held
 * @place: where it was filed when the lock was last released
 * @end: gets from the hook to @work, whatever the hook's context
 * @work: takes the watch out
 */
struct port0_watch {
	struct hlist_node node;
	wait_queue_entry_t wait;
	struct sock *sk;
	struct port0_place place;
	struct irq_work end;
	struct work_struct work;
};

#define PORT0_WATCH_BITS	12

/**
 * struct port0_watch_bucket - watches on sockets of one hash
 * @lock: guards @head and whatever is linked there
 * @head: the watches
 */
static struct port0_watch_bucket {
	raw_spinlock_t lock;
	struct hlist_head head;
} port0_watches[1 << PORT0_WATCH_BITS];

static struct port0_watch_bucket *port0_watch_bucket(const struct sock *sk)
{
	return &port0_watches[hash_ptr(sk, PORT0_WATCH_BITS)];
}

/**
 * port0_watch_wanted - tell whether another call on a socket may be under way
 * @sock: a marked socket that this task is about to bind
 *
 * A call that is under way keeps the file open: by the reference of its task's file
 * table, if no other thread shares that, else by one of its own. So there is none if
 * this task's table is its own and the file has the reference of that table alone.
 * Among threads the count proves nothing, since close() takes the table's reference
 * away and lets calls go on. io_uring's calls may do without either.
 *
 * Context: process, in bind() of @sock; the mark has been seen, so that calls which
 * begin from now on see it, too.
 * Return: true unless it is certain that there is none.
 */
bool port0_watch_wanted(const struct socket *sock)
{
	const struct files_struct *files = current->files;
	struct file *file = sock->file;

	/* A kernel socket, which the module has made for itself. */
	if (!file)
		return false;
#ifdef CONFIG_IO_URING
	if (current->io_uring)
		return true;
#endif
	if (!files || (current->flags & PF_IO_WORKER))
		return true;
	/* Who takes a reference after this reads the mark after this. */
	smp_mb();
	return atomic_read(&files->count) > 1 || file_count(file) != 1;
}

/*
 * Where the tables do not tell the address: whether it is the same as before, or has
 * changed by connect(), which leaves the socket connected, or by the end of a
 * connection, which leaves no address. A late bind() does neither.
 */
static bool port0_watch_may_move(const struct port0_watch *watch,
				 const struct sock *sk)
{
	if (port0_place_has_address(&watch->place, sk) ||
	    sk->sk_state != TCP_CLOSE)
		return true;
	return port0_rcv_saddr_any(sk) &&
	       !(sk->sk_userlocks & SOCK_BINDADDR_LOCK);
}

static bool port0_watch_agrees(const struct port0_watch *watch,
			       const struct sock *sk)
{
	if (sk->sk_ipv6only != watch->place.v6only || !port0_place_holds(sk))
		return false;
	/* Where there is bhash2, the bucket of a TCP socket has the address. */
	return (PORT0_HAVE_BHASH2 && sk->sk_protocol == IPPROTO_TCP) ||
	       port0_watch_may_move(watch, sk);
}

/*
 * The lock is being released: the caller of release_sock() still has the spinlock in
 * it, so that nobody uses the socket meanwhile, neither a task nor a softirq.
 * connect() and the like move address and place together.
 */
static int port0_watch_wake(wait_queue_entry_t *wait, unsigned int mode,
			    int flags, void *key)
{
	struct port0_watch *watch = container_of(wait, struct port0_watch,
						 wait);
	struct sock *sk = watch->sk;

	/* It has ended, and waits for the work item. */
	if (hlist_unhashed(&watch->node) || !port0_sock_holds(sk))
		return 0;
	if (port0_watch_agrees(watch, sk))
		port0_place_read(&watch->place, sk);
	else
		port0_place_restore(&watch->place, sk);
	/* Nobody has been woken: the next in the queue is asked, too. */
	return 0;
}

static void port0_watch_work(struct work_struct *work)
{
	struct port0_watch *watch = container_of(work, struct port0_watch,
						 work);

	/* It may still be on its last instructions. */
	irq_work_sync(&watch->end);
	remove_wait_queue(&watch->sk->sk_lock.wq, &watch->wait);
	sock_put(watch->sk);
	kfree(watch);
	module_put(THIS_MODULE);
}

static void port0_watch_end(struct irq_work *end)
{
	schedule_work(&container_of(end, struct port0_watch, end)->work);
}

/**
 * port0_watch_make - allocate a watch
 *
 * Context: process, may sleep.
 * Return: the watch, for port0_watch_start() or port0_watch_drop(); NULL without
 * memory.
 */
struct port0_watch *port0_watch_make(void)
{
	struct port0_watch *watch = kzalloc(sizeof(*watch), GFP_KERNEL_ACCOUNT);

	if (!watch)
		return NULL;
	init_waitqueue_func_entry(&watch->wait, port0_watch_wake);
	watch->end = PORT0_IRQ_WORK_INIT(port0_watch_end);
	INIT_WORK(&watch->work, port0_watch_work);
	return watch;
}

/**
 * port0_watch_drop - free a watch that was not started
 * @watch: it, or NULL
 *
 * Context: process.
 */
void port0_watch_drop(struct port0_watch *watch)
{
	kfree(watch);
}

/**
 * port0_watch_start - watch a socket until it gives port 0 back
 * @watch: what port0_watch_make() has made
 * @sk: a socket that has just been filed on port 0
 *
 * Context: process, socket locked; a reference on the module is held for @sk, and
 * passes to the watch.
 */
void port0_watch_start(struct port0_watch *watch, struct sock *sk)
{
	struct port0_watch_bucket *bucket = port0_watch_bucket(sk);
	unsigned long flags;

	sock_hold(sk);
	watch->sk = sk;
	port0_place_read(&watch->place, sk);
	add_wait_queue(&sk->sk_lock.wq, &watch->wait);

	raw_spin_lock_irqsave(&bucket->lock, flags);
	hlist_add_head(&watch->node, &bucket->head);
	raw_spin_unlock_irqrestore(&bucket->lock, flags);
}

/**
 * port0_watch_stop - end the watch on a socket, if there is one
 * @sk: a socket that gives port 0 back
 *
 * A late bind() may be why: one that a post_bind program has refused, after the
 * kernel has zeroed the address. So the address is restored here, too.
 *
 * Context: any, as port0_bind_release(): socket locked or no longer in use.
 * Return: true if there was one: it puts the reference on the module.
 */
bool port0_watch_stop(struct sock *sk)
{
	struct port0_watch_bucket *bucket = port0_watch_bucket(sk);
	struct port0_watch *watch;
	unsigned long flags;

	/* That of @sk was put there by whoever had the socket lock before. */
	if (hlist_empty(&bucket->head))
		return false;

	local_irq_save(flags);
	/* In an int3 kprobe, which looks like an NMI, lockdep allows only this. */
	while (!raw_spin_trylock(&bucket->lock))
		cpu_relax();
	hlist_for_each_entry(watch, &bucket->head, node) {
		if (watch->sk == sk) {
			hlist_del_init(&watch->node);
			break;
		}
	}
	raw_spin_unlock(&bucket->lock);
	local_irq_restore(flags);

	if (!watch)
		return false;
	if (!port0_place_holds(sk))
		port0_place_restore(&watch->place, sk);
	irq_work_queue(&watch->end);
	return true;
}

/**
 * port0_watch_init - make the table ready
 *
 * Context: module load, before the first hook.
 */
void port0_watch_init(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(port0_watches); i++)
		raw_spin_lock_init(&port0_watches[i].lock);
}

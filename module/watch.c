// SPDX-License-Identifier: GPL-2.0
/*
 * Undoing what a late call does to a socket that holds port 0.
 *
 * A call is late if it passed the hooks before the socket was marked and gets the
 * socket lock after another call has bound the socket to port 0. It finds inet_num
 * 0, as on an unbound socket: bind() then writes its address, and setsockopt()
 * changes IPV6_V6ONLY. No hook can undo that. The hook on get_port can only refuse the
 * bind(), whose address the kernel then zeroes; a bind() with IP_BIND_ADDRESS_NO_PORT
 * does not call get_port at all. No other function that could be hooked runs before the
 * call ends.
 *
 * But the call releases the socket lock, and release_sock() wakes the waiters before
 * any other task can take the lock. So a watch is an entry in the wait queue of the
 * socket lock. Its wake function compares the socket with the place that it was
 * filed under, and restores that. The next owner of the lock finds the socket as the
 * bind() to port 0 has left it.
 *
 * A late call needs another task that uses the same open file. A socket is watched
 * only if that is possible: see port0_watch_wanted().
 *
 * Lifetime: a watch holds a reference on its socket. The hook that runs when the port
 * is given back has preemption disabled, so on PREEMPT_RT it cannot take the lock of
 * the wait queue. A work item removes the watch and then drops the reference on the
 * module that the bound socket had, so no watch outlives the module.
 */
#include <linux/fdtable.h>
#include <linux/fs.h>
#include <linux/hash.h>
#include <linux/irq_work.h>
#include <linux/list.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "buckets.h"
#include "hook.h"
#include "place.h"
#include "port0.h"
#include "saddr.h"
#include "watch.h"

/**
 * struct port0_watch - the watch on one socket
 * @node: in the bucket of @sk until the port is given back; changed with the lock of the
 *	bucket held, and with the socket lock or when the socket is no longer in use
 * @wait: in the wait queue of the socket lock
 * @sk: the socket, with a reference on it
 * @place: what it was filed under when the socket lock was last released; changed with
 *	the socket lock and the lock of the bucket held
 * @end: queues @work, since the hook may run where schedule_work() must not
 * @work: removes and frees the watch
 * @rcu: frees the watch after a grace period: see port0_watch_work()
 */
struct port0_watch {
	struct hlist_node node;
	wait_queue_entry_t wait;
	struct sock *sk;
	struct port0_place place;
	struct irq_work end;
	struct work_struct work;
	struct rcu_head rcu;
};

/*
 * As many buckets as the kernel's table of TCP ports mostly has. A bind() looks up each
 * socket of the chain that it is to join, with the lock of that chain held, and any user
 * can make a million watches. So the time would grow with the square of their number if
 * the buckets were too few.
 */
#define PORT0_WATCH_BITS	16

/**
 * struct port0_watch_bucket - watches on sockets of one hash
 * @lock: guards the list, and the @place of each watch in it
 * @head: the list
 */
static struct port0_watch_bucket {
	raw_spinlock_t lock;
	struct hlist_head head;
} port0_watches[1 << PORT0_WATCH_BITS];

/* How many watches are in the table: see port0_watch_place() */
atomic_t port0_watch_count = ATOMIC_INIT(0);

static struct port0_watch_bucket *port0_watch_bucket(const struct sock *sk)
{
	return &port0_watches[hash_ptr(sk, PORT0_WATCH_BITS)];
}

/**
 * port0_watch_wanted - tell whether another call on a socket may be in flight
 * @sock: a marked socket that the current task is about to bind
 *
 * A system call needs a reference on the file of its socket: that of the task's file
 * table if no other thread shares the table, else one of its own. So no other call is
 * in flight if the table is not shared and its reference is the only one on the file.
 * If threads share the table, a count of one proves nothing: close() drops the table's
 * reference while calls go on. Calls of io_uring may hold neither reference.
 *
 * Context: process, in bind() of @sock, no locks held. The caller has read the mark, so
 * calls that begin from now on read it, too.
 * Return: false if it is certain that no other call is in flight.
 */
bool port0_watch_wanted(const struct socket *sock)
{
	const struct files_struct *files = current->files;
	struct file *file = sock->file;

	/*
	 * A kernel socket, such as the self-check's: no system call can use it. A socket
	 * that was handed to SMC may have no file either, but does not get port 0: see
	 * port0_bind_claim().
	 */
	if (!file)
		return false;
#ifdef CONFIG_IO_URING
	if (current->io_uring)
		return true;
#endif
	if (!files || (current->flags & PF_IO_WORKER))
		return true;
	/* The mark was read before the counts: a call that is not counted yet reads it. */
	smp_mb();
	return atomic_read(&files->count) > 1 || file_count(file) != 1;
}

/*
 * For sockets whose bucket does not store the address: tell whether connect() may have
 * changed the address, or the end of a connection may have cleared it. If neither, a
 * late bind() has.
 */
static bool port0_watch_may_move(const struct port0_watch *watch,
				 const struct sock *sk)
{
	bool is_locked = sk->sk_userlocks & SOCK_BINDADDR_LOCK;

	if (port0_place_has_address(&watch->place, sk) ||
	    sk->sk_state != TCP_CLOSE)
		return true;
	if (port0_rcv_saddr_any(sk))
		return !is_locked;
	/*
	 * TCP_CLOSE does not exclude connect(): the peer may have refused the connection
	 * before connect() released the lock. Then inet_daddr is still set (for IPv4) and
	 * the address is not locked. A late bind() clears inet_daddr and locks the
	 * address.
	 */
	return inet_sk(sk)->inet_daddr ||
	       (!is_locked && !watch->place.addr_locked);
}

static bool port0_watch_agrees(const struct port0_watch *watch,
			       const struct sock *sk)
{
	if (sk->sk_ipv6only != watch->place.v6only || !port0_place_holds(sk))
		return false;
	/* With bhash2, the bucket of a TCP socket stores the address. */
	return (PORT0_HAVE_BHASH2 && sk->sk_protocol == IPPROTO_TCP) ||
	       port0_watch_may_move(watch, sk);
}

/* Record what a socket is filed under. Caller holds its lock. */
static void port0_watch_note(struct port0_watch *watch, const struct sock *sk)
{
	struct port0_watch_bucket *bucket = port0_watch_bucket(sk);
	unsigned long flags;

	raw_spin_lock_irqsave(&bucket->lock, flags);
	port0_place_read(&watch->place, sk);
	raw_spin_unlock_irqrestore(&bucket->lock, flags);
}

/*
 * Called by release_sock() while it still holds sk_lock.slock, so no task has the socket
 * lock, and no softirq handles a TCP segment for the socket. If connect() or the like has
 * filed the socket under a new address, the new place is recorded; any other change is
 * undone.
 */
static int port0_watch_wake(wait_queue_entry_t *wait, unsigned int mode,
			    int flags, void *key)
{
	struct port0_watch *watch = container_of(wait, struct port0_watch,
						 wait);
	struct sock *sk = watch->sk;

	/*
	 * The port may have been given back before the work item has run. The read is
	 * lockless: linking or unlinking another watch in the bucket writes @node, too.
	 */
	if (hlist_unhashed_lockless(&watch->node) || !port0_sock_holds(sk))
		return 0;
	if (port0_watch_agrees(watch, sk))
		port0_watch_note(watch, sk);
	else
		port0_place_restore(&watch->place, sk);
	/* No task has been woken, so the kernel continues with the next entry. */
	return 0;
}

static void port0_watch_work(struct work_struct *work)
{
	struct port0_watch *watch = container_of(work, struct port0_watch,
						 work);

	/* port0_watch_end() may still be running. */
	irq_work_sync(&watch->end);
	remove_wait_queue(&watch->sk->sk_lock.wq, &watch->wait);
	sock_put(watch->sk);
	/*
	 * On PREEMPT_RT, irq_work_single() reads the flags of @end once more after
	 * irq_work_sync() has returned here. It runs with interrupts disabled, so a grace
	 * period is long enough.
	 */
	kfree_rcu(watch, rcu);
	port0_leave(true);
}

static void port0_watch_end(struct irq_work *end)
{
	schedule_work(&container_of(end, struct port0_watch, end)->work);
}

/**
 * port0_watch_make - allocate a watch
 *
 * Context: process; may sleep.
 * Return: the watch, for port0_watch_start() or port0_watch_drop(); NULL if there is
 * no memory.
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
 * @watch: the watch, or NULL
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
 * Context: process, socket locked. The watch takes over the reference on the module
 * that is held for @sk. Takes the lock of the bucket.
 */
void port0_watch_start(struct port0_watch *watch, struct sock *sk)
{
	struct port0_watch_bucket *bucket = port0_watch_bucket(sk);
	unsigned long flags;

	sock_hold(sk);
	watch->sk = sk;
	port0_place_read(&watch->place, sk);
	add_wait_queue(&sk->sk_lock.wq, &watch->wait);

	atomic_inc(&port0_watch_count);
	raw_spin_lock_irqsave(&bucket->lock, flags);
	hlist_add_head(&watch->node, &bucket->head);
	raw_spin_unlock_irqrestore(&bucket->lock, flags);
}

/**
 * port0_watch_stop - end the watch on a socket, if there is one
 * @sk: a socket that gives port 0 back
 *
 * The port may be given back in a late bind() that a post_bind program has refused,
 * and the kernel has zeroed the address before. So the address is restored here, too.
 *
 * Context: as port0_bind_release(): process or softirq, socket locked or no longer
 * in use; does not sleep. Takes the lock of the bucket.
 * Return: true if there was a watch, which then drops the reference on the module.
 */
bool port0_watch_stop(struct sock *sk)
{
	struct port0_watch_bucket *bucket = port0_watch_bucket(sk);
	struct port0_watch *watch;
	unsigned long flags;

	/* A watch on @sk was linked with the socket lock held, so the list is not empty. */
	if (hlist_empty(&bucket->head))
		return false;

	local_irq_save(flags);
	/* An int3 kprobe looks like an NMI, where lockdep allows only trylock. */
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
	atomic_dec(&port0_watch_count);
	/* As in port0_bind_release() */
	if (sk->sk_protocol == IPPROTO_TCP && !port0_place_holds(sk))
		port0_place_restore(&watch->place, sk);
	irq_work_queue(&watch->end);
	return true;
}

/**
 * port0_watch_find - look up what a socket is filed under in the watch on it
 * @sk: as port0_watch_place()
 * @place: where to put it
 *
 * Context: as port0_watch_place(). Takes the lock of the bucket.
 * Return: true if there is a watch.
 */
bool port0_watch_find(const struct sock *sk, struct port0_place *place)
{
	struct port0_watch_bucket *bucket = port0_watch_bucket(sk);
	const struct port0_watch *watch;
	unsigned long flags;

	raw_spin_lock_irqsave(&bucket->lock, flags);
	hlist_for_each_entry(watch, &bucket->head, node) {
		if (watch->sk == sk) {
			*place = watch->place;
			break;
		}
	}
	raw_spin_unlock_irqrestore(&bucket->lock, flags);
	return watch;
}

/**
 * port0_watch_init - initialise the locks of the table
 *
 * Context: process, in module init, before hooks are installed.
 */
void port0_watch_init(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(port0_watches); i++)
		raw_spin_lock_init(&port0_watches[i].lock);
}

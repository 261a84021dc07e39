// SPDX-License-Identifier: GPL-2.0
/*
 * Holds a task at a chosen point until it is released: where it next takes or
 * releases a socket lock, after it has done so, or after it has waited
 * killably. So another task's calls happen before its own, in every run.
 *
 * Each open of /dev/port0_hold is one hold. The task to be held writes "lock",
 * "relock", "unlock", "unlocked" or "waited", and makes a call. A read returns when the
 * task is held. Closing the file releases it. A task may write into several
 * files, to be held at one place after another.
 *
 * These points are between the tests that a call makes without the socket lock
 * and what it does with it. port0 hooks none of these functions. A kprobe may
 * not sleep, so it redirects the call to a function that sleeps and then makes
 * the call, or makes it first.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/fs.h>
#include <linux/kprobes.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <net/sock.h>

/* A task that is not released continues after this time. */
#define PORT0_HOLD_TIME		(30 * HZ)
/* Limit of the wait for a task that never reaches the point */
#define PORT0_HOLD_PATIENCE	(10 * HZ)
#define PORT0_HOLD_MAX		32

/*
 * The functions have at most these arguments, in registers, and return at most
 * this.
 */
typedef unsigned long (*port0_hold_func_t)(unsigned long a, unsigned long b);

/**
 * enum port0_hold_what - what a function does at which tasks are held
 * @PORT0_HOLD_LOCK: it takes a socket lock
 * @PORT0_HOLD_UNLOCK: it releases one
 * @PORT0_HOLD_WAIT: it waits for a completion, and may be killed
 */
enum port0_hold_what {
	PORT0_HOLD_LOCK,
	PORT0_HOLD_UNLOCK,
	PORT0_HOLD_WAIT,
};

/**
 * struct port0_hold_place - a place where a task may be held
 * @word: its name
 * @what: what the function there does
 * @after: it has been done
 * @skip: how often the task passes there before it is held
 */
struct port0_hold_place {
	const char *word;
	enum port0_hold_what what;
	bool after;
	int skip;
};

static const struct port0_hold_place port0_hold_places[] = {
	{ "lock", PORT0_HOLD_LOCK, false },
	{ "relock", PORT0_HOLD_LOCK, false, 1 },
	{ "unlock", PORT0_HOLD_UNLOCK, false },
	{ "unlocked", PORT0_HOLD_UNLOCK, true },
	{ "waited", PORT0_HOLD_WAIT, true },
};

/**
 * struct port0_hold_point - a function that tasks can be held at
 * @func: the function
 * @what: what it does
 * @kp: the kprobe on it
 */
struct port0_hold_point {
	port0_hold_func_t func;
	enum port0_hold_what what;
	struct kprobe kp;
};

/**
 * enum port0_hold_state - the state of a hold
 * @PORT0_HOLD_FREE: not in use
 * @PORT0_HOLD_OPEN: it has a file
 * @PORT0_HOLD_ARMED: a task is to be held
 * @PORT0_HOLD_CALLING: it is in the function that it is to be held after
 * @PORT0_HOLD_HELD: it is held
 * @PORT0_HOLD_RELEASED: the file is closed, the task has not continued yet
 * @PORT0_HOLD_OVER: the task has continued after the time limit
 */
enum port0_hold_state {
	PORT0_HOLD_FREE,
	PORT0_HOLD_OPEN,
	PORT0_HOLD_ARMED,
	PORT0_HOLD_CALLING,
	PORT0_HOLD_HELD,
	PORT0_HOLD_RELEASED,
	PORT0_HOLD_OVER,
};

/**
 * struct port0_hold - one hold
 * @state: enum port0_hold_state
 * @task: the task to be held; compared, never dereferenced
 * @place: where it is to be held
 * @point: the function where it is held
 * @skip: how often the task is still to pass; only that task changes it
 */
static struct port0_hold {
	atomic_t state;
	const struct task_struct *task;
	const struct port0_hold_place *place;
	const struct port0_hold_point *point;
	int skip;
} port0_holds[PORT0_HOLD_MAX];

static DECLARE_WAIT_QUEUE_HEAD(port0_hold_wait);

static struct port0_hold *port0_hold_mine(int state)
{
	int i;

	for (i = 0; i < PORT0_HOLD_MAX; i++) {
		if (atomic_read_acquire(&port0_holds[i].state) == state &&
		    port0_holds[i].task == current)
			return &port0_holds[i];
	}
	return NULL;
}

/* The hold that is to stop the current task at a function that does @what. */
static struct port0_hold *port0_hold_armed(enum port0_hold_what what)
{
	int i;

	for (i = 0; i < PORT0_HOLD_MAX; i++) {
		if (atomic_read_acquire(&port0_holds[i].state) ==
			    PORT0_HOLD_ARMED &&
		    port0_holds[i].task == current &&
		    port0_holds[i].place->what == what)
			return &port0_holds[i];
	}
	return NULL;
}

static void port0_hold_here(struct port0_hold *hold)
{
	wake_up_all(&port0_hold_wait);
	if (!wait_event_timeout(port0_hold_wait,
				atomic_read(&hold->state) != PORT0_HOLD_HELD,
				PORT0_HOLD_TIME))
		pr_warn("%s: not released in time: %s\n", __func__,
			current->comm);
	if (atomic_xchg(&hold->state, PORT0_HOLD_OVER) == PORT0_HOLD_RELEASED)
		atomic_set(&hold->state, PORT0_HOLD_FREE);
}

/* Linux 5.10 does not have this. */
#ifndef __nocfi
#define __nocfi
#endif

/* Runs in place of the function, which it calls with a type that is not its own. */
static unsigned long __nocfi port0_hold_call(unsigned long a, unsigned long b)
{
	struct port0_hold *hold = port0_hold_mine(PORT0_HOLD_CALLING) ?:
				  port0_hold_mine(PORT0_HOLD_HELD) ?:
				  port0_hold_mine(PORT0_HOLD_RELEASED);
	port0_hold_func_t func = hold->point->func;
	unsigned long ret;

	if (hold->place->after) {
		ret = func(a, b);
		/* It may have been released meanwhile. */
		atomic_cmpxchg(&hold->state, PORT0_HOLD_CALLING,
			       PORT0_HOLD_HELD);
		port0_hold_here(hold);
	} else {
		port0_hold_here(hold);
		ret = func(a, b);
	}
	module_put(THIS_MODULE);
	return ret;
}

static int port0_hold_pre(struct kprobe *kp, struct pt_regs *regs)
{
	const struct port0_hold_point *point =
		container_of(kp, struct port0_hold_point, kp);
	struct port0_hold *hold = port0_hold_armed(point->what);
	int state;

	if (!hold || hold->skip-- > 0)
		return 0;
	state = hold->place->after ? PORT0_HOLD_CALLING : PORT0_HOLD_HELD;
	hold->point = point;
	__module_get(THIS_MODULE);
	if (atomic_cmpxchg(&hold->state, PORT0_HOLD_ARMED, state) !=
	    PORT0_HOLD_ARMED) {
		module_put(THIS_MODULE);
		return 0;
	}
	instruction_pointer_set(regs, (unsigned long)port0_hold_call);
	return 1;
}

/*
 * A kprobe with a post-handler is not optimised; an optimised one cannot
 * redirect.
 */
static void port0_hold_post(struct kprobe *kp, struct pt_regs *regs,
			    unsigned long flags)
{
}

#define PORT0_HOLD_POINT(_func, _what) {				\
	.func = (void *)(_func),					\
	.what = (_what),						\
	.kp = {								\
		.symbol_name = #_func,					\
		.pre_handler = port0_hold_pre,				\
		.post_handler = port0_hold_post,			\
	},								\
}

static struct port0_hold_point port0_hold_points[] = {
	PORT0_HOLD_POINT(lock_sock_nested, PORT0_HOLD_LOCK),
#ifdef HAVE_SOCKOPT_LOCK_SOCK
	/*
	 * Its caller is in the same file, so the compiler may have inlined this
	 * function.
	 */
	PORT0_HOLD_POINT(sockopt_lock_sock, PORT0_HOLD_LOCK),
#endif
	PORT0_HOLD_POINT(release_sock, PORT0_HOLD_UNLOCK),
	PORT0_HOLD_POINT(wait_for_completion_killable, PORT0_HOLD_WAIT),
};

static int port0_hold_open(struct inode *inode, struct file *file)
{
	int i;

	for (i = 0; i < PORT0_HOLD_MAX; i++) {
		if (atomic_cmpxchg(&port0_holds[i].state, PORT0_HOLD_FREE,
				   PORT0_HOLD_OPEN) == PORT0_HOLD_FREE) {
			file->private_data = &port0_holds[i];
			return 0;
		}
	}
	return -ENFILE;
}

static ssize_t port0_hold_write(struct file *file, const char __user *buf,
				size_t len, loff_t *pos)
{
	struct port0_hold *hold = file->private_data;
	unsigned int where;
	char text[16] = "";

	if (len >= sizeof(text))
		return -EINVAL;
	if (copy_from_user(text, buf, len))
		return -EFAULT;
	for (where = 0; where < ARRAY_SIZE(port0_hold_places); where++)
		if (!strcmp(text, port0_hold_places[where].word))
			break;
	if (where == ARRAY_SIZE(port0_hold_places))
		return -EINVAL;
	if (atomic_read(&hold->state) != PORT0_HOLD_OPEN)
		return -EBUSY;
	hold->task = current;
	hold->place = &port0_hold_places[where];
	hold->skip = hold->place->skip;
	/* Pairs with the acquire in port0_hold_mine(). */
	atomic_set_release(&hold->state, PORT0_HOLD_ARMED);
	return len;
}

/* Returns 1 byte when the task is held. */
static ssize_t port0_hold_read(struct file *file, char __user *buf, size_t len,
			       loff_t *pos)
{
	struct port0_hold *hold = file->private_data;
	long left;

	if (!len)
		return 0;
	left = wait_event_interruptible_timeout(port0_hold_wait,
						atomic_read(&hold->state) ==
							PORT0_HOLD_HELD,
						PORT0_HOLD_PATIENCE);
	if (left <= 0)
		return left ?: -ETIMEDOUT;
	return put_user('1', buf) ?: 1;
}

static int port0_hold_close(struct inode *inode, struct file *file)
{
	struct port0_hold *hold = file->private_data;

	switch (atomic_xchg(&hold->state, PORT0_HOLD_RELEASED)) {
	case PORT0_HOLD_CALLING:
	case PORT0_HOLD_HELD:
		wake_up_all(&port0_hold_wait);
		break;
	default:
		atomic_set(&hold->state, PORT0_HOLD_FREE);
	}
	return 0;
}

static const struct file_operations port0_hold_fops = {
	.owner = THIS_MODULE,
	.open = port0_hold_open,
	.write = port0_hold_write,
	.read = port0_hold_read,
	.release = port0_hold_close,
};

static struct miscdevice port0_hold_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "port0_hold",
	.fops = &port0_hold_fops,
	.mode = 0600,
};

static void port0_hold_remove(unsigned int count)
{
	while (count--)
		unregister_kprobe(&port0_hold_points[count].kp);
	/* Wait for calls that run the instructions after module_put(). */
	synchronize_rcu_tasks();
}

static int __init port0_hold_init(void)
{
	unsigned int i;
	int err;

	for (i = 0; i < ARRAY_SIZE(port0_hold_points); i++) {
		err = register_kprobe(&port0_hold_points[i].kp);
		if (err) {
			pr_err("%s: cannot probe %s: errno %d\n", __func__,
			       port0_hold_points[i].kp.symbol_name, -err);
			goto err_remove;
		}
	}
	err = misc_register(&port0_hold_device);
	if (err)
		goto err_remove;
	return 0;

err_remove:
	port0_hold_remove(i);
	return err;
}

static void __exit port0_hold_exit(void)
{
	misc_deregister(&port0_hold_device);
	port0_hold_remove(ARRAY_SIZE(port0_hold_points));
}

module_init(port0_hold_init);
module_exit(port0_hold_exit);

MODULE_DESCRIPTION("Holds tasks at chosen functions, for the tests of port0");
MODULE_LICENSE("GPL");

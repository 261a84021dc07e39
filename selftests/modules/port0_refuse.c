// SPDX-License-Identifier: GPL-2.0
/*
 * Makes calls of a kernel function fail, all or only some, to test how its callers
 * handle that.
 *
 * Functions that port0 hooks must not be chosen: port0_livepatch.c makes those
 * fail.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/limits.h>
#include <linux/module.h>
#include <linux/rcupdate.h>

static char *port0_refuse_func;
module_param_named(func, port0_refuse_func, charp, 0444);
MODULE_PARM_DESC(func, "a function that returns an int");

static int port0_refuse_err = EXFULL;
module_param_named(err, port0_refuse_err, int, 0444);
MODULE_PARM_DESC(err, "the errno that it fails with (default: EXFULL)");

static int port0_refuse_skip;
module_param_named(skip, port0_refuse_skip, int, 0444);
MODULE_PARM_DESC(skip, "so many calls succeed first (default: 0)");

static int port0_refuse_times = INT_MAX;
module_param_named(times, port0_refuse_times, int, 0444);
MODULE_PARM_DESC(times, "then so many fail (default: all)");

static uint port0_refuse_delay;
module_param_named(delay, port0_refuse_delay, uint, 0444);
MODULE_PARM_DESC(delay, "after so many ms (default: 0); for functions that may sleep");

/* Calls so far; parameter "calls". */
static atomic_t port0_refuse_calls;

static int port0_refuse_calls_get(char *buf, const struct kernel_param *kp)
{
	return sysfs_emit(buf, "%d\n", atomic_read(&port0_refuse_calls));
}

static const struct kernel_param_ops port0_refuse_calls_ops = {
	.get = port0_refuse_calls_get,
};
module_param_cb(calls, &port0_refuse_calls_ops, NULL, 0444);
MODULE_PARM_DESC(calls, "read only: how often it has been called");

/* Replaces any such function, whatever its arguments are. */
static int port0_refuse_answer(void)
{
	if (port0_refuse_delay)
		msleep(port0_refuse_delay);
	module_put(THIS_MODULE);
	return -port0_refuse_err;
}

static int port0_refuse_pre(struct kprobe *kp, struct pt_regs *regs)
{
	int nth = atomic_inc_return(&port0_refuse_calls) - 1;

	if (nth < port0_refuse_skip ||
	    nth - port0_refuse_skip >= port0_refuse_times)
		return 0;
	__module_get(THIS_MODULE);
	instruction_pointer_set(regs, (unsigned long)port0_refuse_answer);
	return 1;
}

/*
 * A kprobe with a post-handler is not optimised; an optimised one cannot
 * redirect.
 */
static void port0_refuse_post(struct kprobe *kp, struct pt_regs *regs,
			      unsigned long flags)
{
}

static struct kprobe port0_refuse_kp = {
	.pre_handler = port0_refuse_pre,
	.post_handler = port0_refuse_post,
};

static int __init port0_refuse_init(void)
{
	port0_refuse_kp.symbol_name = port0_refuse_func;
	return register_kprobe(&port0_refuse_kp);
}

static void __exit port0_refuse_exit(void)
{
	unregister_kprobe(&port0_refuse_kp);
	/* Wait for calls that run the instructions after module_put(). */
	synchronize_rcu_tasks();
}

module_init(port0_refuse_init);
module_exit(port0_refuse_exit);

MODULE_DESCRIPTION("Makes a function fail, for the tests of port0");
MODULE_LICENSE("GPL");

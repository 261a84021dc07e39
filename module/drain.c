// SPDX-License-Identifier: GPL-2.0
/*
 * The administrator's control: who may mark sockets, and a way to be rid of port 0
 * without ending anybody's program.
 *
 * Both parameters can be written at run time, by root, below
 * /sys/module/port0/parameters.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cred.h>
#include <linux/jiffies.h>
#include <linux/moduleparam.h>
#include <linux/user_namespace.h>
#include <linux/workqueue.h>

#include "hook.h"
#include "port0.h"

/* How often it is seen whether the last socket on port 0 has gone. */
#define PORT0_DRAIN_INTERVAL	HZ

static bool port0_drain;
static bool port0_init_userns;
/* Guarded by kernel_param_lock(): the work may be queued. */
static bool port0_drain_ready;

static void port0_drain_work_fn(struct work_struct *work);
static DECLARE_DELAYED_WORK(port0_drain_work, port0_drain_work_fn);

/*
 * Bound UDP sockets that were marked before, by an earlier load or before the hooks
 * were taken out, do nothing that would arm the hooks they send with.
 */
static void port0_drain_rearm(void)
{
	if (port0_udp_any_marked() && port0_hooks_arm(PORT0_HOOKS_SEND))
		pr_warn("%s: UDP sockets that were marked before cannot send to port 0; see the lines above\n",
			__func__);
}

/* While draining, take out the hooks on first need once nobody needs them. */
static void port0_drain_work_fn(struct work_struct *work)
{
	if (!port0_is_draining())
		port0_drain_rearm();
	else if (!port0_hooks_trim())
		schedule_delayed_work(&port0_drain_work, PORT0_DRAIN_INTERVAL);
}

static int port0_drain_set(const char *val, const struct kernel_param *kp)
{
	int err = param_set_bool(val, kp);

	if (!err && port0_drain_ready) {
		cancel_delayed_work(&port0_drain_work);
		schedule_delayed_work(&port0_drain_work, 0);
	}
	return err;
}

static const struct kernel_param_ops port0_drain_ops = {
	.flags = KERNEL_PARAM_OPS_FL_NOARG,
	.set = port0_drain_set,
	.get = param_get_bool,
};

module_param_cb(drain, &port0_drain_ops, &port0_drain, 0644);
MODULE_PARM_DESC(drain, "refuse new marks and new binds to port 0 with EPERM, so that the module can be unloaded once the last socket on port 0 is closed (default: 0)");
module_param_named(init_userns, port0_init_userns, bool, 0644);
MODULE_PARM_DESC(init_userns, "let only tasks in the initial user namespace mark sockets, others get EPERM (default: 0)");

/**
 * port0_is_draining - tell whether new marks and literal binds are refused
 *
 * Context: any.
 * Return: true while the parameter "drain" is set.
 */
bool port0_is_draining(void)
{
	return READ_ONCE(port0_drain);
}

/**
 * port0_may_mark - tell whether the current task may mark a socket
 *
 * Context: process.
 * Return: false if the parameter "init_userns" keeps it from that.
 */
bool port0_may_mark(void)
{
	return !READ_ONCE(port0_init_userns) ||
	       current_user_ns() == &init_user_ns;
}

/**
 * port0_drain_begin - let the parameter have its effect on hooks
 *
 * Context: process, module load, when nothing can fail any more.
 */
void port0_drain_begin(void)
{
	kernel_param_lock(THIS_MODULE);
	port0_drain_ready = true;
	kernel_param_unlock(THIS_MODULE);
	if (!port0_is_draining())
		port0_drain_rearm();
}

/**
 * port0_drain_end - end what port0_drain_begin() has begun
 *
 * Context: module unload.
 */
void port0_drain_end(void)
{
	kernel_param_lock(THIS_MODULE);
	port0_drain_ready = false;
	kernel_param_unlock(THIS_MODULE);
	cancel_delayed_work_sync(&port0_drain_work);
}

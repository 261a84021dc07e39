// SPDX-License-Identifier: GPL-2.0
/*
 * The parameters for the administrator: who may use port 0 (init_userns), and a way
 * to get the module unloaded without killing programs (drain).
 *
 * Root can write both at run time, in /sys/module/port0/parameters.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cred.h>
#include <linux/jiffies.h>
#include <linux/moduleparam.h>
#include <linux/percpu.h>
#include <linux/user_namespace.h>
#include <linux/workqueue.h>

#include "hook.h"
#include "port0.h"

/* The interval at which the drain tests whether the last socket on port 0 is closed */
#define PORT0_DRAIN_INTERVAL	HZ

static bool port0_drain;
static bool port0_init_userns;
/* The work may be queued; guarded by kernel_param_lock(). */
static bool port0_drain_ready;

static void port0_drain_work_fn(struct work_struct *work);
static DECLARE_DELAYED_WORK(port0_drain_work, port0_drain_work_fn);

/*
 * Arm the hooks on sendmsg() for UDP sockets that are bound and marked already, from an
 * earlier load of the module or from before the drain removed the hooks. No later call
 * on such a socket would arm them.
 */
static void port0_drain_rearm(void)
{
	/* At load, a write to the parameter may have begun to remove hooks meanwhile. */
	if (!port0_late_begin())
		return;
	if (port0_udp_any_marked() && port0_hooks_arm(PORT0_HOOKS_SEND))
		pr_warn("%s: UDP sockets that were marked before cannot send to port 0; see the lines above\n",
			__func__);
	port0_late_end();
}

/* While the module drains, try until PORT0_HOOKS_LATE can be removed; otherwise rearm. */
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
MODULE_PARM_DESC(init_userns, "let only tasks in the initial user namespace mark sockets and bind them to port 0, others get EPERM (default: 0)");

/**
 * port0_is_draining - tell whether new marks and new binds to port 0 are refused
 *
 * Context: any.
 * Return: true while the parameter "drain" is set. It may be set at load, but the
 * self-check is still to bind its sockets then.
 */
bool port0_is_draining(void)
{
	return READ_ONCE(port0_drain) && !port0_is_loading();
}

/**
 * port0_late_begin - begin a call that may arm hooks of PORT0_HOOKS_LATE, or needs them,
 * unless the module drains
 *
 * While the module drains, calls that begin do not count. So none can delay the drain,
 * however long it waits for the socket lock, or how often it is made.
 *
 * Context: any, where something keeps the module loaded; does not sleep.
 * Return: false if the module drains. True if the hooks stay until port0_late_end().
 */
bool port0_late_begin(void)
{
	if (port0_is_draining())
		return false;
	this_cpu_inc(port0_uses.begun);
	/* Either port0_hooks_trim() sees this call, or this call sees that the module drains. */
	smp_mb();
	if (!port0_is_draining())
		return true;
	port0_late_end();
	return false;
}

/**
 * port0_late_end - end a call that port0_late_begin() has begun
 *
 * Context: any; does not sleep.
 */
void port0_late_end(void)
{
	this_cpu_inc(port0_uses.ended);
}

/**
 * port0_may_mark - tell whether the current task may mark a socket, and bind a marked
 * one to port 0
 *
 * Sockets can get a mark without this test: accepted ones have that of their listener.
 *
 * Context: process.
 * Return: false if the parameter "init_userns" forbids it.
 */
bool port0_may_mark(void)
{
	return !READ_ONCE(port0_init_userns) ||
	       current_user_ns() == &init_user_ns;
}

/**
 * port0_drain_begin - let writes to the parameter "drain" arm and remove hooks
 *
 * Context: process, at the end of module init, when nothing can fail any more; may
 * sleep. Takes kernel_param_lock().
 */
void port0_drain_begin(void)
{
	kernel_param_lock(THIS_MODULE);
	port0_drain_ready = true;
	kernel_param_unlock(THIS_MODULE);
	/* The parameter may have been written, and hooks armed, since the self-check. */
	port0_drain_work_fn(&port0_drain_work.work);
}

/**
 * port0_drain_end - stop the work that writes to the parameter "drain" start
 *
 * Context: process, module exit; may sleep until the work has ended. Takes
 * kernel_param_lock().
 */
void port0_drain_end(void)
{
	kernel_param_lock(THIS_MODULE);
	port0_drain_ready = false;
	kernel_param_unlock(THIS_MODULE);
	cancel_delayed_work_sync(&port0_drain_work);
}

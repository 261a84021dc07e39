// SPDX-License-Identifier: GPL-2.0
/*
 * port0 - bind TCP and UDP sockets to port 0, literally
 *
 * Load and unload. At load, first the hooks are installed, then the self-check tests
 * them, and the socket options are registered last, so that no program can mark a
 * socket before everything works.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/err.h>
#include <linux/init.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>

#include "call.h"
#include "hook.h"
#include "port0.h"
#include "rules.h"
#include "turn.h"
#include "watch.h"

#define PORT0_VERSION	"0.2.0"

/* Parameter "getname": whether the hooks on inet_getname() are installed. */
static bool port0_getname = true;
module_param_named(getname, port0_getname, bool, 0444);
MODULE_PARM_DESC(getname, "repair getpeername() and accept() towards a peer on port 0, on every socket (default: 1)");

/* Parameter "hook": the backend, as port0_hooks_choose() takes it. */
static char *port0_backend_name = "ftrace";
module_param_named(hook, port0_backend_name, charp, 0444);
MODULE_PARM_DESC(hook, "how kernel functions are hooked: ftrace, kprobe, or auto for ftrace where the kernel has it (default: ftrace)");

struct task_struct *port0_loader;
#define PORT0_LOADER_NOBODY	((struct task_struct *)ERR_PTR(-ESRCH))

DEFINE_PER_CPU(struct port0_uses, port0_uses);

/**
 * port0_is_used - tell whether a socket or a call needs hooks of PORT0_HOOKS_LATE
 *
 * As in SRCU, the ends are added up first. Each end that is seen has its begin seen, too,
 * since a barrier is between them, in try_module_get() or port0_late_begin(), or a lock that
 * was released and taken. So a use that lasts all the time is not missed, whatever others do
 * meanwhile. (If a BPF program refuses a bind(), its socket begins and ends a use under one
 * lock, so that only the end may be seen. The call's own use makes up for that, since its
 * begin is seen and its end is still to come. So the uses of others are not missed.)
 *
 * Context: any.
 * Return: true if one of them does.
 */
bool port0_is_used(void)
{
	unsigned long uses = 0;
	int cpu;

	for_each_possible_cpu(cpu)
		uses -= READ_ONCE(per_cpu_ptr(&port0_uses, cpu)->ended);
	/* Pairs with the barriers in try_module_get() and port0_late_begin(). */
	smp_mb();
	for_each_possible_cpu(cpu)
		uses += READ_ONCE(per_cpu_ptr(&port0_uses, cpu)->begun);
	return uses;
}

/**
 * port0_is_loading - tell whether loading the module may still fail
 *
 * Context: any.
 * Return: true until module init can no longer fail.
 */
bool port0_is_loading(void)
{
	return READ_ONCE(port0_loader);
}

/* Returns false if the kernel still calls the hooks, so that the module must stay. */
static bool port0_hooks_remove_all(void)
{
	bool gone = port0_hooks_disarm(PORT0_HOOKS_ALL);

	/*
	 * No new call is redirected. Tasks that have dropped their reference may
	 * still run the instructions after module_put(), where they do not sleep.
	 */
	synchronize_rcu_tasks();
	return gone;
}

static int __init port0_init(void)
{
	int err;

	BUILD_BUG_ON(BITS_PER_LONG != 64);
	port0_call_init();
	port0_turn_init();
	port0_watch_init();
	port0_loader = current;

	err = port0_hooks_choose(port0_backend_name);
	if (err)
		return err;
	err = port0_hooks_arm(port0_getname ? PORT0_HOOKS_ALL :
			      PORT0_HOOKS_ALL & ~PORT0_HOOKS_NAME);
	if (err)
		goto err_hooks;
	/*
	 * After the hooks: if a livepatch on bind() is in the way, arming them
	 * fails with a message that names the function.
	 */
	err = port0_rules_learn();
	if (err)
		goto err_hooks;
	err = port0_selfcheck();
	if (err)
		goto err_hooks;

	/* From now on these are installed when a socket first needs them. */
	port0_hooks_disarm(PORT0_HOOKS_LATE);

	err = port0_sockopt_register();
	if (err) {
		pr_err("%s: cannot register the socket options: errno %d (another module has taken 0x7030 or 0x7031)\n",
		       __func__, -err);
		goto err_hooks;
	}
	WRITE_ONCE(port0_loader, NULL);
	port0_drain_begin();
	pr_info("version %s, hooks by %s\n", PORT0_VERSION,
		port0_hooks_backend());
	return 0;

err_hooks:
	if (port0_hooks_remove_all())
		return err;
	/* No task is the loader any more, so no call is redirected. */
	WRITE_ONCE(port0_loader, PORT0_LOADER_NOBODY);
	pr_err("%s: the module does nothing and stays until the next boot\n",
	       __func__);
	__module_get(THIS_MODULE);
	return 0;
}

static void __exit port0_exit(void)
{
	/*
	 * This comes first: as long as the options of a module that is being unloaded are
	 * registered, nf_sockopt_find() may stop at them and not find those of others.
	 */
	port0_sockopt_unregister();
	port0_drain_end();
	if (!port0_hooks_remove_all()) {
		pr_err("%s: the module stays until the next boot, and this rmmod does not return\n",
		       __func__);
		for (;;)
			schedule_timeout_idle(MAX_SCHEDULE_TIMEOUT);
	}
	pr_info("version %s unloaded\n", PORT0_VERSION);
}

module_init(port0_init);
module_exit(port0_exit);

MODULE_DESCRIPTION("Bind TCP and UDP sockets to port 0, literally");
MODULE_AUTHOR("the port0 maintainers");
MODULE_LICENSE("GPL");
MODULE_VERSION(PORT0_VERSION);

// SPDX-License-Identifier: GPL-2.0
/*
 * port0 - bind TCP and UDP sockets to port 0, literally
 *
 * Load and unload. The order at load: hooks, a check that they do what they are
 * for, then the socket options, so that nobody can ask before we can answer.
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

/* While loading, calls are redirected for the task that loads, and no other. */
static struct task_struct *port0_loader;
#define PORT0_LOADER_NOBODY	((struct task_struct *)ERR_PTR(-ESRCH))

/**
 * port0_enter - take a reference on the module for a call to be redirected
 *
 * Sockets may carry a mark from an earlier load, so hooks can fire before the
 * module is sure that it will stay; such calls are let be.
 *
 * Context: any.
 * Return: true if the call may be redirected: see PORT0_REPLACE() in table.c for
 * who puts the reference. False while the module is being loaded or unloaded.
 */
bool port0_enter(void)
{
	const struct task_struct *loader = READ_ONCE(port0_loader);

	if (unlikely(loader) && loader != current)
		return false;
	return try_module_get(THIS_MODULE);
}

/**
 * port0_is_loading - tell whether the module may yet fail to load
 *
 * Context: any.
 * Return: true until it is there to stay.
 */
bool port0_is_loading(void)
{
	return READ_ONCE(port0_loader);
}

/* Returns false if the kernel still calls us, so that the module must stay. */
static bool port0_hooks_remove_all(void)
{
	bool gone = port0_hooks_disarm(PORT0_HOOKS_ALL);

	/*
	 * No new call comes in. One that has put its reference may still be on
	 * its last instructions in here; it does not sleep there.
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
	/* After the hooks: a livepatch of bind() is their refusal, by name. */
	err = port0_rules_learn();
	if (err)
		goto err_hooks;
	err = port0_selfcheck();
	if (err)
		goto err_hooks;

	/* All can be installed; these wait until somebody needs them. */
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
	/* Nobody is the loader any more, so every call is let be. */
	WRITE_ONCE(port0_loader, PORT0_LOADER_NOBODY);
	pr_err("%s: the module does nothing and stays until the next boot\n",
	       __func__);
	__module_get(THIS_MODULE);
	return 0;
}

static void __exit port0_exit(void)
{
	port0_drain_end();
	port0_sockopt_unregister();
	if (!port0_hooks_remove_all()) {
		pr_err("%s: the module stays until the next boot, and so does this rmmod\n",
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

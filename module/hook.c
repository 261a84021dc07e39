// SPDX-License-Identifier: GPL-2.0
/*
 * Installing and removing hooks.
 *
 * Two backends do the same work: ftrace, ten to twenty nanoseconds a call, and
 * kprobes, for kernels without the function tracer. Each hook is registered by
 * itself, so that its callback is called straight from its trampoline.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kernel.h>
#include <linux/mutex.h>
#include <linux/string.h>

#include "hook.h"

/**
 * struct port0_backend - a way to get called when a kernel function is entered
 * @name: as in the module parameter
 * @install: put a hook in place; process context, may sleep; 0 or an errno
 * @remove: take it out; returns when no new call can enter it
 */
struct port0_backend {
	const char *name;
	int (*install)(struct port0_hook *hook);
	void (*remove)(struct port0_hook *hook);
};

/* Guards the hooks' installed, and port0_hooks_armed for writing. */
static DEFINE_MUTEX(port0_hook_mutex);
static bool port0_hooks_armed[PORT0_HOOK_SETS];
static const struct port0_backend *port0_backend;

#ifdef CONFIG_FUNCTION_TRACER

static int port0_ftrace_install(struct port0_hook *hook)
{
	struct ftrace_ops *ops = &hook->ops;
	int err;

	/*
	 * PERMANENT: kernel.ftrace_enabled=0 is refused while we are there,
	 * instead of silently leaving sockets on port 0 without their hooks.
	 */
	*ops = (struct ftrace_ops){
		.func = hook->callback,
		.flags = FTRACE_OPS_FL_PERMANENT,
	};
	if (hook->redirects)
		ops->flags |= FTRACE_OPS_FL_IPMODIFY;
	if (!IS_ENABLED(CONFIG_DYNAMIC_FTRACE_WITH_ARGS))
		ops->flags |= FTRACE_OPS_FL_SAVE_REGS;

	err = ftrace_set_filter_ip(ops, hook->addr, 0, 0);
	if (err)
		return err;
	err = register_ftrace_function(ops);
	if (err)
		ftrace_free_filter(ops);
	return err;
}

static void port0_ftrace_remove(struct port0_hook *hook)
{
	unregister_ftrace_function(&hook->ops);
	ftrace_free_filter(&hook->ops);
}

static const struct port0_backend port0_backend_ftrace = {
	.name = "ftrace",
	.install = port0_ftrace_install,
	.remove = port0_ftrace_remove,
};

#endif /* CONFIG_FUNCTION_TRACER */

/*
 * A probe with a post-handler is never jump-optimised, and an optimised probe
 * would ignore that its pre-handler changed the instruction pointer.
 */
static void port0_kprobe_post(struct kprobe *kp, struct pt_regs *regs,
			      unsigned long flags)
{
}

/*
 * A probe that may redirect must not join one that may not: where kprobes sit on
 * ftrace the kernel has armed the first as one that only looks on, takes the pair
 * for one that redirects when it is disarmed, and warns. A probe that joins
 * another is linked to it, which a trial shows.
 */
static bool port0_kprobe_is_alone(struct port0_hook *hook)
{
	struct kprobe *kp = &hook->kp;
	bool alone;

	*kp = (struct kprobe){
		.addr = (kprobe_opcode_t *)hook->addr,
		.pre_handler = hook->handler,
		.flags = KPROBE_FLAG_DISABLED,
	};
	if (register_kprobe(kp))
		return true;
	alone = list_empty(&kp->list);
	unregister_kprobe(kp);
	return alone;
}

static int port0_kprobe_install(struct port0_hook *hook)
{
	struct kprobe *kp = &hook->kp;
	int err;

	if (IS_ENABLED(CONFIG_KPROBES_ON_FTRACE) && hook->redirects &&
	    !port0_kprobe_is_alone(hook))
		return -EBUSY;

	*kp = (struct kprobe){
		.addr = (kprobe_opcode_t *)hook->addr,
		.pre_handler = hook->handler,
		.post_handler = hook->redirects ? port0_kprobe_post : NULL,
		.flags = KPROBE_FLAG_DISABLED,
	};
	err = register_kprobe(kp);
	if (err)
		return err;

	/* Registering may hide that arming failed; enabling says so. */
	err = enable_kprobe(kp);
	if (!err && kprobe_disabled(kp))
		err = -EBUSY;
	if (err)
		unregister_kprobe(kp);
	return err;
}

static void port0_kprobe_remove(struct port0_hook *hook)
{
	if (hook->kp.nmissed)
		pr_warn("%s: %lu calls of %s went past the kprobe\n", __func__,
			hook->kp.nmissed, hook->func);
	unregister_kprobe(&hook->kp);
}

static const struct port0_backend port0_backend_kprobe = {
	.name = "kprobe",
	.install = port0_kprobe_install,
	.remove = port0_kprobe_remove,
};

/*
 * Find where a function is. Its address is no secret to a kprobe, so a probe
 * that is never armed is asked.
 */
static int port0_hook_resolve(struct port0_hook *hook)
{
	struct kprobe *kp = &hook->kp;
	int err;

	*kp = (struct kprobe){
		.symbol_name = hook->func,
		.flags = KPROBE_FLAG_DISABLED,
	};
	err = register_kprobe(kp);
	if (!err)
		hook->addr = (unsigned long)kp->addr;
	return err;
}

static const char *port0_hook_hint(int err)
{
	switch (err) {
	case -EBUSY:
		return "a livepatch, another module or a kprobe is on it, or kernel.ftrace_enabled is 0";
	case -ENOENT:
	case -EINVAL:
	case -EADDRNOTAVAIL:
		return "this kernel has no such function that can be traced; see README, Kernels";
	default:
		return "see the lines above and README, Kernels";
	}
}

/**
 * port0_hooks_choose - choose a backend and find every function
 * @name: "ftrace", "kprobe" or "auto" (ftrace where the kernel has it)
 *
 * Context: module load.
 * Return: 0; -EINVAL for another name; -EOPNOTSUPP if the kernel is built
 * without that backend; what register_kprobe() says of a function that is not
 * there.
 */
int port0_hooks_choose(const char *name)
{
	bool any = !strcmp(name, "auto");
	struct kprobe **probes;
	unsigned int i, found;
	int err = 0;

	if (!strcmp(name, "kprobe")) {
		port0_backend = &port0_backend_kprobe;
	} else if (any || !strcmp(name, "ftrace")) {
#ifdef CONFIG_FUNCTION_TRACER
		port0_backend = &port0_backend_ftrace;
#else
		if (any)
			port0_backend = &port0_backend_kprobe;
#endif
	} else {
		pr_err("%s: hook=%s is none of ftrace, kprobe, auto\n",
		       __func__, name);
		return -EINVAL;
	}
	if (!port0_backend) {
		pr_err("%s: this kernel has no function tracer; load with hook=kprobe or hook=auto\n",
		       __func__);
		return -EOPNOTSUPP;
	}

	probes = kcalloc(port0_hooks_count, sizeof(*probes), GFP_KERNEL);
	if (!probes)
		return -ENOMEM;
	for (found = 0; found < port0_hooks_count; found++) {
		err = port0_hook_resolve(&port0_hooks[found]);
		if (err) {
			pr_err("%s: cannot find %s: errno %d (%s)\n", __func__,
			       port0_hooks[found].func, -err,
			       port0_hook_hint(err));
			break;
		}
	}
	/* Together, so that they cost one grace period and not one each. */
	for (i = 0; i < found; i++)
		probes[i] = &port0_hooks[i].kp;
	unregister_kprobes(probes, found);
	kfree(probes);
	return err;
}

/**
 * port0_hooks_backend - name the backend in use
 *
 * Return: "ftrace" or "kprobe".
 */
const char *port0_hooks_backend(void)
{
	return port0_backend->name;
}

static void port0_hooks_remove(enum port0_hook_set set)
{
	unsigned int i;

	for (i = port0_hooks_count; i-- > 0;) {
		struct port0_hook *hook = &port0_hooks[i];

		if (hook->set == set && hook->installed) {
			port0_backend->remove(hook);
			hook->installed = false;
		}
	}
}

/**
 * port0_hooks_arm - put a set of hooks in place, all or none
 * @set: which
 *
 * Context: process, no locks held; may sleep. Once a set is in place this costs
 * one load.
 * Return: 0 or the errno of the first hook that could not be installed; what
 * went wrong is in the log.
 */
int port0_hooks_arm(enum port0_hook_set set)
{
	unsigned int i;
	int err = 0;

	/* Pairs with the release below: who sees it armed finds it in place. */
	if (smp_load_acquire(&port0_hooks_armed[set]))
		return 0;

	mutex_lock(&port0_hook_mutex);
	if (port0_hooks_armed[set])
		goto unlock;
	for (i = 0; i < port0_hooks_count; i++) {
		struct port0_hook *hook = &port0_hooks[i];

		if (hook->set != set)
			continue;
		err = port0_backend->install(hook);
		if (err) {
			pr_err_ratelimited("%s: cannot hook %s with %s: errno %d (%s)\n",
					   __func__, hook->func,
					   port0_backend->name, -err,
					   port0_hook_hint(err));
			port0_hooks_remove(set);
			goto unlock;
		}
		hook->installed = true;
	}
	/* Pairs with the acquire above. */
	smp_store_release(&port0_hooks_armed[set], true);
unlock:
	mutex_unlock(&port0_hook_mutex);
	return err;
}

/**
 * port0_hooks_disarm - take a set of hooks out
 * @set: which; may not be in place
 *
 * Context: process, no locks held; may sleep. Calls that the hooks redirected
 * before may still be under way when it returns.
 */
void port0_hooks_disarm(enum port0_hook_set set)
{
	mutex_lock(&port0_hook_mutex);
	port0_hooks_remove(set);
	WRITE_ONCE(port0_hooks_armed[set], false);
	mutex_unlock(&port0_hook_mutex);
}

// SPDX-License-Identifier: GPL-2.0
/*
 * Installing and removing hooks.
 *
 * There are two backends: ftrace, and kprobes for kernels without the function tracer.
 * doc/performance.md has their costs. Each hooked function belongs to one ftrace_ops of
 * ours only, so that ftrace calls the callback directly from the trampoline of that ops
 * and does not walk a list.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/kernel.h>
#include <linux/log2.h>
#include <linux/mutex.h>
#include <linux/string.h>

#include "compat.h"
#include "hook.h"

/**
 * struct port0_backend - a way to run code when a kernel function is entered
 * @name: as in the module parameter "hook"
 * @install: install hooks, all or none, and return 0 or an errno; on failure
 *	*culprit is the hook that could not be installed, or NULL
 * @remove: remove hooks and clear @installed of each one that is removed; when it
 *	returns, no new call can enter these. Removing all hooks fails only
 *	if ftrace has disabled itself; removing some, also for lack of memory
 *
 * Both run in process context with port0_hook_mutex held, and may sleep.
 */
struct port0_backend {
	const char *name;
	int (*install)(struct port0_hook **hooks, unsigned int n,
		       struct port0_hook **culprit);
	void (*remove)(struct port0_hook **hooks, unsigned int n);
};

/*
 * Guards the variables below and @installed of every hook. port0_hooks_armed is
 * written under it and also read without it.
 */
static DEFINE_MUTEX(port0_hook_mutex);
static unsigned int port0_hooks_armed;
static struct port0_hook *port0_hooks_chosen[PORT0_HOOKS_MAX];
static struct kprobe *port0_kprobes[PORT0_HOOKS_MAX];
static const struct port0_backend *port0_backend;

/*
 * For each set that could not be armed: the errno, and until when (in jiffies) requests
 * for the set fail with it at once. Without this limit, any user could make the module
 * patch the kernel's code again and again.
 */
#define PORT0_REFUSAL_TIME	HZ
static struct {
	int err;
	unsigned long until;
} port0_hooks_refused[ilog2(PORT0_HOOKS_ALL) + 1];

#ifdef PORT0_HAVE_FTRACE

static unsigned long port0_ftrace_ips[PORT0_HOOKS_MAX];

/* Store the addresses of those @hooks that have @gate in port0_ftrace_ips. */
static unsigned int port0_ftrace_gather(const struct port0_gate *gate,
					struct port0_hook **hooks,
					unsigned int n)
{
	unsigned int i, found = 0;

	for (i = 0; i < n; i++)
		if (hooks[i]->gate == gate)
			port0_ftrace_ips[found++] = hooks[i]->addr;
	return found;
}

static void port0_ftrace_mark(const struct port0_gate *gate,
			      struct port0_hook **hooks, unsigned int n,
			      bool installed)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		if (hooks[i]->gate == gate)
			hooks[i]->installed = installed;
}

/* Number of retries and pause in ms while a BPF trampoline is being changed */
#define PORT0_FTRACE_TRIES	20
#define PORT0_FTRACE_PAUSE	5

/* ftrace has disabled itself while it registered hooks. */
static bool port0_ftrace_broken;

static int port0_ftrace_register(struct ftrace_ops *ops,
				 const struct port0_gate *gate,
				 unsigned long *ips, unsigned int n)
{
	int tries = PORT0_FTRACE_TRIES;
	bool filtered;
	int err;

	/* The kernel may still have @ops in its list of trampolines. */
	if (port0_ftrace_broken)
		return -ENODEV;

	/*
	 * PERMANENT makes the kernel refuse kernel.ftrace_enabled=0, which would
	 * silently disable the hooks of the sockets that are on port 0.
	 */
	*ops = (struct ftrace_ops){
		.func = gate->callback,
		.flags = FTRACE_OPS_FL_PERMANENT | PORT0_FTRACE_OPS_FLAGS,
	};
	if (gate->redirects)
		ops->flags |= FTRACE_OPS_FL_IPMODIFY;
	if (!IS_ENABLED(CONFIG_DYNAMIC_FTRACE_WITH_ARGS))
		ops->flags |= FTRACE_OPS_FL_SAVE_REGS;

	err = ftrace_set_filter_ips(ops, ips, n, 0, 0);
	filtered = !err;
	if (!err)
		err = register_ftrace_function(ops);
	/* A BPF program is being attached to the function or detached from it. */
	while (err == -EAGAIN && tries-- > 0) {
		msleep(PORT0_FTRACE_PAUSE);
		err = register_ftrace_function(ops);
	}
	/*
	 * Had ftrace been disabled before, the filter would have been refused. So it has found
	 * an internal error now. It forgets the ops, but code that it has patched already
	 * calls the hooks.
	 */
	if (err == -ENODEV && filtered)
		port0_ftrace_broken = true;
	else if (err)
		port0_ftrace_free_filter(ops);
	return err;
}

/*
 * Fails only if ftrace has detected an internal error and disabled itself. The
 * kernel's code then still calls the hooks.
 */
static int port0_ftrace_unregister(struct ftrace_ops *ops)
{
	int err = unregister_ftrace_function(ops);

	if (err)
		/* Once, since a drain tries again every second. */
		pr_err_once("%s: cannot remove a hook: errno %d (ftrace has disabled itself; see the kernel warning before this)\n",
			    __func__, -err);
	else
		port0_ftrace_free_filter(ops);
	return err;
}

/* What port0_ftrace_culprit() registers; @func is set if it could not be unregistered. */
static struct ftrace_ops port0_ftrace_trial;

/* Tell whether the kernel's code may call a hook that is not marked as @installed. */
static bool port0_ftrace_is_stuck(void)
{
	return port0_ftrace_trial.func || port0_ftrace_broken;
}

/*
 * Find out which hook made a registration fail: register each one alone. Returns
 * NULL if none of them fails now.
 */
static struct port0_hook *port0_ftrace_culprit(struct port0_hook **hooks,
					       unsigned int n)
{
	unsigned int i;

	if (port0_ftrace_is_stuck())
		return NULL;

	for (i = 0; i < n; i++) {
		if (hooks[i]->installed)
			continue;
		if (port0_ftrace_register(&port0_ftrace_trial, hooks[i]->gate,
					  &hooks[i]->addr, 1))
			break;
		if (port0_ftrace_unregister(&port0_ftrace_trial))
			return NULL;
	}
	/* Code that ftrace has patched when it broke may still use the ops. */
	if (!port0_ftrace_broken)
		port0_ftrace_trial.func = NULL;
	return i < n ? hooks[i] : NULL;
}

static void port0_ftrace_remove(struct port0_hook **hooks, unsigned int n)
{
	unsigned int i, found;

	for (i = 0; i < n; i++) {
		struct port0_gate *gate = hooks[i]->gate;

		if (!hooks[i]->installed)
			continue;
		found = port0_ftrace_gather(gate, hooks, n);
		/* An ops whose filter is empty would trace every function. */
		if (found == gate->installed) {
			if (port0_ftrace_unregister(&gate->ops))
				continue;
		} else if (ftrace_set_filter_ips(&gate->ops, port0_ftrace_ips,
						 found, 1, 0)) {
			/* No memory: these hooks stay installed. */
			continue;
		}
		gate->installed -= found;
		port0_ftrace_mark(gate, hooks, n, false);
	}
}

static int port0_ftrace_install(struct port0_hook **hooks, unsigned int n,
				struct port0_hook **culprit)
{
	unsigned int i, found;
	int err;

	for (i = 0; i < n; i++) {
		struct port0_gate *gate = hooks[i]->gate;

		if (hooks[i]->installed)
			continue;
		found = port0_ftrace_gather(gate, hooks, n);
		/*
		 * A gate that redirects gets all its functions at once, since its hooks
		 * are in one set (see port0_hooks[]). It must: if a BPF trampoline is
		 * attached to one of them, only register_ftrace_function() lets an
		 * IPMODIFY ops share that function, and ftrace_set_filter_ips() does
		 * not.
		 */
		if (gate->installed)
			err = ftrace_set_filter_ips(&gate->ops,
						    port0_ftrace_ips, found,
						    0, 0);
		else
			err = port0_ftrace_register(&gate->ops, gate,
						    port0_ftrace_ips, found);
		if (err)
			goto err_remove;
		gate->installed += found;
		port0_ftrace_mark(gate, hooks, n, true);
	}
	return 0;

err_remove:
	*culprit = port0_ftrace_culprit(hooks, n);
	port0_ftrace_remove(hooks, n);
	return err;
}

static const struct port0_backend port0_backend_ftrace = {
	.name = "ftrace",
	.install = port0_ftrace_install,
	.remove = port0_ftrace_remove,
};

#else

static bool port0_ftrace_is_stuck(void)
{
	return false;
}

#endif /* PORT0_HAVE_FTRACE */

/*
 * Does nothing. A kprobe that has a post-handler is never jump-optimised; an optimised
 * one would ignore that its pre-handler changed the instruction pointer.
 */
static void port0_kprobe_post(struct kprobe *kp, struct pt_regs *regs,
			      unsigned long flags)
{
}

/*
 * Tell whether there is no other kprobe on the function.
 *
 * With CONFIG_KPROBES_ON_FTRACE, a kprobe with a post-handler must not be added to one
 * without: the kernel has armed the first one without IPMODIFY, later disarms both as
 * if they had it, and warns. Kprobes at one address are linked by kp->list, so this
 * registers a disabled kprobe and looks at its list.
 */
static bool port0_kprobe_is_alone(struct port0_hook *hook)
{
	struct kprobe *kp = &hook->kp;
	bool alone;

	*kp = (struct kprobe){
		.addr = (kprobe_opcode_t *)hook->addr,
		.pre_handler = hook->gate->handler,
		.flags = KPROBE_FLAG_DISABLED,
	};
	if (register_kprobe(kp))
		return true;
	alone = list_empty(&kp->list);
	unregister_kprobe(kp);
	return alone;
}

static int port0_kprobe_arm(struct port0_hook *hook)
{
	struct kprobe *kp = &hook->kp;
	int err;

	if (IS_ENABLED(CONFIG_KPROBES_ON_FTRACE) && hook->gate->redirects &&
	    !port0_kprobe_is_alone(hook))
		return -EBUSY;

	*kp = (struct kprobe){
		.addr = (kprobe_opcode_t *)hook->addr,
		.pre_handler = hook->gate->handler,
		.post_handler = hook->gate->redirects ? port0_kprobe_post : NULL,
		.flags = KPROBE_FLAG_DISABLED,
	};
	err = register_kprobe(kp);
	if (err)
		return err;

	/* register_kprobe() may hide that arming failed, enable_kprobe() does not. */
	err = enable_kprobe(kp);
	if (!err && kprobe_disabled(kp))
		err = -EBUSY;
	if (err)
		unregister_kprobe(kp);
	return err;
}

/*
 * Unregister a kprobe again and again until it is gone.
 *
 * With CONFIG_KPROBES_ON_FTRACE, the kernel allocates memory to disarm a kprobe. If
 * that fails, the kprobe stays in the kernel's tables and would be used after the
 * module is gone. Only kp->addr being NULL shows this. The kernel has also decremented
 * its count of armed kprobes; arming this one again before the next try corrects the
 * count. (If another kprobe on the function has come and gone, arming has no effect, and
 * the count stays too low.)
 */
static void port0_kprobe_retry(struct port0_hook *hook)
{
	struct kprobe *kp = &hook->kp;

	while (!kp->addr) {
		pr_warn_ratelimited("%s: cannot remove the kprobe on %s; trying again\n",
				    __func__, hook->func);
		/* Before the pause: while this is NULL, no new kprobe joins this one. */
		kp->addr = (kprobe_opcode_t *)hook->addr;
		msleep(20);
		kp->flags |= KPROBE_FLAG_DISABLED;
		if (enable_kprobe(kp))
			pr_debug("%s: %s is not armed again\n", __func__,
				 hook->func);
		unregister_kprobe(kp);
	}
}

/* Removes all at once, which takes one grace period instead of one for each. */
static void port0_kprobe_remove(struct port0_hook **hooks, unsigned int n)
{
	unsigned int i, found = 0;

	for (i = 0; i < n; i++) {
		if (!hooks[i]->installed)
			continue;
		if (hooks[i]->kp.nmissed)
			pr_warn("%s: %lu calls of %s were missed by the kprobe\n",
				__func__, hooks[i]->kp.nmissed, hooks[i]->func);
		hooks[i]->installed = false;
		port0_kprobes[found++] = &hooks[i]->kp;
	}
	unregister_kprobes(port0_kprobes, found);
	for (i = 0; i < found; i++)
		port0_kprobe_retry(container_of(port0_kprobes[i],
						struct port0_hook, kp));
}

static int port0_kprobe_install(struct port0_hook **hooks, unsigned int n,
				struct port0_hook **culprit)
{
	unsigned int i;
	int err;

	for (i = 0; i < n; i++) {
		err = port0_kprobe_arm(hooks[i]);
		if (err) {
			*culprit = hooks[i];
			port0_kprobe_remove(hooks, n);
			return err;
		}
		hooks[i]->installed = true;
	}
	return 0;
}

static const struct port0_backend port0_backend_kprobe = {
	.name = "kprobe",
	.install = port0_kprobe_install,
	.remove = port0_kprobe_remove,
};

/*
 * Find the address of a function. kallsyms_lookup_name() is not exported, but
 * register_kprobe() stores the address in the kprobe, which is never armed here.
 * port0_hooks_choose() unregisters it.
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
	if (err)
		return err;
	hook->addr = (unsigned long)kp->addr;
	return 0;
}

static const char *port0_hook_hint(int err)
{
	switch (err) {
	case -EBUSY:
		return "a livepatch, a kprobe or another module is on it, or ftrace_enabled is 0";
	case -EOPNOTSUPP:
		return "a BPF program on it does not allow this hook";
	case -ENOENT:
	case -EINVAL:
	case -EADDRNOTAVAIL:
		return "this kernel has no such traceable function; see doc/compatibility.md";
	default:
		return "see the lines above and doc/compatibility.md";
	}
}

/**
 * port0_hooks_choose - choose a backend and find every function
 * @name: "ftrace", "kprobe" or "auto" (ftrace where the kernel has it)
 *
 * Context: process, in module init; may sleep.
 * Return: 0; -EINVAL for another name; -EOPNOTSUPP if the kernel is built
 * without that backend; the errno of register_kprobe() if a function that is not
 * optional cannot be found.
 */
int port0_hooks_choose(const char *name)
{
	bool any = !strcmp(name, "auto");
	unsigned int i, found = 0;
	int err = 0;

	if (!strcmp(name, "kprobe")) {
		port0_backend = &port0_backend_kprobe;
	} else if (any || !strcmp(name, "ftrace")) {
#ifdef PORT0_HAVE_FTRACE
		port0_backend = &port0_backend_ftrace;
#else
		if (any)
			port0_backend = &port0_backend_kprobe;
#endif
	} else {
		pr_err("%s: hook=%s: choose ftrace, kprobe or auto\n",
		       __func__, name);
		return -EINVAL;
	}
	if (!port0_backend) {
		pr_err("%s: this kernel's function tracer cannot redirect calls; load with hook=kprobe or hook=auto\n",
		       __func__);
		return -EOPNOTSUPP;
	}

	for (i = 0; i < port0_hooks_count; i++) {
		struct port0_hook *hook = &port0_hooks[i];

		err = port0_hook_resolve(hook);
		if (err && hook->optional) {
			pr_info("%s: no %s to hook here (errno %d): sends from UDP port 0 take the socket lock\n",
				__func__, hook->func, -err);
			continue;
		}
		if (err) {
			pr_err("%s: cannot find %s: errno %d (%s)\n", __func__,
			       hook->func, -err, port0_hook_hint(err));
			break;
		}
		port0_kprobes[found++] = &hook->kp;
		hook->next = hook->gate->hooks;
		hook->gate->hooks = hook;
	}
	unregister_kprobes(port0_kprobes, found);
	return i < port0_hooks_count ? err : 0;
}

/**
 * port0_hooks_backend - name the backend in use
 *
 * Context: any, after port0_hooks_choose() has succeeded.
 * Return: "ftrace" or "kprobe".
 */
const char *port0_hooks_backend(void)
{
	return port0_backend->name;
}

/*
 * Store the hooks of @sets that are installed, or are not, in port0_hooks_chosen.
 * Caller holds port0_hook_mutex. Returns how many there are.
 */
static unsigned int port0_hooks_choose_sets(unsigned int sets, bool installed)
{
	unsigned int i, n = 0;

	for (i = 0; i < port0_hooks_count; i++)
		if ((port0_hooks[i].set & sets) && port0_hooks[i].addr &&
		    port0_hooks[i].installed == installed)
			port0_hooks_chosen[n++] = &port0_hooks[i];
	return n;
}

/* The errno with which arming one of @sets failed during the last second, or 0 */
static int port0_hooks_refusal(unsigned int sets)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(port0_hooks_refused); i++)
		if ((sets & BIT(i)) && port0_hooks_refused[i].err &&
		    time_before_eq(jiffies, port0_hooks_refused[i].until))
			return port0_hooks_refused[i].err;
	return 0;
}

static void port0_hooks_refuse(unsigned int sets, int err)
{
	unsigned int i;

	/* Temporary errors: the next try may succeed at once. */
	if (err == -ENOMEM || err == -EAGAIN)
		return;
	for (i = 0; i < ARRAY_SIZE(port0_hooks_refused); i++) {
		if (!(sets & BIT(i)))
			continue;
		port0_hooks_refused[i].err = err;
		port0_hooks_refused[i].until = jiffies + PORT0_REFUSAL_TIME;
	}
}

/**
 * port0_hooks_arm_beside - install sets of hooks if others are installed
 * @beside: sets that must be installed already, PORT0_HOOKS_* or 0
 * @sets: which to install, all or none
 *
 * Context: process, no locks held; may sleep. Takes port0_hook_mutex unless all
 * of them are armed already.
 * Return: 0; -EINVAL if @beside is not installed, or is removed meanwhile; or the errno
 * of the hook that could not be installed; the log has the details. Except for -ENOMEM
 * and -EAGAIN, requests for the set of that hook then fail with the same errno for one
 * second, without another try.
 */
int port0_hooks_arm_beside(unsigned int beside, unsigned int sets)
{
	struct port0_hook *culprit = NULL;
	unsigned int n, all = beside | sets;
	int err = 0;

	/* Pairs with the release below: if the sets read as armed, they are installed. */
	if ((smp_load_acquire(&port0_hooks_armed) & all) == all)
		return 0;

	mutex_lock(&port0_hook_mutex);
	if ((port0_hooks_armed & beside) != beside) {
		err = -EINVAL;
		goto unlock;
	}
	err = port0_hooks_refusal(sets);
	if (err)
		goto unlock;
	n = port0_hooks_choose_sets(sets, false);
	err = port0_backend->install(port0_hooks_chosen, n, &culprit);
	if (err) {
		pr_err_ratelimited("%s: cannot hook %s with %s: errno %d (%s)\n",
				   __func__,
				   culprit ? culprit->func : "all functions together",
				   port0_backend->name, -err,
				   port0_hook_hint(err));
		/* For a second, only requests for the culprit's set fail. */
		port0_hooks_refuse(culprit ? culprit->set : sets, err);
		goto unlock;
	}
	/* Pairs with the acquire above. */
	smp_store_release(&port0_hooks_armed, port0_hooks_armed | sets);
unlock:
	mutex_unlock(&port0_hook_mutex);
	return err;
}

/**
 * port0_hooks_arm - install sets of hooks, all or none
 * @sets: which, PORT0_HOOKS_*
 *
 * Context: as port0_hooks_arm_beside().
 * Return: 0, or the errno of the hook that could not be installed, as there.
 */
int port0_hooks_arm(unsigned int sets)
{
	return port0_hooks_arm_beside(0, sets);
}

/**
 * port0_hooks_are_armed - tell whether sets of hooks are installed
 * @sets: which, PORT0_HOOKS_*
 *
 * Context: any; takes no lock, so the answer may be out of date.
 * Return: true if all are.
 */
bool port0_hooks_are_armed(unsigned int sets)
{
	return (READ_ONCE(port0_hooks_armed) & sets) == sets;
}

/* Caller holds port0_hook_mutex. */
static bool port0_hooks_remove(unsigned int sets)
{
	unsigned int n;

	n = port0_hooks_choose_sets(sets, true);
	port0_backend->remove(port0_hooks_chosen, n);
	return !port0_hooks_choose_sets(sets, true) && !port0_ftrace_is_stuck();
}

/**
 * port0_hooks_trim - remove the hooks of PORT0_HOOKS_LATE if nothing needs them
 *
 * They are needed by sockets that are bound to port 0 and by calls that arm or rely on
 * them (@needs_late of struct port0_hook, and port0_late_begin()). These are counted, see
 * port0_is_used(). A call is counted before it tests whether the hooks are armed. So either
 * it is counted here, or it finds the hooks disarmed: then bind() arms them again, and a
 * send fails.
 *
 * Context: process, no locks held; may sleep. Takes port0_hook_mutex.
 * Return: true if none of them is installed any more.
 */
bool port0_hooks_trim(void)
{
	unsigned int armed;
	bool gone;

	mutex_lock(&port0_hook_mutex);
	armed = port0_hooks_armed;
	WRITE_ONCE(port0_hooks_armed, armed & ~PORT0_HOOKS_LATE);
	/* Pairs with the barriers in port0_enter(), in try_module_get(), and port0_late_begin(). */
	smp_mb();
	gone = !port0_is_used();
	if (gone)
		gone = port0_hooks_remove(PORT0_HOOKS_LATE);
	else	/* Pairs with the load in port0_hooks_arm_beside(). */
		smp_store_release(&port0_hooks_armed, armed);
	mutex_unlock(&port0_hook_mutex);
	return gone;
}

/**
 * port0_hooks_disarm - remove sets of hooks
 * @sets: which; need not be armed
 *
 * Removing only some of the hooks may need memory. If there is none, they stay
 * installed, which costs other sockets time and has no other effect.
 *
 * Context: process, no locks held; may sleep. Takes port0_hook_mutex. Calls that
 * have been redirected before may still be running when it returns.
 * Return: true if all are removed. With PORT0_HOOKS_ALL, false means that ftrace
 * has disabled itself and that the kernel's code still calls the hooks.
 */
bool port0_hooks_disarm(unsigned int sets)
{
	bool gone;

	mutex_lock(&port0_hook_mutex);
	WRITE_ONCE(port0_hooks_armed, port0_hooks_armed & ~sets);
	gone = port0_hooks_remove(sets);
	mutex_unlock(&port0_hook_mutex);
	return gone;
}

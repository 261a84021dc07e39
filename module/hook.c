// SPDX-License-Identifier: GPL-2.0
/*
 * Installing and removing hooks.
 *
 * Two backends do the same work: ftrace, ten to twenty nanoseconds a call, and
 * kprobes, for kernels without the function tracer. No two of our registrations
 * share a function, so that each callback is called straight from its own
 * trampoline.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/delay.h>
#include <linux/jiffies.h>
#include <linux/kernel.h>
#include <linux/mutex.h>
#include <linux/string.h>

#include "compat.h"
#include "hook.h"

/**
 * struct port0_backend - a way to get called when a kernel function is entered
 * @name: as in the module parameter
 * @install: put hooks in place, all or none, and say which one could not be;
 *	process context, may sleep; 0 or an errno
 * @remove: take hooks out; returns when no new call can enter those whose
 *	installed it has cleared, and all are cleared if no hook is left
 */
struct port0_backend {
	const char *name;
	int (*install)(struct port0_hook **hooks, unsigned int n,
		       struct port0_hook **culprit);
	void (*remove)(struct port0_hook **hooks, unsigned int n);
};

/* Guards all below, of port0_hooks_armed the writing, and each @installed. */
static DEFINE_MUTEX(port0_hook_mutex);
static unsigned int port0_hooks_armed;
static struct port0_hook *port0_hooks_chosen[PORT0_HOOKS_MAX];
static struct kprobe *port0_kprobes[PORT0_HOOKS_MAX];
static const struct port0_backend *port0_backend;

/*
 * Sets that somebody else does not let be armed, why, and until when (in jiffies)
 * that is taken for an answer. Anybody may ask, and each try patches the kernel.
 */
#define PORT0_REFUSAL_TIME	HZ
static unsigned int port0_hooks_refused;
static int port0_hooks_refused_err;
static unsigned long port0_hooks_refused_until;

#ifdef PORT0_HAVE_FTRACE

static unsigned long port0_ftrace_ips[PORT0_HOOKS_MAX];

/* Which of these hooks share @gate, into port0_ftrace_ips. */
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

/* How often, and after how long (in ms), a BPF trampoline is asked again. */
#define PORT0_FTRACE_TRIES	20
#define PORT0_FTRACE_PAUSE	5

static int port0_ftrace_register(struct ftrace_ops *ops,
				 const struct port0_gate *gate,
				 unsigned long *ips, unsigned int n)
{
	int tries = PORT0_FTRACE_TRIES;
	int err;

	/*
	 * PERMANENT: kernel.ftrace_enabled=0 is refused while we are there,
	 * instead of silently leaving sockets on port 0 without their hooks.
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
	if (!err)
		err = register_ftrace_function(ops);
	/* A BPF program on the function is being changed at this moment. */
	while (err == -EAGAIN && tries-- > 0) {
		msleep(PORT0_FTRACE_PAUSE);
		err = register_ftrace_function(ops);
	}
	if (err)
		port0_ftrace_free_filter(ops);
	return err;
}

/*
 * Fails only after ftrace has found itself broken and switched itself off. The
 * kernel's text still calls us then.
 */
static int port0_ftrace_unregister(struct ftrace_ops *ops)
{
	int err = unregister_ftrace_function(ops);

	if (err)
		pr_err("%s: ftrace does not let go of a hook: errno %d (ftrace has switched itself off; see the warning before this)\n",
		       __func__, -err);
	else
		port0_ftrace_free_filter(ops);
	return err;
}

/* A registration fails as a whole; each function by itself shows which it is. */
static struct port0_hook *port0_ftrace_culprit(struct port0_hook **hooks,
					       unsigned int n)
{
	static struct ftrace_ops trial;
	unsigned int i;

	/* Still in use: see port0_ftrace_unregister(). */
	if (trial.func)
		return NULL;

	for (i = 0; i < n; i++) {
		if (hooks[i]->installed)
			continue;
		if (port0_ftrace_register(&trial, hooks[i]->gate,
					  &hooks[i]->addr, 1))
			break;
		if (port0_ftrace_unregister(&trial))
			return NULL;
	}
	trial.func = NULL;
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
		/* An ops without any function left would mean every function. */
		if (found == gate->installed) {
			if (port0_ftrace_unregister(&gate->ops))
				continue;
		} else if (ftrace_set_filter_ips(&gate->ops, port0_ftrace_ips,
						 found, 1, 0)) {
			/* No memory: they stay, for the next to arm the set. */
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
		 * Not if it redirects: only registering tells a direct call that
		 * is there already, a BPF program's, to make room for that.
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

#endif /* PORT0_HAVE_FTRACE */

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

	/* Registering may hide that arming failed; enabling says so. */
	err = enable_kprobe(kp);
	if (!err && kprobe_disabled(kp))
		err = -EBUSY;
	if (err)
		unregister_kprobe(kp);
	return err;
}

/*
 * Where kprobes sit on ftrace, the kernel wants memory to disarm one. If it has
 * none, the probe stays in its tables, where it must not outlive us, and has no
 * address any more, which is all that tells. The kernel's count of such probes has
 * gone down all the same, which arming it once more puts right.
 */
static void port0_kprobe_insist(struct port0_hook *hook)
{
	struct kprobe *kp = &hook->kp;

	while (!kp->addr) {
		pr_warn_ratelimited("%s: the kernel cannot take the kprobe off %s; trying again\n",
				    __func__, hook->func);
		msleep(20);
		kp->addr = (kprobe_opcode_t *)hook->addr;
		kp->flags |= KPROBE_FLAG_DISABLED;
		if (enable_kprobe(kp))
			pr_debug("%s: %s is not armed again\n", __func__,
				 hook->func);
		unregister_kprobe(kp);
	}
}

/* Together, so that they cost one grace period and not one each. */
static void port0_kprobe_remove(struct port0_hook **hooks, unsigned int n)
{
	unsigned int i, found = 0;

	for (i = 0; i < n; i++) {
		if (!hooks[i]->installed)
			continue;
		if (hooks[i]->kp.nmissed)
			pr_warn("%s: %lu calls of %s went past the kprobe\n",
				__func__, hooks[i]->kp.nmissed, hooks[i]->func);
		hooks[i]->installed = false;
		port0_kprobes[found++] = &hooks[i]->kp;
	}
	unregister_kprobes(port0_kprobes, found);
	for (i = 0; i < found; i++)
		port0_kprobe_insist(container_of(port0_kprobes[i],
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
		return "a BPF program is on it that leaves no room for this";
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
		pr_err("%s: hook=%s is none of ftrace, kprobe, auto\n",
		       __func__, name);
		return -EINVAL;
	}
	if (!port0_backend) {
		pr_err("%s: this kernel's function tracer redirects no calls; load with hook=kprobe or hook=auto\n",
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
 * Context: after port0_hooks_choose().
 * Return: "ftrace" or "kprobe".
 */
const char *port0_hooks_backend(void)
{
	return port0_backend->name;
}

static unsigned int port0_hooks_choose_sets(unsigned int sets, bool installed)
{
	unsigned int i, n = 0;

	for (i = 0; i < port0_hooks_count; i++)
		if ((port0_hooks[i].set & sets) && port0_hooks[i].addr &&
		    port0_hooks[i].installed == installed)
			port0_hooks_chosen[n++] = &port0_hooks[i];
	return n;
}

/* What the last try to arm one of these sets said, if that was just now. */
static int port0_hooks_refusal(unsigned int sets)
{
	if (!(port0_hooks_refused & sets) ||
	    time_after(jiffies, port0_hooks_refused_until))
		return 0;
	return port0_hooks_refused_err;
}

static void port0_hooks_refuse(unsigned int sets, int err)
{
	/* What may be otherwise in the next moment is no answer to keep. */
	if (err == -ENOMEM || err == -EAGAIN)
		return;
	port0_hooks_refused = sets;
	port0_hooks_refused_err = err;
	port0_hooks_refused_until = jiffies + PORT0_REFUSAL_TIME;
}

/**
 * port0_hooks_arm - put sets of hooks in place, all or none
 * @sets: which, PORT0_HOOKS_*
 *
 * Context: process, no locks held; may sleep. Once they are in place this costs
 * one load.
 * Return: 0 or the errno of the hook that could not be installed; what went
 * wrong is in the log. But for a shortage of memory, that is the answer for the
 * next second as well.
 */
int port0_hooks_arm(unsigned int sets)
{
	struct port0_hook *culprit = NULL;
	unsigned int n;
	int err = 0;

	/* Pairs with the release below: who sees it armed finds it in place. */
	if ((smp_load_acquire(&port0_hooks_armed) & sets) == sets)
		return 0;

	mutex_lock(&port0_hook_mutex);
	err = port0_hooks_refusal(sets);
	if (err)
		goto unlock;
	n = port0_hooks_choose_sets(sets, false);
	err = port0_backend->install(port0_hooks_chosen, n, &culprit);
	if (err) {
		pr_err_ratelimited("%s: cannot hook %s with %s: errno %d (%s)\n",
				   __func__,
				   culprit ? culprit->func : "all together",
				   port0_backend->name, -err,
				   port0_hook_hint(err));
		/* Who needs other sets alone is not concerned. */
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
 * port0_hooks_are_armed - tell whether sets of hooks are in place
 * @sets: which, PORT0_HOOKS_*
 *
 * Context: any.
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
	return !port0_hooks_choose_sets(sets, true);
}

/**
 * port0_hooks_trim - take out the hooks on first need, if nobody needs them
 *
 * Whoever needs them holds a reference on the module: a socket that is bound to
 * port 0, and each call that a hook has redirected. Such a call asks for the hooks
 * that it needs after it has taken its reference, so it either finds them gone and
 * has them armed anew, or it is counted here.
 *
 * Context: process, no locks held; may sleep.
 * Return: true if none is left.
 */
bool port0_hooks_trim(void)
{
	unsigned int armed;
	bool gone;

	mutex_lock(&port0_hook_mutex);
	armed = port0_hooks_armed;
	WRITE_ONCE(port0_hooks_armed, armed & ~PORT0_HOOKS_LATE);
	/* Pairs with the barrier in try_module_get() in port0_enter(). */
	smp_mb();
	gone = !module_refcount(THIS_MODULE);
	if (gone)
		gone = port0_hooks_remove(PORT0_HOOKS_LATE);
	else	/* Pairs with the load in port0_hooks_arm(). */
		smp_store_release(&port0_hooks_armed, armed);
	mutex_unlock(&port0_hook_mutex);
	return gone;
}

/**
 * port0_hooks_disarm - take sets of hooks out
 * @sets: which; need not be in place
 *
 * Where only some hooks go, and there is no memory to do it, they stay; that costs
 * others time and nothing else.
 *
 * Context: process, no locks held; may sleep. Calls that the hooks redirected
 * before may still be under way when it returns.
 * Return: true if all are out. With PORT0_HOOKS_ALL, false means that ftrace has
 * switched itself off and goes on calling us.
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

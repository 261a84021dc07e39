/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Hooks on kernel functions, and the two backends that install them.
 */
#ifndef _PORT0_HOOK_H
#define _PORT0_HOOK_H

#include <linux/bits.h>
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/percpu.h>
#include <linux/sched.h>
#include <linux/types.h>

#include "compat.h"

/*
 * Sets of hooks that are armed and disarmed together, as bits:
 *
 * BIND	bind(), listen(), connect(), and the options that must not change on a
 *	bound socket; armed from load to unload
 * NAME	getpeername(), SO_PEERNAME, and accept() with an address; armed from load to
 *	unload, unless the parameter getname=0 is given
 * HELD	where a socket gives its port back; armed by the first bind() of a marked
 *	socket, since every close() in the system passes there
 * SEND	sendmsg() on UDP sockets, and the cgroup program that may change its
 *	address; armed by the first marked UDP socket, since every datagram in the
 *	system passes there
 * ROUTE the route lookup, and ip_append_data(); armed by the first datagram to port 0,
 *	since every connection in the system passes there
 */
#define PORT0_HOOKS_BIND	BIT(0)
#define PORT0_HOOKS_NAME	BIT(1)
#define PORT0_HOOKS_HELD	BIT(2)
#define PORT0_HOOKS_SEND	BIT(3)
#define PORT0_HOOKS_ROUTE	BIT(4)
#define PORT0_HOOKS_LATE						\
	(PORT0_HOOKS_HELD | PORT0_HOOKS_SEND | PORT0_HOOKS_ROUTE)
#define PORT0_HOOKS_ALL							\
	(PORT0_HOOKS_BIND | PORT0_HOOKS_NAME | PORT0_HOOKS_LATE)

/* At least as many as port0_hooks[] has, which table.c checks */
#define PORT0_HOOKS_MAX		32

/**
 * struct port0_args - the first arguments of a kernel function
 * @arg: the values of the argument registers
 */
struct port0_args {
	unsigned long arg[4];
};

/**
 * enum port0_verdict - what a hook does with a call to the kernel's function
 * @PORT0_PASS: the kernel's function runs
 * @PORT0_ENTER: @enter of the hook runs instead, and may sleep; but the kernel's
 *	function runs while the module is being loaded or unloaded
 * @PORT0_ANSWER: @answer of the hook runs instead
 * @PORT0_ENTER_OR_ANSWER: as PORT0_ENTER, but @answer of the hook runs while the
 *	module is being loaded or unloaded
 */
enum port0_verdict {
	PORT0_PASS,
	PORT0_ENTER,
	PORT0_ANSWER,
	PORT0_ENTER_OR_ANSWER,
};

/**
 * struct port0_gate - a quick test of the arguments, shared by several hooks
 * @redirects: its hooks may redirect calls; if false, they only look at them
 * @handler: called by a kprobe when one of its functions is entered
 * @hooks: the first of its hooks, which are linked by their @next
 * @installed: how many of them are installed; guarded by port0_hook_mutex
 * @callback: the same for ftrace
 * @ops: used by the ftrace backend
 *
 * Nearly all calls in the system are made on sockets that the module has nothing to
 * do with. For these, the gate lets the kernel's function run at once, before it is
 * known which function was called. So hooks can share a gate. With ftrace, one gate is
 * one registration: each costs grace periods when it ends, and code patching.
 */
struct port0_gate {
	bool redirects;
	kprobe_pre_handler_t handler;
	struct port0_hook *hooks;
	unsigned int installed;
#ifdef PORT0_HAVE_FTRACE
	ftrace_func_t callback;
	struct ftrace_ops ops;
#endif
};

/**
 * struct port0_hook - one kernel function and what is done when it is entered
 * @func: its name
 * @set: the set that the hook belongs to, PORT0_HOOKS_*
 * @gate: the test that a call must pass before @on is called
 * @next: the next hook of the gate
 * @on: decides what is done with a call; must not sleep
 * @enter: runs in place of the function, with a reference on the module, which it
 *	drops as its last action
 * @answer: runs in place of the function without a reference; must not sleep
 * @needs_late: hooks of PORT0_HOOKS_LATE stay while @enter runs
 * @optional: the module works without it, where the compiler has inlined the
 *	function
 * @addr: address of the function, found at load; 0 if it is optional and not there
 * @installed: it is in place; guarded by port0_hook_mutex
 * @kp: used by the kprobe backend, and to find @addr
 */
struct port0_hook {
	const char *func;
	unsigned int set;
	struct port0_gate *gate;
	struct port0_hook *next;
	enum port0_verdict (*on)(const struct port0_args *args);
	void *enter;
	void *answer;
	bool needs_late;
	bool optional;
	unsigned long addr;
	bool installed;
	struct kprobe kp;
};

/* table.c: all hooks, and how many there are; only hook.c changes them */
extern struct port0_hook port0_hooks[];
extern const unsigned int port0_hooks_count;

int port0_hooks_choose(const char *backend);
const char *port0_hooks_backend(void);
int port0_hooks_arm(unsigned int sets);
int port0_hooks_arm_beside(unsigned int beside, unsigned int sets);
bool port0_hooks_are_armed(unsigned int sets);
bool port0_hooks_trim(void);
bool port0_hooks_disarm(unsigned int sets);

/* main.c */
bool port0_is_used(void);

/* The task that loads the module. Until it is done, only its calls are redirected. */
extern struct task_struct *port0_loader;

/**
 * struct port0_uses - sockets and calls that have needed hooks of PORT0_HOOKS_LATE
 * @begun: began on this CPU
 * @ended: ended on this CPU
 *
 * For each of them, something keeps the module loaded, mostly a reference. The kernel's
 * count of references does not tell whether there are any: it includes calls that need none
 * of these hooks, and a rmmod that fails has decremented it for a moment.
 */
struct port0_uses {
	unsigned long begun, ended;
};

DECLARE_PER_CPU(struct port0_uses, port0_uses);

/**
 * port0_enter - take a reference on the module for a call to be redirected, or for one
 * that sets or clears a mark
 * @needs_late: hooks of PORT0_HOOKS_LATE stay until the call ends
 *
 * Sockets may have a mark from an earlier load, so hooks may be called while loading
 * can still fail. Such calls are not redirected.
 *
 * Context: any; does not sleep.
 * Return: true if the call may be redirected; port0_leave() drops the reference. False
 * while the module is being loaded (by another task) or unloaded.
 */
static inline bool port0_enter(bool needs_late)
{
	const struct task_struct *loader = READ_ONCE(port0_loader);

	if (unlikely(loader) && loader != current)
		return false;
	/* Counted before the barrier in try_module_get(), see port0_hooks_trim(). */
	if (needs_late)
		this_cpu_inc(port0_uses.begun);
	if (try_module_get(THIS_MODULE))
		return true;
	if (needs_late)
		this_cpu_inc(port0_uses.ended);
	return false;
}

/**
 * port0_use - take another reference on the module, for a socket, which needs the hooks of
 * PORT0_HOOKS_LATE
 *
 * Context: any, in a call that holds a reference by port0_enter(true); does not sleep.
 */
static inline void port0_use(void)
{
	this_cpu_inc(port0_uses.begun);
	__module_get(THIS_MODULE);
}

/**
 * port0_leave - drop a reference that port0_enter() or port0_use() has taken
 * @needs_late: as port0_enter() got it; true for port0_use()
 *
 * Context: any; does not sleep. The module may be unloaded as soon as the caller
 * sleeps.
 */
static inline void port0_leave(bool needs_late)
{
	if (needs_late)
		this_cpu_inc(port0_uses.ended);
	module_put(THIS_MODULE);
}

#endif /* _PORT0_HOOK_H */

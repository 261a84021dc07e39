/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Hooks on kernel functions, and the two backends that install them.
 */
#ifndef _PORT0_HOOK_H
#define _PORT0_HOOK_H

#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/types.h>

/**
 * enum port0_hook_set - hooks that come and go together
 * @PORT0_HOOKS_BIND: bind(), listen() and connect(); from load to unload
 * @PORT0_HOOKS_NAME: the getpeername() repair; from load to unload, if wanted
 * @PORT0_HOOKS_HELD: what becomes of a socket on port 0, above all where it
 *	gives the port back; from the first bind() of a marked socket, since every
 *	close() in the system passes there
 * @PORT0_HOOKS_SEND: where sendto() is told to go to port 0; from the first
 *	marked UDP socket, since every datagram in the system passes there
 * @PORT0_HOOKS_ROUTE: what such a datagram then passes; from the first one,
 *	since every connection in the system passes there too
 * @PORT0_HOOK_SETS: how many there are
 */
enum port0_hook_set {
	PORT0_HOOKS_BIND,
	PORT0_HOOKS_NAME,
	PORT0_HOOKS_HELD,
	PORT0_HOOKS_SEND,
	PORT0_HOOKS_ROUTE,
	PORT0_HOOK_SETS,
};

/**
 * struct port0_hook - one kernel function and what we do when it is entered
 * @func: its name
 * @set: the set it belongs to
 * @redirects: it may send the call elsewhere (else it only looks on)
 * @callback: its entry by ftrace
 * @handler: its entry by kprobe
 * @addr: where the function is, found at load
 * @installed: it is in place; under port0_hook_mutex
 * @ops: the ftrace backend's own
 * @kp: the kprobe backend's own
 */
struct port0_hook {
	const char *func;
	enum port0_hook_set set;
	bool redirects;
	ftrace_func_t callback;
	kprobe_pre_handler_t handler;
	unsigned long addr;
	bool installed;
#ifdef CONFIG_FUNCTION_TRACER
	struct ftrace_ops ops;
#endif
	struct kprobe kp;
};

/* table.c */
extern struct port0_hook port0_hooks[];
extern const unsigned int port0_hooks_count;

int port0_hooks_choose(const char *backend);
const char *port0_hooks_backend(void);
int port0_hooks_arm(enum port0_hook_set set);
void port0_hooks_disarm(enum port0_hook_set set);

/* main.c */
bool port0_enter(void);

#endif /* _PORT0_HOOK_H */

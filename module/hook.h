/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Hooks on kernel functions, and the two backends that install them.
 */
#ifndef _PORT0_HOOK_H
#define _PORT0_HOOK_H

#include <linux/bits.h>
#include <linux/ftrace.h>
#include <linux/kprobes.h>
#include <linux/types.h>

#include "compat.h"

/*
 * Sets of hooks that come and go together, as bits:
 *
 * BIND	bind(), listen() and connect(), and options that would undo a bind(); from
 *	load to unload
 * NAME	the getpeername() repair; from load to unload, if wanted
 * HELD	what becomes of a socket on port 0, above all where it gives the port
 *	back; from the first bind() of a marked socket, since every close() in the
 *	system passes there
 * SEND	where sendto() is told to go to port 0, by the caller or by a program;
 *	from the first marked UDP socket, since every datagram in the system passes
 *	there
 * ROUTE what such a datagram then passes; from the first one, since every
 *	connection in the system passes there too
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

/* More than the table has. */
#define PORT0_HOOKS_MAX		32

/**
 * struct port0_args - the first arguments of a kernel function
 * @arg: as in its registers
 */
struct port0_args {
	unsigned long arg[4];
};

/**
 * enum port0_verdict - what is to become of a call to a hooked function
 * @PORT0_PASS: it goes on
 * @PORT0_ENTER: it goes to the replacement, which may sleep; if the module is being
 *	loaded or unloaded it goes on
 * @PORT0_ANSWER: it is answered at once
 * @PORT0_ENTER_OR_ANSWER: as PORT0_ENTER, but answered at once instead of going on
 */
enum port0_verdict {
	PORT0_PASS,
	PORT0_ENTER,
	PORT0_ANSWER,
	PORT0_ENTER_OR_ANSWER,
};

/**
 * struct port0_gate - the first question to a call, and the hooks that ask it
 * @redirects: its hooks may send calls elsewhere (else they only look on)
 * @handler: its entry by kprobe
 * @hooks: the first of them
 * @installed: how many are in place; under port0_hook_mutex
 * @callback: its entry by ftrace
 * @ops: the ftrace backend's own
 *
 * Nearly every call in the system is that of a socket without a mark. A gate
 * turns it away before it is even asked which function was called, so hooks can
 * share a gate, and a gate is what is registered with ftrace: each registration
 * costs grace periods when it ends, and patching each time.
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
 * struct port0_hook - one kernel function and what we do when it is entered
 * @func: its name
 * @set: the set it belongs to
 * @gate: what a call must pass first
 * @next: the next hook of the gate
 * @on: what is to become of a call
 * @enter: stands in for the function; runs with a reference on the module, which
 *	its last act is to put
 * @answer: stands in for the function, without a reference: must not sleep
 * @optional: do without it where the compiler has inlined the function
 * @addr: where the function is, found at load; 0 if it is optional and not there
 * @installed: it is in place; under port0_hook_mutex
 * @kp: the kprobe backend's own
 */
struct port0_hook {
	const char *func;
	unsigned int set;
	struct port0_gate *gate;
	struct port0_hook *next;
	enum port0_verdict (*on)(const struct port0_args *args);
	void *enter;
	void *answer;
	bool optional;
	unsigned long addr;
	bool installed;
	struct kprobe kp;
};

/* table.c: every hook, and how many; what is in them belongs to hook.c */
extern struct port0_hook port0_hooks[];
extern const unsigned int port0_hooks_count;

int port0_hooks_choose(const char *backend);
const char *port0_hooks_backend(void);
int port0_hooks_arm(unsigned int sets);
bool port0_hooks_are_armed(unsigned int sets);
bool port0_hooks_trim(void);
bool port0_hooks_disarm(unsigned int sets);

/* main.c */
bool port0_enter(void);

#endif /* _PORT0_HOOK_H */

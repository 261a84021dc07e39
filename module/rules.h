/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Rules of bind() in which kernels differ.
 *
 * Bug fixes have changed which TCP sockets conflict with each other, and no header
 * shows which fixes a kernel has. So a few sockets are bound to ordinary ports when
 * the module is loaded, and the result shows the rules of the running kernel. If an
 * address cannot be bound alone either, another program's socket is in the way, and the
 * question is asked again on another port.
 */
#ifndef _PORT0_RULES_H
#define _PORT0_RULES_H

#include <linux/types.h>

/**
 * struct port0_rules - how the running kernel binds; all false if it has the fixes
 * @mapped_walks: for a v4-mapped address, bind() compares with all sockets of the
 *	port and does not use the second-level table
 * @v6only_blocks_mapped: in the second-level table, a v6-only wildcard conflicts with
 *	a v4-mapped address
 * @first_any_only: if several wildcards are bound to the port, only the first one
 *	found is tested for a conflict
 * @any4_spares_mapped: in the second-level table, 0.0.0.0 does not conflict with a
 *	v4-mapped address
 * @any6_spares4: in the second-level table, [::] does not conflict with an IPv4 address
 * @mapped_any_spares4: in the second-level table, the v4-mapped wildcard does not
 *	conflict with an IPv4 address
 * @mapped_apart: in the second-level table, a v4-mapped address does not conflict with
 *	the same IPv4 address: each has a bucket of its own
 *
 * Written in module init only.
 */
struct port0_rules {
	bool mapped_walks;
	bool v6only_blocks_mapped;
	bool first_any_only;
	bool any4_spares_mapped;
	bool any6_spares4;
	bool mapped_any_spares4;
	bool mapped_apart;
};

extern struct port0_rules port0_rules;

int port0_rules_learn(void);

#endif /* _PORT0_RULES_H */

/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Rules of bind() in which kernels differ, and this one's.
 *
 * Fixes have changed when a TCP socket at an address conflicts with one that is
 * there, and no header shows which of them a kernel has. So it is asked: at load
 * a few sockets are bound to an ordinary port, and what the kernel lets pass tells
 * its rule. Only what it lets pass tells, since what it refuses may be another
 * socket's doing.
 */
#ifndef _PORT0_RULES_H
#define _PORT0_RULES_H

#include <linux/types.h>

/**
 * struct port0_rules - what this kernel does; all false on a fixed one
 * @mapped_walks: a v4-mapped address is looked for among all sockets of the port,
 *	and not in the second-level table
 * @v6only_blocks_mapped: a v6-only wildcard conflicts with a v4-mapped address in
 *	the second-level table
 * @first_any_only: of several wildcards on the port the first that is found decides
 * @any4_spares_mapped: 0.0.0.0 is no wildcard to a v4-mapped address in the
 *	second-level table
 */
struct port0_rules {
	bool mapped_walks;
	bool v6only_blocks_mapped;
	bool first_any_only;
	bool any4_spares_mapped;
};

extern struct port0_rules port0_rules;

int port0_rules_learn(void);

#endif /* _PORT0_RULES_H */

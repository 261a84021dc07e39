/* SPDX-License-Identifier: GPL-2.0 */
/* Tells whether a program loads preloaded libraries. */
#ifndef PORT0_PROGRAM_H
#define PORT0_PROGRAM_H

#include <stdbool.h>

/**
 * struct program - what is known of a program that is about to be run
 * @obstacle: why it would not load our library, as "is statically linked, ..."; or NULL
 * @advice: what to do about it
 * @other_libc: it has another C library, and may not start with ours in LD_PRELOAD
 * @interpreter: the program that runs it, if it is a script; else empty
 */
struct program {
	const char *obstacle;
	const char *advice;
	bool other_libc;
	char interpreter[256];
};

void program_inspect(int fd, struct program *program);

#endif /* PORT0_PROGRAM_H */

// SPDX-License-Identifier: GPL-2.0
/*
 * Compares the two sides. If they differ on a sequence, shrinks it to the few steps
 * that are needed.
 */
#include "sequence.h"

/* Timers and interrupts may change a transcript once, but not every time. */
#define PLAYS		3

/* Compare two lines; see own_zero() for "0?". */
bool same_line(const char *left, const char *right)
{
	while (*left && *right) {
		if (!strncmp(right, "0?", 2) && (*left == '0' || !strncmp(left, "PORT", 4))) {
			left += *left == '0' ? 1 : 4;
			right += 2;
		} else if (*left++ != *right++) {
			return false;
		}
	}
	return *left == *right;
}

bool differs(struct arena *left, struct arena *right, const struct sequence *sequence)
{
	unsigned int i;

	play_sequence(left, sequence);
	play_sequence(right, sequence);
	for (i = 0; i < sequence->steps; i++)
		if (!same_line(left->lines.line[i], right->lines.line[i]))
			return true;
	return false;
}

bool differs_again(struct arena *left, struct arena *right, const struct sequence *sequence)
{
	unsigned int i;

	for (i = 1; i < PLAYS; i++)
		if (differs(left, right, sequence))
			return true;
	return false;
}

/*
 * Removes as many steps as possible: first half of them at a time, at last single
 * steps.
 */
void shrink(struct arena *left, struct arena *right, struct sequence *sequence)
{
	unsigned int size, at;
	bool smaller;

	do {
		smaller = false;
		for (size = sequence->steps / 2 + 1; size; size /= 2)
			for (at = 0; at + size <= sequence->steps; ) {
				struct sequence trial = *sequence;

				trial.steps -= size;
				memmove(&trial.step[at], &trial.step[at + size],
					(trial.steps - at) * sizeof(trial.step[0]));
				if (differs(left, right, &trial) &&
				    differs_again(left, right, &trial)) {
					*sequence = trial;
					smaller = true;
				} else {
					at += size;
				}
			}
	} while (smaller);
}

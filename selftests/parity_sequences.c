// SPDX-License-Identifier: GPL-2.0
/*
 * parity_sequences: random sequences of socket calls
 *
 * Each sequence is played on an ordinary port in one network namespace and on
 * port 0 in another, and the two transcripts are compared line by line. A sequence that
 * differs is shrunk to the few calls that are needed, and printed as C-like calls; its
 * seed reproduces it.
 */
#include <getopt.h>

#include "sequence.h"

#define GROUP		100	/* sequences per test result */
#define SHOWN		5	/* differences that are shrunk and printed */

static struct arena left, right;
static unsigned int differences, unstable;

static void show_usage(const char *name)
{
	printf("usage: %s [--control] [--seed N] [--count N] [--steps N] [--show]\n"
	       "Plays --count random sequences of --steps socket calls, from seed --seed on,\n"
	       "on an ordinary port and on port 0, and compares the transcripts.\n"
	       "  --control  compare two ordinary ports; needs no module\n"
	       "  --show     print every transcript\n", name);
}

static unsigned long to_number(const char *text)
{
	char *end;
	unsigned long value = strtoul(text, &end, 0);

	if (*end || end == text)
		ksft_exit_fail_msg("'%s' is not a number\n", text);
	return value;
}

static void try_seed(unsigned long seed, unsigned long steps, bool show)
{
	static struct sequence sequence;

	make_sequence(&sequence, seed, steps);
	if (differs(&left, &right, &sequence)) {
		if (differs_again(&left, &right, &sequence)) {
			differences++;
			if (differences <= SHOWN) {
				shrink(&left, &right, &sequence);
				differs(&left, &right, &sequence);
				printf("# seed %lu differs:\n", seed);
				show_sequence(&sequence, &left, &right);
			} else {
				printf("# seed %lu differs\n", seed);
			}
			return;
		}
		unstable++;
		printf("# seed %lu differed only once\n", seed);
	}
	if (show) {
		printf("# seed %lu\n", seed);
		show_sequence(&sequence, &left, &right);
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "control", no_argument, NULL, 'C' },
		{ "seed", required_argument, NULL, 's' },
		{ "count", required_argument, NULL, 'c' },
		{ "steps", required_argument, NULL, 'l' },
		{ "show", no_argument, NULL, 'v' },
		{ "help", no_argument, NULL, 'h' },
		{},
	};
	const struct tally *tally = &right.tally;
	unsigned long seed = 1, count = 3000, steps = 30, group, i;
	bool control = false, show = false;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		switch (c) {
		case 'C':
			control = true;
			break;
		case 's':
			seed = to_number(optarg);
			break;
		case 'c':
			count = to_number(optarg);
			break;
		case 'l':
			steps = to_number(optarg);
			break;
		case 'v':
			show = true;
			break;
		default:
			show_usage(argv[0]);
			return c == 'h' ? KSFT_PASS : KSFT_FAIL;
		}
	}
	if (!count || !steps || steps > MAX_STEPS - EPILOGUE)
		ksft_exit_fail_msg("at least one sequence of at most %d steps\n",
				   MAX_STEPS - EPILOGUE);

	ksft_print_header();
	ksft_set_plan((count + GROUP - 1) / GROUP + 1);
	must(pin_to_this_cpu(), "sched_setaffinity");
	sides_choose(&left.side, &right.side, control);
	arena_open(&left);
	arena_open(&right);
	for (group = 0; group < count; group += GROUP) {
		unsigned int before = differences;

		for (i = group; i < group + GROUP && i < count; i++)
			try_seed(seed + i, steps, show);
		ksft_test_result(differences == before, "seeds %lu to %lu\n", seed + group,
				 seed + i - 1);
	}
	ksft_print_msg("%s: %lu calls, %lu on a socket that held the port\n", right.side.name,
		       tally->calls, tally->held);
	ksft_print_msg("%lu listens, %lu connects, %lu accepts, %lu sends, %lu bytes received\n",
		       tally->listens, tally->connects, tally->accepts,
		       tally->sends, tally->bytes);
	ksft_print_msg("%u sequences differed, %u only once, %u namespaces used\n",
		       differences, unstable, left.renewals + right.renewals + 2);
	for (i = 0; i < KNOWN_ROWS; i++)
		if (left_out[i])
			ksft_print_msg("left out %u calls: %s\n", left_out[i],
				       known_difference[i]);
	/* Sequences in which nothing works would be equal as well. */
	ksft_test_result(tally->held && tally->listens && tally->connects &&
			 tally->accepts && tally->sends && tally->bytes &&
			 unstable <= count / 100,
			 "the sequences did something, and the same each time\n");
	ksft_finished();
}

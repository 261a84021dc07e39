// SPDX-License-Identifier: GPL-2.0
/*
 * Finds the hop that drops the packet: repeats the question with an increasing
 * hop limit.
 */
#include <string.h>

#include "port0-probe.h"

#define WAIT	2000	/* ms per hop: time for two questions */
#define PATIENCE 3	/* consecutive silent hops after which the trace ends */

/*
 * @port is the source port of the test that is traced: where there are several ways,
 * routers choose one by addresses and ports. Stops at an answer or a refusal, or after
 * PATIENCE silent hops. If @arrives, an answer has come before, so it does not stop at
 * silence. @control is the trace of the control port, or NULL if this is that one. No hops
 * beyond the end of the control's trace are tried, and hops that were silent there are not
 * counted as silent.
 */
void trace_route(const struct test *test, int port, const struct trace *control, bool arrives,
		 int most, struct trace *trace)
{
	struct test same = *test;
	int silent = 0;

	same.port = port;
	memset(trace, 0, sizeof(*trace));
	trace->done = true;
	if (control && control->end && control->end < most)
		most = control->end;
	for (int hop = 1; hop <= most && (arrives || silent < PATIENCE); hop++) {
		struct result result;

		ask(&same, hop, WAIT, &result);
		trace->count = hop;
		if (is_expired(&result)) {
			trace->hops[hop - 1] = result.by;
			trace->last = hop;
			silent = 0;
		} else if (result.verdict == UNTRIED || result.verdict == STOPPED) {
			return;
		} else if (result.verdict != SILENT) {
			trace->end = hop;
			trace->verdict = result.verdict;
			return;
		} else if (!control || !control->end || control->hops[hop - 1].sa.sa_family) {
			silent++;
		}
	}
}

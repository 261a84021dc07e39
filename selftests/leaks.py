#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What the kernel's own detectors have to say when all other tests have run.

Needs CONFIG_DEBUG_KMEMLEAK and CONFIG_PROVE_LOCKING.
"""

import os
import re
import time

from port0_test import Skip, equal, main, test

KMEMLEAK = "/sys/kernel/debug/kmemleak"
LOCKDEP = "/proc/lockdep_stats"

# The youngest objects are not looked at.
MIN_AGE = 5
SCANS = 2

# What faults.c calls a process that is on an ordinary port.
CONTROL = "control"


class Leak:
    """One object in kmemleak's report."""

    def __init__(self, report):
        self.report = report
        self.trace = tuple(re.findall(r"(\S+)\+0x[0-9a-f]+/", report))
        self.control = re.search(r'comm "(.*?)", pid', report)[1] == CONTROL


def unexpected(leaks):
    """All but the kernel's own: those also leak where a test is on an ordinary port."""
    own = {leak.trace for leak in leaks if leak.control}
    for trace in own:
        print(f"# the kernel's own: {' < '.join(trace)}")
    return [leak for leak in leaks if leak.trace not in own]


@test()
def kmemleak_finds_nothing():
    if not os.path.exists(KMEMLEAK):
        raise Skip("this kernel has no kmemleak")
    for _ in range(SCANS):
        time.sleep(MIN_AGE + 1)
        with open(KMEMLEAK, "w", encoding="ascii") as file:
            file.write("scan")
    with open(KMEMLEAK, encoding="ascii", errors="replace") as file:
        leaks = [Leak(report) for report in re.split("(?m)^(?=unreferenced object)", file.read())
                 if report]
    ours = unexpected(leaks)
    for line in "".join(leak.report for leak in ours).splitlines()[:100]:
        print(f"# {line}")
    print(f"# {SCANS} scans, {len(leaks)} objects that nothing refers to")
    equal(0, len(ours), "leaks")


@test()
def lockdep_is_still_watching():
    """It stops at the first fault it finds, and when its tables are full."""
    if not os.path.exists(LOCKDEP):
        raise Skip("this kernel has no lockdep")
    with open(LOCKDEP, encoding="ascii") as file:
        stats = file.read()
    print(f"# {re.search(r'lock-classes:.*', stats)[0]}")
    equal("1", re.search(r"debug_locks:\s*(\d)", stats)[1], "debug_locks")


if __name__ == "__main__":
    main()

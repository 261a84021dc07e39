#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""What kmemleak and lockdep report after all other tests.

Needs CONFIG_DEBUG_KMEMLEAK and CONFIG_PROVE_LOCKING.
"""

import os
import re
import time

from port0_test import Skip, equal, main, read, test, write

KMEMLEAK = "/sys/kernel/debug/kmemleak"
LOCKDEP = "/proc/lockdep_stats"

# kmemleak skips objects younger than this, in seconds.
MIN_AGE = 5
SCANS = 2


@test()
def kmemleak_finds_nothing():
    if not os.path.exists(KMEMLEAK):
        raise Skip("this kernel has no kmemleak")
    for _ in range(SCANS):
        time.sleep(MIN_AGE + 1)
        write(KMEMLEAK, "scan")
    found = read(KMEMLEAK)
    for line in found.splitlines()[:100]:
        print(f"# {line}")
    print(f"# {SCANS} scans")
    equal(0, found.count("unreferenced object"), "leaks")


@test()
def lockdep_is_still_watching():
    """lockdep switches itself off after the first report, and when its tables are full."""
    if not os.path.exists(LOCKDEP):
        raise Skip("this kernel has no lockdep")
    stats = read(LOCKDEP)
    print(f"# {re.search(r'lock-classes:.*', stats)[0]}")
    equal("1", re.search(r"debug_locks:\s*(\d)", stats)[1], "debug_locks")


if __name__ == "__main__":
    main()

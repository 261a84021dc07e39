#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A load that fails since a livepatch is on a function that it hooks, where ftrace then
refuses to remove what was registered to find out which function: the module stays, and
does nothing.

As stays.py, this test needs a guest of its own: it leaves a module there that cannot be
unloaded.
"""

import errno
import os

from port0_module import (absent, expect_to_stay, livepatch, load, refused,
                          skip_without_tracer)
from port0_test import code, equal, kernel_log, main, test


@test()
def a_trial_that_cannot_be_undone():
    skip_without_tracer()
    absent()
    since = kernel_log()
    # inet_bind() and inet6_bind() are registered together. The livepatch makes that
    # fail. Then inet_bind() is tried alone, and stays registered.
    with livepatch("inet6_bind"), \
         refused("unregister_ftrace_function", times=1, err=errno.ENODEV) as calls:
        answer = code(load, "hook=ftrace")
        equal(True, calls() > 0, "something was to be unregistered")
    lines = since()
    expect_to_stay(answer, lines)


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A load during which ftrace finds an error in itself, while it patches code: the module
stays, since that code calls it, and does nothing.

As stays.py, this test needs a guest of its own: it leaves a module there that cannot be
unloaded.
"""

import errno
import os

from port0_module import absent, expect_to_stay, load, refused, skip_without_tracer
from port0_test import code, equal, kernel_log, main, test


@test()
def ftrace_that_is_disabled():
    """The filter is refused already, so nothing is patched, and no module has to stay."""
    skip_without_tracer()
    absent()
    with refused("ftrace_set_filter_ips", times=1, err=errno.ENODEV):
        equal("ENODEV", code(load, "hook=ftrace"))
    absent()


@test()
def a_registration_that_breaks_ftrace():
    skip_without_tracer()
    absent()
    since = kernel_log()
    # The filter was accepted, so ftrace was not disabled before this.
    with refused("register_ftrace_function", times=1, err=errno.ENODEV) as calls:
        answer = code(load, "hook=ftrace")
        equal(1, calls(), "registrations: no other is tried")
    lines = since()
    expect_to_stay(answer, lines)
    equal(True, any("cannot hook all functions together" in line for line in lines),
          f"that no single function is to blame, in {lines}")


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    main()

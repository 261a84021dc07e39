#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Port 0 for 32-bit programs on a 64-bit kernel."""

import errno
import os

from port0_test import Namespace, Skip, main, run, test

PROGRAM = os.path.join(os.path.dirname(os.path.realpath(__file__)), "compat32")


@test()
def as_for_64_bits():
    if not os.path.exists(PROGRAM):
        raise Skip("compat32 was not built: there was no 32-bit compiler")
    try:
        with Namespace():
            run(PROGRAM)
    except OSError as error:
        if error.errno == errno.ENOEXEC:
            raise Skip("this kernel runs no 32-bit programs") from error
        raise


if __name__ == "__main__":
    main()

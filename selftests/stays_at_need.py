#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A bind() during which ftrace finds an error in itself, while it patches code: no hook is
installed any more, and the module stays, since that code may call it.

As stays.py, this test needs a guest of its own: it leaves a module there that cannot be
unloaded.
"""

import errno
import os
import subprocess
import time

from port0_module import absent, load, refused, skip_without_tracer, wait_for
from port0_test import (TCP, Namespace, code, equal, holds_zero, kernel_log, main,
                        plain_socket, set_mark, test)

HOST = "127.0.0.1"


@test()
def a_bind_that_breaks_ftrace():
    skip_without_tracer()
    absent()
    load("hook=ftrace")
    with Namespace(), plain_socket(HOST, TCP) as sock:
        set_mark(sock)
        # The filter is accepted, so ftrace was not disabled before this.
        with refused("register_ftrace_function", times=1, err=errno.ENODEV) as calls:
            equal("ENODEV", code(sock.bind, (HOST, 0)))
            # For a second, it would fail without a try anyway.
            time.sleep(1.5)
            equal("ENODEV", code(sock.bind, (HOST, 0)), "later")
            equal(1, calls(), "registrations: no other is tried")
        equal((0, 0), (sock.getsockname()[1], holds_zero(sock)))
    since = kernel_log()
    # It stays in the kernel, where no signal reaches it: nobody waits for its output.
    subprocess.Popen(["rmmod", "port0"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL)
    wait_for("the log line that the module stays", lambda: any(
        "the module stays until the next boot" in line for line in since()))


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    main()

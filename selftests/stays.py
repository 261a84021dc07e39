#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""ftrace refuses to remove a hook: the module stays loaded, and logs that.

If ftrace detects an internal error it switches itself off, and then neither installs nor
removes anything until the next boot. port0_kill.ko causes that. That cannot be undone,
so the test needs a guest of its own (scripts/test --tests stays.py trixie), and leaves
a module there that cannot be unloaded.
"""

import errno
import os
import subprocess
import time

from port0_module import HAS_TRACER, HERE, SYS, load_file, parameters, users, wait_for
from port0_test import (KINDS, LOOPBACK, OTHER_PORT, TCP, UDP, Namespace, Skip, bound_socket, code,
                        equal, main, plain_socket, read, run, set_mark, test, write)

KILL = os.path.join(HERE, "modules", "port0_kill.ko")


def connects(port):
    """Unmarked sockets of each kind can connect."""
    with Namespace():
        for host in LOOPBACK.values():
            for kind in KINDS.values():
                with plain_socket(host, kind) as server, plain_socket(host, kind) as client:
                    server.bind((host, port))
                    if kind == TCP:
                        server.listen(1)
                    client.connect(server.getsockname()[:2])
                    equal(server.getsockname()[:2], client.getpeername()[:2], "the peer")


def kernel_log_from(line):
    return run("dmesg").splitlines()[line:]


@test()
def ftrace_does_not_let_go():
    if not HAS_TRACER or not os.path.exists(KILL):
        raise Skip("this kernel has no function tracer, or port0_kill.ko was not built")
    if parameters()["hook"] != "ftrace":
        raise Skip("the hooks are not ftrace's")
    wait_for("all references on the module", lambda: not users())
    # Earlier tests may have armed the hooks on first need.
    write(f"{SYS}/parameters/drain", "1")
    time.sleep(2)
    write(f"{SYS}/parameters/drain", "0")
    start = len(kernel_log_from(0))
    with bound_socket("127.0.0.1", TCP, 0) as holder, plain_socket("127.0.0.1", UDP) as sender:
        load_file(KILL)
        # Functions that are hooked stay hooked, and no others can be hooked.
        equal("EINVAL", code(holder.bind, ("127.0.0.1", OTHER_PORT)), "a second bind()")
        equal("ENODEV", code(set_mark, sender), "a mark that needs another hook")
    connects(OTHER_PORT)
    wait_for("all references on the module", lambda: not users())
    # This tries once a second to remove hooks.
    write(f"{SYS}/parameters/drain", "1")
    time.sleep(3)

    # It stays in the kernel, where no signal reaches it: nobody waits for its output.
    rmmod = subprocess.Popen(["rmmod", "port0"], stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_for("the log line that the module stays", lambda: any(
        "the module stays" in line for line in kernel_log_from(start)))
    reason = f"cannot remove a hook: errno {errno.ENODEV} "
    equal(1, sum(reason in line for line in kernel_log_from(start)), "lines that say why")
    time.sleep(1)
    equal(None, rmmod.poll(), "the end of rmmod")
    equal("going", read(f"{SYS}/initstate"), "the module")
    connects(OTHER_PORT)
    with plain_socket("127.0.0.1", TCP) as late:
        equal("ENOPROTOOPT", code(set_mark, late), "a mark from now on")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A load that fails when ftrace refuses to remove the hooks: the module stays, and does
nothing.

As stays.py, this test needs a guest of its own: it leaves a module there that cannot be
unloaded.
"""

import os
import threading
import time

from port0_module import (SYS, absent, hooked, load, load_file, skip_without_list,
                          skip_without_tracer, slow_loopback, test_module, unload, users, wait_for)
from port0_test import (KINDS, LOOPBACK, OTHER_PORT, Namespace, code, equal, get_mark,
                        kernel_log, main, plain_socket, read, set_mark, test)

# The hook that is installed last
LAST = "ip_route_output_flow"


def kill_when_hooked(others, kill):
    """Switch ftrace off while the self-check waits for its packets."""
    wait_for("the last hook", lambda: LAST in hooked() - others)
    time.sleep(0.3)
    load_file(kill)


@test()
def a_load_that_cannot_be_undone():
    skip_without_tracer()
    skip_without_list()
    kill, squatter = test_module("port0_kill"), test_module("port0_squatter")
    absent()
    load("hook=ftrace")
    old = [(plain_socket(host, kind), host) for host in LOOPBACK.values()
           for kind in KINDS.values()]
    for sock, _ in old:
        set_mark(sock)
    unload()
    others, since = hooked(), kernel_log()
    # It has taken the options, so the load fails at the end.
    load_file(squatter)
    killer = threading.Thread(target=kill_when_hooked, args=(others, kill))
    with slow_loopback(500):
        killer.start()
        answer = code(load, "hook=ftrace")
        killer.join()
    unload("port0_squatter")
    lines = since()
    equal("ok", answer, f"the load, in {lines}")
    equal(True, any(line.startswith("port0: ") and "stays until the next boot" in line
                    for line in lines), lines)
    equal(("live", 1), (read(f"{SYS}/initstate"), users()), "the module")
    equal("EAGAIN", code(unload))
    # This task has loaded it; its calls are left alone like those of others.
    for sock, host in old:
        equal("ENOPROTOOPT", code(sock.bind, (host, 0)), "a socket that was marked before")
        equal("ok", code(sock.bind, (host, OTHER_PORT)), "to another port")
        equal("ENOPROTOOPT", code(get_mark, sock), "the mark")
        sock.close()
    with Namespace(), plain_socket("127.0.0.1", KINDS["udp"]) as fresh:
        equal("ENOPROTOOPT", code(set_mark, fresh), "a mark from now on")
        fresh.connect(("127.0.0.1", 0))


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The kernel's own selftests for this area, unmodified, without port0 and with it.

Each runs once on the stock kernel and once with the module loaded and every
hook armed. What it reports, test by test, must be the same. PORT0_KO names the
module's file; without it modprobe's choice is taken.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile

from port0_test import (LOOPBACK, TCP, UDP, Namespace, Skip, bound_socket, equal, main, run,
                        test)

HERE = os.path.dirname(os.path.realpath(__file__))
BUILT = os.path.join(HERE, "kernel")
NET = os.path.dirname(HERE)

# Longer than the slowest of them takes on an emulated machine.
PATIENCE = 900

KTAP = re.compile(r"\s*(not ok|ok) (\d+) ?(.*)")
KSFT_SKIP = 4


def load():
    if os.environ.get("PORT0_KO"):
        run("insmod", os.environ["PORT0_KO"])
    else:
        run("modprobe", "port0")


def ensure(loaded):
    if os.path.exists("/sys/module/port0") == loaded:
        return
    if loaded:
        load()
    else:
        run("rmmod", "port0")


def armed():
    """Sockets on port 0 in a namespace of their own, that made every hook needed."""
    with Namespace():
        sockets = [bound_socket(host, kind, 0) for host in LOOPBACK.values()
                   for kind in (TCP, UDP)]
        for sock in sockets:
            if sock.type == TCP:
                sock.listen()
            else:
                sock.sendto(b"x", (sock.getsockname()[0], 0))
                sock.recv(1)
    return sockets


def play(directory, command):
    """What the test reports: the results it names, and its exit status."""
    with Namespace():
        # Where one of the scripts wants to find addresses on a device.
        run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        run("ip", "link", "set", "eth0", "up")
        run("ip", "link", "set", "eth1", "up")
        done = subprocess.run(command, cwd=directory, shell=True, text=True, errors="replace",
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=PATIENCE, check=False)
    results = [match.groups() for match in map(KTAP.match, done.stdout.splitlines()) if match]
    return done.returncode, results, done.stdout


def workshop():
    """A directory in which scripts find programs and each other by name."""
    directory = tempfile.mkdtemp(prefix="port0-")
    for place, wanted in ((BUILT, ""), (NET, ".sh")):
        for name in os.listdir(place):
            if name.endswith(wanted):
                os.symlink(os.path.join(place, name), os.path.join(directory, name))
    return directory


# What is not run by the program's own name alone
COMMANDS = {
    "bind_bhash.ip4": "./bind_bhash.sh -4",
    "bind_bhash.ip6": "./bind_bhash.sh -6",
    "ip_local_port_range": "./ip_local_port_range.sh",
    "reuseport_addr_any": "./reuseport_addr_any.sh",
    "udpgso": "./udpgso.sh",
}


@test(("bind_bhash.ip4",), ("bind_bhash.ip6",), ("bind_timewait",), ("bind_wildcard",),
      ("ip_local_port_range",), ("reuseaddr_conflict",), ("reuseport_addr_any",),
      ("reuseport_bpf",), ("reuseport_dualstack",), ("sk_bind_sendto_listen",),
      ("sk_connect_zero_addr",), ("tls",), ("udpgso",))
def same(name):
    program = name.split(".")[0]
    command = COMMANDS.get(name, f"./{program}")
    if not os.path.exists(os.path.join(BUILT, program)):
        raise Skip("this kernel's selftests do not have it")
    signal.alarm(2 * PATIENCE)
    directory = workshop()
    try:
        ensure(False)
        status, results, output = play(directory, command)
        ensure(True)
        sockets = armed()
        with_status, with_results, with_output = play(directory, command)
        for sock in sockets:
            sock.close()
    finally:
        shutil.rmtree(directory)
        ensure(True)
    good = sum(result[0] == "ok" for result in results)
    print(f"# {program}: exit status {status}, {len(results)} results, {good} of them ok")
    if (status, results) != (with_status, with_results):
        for text, source in (("stock", output), ("port0", with_output)):
            for line in source.splitlines()[-40:]:
                print(f"# {text}: {line}")
    for stock, loaded in zip(results, with_results):
        equal(stock, loaded, program)
    equal((status, len(results)), (with_status, len(with_results)), program)
    if status == KSFT_SKIP:
        raise Skip(f"skipped without port0 as well: {output.strip().splitlines()[-1]}")


if __name__ == "__main__":
    main()

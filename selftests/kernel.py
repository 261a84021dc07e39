#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The kernel's own selftests for this area, unmodified, without port0 and with it.

All of them run on the stock kernel first, and then with the module loaded and
every hook armed. Every single result must be the same. PORT0_KO names the module's
file; without it, the installed module is used.
"""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import time
import types

from port0_module import is_loaded, load, without_module
from port0_test import (LOOPBACK, TCP, UDP, Namespace, Skip, bound_socket, main, run, test)

# The directory of the kernel's tests, with the scripts that run some of them
BUILT = os.path.join(os.path.dirname(os.path.realpath(__file__)), "kernel")

# A test that takes longer than this many seconds, as tls does, is stopped, and only its
# results so far are compared.
PATIENCE = 20

# Some of the tests measure time and sometimes fail on a busy machine. Only differences
# that appear in each of so many rounds count.
ROUNDS = 3

KTAP = re.compile(r"\s*(not ok|ok) (\d+) ?(.*)")

PROGRAMS = ("bind_bhash", "bind_timewait", "bind_wildcard", "ip_local_port_range",
            "reuseaddr_conflict", "reuseport_addr_any", "reuseport_bpf", "reuseport_dualstack",
            "sk_bind_sendto_listen", "sk_connect_zero_addr", "tls", "udpgso")

OTHER_CIPHERS = ("aes_ccm", "aes_gcm_256", "aria_gcm", "aria_gcm_256", "chacha", "nopad",
                 "sm4_ccm", "sm4_gcm")


@contextlib.contextmanager
def armed_module():
    """The module with every hook armed, by sockets on port 0 in another namespace."""
    if not is_loaded():
        load()
    with contextlib.ExitStack() as stack:
        with Namespace():
            for host in LOOPBACK.values():
                for kind in (TCP, UDP):
                    sock = stack.enter_context(bound_socket(host, kind, 0))
                    if kind == TCP:
                        sock.listen()
                    else:
                        sock.sendto(b"x", (host, 0))
                        sock.recv(1)
        yield


def play(name, patience=PATIENCE):
    """Run a test; return its results by their names, and its output."""
    with Namespace():
        # One of the scripts wants addresses on this device.
        run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "eth1")
        run("ip", "link", "set", "eth0", "up")
        run("ip", "link", "set", "eth1", "up")
        began = time.monotonic()
        with subprocess.Popen(EVERY[name], cwd=BUILT, text=True, errors="replace",
                              start_new_session=True, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
            try:
                output, _ = child.communicate(timeout=patience)
                end = f"exit status {child.returncode}"
            except subprocess.TimeoutExpired:
                os.killpg(child.pid, signal.SIGTERM)
                output, _ = child.communicate()
                end = "stopped"
    lines = output.splitlines()
    results = {f"{match[2]} {match[3]}": match[1] for match in map(KTAP.match, lines) if match}
    good = sum(result == "ok" for result in results.values())
    print(f"# {name}: {end}, {len(results)} results, {good} of them ok, "
          f"{time.monotonic() - began:.0f} s")
    return types.SimpleNamespace(results=results | {"its end": end}, lines=lines, end=end,
                                 worked=bool(good) or child.returncode == 0)


def steps(script):
    """The names and the commands of the steps that a script runs."""
    name = ""
    with open(os.path.join(BUILT, script), encoding="ascii") as file:
        for line in file:
            if line.startswith("echo "):
                name = shlex.split(line)[1].replace(" ", "_")
            elif line.startswith("./in_netns.sh "):
                yield f".{name}", line.replace('"$0"', f"./{script}")


def ways(program):
    """The ways to run a program: suffixes of its name, with their commands."""
    if program == "bind_bhash":
        return [(".ip4", "./bind_bhash.sh -4"), (".ip6", "./bind_bhash.sh -6")]
    if program == "udpgso":
        return steps("udpgso.sh")
    if program == "tls":
        # One cipher is enough. Older harnesses take no arguments and run all, until stopped.
        return [("", "./tls " + " ".join(f"-V {version}_{cipher}" for version in (12, 13)
                                         for cipher in OTHER_CIPHERS))]
    if program in ("ip_local_port_range", "reuseport_addr_any"):
        return [("", f"./{program}.sh")]
    return [("", f"./{program}")]


def commands():
    every = {}
    for program in PROGRAMS:
        if os.path.exists(os.path.join(BUILT, program)):
            every.update((program + way, shlex.split(command)) for way, command in ways(program))
        else:
            every[program] = None
    return every


EVERY = commands()
STOCK = {}


def differing(stock, loaded):
    names = set(stock.results) | set(loaded.results)
    if stock.worked and not loaded.worked:
        return names
    if stock.end == "stopped":
        names = set(stock.results) & set(loaded.results) - {"its end"}
    return {name for name in names if stock.results.get(name) != loaded.results.get(name)}


@test(*[(name,) for name in EVERY])
def same(name):
    if not EVERY[name]:
        raise Skip("this kernel's selftests do not have it")
    signal.alarm(6 * ROUNDS * len(EVERY) * PATIENCE)
    if not STOCK:
        print("# on the stock kernel")
        with without_module():
            STOCK.update((each, play(each)) for each, command in EVERY.items() if command)
        print("# with port0")
    stock, different = STOCK[name], None
    for number in range(ROUNDS):
        if number:
            with without_module():
                stock = play(name)
        with armed_module():
            # A test that ends without the module must end with it, too.
            loaded = play(name, PATIENCE if stock.end == "stopped" else 5 * PATIENCE)
        now = differing(stock, loaded)
        different = now if different is None else different & now
        if not different:
            break
    else:
        for side, played in (("stock", stock), ("port0", loaded)):
            for line in played.lines[-40:]:
                print(f"# {side}: {line}")
        each = min(different)
        raise AssertionError(f"{each}: {stock.results.get(each)} on the stock kernel, "
                             f"{loaded.results.get(each)} with port0")
    if not stock.worked:
        raise Skip(f"fails without port0 as well: {stock.lines[-1] if stock.lines else '?'}")


if __name__ == "__main__":
    main()

# SPDX-License-Identifier: GPL-2.0
"""The module itself: loading and unloading it, and restoring its state.

PORT0_KO names its file; without it, the installed module is used.
"""

import contextlib
import ctypes
import os
import re
import subprocess
import time

from port0_test import (IO_TIMEOUT, KINDS, LOOPBACK, OTHER_PORT, Namespace, Skip, check, code,
                        equal, libc, plain_socket, read, run, set_mark, write)

SYS = "/sys/module/port0"
HERE = os.path.dirname(os.path.realpath(__file__))
LIVEPATCH = "port0_livepatch"
REFUSE = "port0_refuse"
# The errno with which these two modules make a function fail
REFUSAL = "EXFULL"
# The default number of calls that fail
ALWAYS = 2 ** 31 - 1
ENABLED_FUNCTIONS = "/sys/kernel/tracing/enabled_functions"
KPROBES = "/sys/kernel/debug/kprobes/list"
# Without the function tracer, the module refuses its default, hook=ftrace.
HAS_TRACER = os.path.exists("/proc/sys/kernel/ftrace_enabled")
UNPACK = {".gz": ["gzip", "-dc"], ".xz": ["xz", "-dc"], ".zst": ["zstd", "-dcq"]}


def module_file():
    path = os.environ.get("PORT0_KO")
    if path:
        return path
    try:
        return run("modinfo", "-n", "port0").strip()
    except RuntimeError:
        raise Skip("no module: set PORT0_KO to the path of port0.ko, or install it") from None


def is_loaded(name="port0"):
    return os.path.exists(f"/sys/module/{name}")


def users(name="port0"):
    """The number of sockets and running calls that hold a reference on the module."""
    return int(read(f"/sys/module/{name}/refcnt"))


def tcp_sockets():
    """How many TCP sockets exist in all namespaces, including those of the kernel."""
    return int(re.search(r"^TCP: .* alloc (\d+)", read("/proc/self/net/sockstat"), re.M)[1])


def udp_sockets():
    """How many UDP sockets of this namespace are bound."""
    return int(re.search(r"^UDP: inuse (\d+)", read("/proc/self/net/sockstat"), re.M)[1])


def expect_tcp_sockets(most):
    """Expect at most this many TCP sockets; closed ones may take a moment to go."""
    with contextlib.suppress(TimeoutError):
        wait_for("sockets to go", lambda: tcp_sockets() <= most)
    now = tcp_sockets()
    equal(True, now <= most, f"{now} TCP sockets where there were {most}")


def parameters():
    directory = f"{SYS}/parameters"
    return {name: read(f"{directory}/{name}") for name in sorted(os.listdir(directory))}


def load_file(path, args=""):
    unpack = UNPACK.get(os.path.splitext(path)[1], ["cat"])
    image = subprocess.run([*unpack, path], stdout=subprocess.PIPE, check=True).stdout
    check(libc.init_module(image, ctypes.c_ulong(len(image)), args.encode()))


def load(args=""):
    hook = "" if HAS_TRACER or "hook=" in args else " hook=kprobe"
    load_file(module_file(), args + hook)
    present.args = args


def unload(name="port0"):
    check(libc.delete_module(name.encode(), os.O_NONBLOCK))


def wait_for(what, done, patience=IO_TIMEOUT):
    deadline = time.monotonic() + patience
    while not done():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.05)


def wait_until_unused():
    """Wait until no socket holds a reference on the module. Sockets of earlier tests are
    closed when their namespaces are removed, which may take a moment."""
    wait_for("all references on the module", lambda: not users())


def absent():
    if is_loaded():
        wait_until_unused()
        unload()


def present(args=""):
    """Make sure that the module is loaded with exactly these parameters; load it only
    if need be."""
    if not is_loaded() or present.args != args:
        absent()
        load(args)


present.args = None


def arguments():
    """The parameters that the module is loaded with; None if it is not loaded."""
    if not is_loaded():
        return None
    return " ".join(f"{name}={value}" for name, value in parameters().items())


@contextlib.contextmanager
def restored():
    """Leaves the module as it was found, loaded or not."""
    found = arguments()
    restored.depth += 1
    try:
        yield
    finally:
        restored.depth -= 1
        if arguments() != found:
            absent()
            if found is not None:
                load(found)


restored.depth = 0


@contextlib.contextmanager
def without_module():
    """Unload the module inside "with", and load it again as it was. A load takes long: if a
    whole program runs in restored(), only restored() loads it again."""
    with contextlib.nullcontext() if restored.depth else restored():
        absent()
        yield


def hooked():
    """The functions that are traced or probed."""
    functions = set()
    if os.path.exists(ENABLED_FUNCTIONS):
        functions |= {line.split()[0] for line in read(ENABLED_FUNCTIONS).splitlines() if line}
    if os.path.exists(KPROBES):
        functions |= {line.split()[2].split("+")[0] for line in read(KPROBES).splitlines()}
    return functions


def skip_without_tracer():
    if not HAS_TRACER:
        raise Skip("this kernel has no function tracer")


def skip_without(backend):
    if backend == "ftrace":
        skip_without_tracer()


def skip_without_list():
    """Skip if hooked() cannot find out."""
    if not os.path.exists(ENABLED_FUNCTIONS) and not os.path.exists(KPROBES):
        raise Skip("neither tracefs nor debugfs is mounted")


def test_module(name):
    """The file of a module from modules/; skips if it was not built."""
    path = os.path.join(HERE, "modules", f"{name}.ko")
    if not os.path.exists(path):
        raise Skip(f"{name}.ko was not built")
    return path


@contextlib.contextmanager
def refused(function, **how):
    """Make a function that port0 calls fail with EXFULL; yields a function that counts
    the calls.

    skip: how many calls succeed first; times: how many fail then; err: the errno;
    delay: in ms, before a call fails.
    """
    path = test_module(REFUSE)
    args = " ".join(f"{name}={value}" for name, value in {"func": function, **how}.items())
    answer = code(load_file, path, args)
    if answer != "ok":
        raise Skip(f"{function} cannot be refused here: {answer}")
    try:
        yield lambda: int(read(f"/sys/module/{REFUSE}/parameters/calls"))
    finally:
        wait_for("calls that are refused", lambda: not users(REFUSE))
        unload(REFUSE)


@contextlib.contextmanager
def livepatch(function):
    """A livepatch on this function, which then fails with EXFULL."""
    path = test_module(LIVEPATCH)
    state = f"/sys/kernel/livepatch/{LIVEPATCH}"
    load_file(path, f"func={function}")
    try:
        wait_for("the livepatch's transition", lambda: read(f"{state}/transition") == "0",
                 IO_TIMEOUT * 6)
        yield
    finally:
        write(f"{state}/enabled", "0")
        # The livepatch disappears from sysfs a moment before it drops the reference on
        # its module.
        wait_for("the livepatch to go", lambda: not users(LIVEPATCH), IO_TIMEOUT * 6)
        unload(LIVEPATCH)


@contextlib.contextmanager
def slow_loopback(delay):
    """Packets on lo arrive after so many ms."""
    try:
        run("tc", "qdisc", "add", "dev", "lo", "root", "netem", "delay", f"{delay}ms")
    except (OSError, RuntimeError) as error:
        raise Skip(f"packets cannot be delayed here: {error}") from None
    try:
        yield
    finally:
        run("tc", "qdisc", "delete", "dev", "lo", "root")


def expect_to_stay(answer, lines):
    """Expect that a load has left a module that cannot be unloaded, and does nothing."""
    equal("ok", answer, f"the load, in {lines}")
    equal(True, any(line.startswith("port0: ") and "stays until the next boot" in line
                    for line in lines), lines)
    equal(("live", 1), (read(f"{SYS}/initstate"), users()), "the module")
    equal("EAGAIN", code(unload))
    with Namespace():
        for host in LOOPBACK.values():
            for kind in KINDS.values():
                with plain_socket(host, kind) as sock:
                    equal("ENOPROTOOPT", code(set_mark, sock), "a mark")
                    equal("ok", code(sock.bind, (host, OTHER_PORT)), "to another port")

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The module together with others on the same functions: livepatch, kprobes, tracers, BPF.

A livepatch and port0 exclude each other, and the later one is refused. The others can be
on the same function as port0, in either order; with hook=kprobe, some kernels refuse a few
pairs. PORT0_KO names the module's file.
When all is done the module is loaded, or not, as it was before.
"""

import contextlib
import ctypes
import functools
import os
import re
import struct
import subprocess

from port0_module import (LIVEPATCH, is_loaded, livepatch, load, load_file, restored, skip_without,
                          test_module, unload, wait_until_unused, without_module)
from port0_test import (KINDS, LOOPBACK, OTHER_PORT, TCP, Namespace, Skip,
                        bound_socket, check, code, equal, is_older_than, kernel_log, libc, main,
                        plain_socket, read, test, write)

TRACING = "/sys/kernel/tracing"
KPROBES = "/sys/kernel/debug/kprobes"
# An errno of the kernel that has no name in user space
ENOTSUPP = 524

# One from each set of hooks; works() calls them all.
FUNCTIONS = ["inet_bind", "inet_csk_get_port", "inet_getname", "inet_put_port", "udp_sendmsg",
             "ip_route_output_flow"]
# Those of them where port0 replaces every call in works()
REPLACED = ["inet_csk_get_port"]
BACKENDS = ["ftrace", "kprobe"]


def works():
    """Bind port 0, reach it and close it, with every kind of socket."""
    with Namespace():
        for host in LOOPBACK.values():
            for kind in KINDS.values():
                with bound_socket(host, kind, 0) as server, plain_socket(host, kind) as client:
                    serve(server, client)


def serve(server, client):
    name = server.getsockname()[:2]
    if server.type == TCP:
        server.listen(1)
    client.connect(name)
    equal(name, client.getpeername()[:2], "the name of the peer")
    if server.type == TCP:
        client.close()
        server.accept()[0].close()
    else:
        server.sendto(b"x", name)
        equal(b"x", server.recv(2), "what the server sent to itself")


class KprobeEvent:
    """A kprobe or kretprobe on each function, made through tracefs."""

    def __init__(self, letter):
        self.letter = letter

    def __enter__(self):
        if not os.path.exists(f"{TRACING}/kprobe_events"):
            raise Skip("this kernel has no kprobe events")
        for function in FUNCTIONS:
            write(f"{TRACING}/kprobe_events", f"{self.letter}:port0/{function} {function}\n",
                  os.O_APPEND)
        write(f"{TRACING}/events/port0/enable", "1")
        return self

    def hits(self):
        profile = [line.split() for line in read(f"{TRACING}/kprobe_profile").splitlines()]
        return {name: int(hits) for name, hits, *_ in profile}

    def __exit__(self, *_):
        write(f"{TRACING}/events/port0/enable", "0")
        for function in FUNCTIONS:
            write(f"{TRACING}/kprobe_events", f"-:port0/{function}\n", os.O_APPEND)


class Tracer:
    """The function or the function_graph tracer on each function."""

    def __init__(self, name):
        self.name = name

    def __enter__(self):
        try:
            available = read(f"{TRACING}/available_tracers").split()
        except FileNotFoundError:
            available = []
        if self.name not in available:
            raise Skip(f"this kernel has no {self.name} tracer")
        # Then both tracers trace these functions only.
        write(f"{TRACING}/set_ftrace_filter", "\n".join(FUNCTIONS) + "\n")
        write(f"{TRACING}/trace", "")
        write(f"{TRACING}/current_tracer", self.name)
        return self

    def hits(self):
        trace = read(f"{TRACING}/trace")
        return {function: len(re.findall(rf"\b{function}\b", trace)) for function in FUNCTIONS}

    def __exit__(self, *_):
        write(f"{TRACING}/current_tracer", "nop")
        write(f"{TRACING}/set_ftrace_filter", "")
        write(f"{TRACING}/trace", "")


class Fentry:
    """A BPF program that does nothing, on the entry or on the exit of each function."""

    PROG_LOAD, RAW_TRACEPOINT_OPEN = 5, 17
    TYPE_TRACING = 26
    KINDS = {"fentry": 24, "fexit": 25}
    RETURN_0 = bytes.fromhex("b700000000000000" "9500000000000000")

    def __init__(self, kind):
        self.kind = self.KINDS[kind]
        self.code = ctypes.create_string_buffer(self.RETURN_0)
        self.licence = ctypes.create_string_buffer(b"GPL")

    @staticmethod
    def bpf(command, attr):
        buffer = ctypes.create_string_buffer(attr, len(attr))
        number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
        return check(libc.syscall(number, command, buffer, len(attr)))

    @staticmethod
    @functools.cache
    def btf_ids(*functions):
        if not os.path.exists("/sys/kernel/btf/vmlinux"):
            raise Skip("this kernel has no BTF")
        pattern = "FUNC '(" + "|".join(functions) + ")'"
        dump = subprocess.run("bpftool btf dump file /sys/kernel/btf/vmlinux | "
                              f"grep -E \"{pattern}\"", shell=True, stdout=subprocess.PIPE,
                              text=True, check=True).stdout
        return {name: int(number) for number, name in re.findall(r"\[(\d+)\] FUNC '(\w+)'", dump)}

    def attach(self, stack, number):
        """Attach a program to the function with this BTF id until the stack is closed."""
        attr = struct.pack("<IIQQIIQII16sIIIIQIIQIII", self.TYPE_TRACING, 2,
                           ctypes.addressof(self.code), ctypes.addressof(self.licence),
                           0, 0, 0, 0, 0, b"", 0, self.kind, 0, 0, 0, 0, 0, 0, 0, number, 0)
        program = self.bpf(self.PROG_LOAD, attr)
        stack.callback(os.close, program)
        stack.callback(os.close, self.bpf(self.RAW_TRACEPOINT_OPEN,
                                          struct.pack("<QII", 0, program, 0)))
        return program

    def skip_without(self):
        """Skip if this kernel cannot attach a program even to bpf_fentry_test1()."""
        with contextlib.ExitStack() as stack:
            for number in self.btf_ids("bpf_fentry_test1").values():
                try:
                    self.attach(stack, number)
                except OSError as error:
                    if error.errno != ENOTSUPP:
                        raise
                    raise Skip("this kernel cannot attach BPF programs to its functions") from None

    def __enter__(self):
        self.skip_without()
        self.stack = contextlib.ExitStack()
        with contextlib.ExitStack() as stack:
            write("/proc/sys/kernel/bpf_stats_enabled", "1")
            stack.callback(write, "/proc/sys/kernel/bpf_stats_enabled", "0")
            self.programs = {name: self.attach(stack, number)
                             for name, number in self.btf_ids(*FUNCTIONS).items()}
            equal(set(FUNCTIONS), set(self.programs), "functions with a program")
            self.stack = stack.pop_all()
        return self

    def hits(self):
        return {name: int(re.search(r"run_cnt:\s*(\d+)", read(f"/proc/self/fdinfo/{fd}"))[1])
                for name, fd in self.programs.items()}

    def __exit__(self, *_):
        self.stack.close()


OTHERS = {
    "kprobe": lambda: KprobeEvent("p"),
    "kretprobe": lambda: KprobeEvent("r"),
    "function": lambda: Tracer("function"),
    "function_graph": lambda: Tracer("function_graph"),
    "fentry": lambda: Fentry("fentry"),
    "fexit": lambda: Fentry("fexit"),
}
PAIRS = [(other, backend) for other in OTHERS for backend in BACKENDS]


def probes_sit_on_ftrace():
    """Whether the kprobes that exist now use ftrace.

    Otherwise a kprobe is a breakpoint, which comes before the call of ftrace. A call
    that port0 redirects from there is not seen by tracers and BPF programs, nor by a
    kprobe that was registered earlier.
    """
    if not os.path.exists(f"{KPROBES}/list"):
        raise Skip("no list of kprobes in debugfs")
    return "[FTRACE]" in read(f"{KPROBES}/list")


def graph_sees_none(other):
    """Before Linux 5.16, the graph tracer does not see a call that was redirected."""
    return other == "function_graph" and is_older_than(5, 16)


def unmarked_traffic():
    """The same as works(), on an ordinary port and by unmarked sockets."""
    with Namespace():
        for host in LOOPBACK.values():
            for kind in KINDS.values():
                with bound_socket(host, kind, OTHER_PORT) as server, \
                        plain_socket(host, kind) as client:
                    serve(server, client)


def hits_since(other, before):
    """How often other has seen each function since the counts in before."""
    return {name: hits - before.get(name, 0) for name, hits in other.hits().items()}


def saw_all(other, start, but=()):
    """Expect that since start other has seen every function, except those in but.

    Then make calls on unmarked sockets, and expect that it has seen all of these.
    """
    print(f"# {hits_since(other, start)}")
    equal(set(but), {name for name, hits in hits_since(other, start).items() if not hits},
          "functions of which the other missed calls")
    before = other.hits()
    unmarked_traffic()
    after = other.hits()
    equal(set(), {name for name in after if after[name] == before[name]},
          "functions of which the other missed calls by unmarked sockets")


@test(*PAIRS)
def another_first(other, backend):
    skip_without(backend)
    probes = other in ("kprobe", "kretprobe")
    with without_module():
        with OTHERS[other]() as there:
            result = code(load, f"hook={backend}")
            if backend == "kprobe" and probes and probes_sit_on_ftrace():
                # The kernel would warn when one of the two is removed.
                equal("EBUSY", result, "loading port0")
                return
            if backend == "kprobe" and other == "fexit" and result in ("EOPNOTSUPP", "ENOTSUP"):
                # Older kernels cannot have both on one function, and return an error.
                equal(False, is_loaded(), "port0 is loaded")
                return
            equal("ok", result, "loading port0")
            before = backend == "kprobe" and not probes_sit_on_ftrace() or graph_sees_none(other)
            # The module's self-check at load has called the functions, too.
            start = there.hits()
            works()
            saw_all(there, start, REPLACED if before else ())
        works()
        wait_until_unused()


@test(*PAIRS)
def another_second(other, backend):
    skip_without(backend)
    probes = other in ("kprobe", "kretprobe")
    with without_module():
        load(f"hook={backend}")
        before = backend == "kprobe" and not probes_sit_on_ftrace() or graph_sees_none(other)
        if backend == "kprobe":
            # A kprobe hook cannot be armed on a function that has another kprobe, so
            # arm all hooks now.
            works()
        with OTHERS[other]() as there:
            start = there.hits()
            # This arms the hooks that are armed on first use.
            works()
            # Of kprobes at one address the one registered last runs first.
            saw_all(there, start, REPLACED if before and not probes else ())
            wait_until_unused()
            unload()
        load(f"hook={backend}")
        works()
        wait_until_unused()


@test(*[(backend,) for backend in BACKENDS])
def livepatch_first(backend):
    skip_without(backend)
    test_module(LIVEPATCH)
    with without_module():
        if backend == "kprobe":
            with OTHERS["kprobe"]():
                if probes_sit_on_ftrace():
                    raise Skip("this kernel warns when it refuses a kprobe beside a livepatch")
        with livepatch("inet_bind"):
            since = kernel_log()
            equal("EBUSY", code(load, f"hook={backend}"), "loading port0")
            named = [line for line in since() if line.startswith("port0:") and "inet_bind" in line]
            equal(1, len(named), "lines that name the function")
            print(f"# {named[0]}")
            equal(False, is_loaded(), "port0 is loaded")
            sock = plain_socket("127.0.0.1", TCP)
            equal("EXFULL", code(sock.bind, ("127.0.0.1", 0)), "bind() with the livepatch")
            sock.close()
        load(f"hook={backend}")
        works()


@test(*[(backend,) for backend in BACKENDS])
def livepatch_second(backend):
    skip_without(backend)
    file = test_module(LIVEPATCH)
    with without_module():
        load(f"hook={backend}")
        equal("EBUSY", code(load_file, file), "loading the livepatch")
        equal(False, is_loaded(LIVEPATCH), "the livepatch is loaded")
        works()
        wait_until_unused()


@contextlib.contextmanager
def kprobes_disarmed():
    switch = f"{KPROBES}/enabled"
    if not os.path.exists(switch):
        raise Skip("no switch for kprobes in debugfs")
    write(switch, "0")
    try:
        yield
    finally:
        write(switch, "1")


@test()
def kprobes_that_do_not_arm():
    """Registering a kprobe succeeds, but it stays disarmed."""
    with without_module():
        with kprobes_disarmed():
            equal("EBUSY", code(load, "hook=kprobe"), "loading port0")
        load("hook=kprobe")
        works()


@test()
def kprobes_that_do_not_arm_beside_others():
    """A kprobe that shares its address with another one looks armed although it is not."""
    with without_module():
        with KprobeEvent("p"), kprobes_disarmed():
            equal("EBUSY", code(load, "hook=kprobe"), "loading port0")
        load("hook=kprobe")
        works()


if __name__ == "__main__":
    with restored():
        main()

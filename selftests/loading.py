#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Loading that fails at each step, while sockets marked by an earlier load are in use.

Such sockets are marked, so the hooks of the new load fire for them before it is
sure to stay. None may be taken for bound to port 0 that is not, the load must be
gone without a trace, and the next one must work.
"""

import contextlib
import ctypes
import os
import re
import struct
import threading

from port0_module import HERE, is_loaded, livepatch, load, load_file, restored, unload, users
from port0_test import (KINDS, LOOPBACK, OTHER_PORT, TCP, UDP, Namespace, Skip, bound_socket,
                        check, code, equal, get_mark, holds_zero, kernel_log, libc, main,
                        plain_socket, read, set_mark, test, write)

CGROUP = "/sys/fs/cgroup"
ROUNDS = 2
# What a function says that a livepatch has.
PATCHED = "EXFULL"
# One function of each gate and set
FUNCTIONS = ["inet_bind", "__inet_hash_connect", "inet_getname", "udp_sendmsg"]


class Crowd:
    """Marked sockets of an earlier load, and a thread that keeps calling on them."""

    def __init__(self):
        self.problems = []
        self.over = threading.Event()
        self.rounds = 0
        self.space = Namespace()
        self.thread = threading.Thread(target=self.live)
        with self.space:
            self.listener = plain_socket("127.0.0.1", TCP)
            self.listener.bind(("127.0.0.1", OTHER_PORT))
            self.listener.listen(16)

    def __enter__(self):
        self.marked = []
        with self.space:
            for _ in range(200):
                for host in LOOPBACK.values():
                    for kind in KINDS.values():
                        sock = plain_socket(host, kind)
                        set_mark(sock)
                        self.marked.append((sock, host))
        return self

    def start(self):
        """Start, while the module is not loaded."""
        self.thread.start()

    def __exit__(self, *_):
        self.over.set()
        if self.thread.ident:
            self.thread.join()
        for sock, _ in self.marked:
            sock.close()
        self.listener.close()

    def live(self):
        with self.space:
            while not self.over.is_set():
                try:
                    self.one_round()
                except Exception as problem:
                    self.problems.append(repr(problem))
                    return
                self.rounds += 1

    def one_round(self):
        for host in LOOPBACK.values():
            with plain_socket(host, TCP) as fresh:
                equal("ENOPROTOOPT", code(set_mark, fresh), "setsockopt()")
                equal("ENOPROTOOPT", code(get_mark, fresh), "getsockopt()")
                equal("ENOPROTOOPT", code(holds_zero, fresh), "getsockopt()")
            with plain_socket(host, UDP) as fresh:
                fresh.connect((host, 0))
                equal(True, code(fresh.getpeername) in ("ok", "ENOTCONN", PATCHED),
                      "getpeername()")
        if not self.marked:
            return
        sock, host = self.marked.pop(0)
        with sock:
            # Without the module a mark says nothing; with half of it, it cannot yet.
            answer = code(sock.bind, (host, 0))
            equal(True, answer in ("ok", "ENOPROTOOPT", PATCHED), f"bind(): {answer}")
            if answer == "ok":
                equal(True, sock.getsockname()[1] >= 32768, "an ephemeral port")
            else:
                equal(0, sock.getsockname()[1], "no port")
            # Last, since it gives the socket a port.
            if sock.type == UDP:
                equal(True, code(sock.sendto, b"x", (host, 0)) in ("EINVAL", PATCHED),
                      "sendto()")


@contextlib.contextmanager
def crowd():
    """The module is not loaded, and the sockets marked before are still in use."""
    with restored():
        if not is_loaded():
            load()
        with Crowd() as some:
            unload()
            some.start()
            yield some
            equal([], some.problems, "what went wrong on other sockets")
            equal(True, some.rounds > 0, "they were alive meanwhile")
        load()
        works()


def works():
    with Namespace():
        for host in LOOPBACK.values():
            for kind in KINDS.values():
                with bound_socket(host, kind, 0) as sock:
                    equal("EINVAL", code(sock.bind, (host, 0)))
                    if kind == UDP:
                        sock.sendto(b"x", (host, 0))
                        equal(b"x", sock.recv(2))
    equal(0, users(), "references on the module")


def fails(want, says, call=code):
    """Often enough that calls of the other threads happen at each stage of loading."""
    for _ in range(ROUNDS):
        since = kernel_log()
        answer = call(load)
        lines = [line for line in since() if line.startswith("port0: ")]
        equal(True, answer in want, f"the load ended with {answer}")
        equal(False, is_loaded())
        equal(True, any(re.search(says, line) for line in lines), f"{says!r} in {lines}")
        traces = [line for line in hooked() if "port0" in line]
        equal([], traces, "hooks that are left")


def hooked():
    path = "/sys/kernel/tracing/enabled_functions"
    return read(path).splitlines() if os.path.exists(path) else []


@test(*[(function,) for function in FUNCTIONS])
def a_hook_is_refused(function):
    if not os.path.exists("/proc/sys/kernel/ftrace_enabled"):
        raise Skip("this kernel has no function tracer")
    with crowd(), livepatch(function):
        fails(["EBUSY"], function)


class Program:
    """A cgroup with a program on bind(), and a way to make a call in there."""

    LOAD, ATTACH, TYPE = 5, 8, 18
    BIND = {"ip4": 8, "ip6": 9}
    NUMBER = {"x86_64": 321, "aarch64": 280}

    def __init__(self, family, code_of_program):
        self.type = self.BIND[family]
        self.insns = ctypes.create_string_buffer(code_of_program, len(code_of_program))
        self.licence = ctypes.create_string_buffer(b"GPL")
        self.path = f"{CGROUP}/port0-loading-{os.getpid()}"

    def bpf(self, command, attr):
        buffer = ctypes.create_string_buffer(attr, len(attr))
        return check(libc.syscall(self.NUMBER[os.uname().machine], command, buffer, len(attr)))

    def __enter__(self):
        if not os.path.exists(f"{CGROUP}/cgroup.procs"):
            raise Skip(f"no cgroup2 at {CGROUP}")
        os.mkdir(self.path)
        # Old and new fields up to the expected attach type
        attr = struct.pack("<IIQQIIQII16sII", self.TYPE, len(self.insns.raw) // 8,
                           ctypes.addressof(self.insns), ctypes.addressof(self.licence),
                           0, 0, 0, 0, 0, b"", 0, self.type)
        program = self.bpf(self.LOAD, attr)
        group = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self.bpf(self.ATTACH, struct.pack("<IIII", group, program, self.type, 0))
        os.close(program)
        os.close(group)
        return self

    def code(self, call, *args):
        """code() by a child in the cgroup."""
        answer, say = os.pipe()
        child = os.fork()
        if not child:
            write(f"{self.path}/cgroup.procs", "0")
            os.write(say, code(call, *args).encode())
            os._exit(0)
        os.close(say)
        os.waitpid(child, 0)
        with os.fdopen(answer) as file:
            return file.read()

    def __exit__(self, *_):
        os.rmdir(self.path)


def instruction(operation, registers=0, offset=0, value=0):
    return struct.pack("<BBhi", operation, registers, offset, value)


def answer_with(value):
    return instruction(0xb7, 0, 0, value) + instruction(0x95)


def store(field, value):
    """r2 = value; the field of the context = r2"""
    return instruction(0xb7, 2, 0, value) + instruction(0x63, 0x21, field)


def network(number):
    return struct.unpack("=H", struct.pack("!H", number))[0]


USER_IP4, USER_IP6, USER_PORT = 4, 8, 24
FORBIDS = answer_with(0)
MOVES_PORT = store(USER_PORT, network(OTHER_PORT)) + answer_with(1)
MOVES_NEAR = store(USER_PORT, network(1)) + answer_with(1)


@test(*[(family,) for family in LOOPBACK])
def a_program_forbids_binds(family):
    with crowd(), Program(family, FORBIDS) as program:
        fails(["EPERM"], "bind", program.code)


@test(*[(family,) for family in LOOPBACK])
def a_program_moves_binds(family):
    with crowd(), Program(family, MOVES_PORT) as program:
        fails(["EOPNOTSUPP", "ENOTSUP"], "port", program.code)


@test(*[(family,) for family in LOOPBACK])
def a_program_moves_binds_to_port_1(family):
    """The number that the kernel is shown in place of 0."""
    with crowd(), Program(family, MOVES_NEAR) as program:
        fails(["EOPNOTSUPP", "ENOTSUP"], "port", program.code)


@test()
def a_program_moves_addresses():
    """Only the port counts."""
    moves = store(USER_IP4, struct.unpack("=i", bytes([127, 0, 0, 9]))[0]) + answer_with(1)
    with restored(), Program("ip4", moves) as program:
        if is_loaded():
            unload()
        equal("ok", program.code(load))
        equal(0, users(), "references on the module")


@test()
def an_option_is_taken():
    path = os.path.join(HERE, "modules", "port0_squatter.ko")
    if not os.path.exists(path):
        raise Skip("no module was built that takes an option")
    with crowd():
        load_file(path)
        try:
            fails(["EBUSY"], "option")
            with Namespace(), plain_socket("127.0.0.1", TCP) as sock:
                equal("ENOPROTOOPT", code(set_mark, sock), "of IPv4, taken and given back")
        finally:
            unload("port0_squatter")


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""The parameters that root writes at run time: "drain" and "init_userns"."""

import contextlib
import ctypes
import itertools
import os
import signal
import socket
import struct
import tempfile
import threading
import time

from port0_bpf import USER_PORT, Program, answer_with, instruction
from port0_module import (ENABLED_FUNCTIONS, HAS_TRACER, REFUSAL, SYS, load, load_file,
                          refused, restored, test_module, unload, users, wait_for,
                          without_module)
from port0_test import (CLONE_NEWNET, IO_TIMEOUT, IP_BIND_PORT_ZERO, KINDS, LOOPBACK, OTHER_PORT,
                        TCP, UDP, Namespace, Skip, bound_socket, check, code, equal, get_mark,
                        holds_zero, kernel_log, libc, main, plain_socket, read, set_mark, test,
                        write)

# One hook each that is armed by a bind, by a marked UDP socket, and by a datagram to
# port 0
LATE = {"inet_put_port", "udp_sendmsg", "ip_route_output_flow"}
HOOK = "hook=ftrace" if HAS_TRACER else ""
EVERY_KIND = [(family, kind) for family in LOOPBACK for kind in KINDS]
CLONE_NEWUSER = 0x10000000


def switch(name, value):
    write(f"{SYS}/parameters/{name}", str(value))


@contextlib.contextmanager
def switched(name):
    switch(name, 1)
    try:
        equal("Y", read(f"{SYS}/parameters/{name}"))
        yield
    finally:
        switch(name, 0)


def late_hooks():
    if not os.path.exists(ENABLED_FUNCTIONS):
        raise Skip("no list of hooked functions in tracefs")
    return LATE & {line.split()[0] for line in read(ENABLED_FUNCTIONS).splitlines() if line}


def expect_only(others):
    """Expect that the late hooks go, except those that something else has installed."""
    with contextlib.suppress(TimeoutError):
        wait_for("the hooks to go", lambda: late_hooks() == others)
    equal(others, late_hooks(), "hooks after the last socket was closed")


def use_all(host):
    """Arm every hook that is armed on demand."""
    with bound_socket(host, UDP, 0) as sock:
        sock.sendto(b"x", (host, 0))
        equal(b"x", sock.recv(2))


@test(*EVERY_KIND)
def drain_refuses_new_ones(family, kind):
    host, kind = LOOPBACK[family], KINDS[kind]
    with restored(), Namespace(), plain_socket(host, kind) as before, \
            plain_socket(host, kind) as other, plain_socket(host, kind) as after:
        load_if_needed()
        for sock in (before, other):
            set_mark(sock)
        with switched("drain"):
            equal("EPERM", code(set_mark, after), "a new mark")
            equal(0, get_mark(after))
            equal("EPERM", code(set_mark, before), "a mark that is set already")
            equal(1, get_mark(before))
            equal("EINVAL", code(set_mark, before, 2), "a value that is neither")
            equal("EPERM", code(before.bind, (host, 0)), "a bind to port 0")
            equal((0, 0), (before.getsockname()[1], holds_zero(before)))
            equal("ok", code(other.bind, (host, OTHER_PORT)), "to another port")
            equal("ok", code(set_mark, other, 0), "clearing a mark")
            after.bind((host, 0))
            equal(True, after.getsockname()[1] > 1023, "an unmarked bind is ephemeral")
        before.bind((host, 0))
        equal((0, 1), (before.getsockname()[1], holds_zero(before)))


@test(*EVERY_KIND)
def short_address_while_draining(family, kind):
    """An address that is too short has no port, whatever is in memory behind it."""
    host, shortest = LOOPBACK[family], {"ip4": 16, "ip6": 24}[family]
    with restored(), Namespace(), plain_socket(host, KINDS[kind]) as sock:
        load_if_needed()
        set_mark(sock)
        address = struct.pack("H26x", sock.family)
        with switched("drain"):
            for length in range(28):
                equal("EPERM", code(sock.bind, (host, 0)))
                equal("EINVAL" if length < shortest else "EPERM",
                      code(lambda: check(libc.bind(sock.fileno(), address, length))),
                      f"{length} bytes")


def load_if_needed():
    if not os.path.exists(SYS):
        load()


@test(*[(family,) for family in LOOPBACK])
def sockets_on_port_0_work_while_draining(family):
    host = LOOPBACK[family]
    with restored(), Namespace():
        load_if_needed()
        with bound_socket(host, TCP, 0) as server, plain_socket(host, TCP) as client, \
                bound_socket(host, UDP, 0) as dgram, bound_socket(host, UDP, OTHER_PORT) as other:
            set_mark(other)
            equal("ok", code(other.sendto, b"w", (host, 0)), "from another port")
            equal(b"w", dgram.recv(2))
            with switched("drain"):
                equal("EINVAL", code(other.sendto, b"w", (host, 0)), "while it drains")
                server.listen()
                client.connect((host, 0))
                with server.accept()[0] as child:
                    equal("EINVAL", code(child.bind, (host, 0)), "a bind of an accepted one")
                dgram.sendto(b"x", (host, 0))
                equal(b"x", dgram.recv(2))
                equal("EINVAL", code(server.bind, (host, 0)), "a second bind")
                equal("EINVAL", code(other.bind, (host, 0)), "a second bind, from another port")
                equal(2, users(), "references on the module")
                # The hooks stay while there are sockets that need them.
                time.sleep(1.5)
                dgram.sendto(b"y", (host, 0))
                equal(b"y", dgram.recv(2))
        equal(0, users())


@test(*[(family,) for family in LOOPBACK])
def first_send_while_draining(family):
    """A socket on port 0 gets the hooks that its first datagram to port 0 needs."""
    host = LOOPBACK[family]
    with without_module(), Namespace():
        load(HOOK)
        others = late_hooks()
        with bound_socket(host, UDP, 0) as sock, switched("drain"):
            # By then, the module has found that its hooks are in use.
            time.sleep(0.5)
            equal(False, "ip_route_output_flow" in late_hooks() - others, "that hook before")
            equal("ok", code(sock.sendto, b"x", (host, 0)))
            equal(True, "ip_route_output_flow" in late_hooks(), "that hook after")
            equal(b"x", sock.recv(2))


@test(("ip4", "tcp"), ("ip6", "udp"))
def drain_after_a_watched_socket(family, kind):
    """A socket is watched if its file has another reference when it is bound. The watch ends
    after close(), and does not count any more then."""
    host = LOOPBACK[family]
    with without_module(), Namespace():
        load(HOOK)
        others = late_hooks()
        with plain_socket(host, KINDS[kind]) as sock, sock.dup():
            set_mark(sock)
            sock.bind((host, 0))
            equal(True, "inet_put_port" in late_hooks(), "a hook that the socket needs")
        wait_for("the end of the watch", lambda: not users())
        with switched("drain"):
            expect_only(others)


@test()
def drain_removes_hooks():
    host = "127.0.0.1"
    with without_module(), Namespace():
        load(HOOK)
        others = late_hooks()
        use_all(host)
        equal(LATE, late_hooks() | others)
        old, stream = plain_socket(host, UDP), plain_socket(host, TCP)
        set_mark(old)
        set_mark(stream)
        with bound_socket(host, UDP, 0):
            switch("drain", 1)
            time.sleep(1.5)
            equal(LATE, late_hooks() | others, "hooks while a socket holds port 0")
        # The module tests once a second, also if the last socket is closed much later.
        expect_only(others)
        # Calls that are refused, and the first send of a marked socket, do not arm them.
        with plain_socket(host, UDP) as fresh, old, stream:
            equal("EPERM", code(set_mark, fresh), "a new mark")
            equal("EINVAL", code(old.sendto, b"x", (host, 0)), "a first send")
            equal("EPERM", code(stream.bind, (host, 0)), "a bind to port 0")
            equal("ok", code(stream.bind, (host, OTHER_PORT)), "to another port")
        equal(others, late_hooks(), "hooks after calls that are refused")
        switch("drain", 0)
        use_all(host)
        equal(0, users())
        unload()


@contextlib.contextmanager
def holding():
    """With port0_hold.ko; a task that it holds is released before it is unloaded."""
    load_file(test_module("port0_hold"))
    try:
        yield
    finally:
        wait_for("the held task", lambda: not users("port0_hold"))
        unload("port0_hold")


def drained_beside(others, call):
    """Expect that the drain does not wait for a call that waits for the socket lock."""
    answers = []

    def held():
        hold.write(b"lock")
        answers.append(code(call))

    with holding():
        thread = threading.Thread(target=held)
        with open("/dev/port0_hold", "r+b", buffering=0) as hold:
            thread.start()
            equal(1, len(hold.read(1)), "it waits for the socket lock")
            equal(1, users(), "references on the module")
            switch("drain", 1)
            expect_only(others)
        thread.join()
        equal(["ok"], answers)


@test(*[(family,) for family in LOOPBACK])
def drain_does_not_wait_for_a_name(family):
    """getpeername() needs none of the hooks, and may last as long as another task likes."""
    host = LOOPBACK[family]
    with without_module(), Namespace(), plain_socket(host, UDP) as sock:
        load(HOOK)
        others = late_hooks()
        use_all(host)
        equal(LATE, late_hooks() | others)
        sock.connect((host, 0))
        # One that is over must not count, either.
        equal("ok", code(sock.getpeername))
        drained_beside(others, sock.getpeername)


@test()
def drain_does_not_wait_for_v6only():
    """Setting IPV6_V6ONLY on a marked socket needs none of the hooks, and waits for a bind()."""
    host, only = LOOPBACK["ip6"], ctypes.c_int(1)

    def set_v6only():
        # Python's own setsockopt() would stop the other thread, too.
        check(libc.setsockopt(sock.fileno(), socket.IPPROTO_IPV6, socket.IPV6_V6ONLY,
                              ctypes.byref(only), ctypes.sizeof(only)))

    with without_module(), Namespace(), plain_socket(host, UDP) as sock:
        load(HOOK)
        others = late_hooks()
        use_all(host)
        equal(LATE, late_hooks() | others)
        set_mark(sock)
        equal("ok", code(set_v6only))
        drained_beside(others, set_v6only)


@test(*[(family,) for family in LOOPBACK])
def drain_does_not_wait_for_a_first_send(family):
    """The first send of a socket that an earlier load has marked gets an ephemeral port, and
    needs no hooks while the module drains. Otherwise it arms some, which a drain removes."""
    host = LOOPBACK[family]
    with without_module(), Namespace(), plain_socket(host, UDP) as sock, \
            plain_socket(host, UDP) as later:
        load(HOOK)
        for old in sock, later:
            set_mark(old)
        unload()
        load(HOOK)
        others = late_hooks()
        with bound_socket(host, TCP, 0):
            equal(True, "inet_put_port" in late_hooks(), "a hook for the drain to remove")
        equal(False, "udp_sendmsg" in late_hooks() - others, "hooks that an old mark needs")
        drained_beside(others, lambda: sock.sendto(b"x", (host, OTHER_PORT)))
        # When the drain ends, the module arms the hooks for sockets that have a port.
        sock.close()
        switch("drain", 0)
        equal("ok", code(later.sendto, b"x", (host, OTHER_PORT)))
        equal({"udp_sendmsg"}, late_hooks() - others, "hooks of a first send")
        switch("drain", 1)
        expect_only(others)


def in_user_namespace(call, *args):
    """The result of a call by a task in a user namespace of its own."""
    results, result = os.pipe()
    child = os.fork()
    if not child:
        made = not libc.unshare(CLONE_NEWUSER)
        os.write(result, (code(call, *args) if made else "none").encode())
        os._exit(0)
    os.close(result)
    os.waitpid(child, 0)
    with os.fdopen(results) as file:
        return file.read()


@test(("ip4", "udp"), ("ip6", "tcp"))
def refused_calls_do_not_count(family, kind):
    """A mark or a bind() that is refused needs no hooks: the drain does not wait for it, and
    still waits for the sockets that need them."""
    host, kind = LOOPBACK[family], KINDS[kind]
    with without_module(), Namespace(), plain_socket(host, UDP) as dgram, \
            plain_socket(host, TCP) as stream, plain_socket(host, kind) as fresh, \
            plain_socket(host, kind) as marked, plain_socket(host, kind) as other:
        load(HOOK)
        others = late_hooks()
        # The hooks cannot be armed.
        set_mark(stream)
        with refused("register_ftrace_function" if HAS_TRACER else "enable_kprobe"):
            equal(REFUSAL, code(set_mark, dgram), "a mark")
            equal(REFUSAL, code(stream.bind, (host, 0)), "a bind to port 0")
        wait_for("these hooks", lambda: code(set_mark, dgram) == "ok")
        wait_for("those hooks", lambda: code(stream.bind, (host, 0)) == "ok")
        stream.close()
        # The caller may not.
        for sock in marked, other:
            set_mark(sock)
        with switched("init_userns"):
            for call, *args in (set_mark, fresh), (marked.bind, (host, 0)):
                equal(True, in_user_namespace(call, *args) in ("EPERM", "none"), "by others")
        use_all(host)
        equal(LATE, late_hooks() | others)
        with bound_socket(host, UDP if kind == TCP else TCP, 0):
            # The module drains.
            switch("drain", 1)
            equal("EPERM", code(set_mark, fresh), "a mark")
            equal("EPERM", code(marked.bind, (host, 0)), "a bind to port 0")
            equal("ok", code(other.bind, (host, OTHER_PORT)), "a bind to another port")
            time.sleep(1.5)
            equal(LATE, late_hooks() | others, "hooks while a socket holds port 0")
        expect_only(others)


@test(*[(family, how) for family in LOOPBACK for how in ("bind", "clear")])
def drain_does_not_wait_for_later_calls(family, how):
    """A call that begins while the module drains needs none of the hooks, and may last as long
    as another task likes: a bind() to another port, or one that clears the mark."""
    host, off, answers = LOOPBACK[family], ctypes.c_int(0), []

    def clear():
        # Python's own setsockopt() would stop the other thread, too.
        check(libc.setsockopt(sock.fileno(), socket.IPPROTO_IP, IP_BIND_PORT_ZERO,
                              ctypes.byref(off), ctypes.sizeof(off)))

    def held():
        # The kernel's part of setsockopt() takes the lock, too, before it asks the module.
        hold.write(b"lock" if how == "bind" else b"relock")
        answers.append(code(sock.bind, (host, OTHER_PORT)) if how == "bind" else code(clear))

    with without_module(), Namespace(), plain_socket(host, UDP) as sock:
        load(HOOK)
        others = late_hooks()
        use_all(host)
        set_mark(sock)
        with holding():
            thread = threading.Thread(target=held)
            with open("/dev/port0_hold", "r+b", buffering=0) as hold:
                with bound_socket(host, UDP, 0):
                    switch("drain", 1)
                    thread.start()
                    equal(1, len(hold.read(1)), "it waits for the socket lock")
                    equal(LATE, late_hooks() | others, "hooks while a socket holds port 0")
                expect_only(others)
            thread.join()
            equal(["ok"], answers)


@test()
def a_cpu_is_switched_off():
    """References are counted per CPU. Those of a CPU that is off by now count, too."""
    host, cpu = "127.0.0.1", "/sys/devices/system/cpu/cpu1/online"
    if not os.path.exists(cpu):
        raise Skip("no second CPU that can be switched off")
    cpus = os.sched_getaffinity(0)
    with without_module(), Namespace(), contextlib.ExitStack() as stack:
        load(HOOK)
        others = late_hooks()
        stack.callback(os.sched_setaffinity, 0, cpus)
        os.sched_setaffinity(0, {1})
        use_all(host)
        with bound_socket(host, UDP, 0):
            os.sched_setaffinity(0, cpus - {1})
            stack.callback(write, cpu, "1")
            write(cpu, "0")
            switch("drain", 1)
            time.sleep(1.5)
            equal(LATE, late_hooks() | others, "hooks while a socket holds port 0")
        expect_only(others)


@test(("tcp",), ("udp",))
def failing_rmmod_removes_no_hooks(kind):
    """While rmmod fails, the kernel's count of references is one too low for a moment: 0 if
    one socket holds port 0."""
    path = test_module("port0_rmmod")
    host, kind = "127.0.0.1", KINDS[kind]
    with without_module(), Namespace():
        load()
        others = late_hooks()
        with bound_socket(host, kind, 0):
            hooks = late_hooks()
            equal(True, "inet_put_port" in hooks, "a hook that the socket needs")
            load_file(path)
            try:
                equal(0, users(), "references, as the kernel counts them")
                with switched("drain"):
                    time.sleep(1.5)
                    equal(hooks, late_hooks(), "hooks while rmmod fails")
            finally:
                unload("port0_rmmod")
            equal(1, users(), "references")
        with switched("drain"):
            wait_for("the hooks to go", lambda: late_hooks() == others)
        equal(0, users(), "when the socket is closed")
        unload()


@test()
def marks_can_send_after_the_drain():
    """After the drain, a socket that was marked before can send to port 0 again."""
    host = "127.0.0.1"
    with without_module(), Namespace():
        load(HOOK)
        others = late_hooks()
        # In a second namespace, so that the module has to search all namespaces.
        with Namespace(), plain_socket(host, UDP) as marked:
            set_mark(marked)
            marked.bind((host, OTHER_PORT))
            switch("drain", 1)
            wait_for("the hooks to go", lambda: late_hooks() == others)
            equal("EINVAL", code(marked.sendto, b"x", (host, 0)), "while it drains")
            switch("drain", 0)
            with contextlib.suppress(TimeoutError):
                wait_for("a hook", lambda: late_hooks() != others)
            equal({"udp_sendmsg"}, late_hooks() - others, "hooks for the marked socket")
            equal("ok", code(marked.sendto, b"x", (host, 0)), "when it no longer drains")
            with bound_socket(host, UDP, 0) as server:
                marked.sendto(b"y", (host, 0))
                equal((b"y", (host, OTHER_PORT)), server.recvfrom(2))


@test()
def hooks_cannot_be_armed_after_the_drain():
    """The log says that the sockets marked before cannot send to port 0."""
    host = "127.0.0.1"
    with without_module(), Namespace():
        load(HOOK)
        others = late_hooks()
        with plain_socket(host, UDP) as marked:
            set_mark(marked)
            marked.bind((host, OTHER_PORT))
            switch("drain", 1)
            wait_for("the hooks to go", lambda: late_hooks() == others)
            with refused("register_ftrace_function" if HAS_TRACER else "enable_kprobe") as calls:
                since = kernel_log()
                switch("drain", 0)
                wait_for("the hooks to be refused", calls)
                wait_for("the line that says so", lambda: any(
                    line.startswith("port0: ") and "cannot send to port 0" in line
                    for line in since()))
            equal("EINVAL", code(marked.sendto, b"x", (host, 0)))
            # Later, another setsockopt() on the socket arms them.
            wait_for("the hooks", lambda: code(set_mark, marked) == "ok")
            equal("ok", code(marked.sendto, b"x", (host, 0)))
        equal(0, users())


@test(("drain",), ("init_userns",))
def wrong_values(name):
    """They are refused, and change nothing."""
    with restored():
        load_if_needed()
        for before, letter in ((1, "Y"), (0, "N")):
            switch(name, before)
            for value in "perhaps", "2", "-":
                equal("EINVAL", code(switch, name, value), value)
            equal(letter, read(f"{SYS}/parameters/{name}"))


@test(("drain=1",), ("drain",))
def loaded_to_drain(parameter):
    """drain given at load applies from the start, also to sockets that were marked and
    bound before."""
    host = "127.0.0.1"
    with without_module(), Namespace(), plain_socket(host, UDP) as old:
        load(HOOK)
        set_mark(old)
        old.bind((host, OTHER_PORT))
        unload()
        others = late_hooks()
        load(f"{HOOK} {parameter}")
        equal("Y", read(f"{SYS}/parameters/drain"))
        with plain_socket(host, TCP) as fresh:
            equal("EPERM", code(set_mark, fresh), "a new mark")
        equal(others, late_hooks(), "hooks")
        equal("EINVAL", code(old.sendto, b"x", (host, 0)), "while it drains")
        switch("drain", 0)
        with contextlib.suppress(TimeoutError):
            wait_for("sendto() to port 0", lambda: code(old.sendto, b"x", (host, 0)) == "ok")
        equal("ok", code(old.sendto, b"x", (host, 0)), "when it no longer drains")
        equal(0, users())


@test()
def load_to_drain_that_fails():
    """A failed load leaves no delayed work that would run after the module's memory is freed."""
    with without_module():
        equal("EINVAL", code(load, "drain=1 hook=perhaps"))
        time.sleep(1.5)
        load()
        equal(0, users())


# A program that forbids port 0: r0 = the port; if it is 0, exit
NOT_ZERO = (instruction(0x61, 0x10, USER_PORT) + instruction(0x15, 0, 1) + answer_with(1))


@test()
def a_program_sees_port_0():
    """While the drain removes hooks, a send to port 0 passes a sendmsg program with port 0 or
    fails with EINVAL, and does not arm the hooks again."""
    host = "127.0.0.1"

    def send_until(over, pipe):
        answers = set()
        with plain_socket(host, UDP) as marked:
            set_mark(marked)
            marked.bind((host, OTHER_PORT))
            while not os.path.exists(over):
                for _ in range(20):
                    answers.add(code(marked.sendto, b"x", (host, 0)))
                    time.sleep(0.005)
        os.write(pipe, " ".join(sorted(answers)).encode())

    with without_module(), Namespace(), Program("ip4", NOT_ZERO, Program.SENDMSG) as program, \
            tempfile.TemporaryDirectory() as directory:
        load()
        others = late_hooks()
        over = f"{directory}/over"
        read_end, write_end = os.pipe()
        child = os.fork()
        if not child:
            write(f"{program.path}/cgroup.procs", "0")
            send_until(over, write_end)
            os._exit(0)
        os.close(write_end)
        try:
            for _ in range(12):
                wait_for("a hook", lambda: late_hooks() != others)
                time.sleep(0.05)
                switch("drain", 1)
                # Once a second, the module removes them if no send is in flight.
                wait_for("the hooks to go", lambda: late_hooks() == others, 6 * IO_TIMEOUT)
                switch("drain", 0)
        finally:
            open(over, "w").close()
            os.waitpid(child, 0)
        with os.fdopen(read_end) as file:
            equal({"EPERM"}, set(file.read().split()) - {"EINVAL"}, "answers with the hooks")


@test(*[(family, how) for family in LOOPBACK for how in ("bind", "sendto")])
def undrained_while_a_socket_is_bound(family, how):
    """A marked socket that is not bound yet when the drain ends can send to port 0, too."""
    host, answers = LOOPBACK[family], []

    def call():
        hold.write(b"lock")
        answers.append(code(sock.bind, (host, OTHER_PORT)) if how == "bind" else
                       code(sock.sendto, b"x", (host, OTHER_PORT)))

    with without_module(), Namespace(), plain_socket(host, UDP) as sock:
        load()
        with holding():
            set_mark(sock)
            switch("drain", 1)
            wait_for("the drain", lambda: "udp_sendmsg" not in late_hooks())
            thread = threading.Thread(target=call)
            with open("/dev/port0_hold", "r+b", buffering=0) as hold:
                thread.start()
                equal(1, len(hold.read(1)), "it waits for the socket lock")
                switch("drain", 0)
                time.sleep(0.5)
            thread.join()
            equal(["ok"], answers)
            equal("ok", code(sock.sendto, b"x", (host, 0)), "to port 0")


@test((1, 1), (0, 1), (0, 0))
def written_while_it_is_unloaded(*values):
    """A write while the module is unloaded must not start work.

    Without "drain", that work would arm the hooks that a marked socket needs.
    """
    host = "127.0.0.1"
    with without_module(), Namespace(), plain_socket(host, UDP) as marked:
        for first in True, False:
            load()
            if first:
                set_mark(marked)
                marked.bind((host, OTHER_PORT))
            writer = os.fork()
            if not writer:
                with contextlib.suppress(OSError):
                    while True:
                        for value in values:
                            switch("drain", value)
                            time.sleep(0.001)
                os._exit(0)
            time.sleep(0.1)
            try:
                unload()
            except OSError:
                os.kill(writer, signal.SIGKILL)
                raise
            finally:
                status = os.waitpid(writer, 0)[1]
            equal(0, status, "the writer's status")
            time.sleep(1.5)


@test()
def written_just_before_it_is_unloaded():
    """The unload waits for a write that has begun, and ends the work that it starts.

    That work would arm the hooks that a marked socket needs.
    """
    host = "127.0.0.1"
    with without_module(), Namespace(), plain_socket(host, UDP) as marked:
        load()
        set_mark(marked)
        marked.bind((host, OTHER_PORT))
        # Called by the write: now it takes its time, and does nothing.
        with refused("cancel_delayed_work", err=0, times=1, delay=2000) as calls:
            writer = threading.Thread(target=code, args=(switch, "drain", 0))
            writer.start()
            try:
                wait_for("the write", calls)
                equal("ok", code(unload))
            finally:
                writer.join()
        time.sleep(1.5)
        equal("ok", code(marked.sendto, b"x", (host, OTHER_PORT)))


@test()
def unloads_while_it_drains():
    """The delayed work of the drain ends before the module is unloaded."""
    with without_module(), Namespace():
        for _ in range(5):
            load()
            with bound_socket("127.0.0.1", TCP, 0):
                switch("drain", 1)
                equal("EAGAIN", code(unload))
            unload()
        time.sleep(1.5)


# The option of port0_squatter.ko, and the fraction of the time of an unload during which
# options of other modules may fail
OPTION = 0x7020
MOMENT = 1 / 20


def longest_refusal(answers):
    """The longest run of ENOPROTOOPT in a list of results, as a fraction of the list."""
    equal(set(), set(answers) - {"EXFULL", "ENOPROTOOPT"}, "other answers")
    stretches = itertools.groupby(answers)
    return max((len(list(stretch)) for answer, stretch in stretches
                if answer == "ENOPROTOOPT"), default=0) / len(answers)


@test()
def other_options_while_it_is_unloaded():
    """While a module that has options is being unloaded, the kernel may not find options of
    other modules. So port0 must unregister its own before it waits for the drain's work."""
    path = test_module("port0_squatter")
    with without_module(), Namespace(), plain_socket("::1", UDP) as sock:
        # The kernel searches options of modules that are loaded later first.
        load_file(path, f"option={OPTION}")
        try:
            longest = max(unload_with_options(sock) for _ in range(4))
        finally:
            unload("port0_squatter")
    equal(True, longest < MOMENT, f"another module's option failed for {longest:.0%} of the time")


def unload_with_options(sock):
    answers, over = [], threading.Event()

    def ask():
        while not over.is_set():
            answers.append(code(sock.setsockopt, socket.IPPROTO_IPV6, OPTION, 1))
            time.sleep(0.001)

    load()
    use_all("127.0.0.1")
    thread = threading.Thread(target=ask)
    thread.start()
    try:
        switch("drain", 1)
        # While the kernel searches for an option, it holds a reference on each module.
        while (answer := code(unload)) == "EAGAIN":
            pass
        equal("ok", answer, "rmmod")
    finally:
        over.set()
        thread.join()
    equal("EXFULL", answers[-1], "when it is unloaded")
    return longest_refusal(answers)


@test(*EVERY_KIND)
def only_the_initial_user_namespace(family, kind):
    host, kind = LOOPBACK[family], KINDS[kind]

    def by_child(more=0, mark=1, user=None):
        """Mark a socket in a new user namespace, or as another user of this one."""
        child = os.fork()
        if not child:
            status = 99
            if not (os.setuid(user) if user else libc.unshare(CLONE_NEWUSER | more)):
                with plain_socket(host, kind) as sock:
                    status = {"ok": 0, "EPERM": 1}.get(code(set_mark, sock, mark), 2)
            os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    with restored(), Namespace():
        load_if_needed()
        if by_child() == 99:
            raise Skip("no user namespaces")
        equal(0, by_child(), "from a user namespace")
        with switched("init_userns"):
            equal(1, by_child(), "from a user namespace, EPERM")
            equal(1, by_child(CLONE_NEWNET), "also in a network namespace of its own")
            equal(0, by_child(mark=0), "clearing a mark")
            equal(0, by_child(user=65534), "from the initial one, without a capability")
            with plain_socket(host, kind) as sock:
                set_mark(sock)
                sock.bind((host, 0))
                equal(1, holds_zero(sock))
        equal(0, by_child(), "from a user namespace again")


@test(*EVERY_KIND)
def marked_for_another_user_namespace(family, kind):
    """Marks are inherited from listeners, so bind() asks who the caller is, too."""
    host, kind = LOOPBACK[family], KINDS[kind]

    def by_child(sock, port):
        child = os.fork()
        if not child:
            answers = "ok", "EPERM", "EINVAL"
            answer = "no user namespace" if libc.unshare(CLONE_NEWUSER) else \
                code(sock.bind, (host, port))
            os._exit(answers.index(answer) if answer in answers else 99)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    with restored(), Namespace():
        load_if_needed()
        write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
        with plain_socket(host, kind) as sock:
            set_mark(sock)
            with switched("init_userns"):
                equal(1, by_child(sock, 0), "EPERM")
                equal(0, holds_zero(sock))
            equal(0, by_child(sock, 0), "without the parameter")
            equal(1, holds_zero(sock))
            with switched("init_userns"):
                equal(2, by_child(sock, 0), "a second bind, EINVAL")
        with plain_socket(host, kind) as sock, switched("init_userns"):
            set_mark(sock)
            equal(0, by_child(sock, OTHER_PORT), "another port")


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Hooks that port0 arms on first need, when somebody else has taken the function.

Who asks first is told EBUSY and has lost nothing; the log names the function; and
when the other has gone the same call succeeds.
"""

import contextlib
import os
import time

from port0_module import is_loaded, livepatch, load, unload, users, without_module
from port0_test import (LOOPBACK, TCP, UDP, Namespace, Skip, bound_socket, code,
                        equal, get_mark, holds_zero, is_ephemeral, kernel_log, main,
                        plain_socket, read, set_mark, test, write)

TRACING = "/sys/kernel/tracing"
KPROBES = "/sys/kernel/debug/kprobes/list"
HOSTS = [(host,) for host in LOOPBACK.values()]
# For how long a refusal is remembered, and some.
FORGOTTEN = 1.5


@contextlib.contextmanager
def kprobe(function):
    """Somebody's probe; skips where port0 does not have to share its place."""
    if not os.path.exists(f"{TRACING}/kprobe_events"):
        raise Skip("this kernel has no kprobe events")
    write(f"{TRACING}/kprobe_events", f"p:port0late/probe {function}\n", os.O_APPEND)
    try:
        write(f"{TRACING}/events/port0late/enable", "1")
        try:
            if "[FTRACE]" not in read(KPROBES):
                raise Skip("kprobes do not sit on ftrace here, and share")
            yield
        finally:
            write(f"{TRACING}/events/port0late/enable", "0")
    finally:
        write(f"{TRACING}/kprobe_events", "-:port0late/probe\n", os.O_APPEND)


def skip_without_tracer():
    if not os.path.exists("/proc/sys/kernel/ftrace_enabled"):
        raise Skip("this kernel has no function tracer")


def named(lines, function):
    found = [line for line in lines if line.startswith("port0:") and function in line]
    equal(True, bool(found), f"a line that names {function}: {lines}")


def let_in(call, *args):
    """A refusal is remembered for a second at most."""
    deadline = time.monotonic() + FORGOTTEN + 10
    while (answer := code(call, *args)) == "EBUSY":
        if time.monotonic() > deadline:
            raise TimeoutError("still refused")
        time.sleep(0.1)
    equal("ok", answer, "when the other has gone")


def refused_mark(host):
    """setsockopt() on UDP sockets is refused, and nothing else."""
    with plain_socket(host, UDP) as sock, plain_socket(host, TCP) as stream:
        since = kernel_log()
        equal("EBUSY", code(set_mark, sock))
        lines = since()
        equal(0, get_mark(sock), "a refused mark")
        equal("EBUSY", code(set_mark, sock), "at once again")
        equal("ok", code(set_mark, sock, 0), "clearing what is clear")
        sock.bind((host, 0))
        equal(True, is_ephemeral(sock.getsockname()[1]), "unmarked, it binds as ever")
        # TCP needs none of this.
        set_mark(stream)
        stream.bind((host, 0))
        equal((0, 1), (stream.getsockname()[1], holds_zero(stream)))
    return lines


def sends(sock, host):
    """It is bound to port 0, and sends to itself there."""
    sock.sendto(b"x", (host, 0))
    equal((b"x", 0), (lambda got: (got[0], got[1][1]))(sock.recvfrom(2)))


def marks_and_sends(host):
    with plain_socket(host, UDP) as sock:
        let_in(set_mark, sock)
        equal(1, get_mark(sock))
        sock.bind((host, 0))
        sends(sock, host)


@test(*[(function, host) for (host,) in HOSTS for function in ("udp_sendmsg", "udpv6_sendmsg")])
def setsockopt_beside_a_livepatch(function, host):
    skip_without_tracer()
    with without_module(), Namespace():
        load("hook=ftrace")
        with livepatch(function):
            named(refused_mark(host), function)
        marks_and_sends(host)
        equal(0, users(), "references on the module")


@test(*[(function, host) for (host,) in HOSTS for function in ("udp_sendmsg", "udpv6_sendmsg")])
def setsockopt_beside_a_kprobe(function, host):
    with without_module(), Namespace():
        load("hook=kprobe")
        with kprobe(function):
            named(refused_mark(host), function)
        marks_and_sends(host)
        equal(0, users(), "references on the module")


# Who refuses, and the other family's function: one of the same set that this test
# does not call itself.
WAYS = {"livepatch": ("ftrace", livepatch), "kprobe": ("kprobe", kprobe)}
OTHERS = {"127.0.0.1": "udpv6_sendmsg", "::1": "udp_sendmsg"}


@contextlib.contextmanager
def marked_before(way, host):
    """A UDP socket that was marked under an earlier load, and a way to refuse."""
    backend, refuse = WAYS[way]
    if backend == "ftrace":
        skip_without_tracer()
    with without_module(), Namespace(), plain_socket(host, UDP) as sock:
        load(f"hook={backend}")
        set_mark(sock)
        unload()
        load(f"hook={backend}")
        yield sock, lambda: refuse(OTHERS[host])
        equal(int(holds_zero(sock)), users(), "references on the module")


EACH_WAY = [(way, host) for way in WAYS for host in OTHERS]


@test(*EACH_WAY)
def bind_of_an_old_mark(way, host):
    """bind() to port 0 brings with it what a UDP socket there needs to send."""
    with marked_before(way, host) as (sock, refused):
        with refused():
            since = kernel_log()
            equal("EBUSY", code(sock.bind, (host, 0)))
            named(since(), OTHERS[host])
            equal("EBUSY", code(sock.bind, (host, 0)), "at once again")
            equal((0, 0), (sock.getsockname()[1], holds_zero(sock)), "a refused bind")
            equal(1, get_mark(sock))
            equal(0, users(), "references on the module")
            with plain_socket(host, UDP) as other:
                other.bind((host, 0))
                equal(True, is_ephemeral(other.getsockname()[1]), "unmarked")
            # TCP needs nothing of what is refused.
            with bound_socket(host, TCP, 0) as stream:
                stream.listen()
        let_in(sock.bind, (host, 0))
        equal((0, 1), (sock.getsockname()[1], holds_zero(sock)))
        sends(sock, host)


@test(*EACH_WAY)
def sendto_of_an_old_mark(way, host):
    """Without a bind(): the datagram is refused as on any other socket."""
    with marked_before(way, host) as (sock, refused):
        with refused():
            equal(True, code(sock.sendto, b"x", (host, 0)) in ("EINVAL", "EBUSY"))
            equal(0, users(), "references on the module")
            with bound_socket(host, TCP, 0):
                pass
        with plain_socket(host, UDP) as fresh:
            let_in(set_mark, fresh)
        with bound_socket(host, UDP, 0) as server:
            sock.sendto(b"x", (host, 0))
            equal(b"x", server.recv(2))


@test(*OTHERS.items())
def livepatch_too_late(host, function):
    """Once armed, nobody can take the functions any more."""
    skip_without_tracer()
    with without_module(), Namespace():
        load("hook=ftrace")
        with bound_socket(host, UDP, 0) as sock:
            equal("EBUSY", code(contextlib.ExitStack().enter_context, livepatch(function)))
            sends(sock, host)
        equal(0, users(), "references on the module")


@test()
def unloads_while_refused():
    """What was refused leaves nothing behind that would be in an unload's way."""
    with without_module(), Namespace():
        load("hook=kprobe")
        with kprobe("udp_sendmsg"), plain_socket("127.0.0.1", UDP) as sock:
            equal("EBUSY", code(set_mark, sock))
            unload()
            equal(False, is_loaded())
            equal("ENOPROTOOPT", code(set_mark, sock))
        load("hook=kprobe")
        marks_and_sends("127.0.0.1")


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    main()

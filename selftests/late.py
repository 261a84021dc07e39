#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Hooks that are armed on demand, when a livepatch or a kprobe is on the function.

The call that first needs the hook fails with EBUSY and changes nothing, and the log names
the function. Once the livepatch or kprobe is gone, the same call succeeds.

By default, some tests try each way with one family; with PORT0_LONG=1, with both.
"""

import contextlib
import errno
import functools
import os
import re
import time

from port0_module import (HAS_TRACER, KPROBES, REFUSAL, hooked, is_loaded, livepatch, load, refused,
                          restored, skip_without, skip_without_tracer, unload, users,
                          without_module, wait_for)
from port0_test import (LONG, LOOPBACK, OTHER_PORT, TCP, UDP, Namespace, Skip, bound_socket, code,
                        equal, get_mark, holds_zero, is_ephemeral, kernel_log, main, plain_socket,
                        read, set_mark, test, write)

TRACING = "/sys/kernel/tracing"
HOSTS = [(host,) for host in LOOPBACK.values()]
# In seconds: after hooks could not be armed, the module fails requests for them for one
# second, without another try. This is a little longer.
REFUSAL_TIME = 1.5


@contextlib.contextmanager
def kprobe(function):
    """Another kprobe on the function; skips where port0 can share the function with it."""
    if not os.path.exists(f"{TRACING}/kprobe_events"):
        raise Skip("this kernel has no kprobe events")
    write(f"{TRACING}/kprobe_events", f"p:port0late/probe {function}\n", os.O_APPEND)
    try:
        write(f"{TRACING}/events/port0late/enable", "1")
        try:
            if "[FTRACE]" not in read(KPROBES):
                raise Skip("kprobes do not use ftrace here, so they can share a function")
            yield
        finally:
            write(f"{TRACING}/events/port0late/enable", "0")
    finally:
        write(f"{TRACING}/kprobe_events", "-:port0late/probe\n", os.O_APPEND)


def named(lines, function):
    found = [line for line in lines if line.startswith("port0:") and function in line]
    equal(True, bool(found), f"a line that names {function}: {lines}")


def retry(call, *args):
    """Repeat the call until it succeeds, for which REFUSAL_TIME has to pass."""
    deadline = time.monotonic() + REFUSAL_TIME + 10
    while (answer := code(call, *args)) in ("EBUSY", REFUSAL) and time.monotonic() < deadline:
        time.sleep(0.1)
    equal("ok", answer, "without the livepatch or kprobe")


def refused_mark(host):
    """Expect that setsockopt() on UDP sockets is refused, and nothing else."""
    with plain_socket(host, UDP) as sock, plain_socket(host, TCP) as stream:
        since = kernel_log()
        equal("EBUSY", code(set_mark, sock))
        lines = since()
        equal(0, get_mark(sock), "a refused mark")
        equal("EBUSY", code(set_mark, sock), "at once again")
        equal("ok", code(set_mark, sock, 0), "clearing a mark that is not set")
        sock.bind((host, 0))
        equal(True, is_ephemeral(sock.getsockname()[1]), "an unmarked bind is ephemeral")
        # TCP does not need these hooks.
        set_mark(stream)
        stream.bind((host, 0))
        equal((0, 1), (stream.getsockname()[1], holds_zero(stream)))
    return lines


def sends(sock, host):
    """Expect that a socket on port 0 can send to itself."""
    sock.sendto(b"x", (host, 0))
    equal((b"x", 0), (lambda got: (got[0], got[1][1]))(sock.recvfrom(2)))


def marks_and_sends(host):
    with plain_socket(host, UDP) as sock:
        retry(set_mark, sock)
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


# For each family, a function of the other family: it is in the same set of hooks, but
# this test does not call it.
WAYS = {"livepatch": ("ftrace", livepatch), "kprobe": ("kprobe", kprobe)}
OTHERS = {"127.0.0.1": "udpv6_sendmsg", "::1": "udp_sendmsg"}


@contextlib.contextmanager
def old_mark(backend, host):
    """A UDP socket that was marked under an earlier load."""
    skip_without(backend)
    with without_module(), Namespace(), plain_socket(host, UDP) as sock:
        load(f"hook={backend}")
        set_mark(sock)
        unload()
        load(f"hook={backend}")
        yield sock
        equal(int(holds_zero(sock)), users(), "references on the module")


@contextlib.contextmanager
def marked_before(way, host):
    """The same, and a context manager under which its hooks cannot be armed."""
    backend, refuse = WAYS[way]
    with old_mark(backend, host) as sock:
        yield sock, lambda: refuse(OTHERS[host])


EACH_WAY = ([(way, host) for way in WAYS for host in OTHERS] if LONG else
            list(zip(WAYS, OTHERS)))


@test(*EACH_WAY)
def bind_of_an_old_mark(way, host):
    """bind() to port 0 also arms the hooks that a UDP socket needs to send to port 0."""
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
            # TCP does not need the refused hooks.
            with bound_socket(host, TCP, 0) as stream:
                stream.listen()
        retry(sock.bind, (host, 0))
        equal((0, 1), (sock.getsockname()[1], holds_zero(sock)))
        sends(sock, host)


@test(*EACH_WAY)
def sendto_of_an_old_mark(way, host):
    """Without a bind(), sendto() to port 0 is refused as on an unmarked socket."""
    with marked_before(way, host) as (sock, refused):
        # With a timeout, Python repeats a call that ends with EAGAIN.
        sock.settimeout(None)
        with refused():
            equal(True, code(sock.sendto, b"x", (host, 0)) in ("EINVAL", "EBUSY"))
            equal("ok", code(sock.sendto, b"x", (host, OTHER_PORT)), "to another port")
            equal(0, users(), "references on the module")
            with bound_socket(host, TCP, 0):
                pass
        with plain_socket(host, UDP) as fresh:
            retry(set_mark, fresh)
        with bound_socket(host, UDP, 0) as server:
            sock.sendto(b"x", (host, 0))
            equal(b"x", server.recv(2))


@test(("inet_put_port",), ("ip_append_data",))
def bind_and_send_beside_a_kprobe(function):
    """On functions whose calls port0 does not redirect, another kprobe prevents nothing."""
    host = "127.0.0.1"
    with without_module(), Namespace():
        load("hook=kprobe")
        with kprobe(function), bound_socket(host, UDP, 0) as sock:
            sends(sock, host)
        equal(0, users(), "references on the module")


# The function by which each backend installs hooks; it is made to fail at each step
PLACE = {"ftrace": "register_ftrace_function", "kprobe": "enable_kprobe"}


class Step:
    """A call on a socket that needs hooks which are not armed yet."""

    def __init__(self, host, kind, prepare, call):
        self.sock = plain_socket(host, kind)
        # With a timeout, Python repeats a call that ends with EAGAIN.
        self.sock.settimeout(None)
        self.host = host
        self.kind = kind
        for what in prepare:
            what(self)
        self.try_it = lambda: call(self)

    def mark(self):
        set_mark(self.sock)

    def bind(self):
        self.sock.bind((self.host, 0))

    def send(self):
        self.sock.sendto(b"x", (self.host, 0))


STEPS = {
    "setsockopt": (UDP, [], Step.mark),
    "bind": (TCP, [Step.mark], Step.bind),
    "sendto": (UDP, [Step.mark], Step.send),
    "sendto_bound": (UDP, [Step.mark, Step.bind], Step.send),
}


def state(sock):
    return get_mark(sock), holds_zero(sock), sock.getsockname()[:2]


@contextlib.contextmanager
def at_step(name, backend, host):
    kind, prepare, call = STEPS[name]
    skip_without(backend)
    with without_module(), Namespace():
        load(f"hook={backend}")
        step = Step(host, kind, prepare, call)
        with step.sock:
            yield step
        equal(0, users(), "references on the module")


EACH_STEP = [(name, backend, host) for name in STEPS
             for backend, host in (("ftrace", "127.0.0.1"), ("kprobe", "::1"))]


def expect_reason(lines, backend):
    text = rf"^port0: .*: cannot hook \w+ with {backend}: errno {errno.EXFULL} \("
    equal(True, any(re.search(text, line) for line in lines),
          f"a line that names the function, in {lines}")


def other_calls_work(step):
    """Calls that do not need the refused hooks still work."""
    with bound_socket(step.host, step.kind, OTHER_PORT) as other, \
            plain_socket(step.host, step.kind) as client:
        if step.kind == TCP:
            other.listen()
        client.connect((step.host, OTHER_PORT))
        if step.kind == UDP:
            client.send(b"y")
            equal(b"y", other.recv(2))


# Before the hooks are installed: where functions are added to those of a gate, and where a
# kprobe is made.
EARLIER = [("setsockopt", "ftrace", "127.0.0.1", "ftrace_set_filter_ips"),
           ("sendto_bound", "ftrace", "127.0.0.1", "ftrace_set_filter_ips"),
           ("setsockopt", "kprobe", "::1", "register_kprobe")]


@test(*EACH_STEP, *EARLIER)
def step_refused(name, backend, host, place=None):
    """The call fails, each time with the same errno. The log has the reason, and nothing
    has changed."""
    with at_step(name, backend, host) as step:
        with refused(place or PLACE[backend]) as calls:
            before, hooks, held = state(step.sock), hooked(), users()
            since, began = kernel_log(), time.monotonic()
            equal(REFUSAL, code(step.try_it))
            expect_reason(since(), backend)
            # It is tried, and tried again to find out which function it is.
            equal(True, calls() < 10, f"{calls()} tries")
            if name.startswith("sendto"):
                # An unbound socket has got an ephemeral port, like any socket that
                # sends.
                equal(before[:2], state(step.sock)[:2])
            else:
                equal(before, state(step.sock))
            equal(hooks, hooked(), "hooks")
            equal(held, users(), "references on the module")
            # Each try would patch the kernel, so the module tries once a second at
            # most.
            counted = calls()
            while True:
                equal(REFUSAL, code(step.try_it), "again")
                tried = calls()
                if time.monotonic() - began > 0.9:
                    break
                equal(counted, tried, "tries within the same second")
            other_calls_work(step)
            # After that time, it is tried and refused again, and logged again.
            counted, since = calls(), kernel_log()
            deadline = time.monotonic() + REFUSAL_TIME + 10
            while calls() == counted and time.monotonic() < deadline:
                equal(REFUSAL, code(step.try_it))
                time.sleep(0.1)
            equal(True, calls() > counted, "it is tried again")
            expect_reason(since(), backend)
        retry(step.try_it)


@test(*EACH_STEP)
def step_refused_half_way(name, backend, host):
    """Some hooks of the set are installed already, and have to be removed again."""
    for skip in (1, 2):
        with at_step(name, backend, host) as step:
            with refused(PLACE[backend], skip=skip):
                before, hooks = state(step.sock), hooked()
                answer = code(step.try_it)
                equal(True, answer in ("ok", REFUSAL), answer)
                if answer == "ok":
                    continue
                equal(hooks, hooked(), "hooks")
                equal(before[:2], state(step.sock)[:2])
            retry(step.try_it)


@test()
def added_half_way():
    """Where functions can only be added to a gate one by one, the first is taken out again if
    the second is refused."""
    with at_step("sendto_bound", "ftrace", "127.0.0.1") as step:
        with refused("ftrace_set_filter_ip", skip=1, times=1) as calls:
            hooks = hooked()
            answer = code(step.try_it)
            if calls() < 2:
                raise Skip("this kernel adds them all at once")
            equal(REFUSAL, answer)
            equal(hooks, hooked(), "hooks")
        retry(step.try_it)


def sleeps():
    """How often this thread has slept so far."""
    return int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", read("/proc/thread-self/status"),
                         re.M)[1])


@test(*[(name, backend, host, error)
        for name, backend, host in EACH_STEP for error in ("ENOMEM", "EAGAIN")
        if (backend, error) != ("kprobe", "EAGAIN")])
def step_refused_for_a_moment(name, backend, host, error):
    """After ENOMEM and EAGAIN, the next call tries again at once."""
    number = getattr(errno, error)
    with at_step(name, backend, host) as step:
        with refused(PLACE[backend], err=number) as calls:
            slept = sleeps()
            equal(error, code(step.try_it))
            slept = sleeps() - slept
            # EAGAIN: a BPF program is being changed. The module waits and tries again.
            equal(True, error == "ENOMEM" or (calls() > 10 and slept > calls() // 2),
                  f"{calls()} tries, {slept} pauses")
        equal("ok", code(step.try_it), "the next call")
    if error == "EAGAIN":
        with at_step(name, backend, host) as step:
            with refused(PLACE[backend], err=number, times=3):
                equal("ok", code(step.try_it), "after three tries")


@test()
def step_refused_once():
    """If the module cannot find out which function it was, later calls fail for a second, too."""
    with at_step("setsockopt", "ftrace", "127.0.0.1") as step:
        with refused(PLACE["ftrace"], times=1) as calls:
            since = kernel_log()
            equal(REFUSAL, code(step.try_it))
            began = time.monotonic()
            named(since(), "all functions together")
            counted = calls()
            answer = code(step.try_it)
            # On a machine that was stopped meanwhile, a second may have passed.
            equal(True, (answer, calls()) == (REFUSAL, counted) or
                  time.monotonic() - began > 0.9, f"at once again: {answer}")
        retry(step.try_it)


@test()
def refusals_are_apart():
    """Two sets of hooks that are refused in turn are not tried again for a second either.
    While one is refused, the other can be installed."""
    backend = "ftrace" if HAS_TRACER else "kprobe"
    host = "127.0.0.1"
    with at_step("setsockopt", backend, host) as step, plain_socket(host, TCP) as stream:
        set_mark(stream)
        bind = functools.partial(stream.bind, (host, 0))
        with refused(PLACE[backend]) as calls:
            began = time.monotonic()
            for call in step.try_it, bind:
                tried = calls()
                equal(REFUSAL, code(call))
                equal(True, calls() > tried, "the first time it is tried")
            tried = calls()
            for call in step.try_it, bind:
                equal(REFUSAL, code(call), "at once again")
            # On a machine that was stopped meanwhile, a second may have passed.
            equal(True, calls() == tried or time.monotonic() - began > 0.9,
                  f"{tried} tries, then {calls()}")
            time.sleep(REFUSAL_TIME)
            equal(REFUSAL, code(bind))
        equal("ok", code(step.try_it), "beside a refused bind() of TCP")
        retry(bind)
    equal(0, users(), "references on the module")


@test(("ftrace", "EBUSY"), ("kprobe", REFUSAL))
def refused_with_others(backend, error):
    """bind() on a socket of an earlier load needs two sets of hooks. If one of them could not
    be armed, the next bind() fails without a try."""
    host = "127.0.0.1"
    with old_mark(backend, host) as sock:
        with refused(PLACE[backend], err=getattr(errno, error)) as calls:
            began = time.monotonic()
            equal(error, code(sock.bind, (host, 0)))
            counted = calls()
            equal(error, code(sock.bind, (host, 0)), "at once again")
            tried = calls()
            # On a machine that was stopped meanwhile, a second may have passed.
            equal(True, counted == tried or time.monotonic() - began > 0.9,
                  f"{counted} tries, then {tried}")
        retry(sock.bind, (host, 0))
        sends(sock, host)


# Tries in a row, and how many such rows: more tries than a CPU's slabs have objects
TRIES, ROWS = 256, 8


def small_objects():
    """How many of the smallest objects the kernel has allocated, by their cache. Those of a
    control group have their own."""
    names = [f"kmalloc-{group}{size}" for group in ("", "cg-")
             for size in (8, 16, 32, 64, 96, 128, 192, 256)]
    caches = [name for name in names if os.path.exists(f"/sys/kernel/slab/{name}/shrink")]
    for name in caches:
        # Objects that are free and still counted: those of each CPU, and KASAN's.
        write(f"/sys/kernel/slab/{name}/shrink", "1")
    counts = dict(re.findall(r"^(\S+) +(\d+)", read("/proc/slabinfo"), re.M))
    return {name: int(counts[name]) for name in caches}


def leaked(before, tries):
    """The caches that have about one more object for each try."""
    return {name: objects - before[name] for name, objects in small_objects().items()
            if objects - before[name] >= tries * 3 // 4}


@test(("setsockopt",), ("bind",))
def often_refused(name):
    """A try that fails frees all that it has allocated, and many of them do not fill the log.
    A bind() of a socket whose file has another reference would allocate a watch on it."""
    if not os.path.exists("/proc/slabinfo") or not small_objects():
        raise Skip("this kernel does not count its objects")
    with at_step(name, "ftrace", "127.0.0.1") as step:
        with step.sock.dup(), refused(PLACE["ftrace"], err=errno.ENOMEM):
            before, since, began = small_objects(), kernel_log(), time.monotonic()
            # All objects of a slab that a CPU allocates from are counted, also free ones.
            # That does not grow with the tries, so further tries tell it from a leak.
            for tries in range(TRIES, TRIES * ROWS + 1, TRIES):
                for _ in range(TRIES):
                    equal("ENOMEM", code(step.try_it))
                # RCU frees some a little later.
                with contextlib.suppress(TimeoutError):
                    wait_for("the objects", lambda: not leaked(before, tries), 2)
                    break
            else:
                equal({}, leaked(before, tries),
                      f"how many more objects after {tries} tries")
            # The kernel's limit is ten lines in each five seconds.
            most = 10 * ((time.monotonic() - began) / 5 + 2)
            said = sum("cannot hook" in line for line in since())
            equal(True, 0 < said <= most, f"{said} lines about {tries} tries")
        retry(step.try_it)


@test(*OTHERS.items())
def livepatch_too_late(host, function):
    """When the hooks are armed, a livepatch on the functions is refused."""
    skip_without_tracer()
    with without_module(), Namespace():
        load("hook=ftrace")
        with bound_socket(host, UDP, 0) as sock:
            equal("EBUSY", code(contextlib.ExitStack().enter_context, livepatch(function)))
            sends(sock, host)
        equal(0, users(), "references on the module")


@test()
def unloads_while_refused():
    """After a refusal, the module can be unloaded."""
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
    with restored():
        main()

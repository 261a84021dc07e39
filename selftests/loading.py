#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Loading that fails at each step, while sockets marked by an earlier load are in use.

Such sockets are marked, so the hooks of the new load see their calls while loading can
still fail. Meanwhile, no socket may get port 0. The failed load must leave nothing
behind, and the next load must work.

By default each kind of failure is made once, with one backend: with that of the module
as it was found. With PORT0_LONG=1 they are made with both, more often, and in each family.
"""

import collections
import contextlib
import ctypes
import errno
import os
import re
import signal
import socket
import struct
import threading
import time
import traceback

from port0_bpf import USER_IP4, USER_PORT, Program, answer_with, instruction, network, store
from port0_module import (ALWAYS, HAS_TRACER, REFUSAL, expect_tcp_sockets, hooked, is_loaded,
                          livepatch, load, load_file, parameters, refused, restored, skip_without,
                          skip_without_tracer, slow_loopback, tcp_sockets, test_module, unload,
                          users, wait_for, without_module)
from port0_test import (IO_TIMEOUT, KINDS, LONG, LOOPBACK, OTHER_PORT, TCP, UDP, Namespace, Skip,
                        bound_socket, check, code, equal, get_mark, holds_zero, is_ephemeral,
                        is_older_than, kernel_log, libc, main, plain_socket, read, run, set_mark,
                        test, write)

# How often a load is repeated, so that the other thread makes calls at each step of it
ROUNDS = 2 if LONG else 1
# The errno of a load whose self-check has failed
FAULT = ["EOPNOTSUPP", "ENOTSUP"]
# Functions of several gates and sets, without those that the test itself needs
FUNCTIONS = ["inet_bind", "__inet_hash_connect", "udp_sendmsg"]


def found_backend():
    if is_loaded():
        return parameters()["hook"]
    return "ftrace" if HAS_TRACER else "kprobe"


# If the function tracer is there, "auto" means that.
BACKEND = found_backend().replace("auto", "ftrace" if HAS_TRACER else "kprobe")
BACKENDS = ["ftrace", "kprobe"] if LONG else [BACKEND]
FAMILIES = [(family,) for family in LOOPBACK]


def thorough(*cases):
    """A test of the long form."""
    return test(*cases) if LONG else lambda function: function


def disconnect(sock):
    """connect() to AF_UNSPEC, for which Python has no address"""
    nobody = ctypes.create_string_buffer(16)
    check(libc.connect(sock.fileno(), nobody, 16))


class OldSockets:
    """Marked sockets of an earlier load, and a thread that keeps calling on them.

    also: an error that each of their calls may end with.
    """

    def __init__(self, also):
        self.also = also
        self.problems = []
        self.over = threading.Event()
        self.answers = collections.Counter()
        self.space = Namespace()
        self.thread = threading.Thread(target=self.use)
        self.marked = []
        self.spare = []

    def marked_one(self, host, kind):
        sock = plain_socket(host, kind)
        # A timeout of Python would make the socket non-blocking, so set one in the
        # kernel.
        sock.settimeout(None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", IO_TIMEOUT, 0))
        set_mark(sock)
        return sock, host

    def __enter__(self):
        with self.space:
            for host in LOOPBACK.values():
                for kind in KINDS.values():
                    self.marked += [self.marked_one(host, kind) for _ in range(4)]
                    self.spare += [self.marked_one(host, kind) for _ in range(25)]
        return self

    def start(self):
        """Start, while the module is not loaded."""
        self.thread.start()

    def __exit__(self, *_):
        self.over.set()
        if self.thread.ident:
            self.thread.join()
        for sock, _ in self.marked + self.spare:
            sock.close()

    def use(self):
        with self.space:
            while not self.over.is_set():
                try:
                    for sock, host in self.marked:
                        self.fresh_ones(host)
                        self.old_one(sock, host)
                        self.on_another_port()
                        # Emulated CPUs take turns: patching the kernel waits a tenth of
                        # a second each time for a CPU that is never idle.
                        time.sleep(0.01)
                except Exception:
                    self.problems.append(traceback.format_exc())
                    return

    def expect(self, want, call, *args):
        """Make a call, whose result must be one of these words; return it."""
        answer = code(call, *args)
        if answer not in want and answer != self.also:
            raise AssertionError(f"{call.__name__}(): {answer} is none of {want}")
        return answer

    def port(self, sock):
        """The port of a socket; None if getsockname() fails."""
        try:
            return sock.getsockname()[1]
        except OSError as error:
            equal(self.also, code_of(error), "getsockname()")
            return None

    def fresh_ones(self, host):
        with plain_socket(host, TCP) as fresh:
            self.expect(["ENOPROTOOPT"], set_mark, fresh)
            self.expect(["ENOPROTOOPT"], get_mark, fresh)
            self.expect(["ENOPROTOOPT"], holds_zero, fresh)
        with plain_socket(host, UDP) as fresh:
            self.expect(["ok"], fresh.connect, (host, 0))
            self.expect(["ok", "ENOTCONN"], fresh.getpeername)

    def old_one(self, sock, host):
        # Without the module, bind() gives an ephemeral port; while it is being loaded,
        # bind() fails. TCP sockets still report a port that they have lost.
        before = self.port(sock)
        answer = self.expect(["ok", "ENOPROTOOPT"], sock.bind, (host, 0))
        self.answers[answer] += 1
        port = self.port(sock)
        if answer == "ok":
            equal(True, port is None or is_ephemeral(port), f"ephemeral: {port}")
            self.expect(["EINVAL"], sock.bind, (host, OTHER_PORT))
        else:
            equal(True, port is None or before in (None, port), f"bind() failed, port {port}")
        # Leave the socket without a port, as it was at the beginning.
        if sock.type == UDP:
            self.expect(["EINVAL"], sock.sendto, b"x", (host, 0))
            disconnect(sock)
            port = self.port(sock)
            equal(True, port in (None, 0), f"disconnected, the port is {port}")
        elif answer == "ok":
            self.expect(["ok"], sock.listen)
            sock.shutdown(socket.SHUT_RDWR)
        else:
            self.expect(["ECONNREFUSED"], sock.connect, (host, OTHER_PORT))

    def on_another_port(self):
        """bind() to another port must succeed at any time."""
        if self.spare:
            sock, host = self.spare.pop()
            with sock:
                port = OTHER_PORT + 1 + len(self.spare)
                if self.expect(["ok"], sock.bind, (host, port)) == "ok":
                    equal(True, self.port(sock) in (None, port), "the port of bind()")


def code_of(error):
    def again():
        raise error
    return code(again)


@contextlib.contextmanager
def old_sockets(also=None):
    """The module is not loaded, and sockets that were marked before are in use."""
    with restored():
        if not is_loaded():
            load()
        with OldSockets(also) as some:
            unload()
            some.start()
            yield some
            equal([], some.problems, "failures on other sockets")
            equal(True, bool(some.answers), "other sockets were used meanwhile")
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


def try_to_load(args="", call=code):
    """Load the module; return the result and its lines in the log. A failed load must
    leave no hooks."""
    before = hooked()
    since = kernel_log()
    answer = call(load, args)
    lines = [line for line in since() if line.startswith("port0: ")]
    equal(answer == "ok", is_loaded(), f"the load ended with {answer}; loaded")
    if answer != "ok":
        equal(set(), hooked() - before, "hooks that were not removed")
    return answer, lines


def fails(want, says, args="", call=code):
    answer, lines = try_to_load(args, call)
    equal(True, answer in want, f"the load ended with {answer}")
    equal(True, any(re.search(says, line) for line in lines), f"{says!r} in {lines}")


def fails_often(*how):
    for _ in range(ROUNDS):
        fails(*how)


# How the module names the kinds of sockets that it checks
TCP_OVER = {"ip4": "TCP over IPv4", "ip6": "TCP over IPv6"}
UDP_OVER = {"ip4": "UDP over IPv4", "ip6": "UDP over IPv6"}
# For tests whose BPF program makes each load fail at the same step
unloaded = old_sockets if LONG else without_module


@test(*[(function,) for function in (FUNCTIONS if LONG else FUNCTIONS[1:2])])
def a_hook_is_refused(function):
    skip_without_tracer()
    with old_sockets(REFUSAL) if LONG else without_module(), livepatch(function):
        fails_often(["EBUSY"], function, "hook=ftrace")


def calls_of_a_load(function, args):
    """How often a load that succeeds calls this function."""
    with without_module(), refused(function, skip=ALWAYS) as calls:
        load(args)
        total = calls()
        unload()
    if not total:
        raise Skip(f"{function} is not called here")
    return total


def some_of(total):
    """The first, the last and some between."""
    return sorted({*range(0, total, max(1, total // 4)), total - 1})


def tries(function, total):
    """Which of so many calls of a function are refused, one after the other.

    The last sockets and binds are those of the last kinds that are checked: the socket
    and the peer of UDP; the bind() of TCP's peer, then UDP's bind() to port 0, its second
    bind() and that of its peer.
    """
    if function == "register_kprobe":
        return range(total)
    least = {"sock_create_kern": [0, total - 2],
             "kernel_bind": range(total - 4, total),
             # How often the check polls differs.
             "kernel_accept": [0], "kernel_recvmsg": [0]}.get(function, [total - 1])
    return sorted({*some_of(total), *least}) if LONG else least


# The functions that install hooks
INSTALLERS = [("ftrace", "register_ftrace_function"), ("kprobe", "enable_kprobe")]
if LONG:
    INSTALLERS.append(("ftrace", "ftrace_set_filter_ips"))


@test(*[way for way in INSTALLERS if way[0] in BACKENDS])
def some_hooks_are_in_place(backend, function):
    """Some hooks are installed and see calls of marked sockets, and are removed again."""
    skip_without(backend)
    args = f"hook={backend}"
    total = calls_of_a_load(function, args)
    with old_sockets():
        for nth in some_of(total) if LONG else [total - 1]:
            with refused(function, skip=nth, delay=100):
                fails([REFUSAL], rf"cannot hook \w+ with {backend}", args)
        # If only one call fails, the module cannot find out which function it was.
        with refused(function, skip=total - 1, times=1):
            fails([REFUSAL], f"cannot hook .* with {backend}", args)


@test(*[(backend, nth) for backend in BACKENDS for nth in ((0, 1) if LONG else (1,))])
def all_hooks_are_in_place(backend, nth):
    """All hooks are installed; registering the options fails, for IPv4 or only for IPv6."""
    skip_without(backend)
    with old_sockets() as some:
        with refused("nf_register_sockopt", skip=nth, delay=300):
            fails([REFUSAL], rf"socket options: errno {errno.EXFULL} \(", f"hook={backend}")
        equal(True, some.answers["ENOPROTOOPT"] > 0, "bind() was refused meanwhile")


# What the log says about the errno with which a function cannot be hooked
HINTS = {
    "EBUSY": "a livepatch, a kprobe or another module is on it",
    "EOPNOTSUPP": "a BPF program on it",
    "ENOENT": "no such traceable function",
    "EINVAL": "no such traceable function",
    "EADDRNOTAVAIL": "no such traceable function",
    REFUSAL: "see the lines above",
}


@test()
def a_hint_for_each_errno():
    function = dict(INSTALLERS[:2])[BACKEND]
    with without_module():
        for name, hint in HINTS.items():
            number = getattr(errno, name)
            with refused(function, err=number):
                fails([errno.errorcode[number]], rf"cannot hook \w+ .*: errno {number} \(.*{hint}",
                      f"hook={BACKEND}")


# The functions by which the module finds functions and checks that the hooks work
STEPS = ["register_kprobe", "sock_create_kern", "kernel_bind", "kernel_connect", "kernel_accept",
         "kernel_recvmsg"]
if LONG:
    STEPS += ["kernel_listen", "kernel_sendmsg"]


@test(*[(step,) for step in STEPS])
def a_step_is_refused(function):
    """If one step fails, the load fails, or the log says what could not be checked or hooked."""
    args, why = f"hook={BACKEND}", rf"\(errno {errno.EXFULL}\)"
    total = calls_of_a_load(function, args)
    answers = collections.Counter()
    with without_module():
        for nth in tries(function, total):
            # With hook=kprobe, kprobes are registered to hook functions, too, and not only to
            # find them, which takes longer. There, the short form ends with both results.
            if (BACKEND == "kprobe" and not LONG and function == "register_kprobe" and
                    len(answers) == 2):
                break
            sockets = tcp_sockets()
            with refused(function, skip=nth, times=1) as calls:
                answer, lines = try_to_load(args)
                came = calls() > nth
            # The self-check polls, so the number of calls differs a little.
            if not came:
                equal("ok", answer)
            elif answer == "ok":
                said = rf"to hook here {why}: |{why}: not checked on this host"
                equal(True, any(re.search(said, line) for line in lines),
                      f"what is missing, in {lines}")
                works()
                answers[answer] += 1
            else:
                # The second bind() of the check has to fail with an errno of its own.
                second = any("second bind()" in line for line in lines)
                equal(True, answer in FAULT if second else answer == REFUSAL, answer)
                equal(True, second or any(f"errno {errno.EXFULL}" in line for line in lines),
                      f"why, in {lines}")
                answers["second bind()" if second else REFUSAL] += 1
            if answer == "ok":
                unload()
            expect_tcp_sockets(sockets)
    if function in ("register_kprobe", "sock_create_kern", "kernel_bind"):
        equal(True, answers[REFUSAL] > 0, "a load without this fails")
        # One hooked function is optional.
        equal(True, answers["ok"] == 1 or function != "register_kprobe", answers)
        equal(True, answers["second bind()"] > 0 or function != "kernel_bind", answers)
    else:
        equal({"ok"}, set(answers), "loads that could not check something")


def beside_v6only(port):
    """Whether an IPv4 address can be bound beside [::] that takes no IPv4."""
    with Namespace(), plain_socket("::1", TCP) as only, plain_socket("::1", TCP) as mapped:
        for sock in (only, mapped):
            if not port:
                set_mark(sock)
        only.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        only.bind(("::", port))
        return code(mapped.bind, ("::ffff:127.0.0.1", port))


# How often the module tries a bind() that another program's socket may conflict with
TRIES = 8


@test()
def a_port_is_taken():
    """At load, the module repeats a test of the rules of bind() on other ports."""
    args = "hook=ftrace" if HAS_TRACER else "hook=kprobe"
    if calls_of_a_load("kernel_bind", args) < 2 * TRIES:
        raise Skip("this kernel has no IPv6, or no rules to find out")
    with restored():
        if is_loaded():
            unload()
        # Of the first test, the first bind() succeeds. The second one fails, also without
        # the first socket. Then each bind() fails until the last try.
        with refused("kernel_bind", skip=1, times=TRIES, err=errno.EADDRINUSE) as calls:
            load(args)
            equal(True, calls() > TRIES + 1, "binds at load")
        equal(beside_v6only(OTHER_PORT), beside_v6only(0))
        unload()
        # The second one fails once, as it does for want of memory.
        with refused("kernel_bind", skip=1, times=1, err=errno.EADDRINUSE) as calls:
            load(args)
            equal(True, calls() > 3, "binds at load")
        equal(beside_v6only(OTHER_PORT), beside_v6only(0))
        unload()
        # A refusal counts only if the address can be bound without the other socket.
        with refused("kernel_bind", skip=1, err=errno.EADDRINUSE):
            answer, lines = try_to_load(args)
        equal("EADDRINUSE", answer, f"a load where no port is free, which says {lines}")


@test()
def a_family_is_missing():
    """A family that the kernel does not have is not checked."""
    with without_module():
        with refused("sock_create_kern", err=errno.EAFNOSUPPORT) as calls:
            answer, lines = try_to_load(f"hook={BACKEND}")
            equal("ok", answer, f"a load without families, which says {lines}")
            # One for each kind; from 6.1 on, the rules of bind() are tested before.
            least = len(KINDS) * len(LOOPBACK) + (not is_older_than(6, 1))
            equal(True, calls() >= least, "the self-check creates a socket of each kind")
        works()


@test()
def an_address_is_missing():
    """Without ::1 on lo nothing can be sent there, but binds can be checked."""
    switch = "/proc/sys/net/ipv6/conf/lo/disable_ipv6"
    if not os.path.exists(switch) or read(switch) != "0":
        raise Skip("no IPv6 on lo")
    with without_module():
        write(switch, "1")
        try:
            answer, lines = try_to_load()
        finally:
            write(switch, "0")
        equal("ok", answer, f"a load without ::1, which says {lines}")
        equal(True, any("not checked on this host" in line for line in lines), lines)
        with plain_socket("::1", UDP) as sock:
            wait_for("::1 to be back", lambda: code(sock.bind, ("::1", 0)) == "ok")
        works()


@test()
def the_namespace_of_the_caller_does_not_count():
    """The self-check uses the initial namespace; here, lo is down in that of the caller, and
    its only ephemeral port is taken."""
    def unreachable():
        if is_loaded():
            unload()
        answer, lines = try_to_load()
        equal("ok", answer)
        return [line for line in lines if f"errno {errno.ENETUNREACH}" in line]

    with restored():
        before = unreachable()
        with Namespace():
            run("ip", "link", "set", "lo", "down")
            write("/proc/sys/net/ipv4/ip_local_port_range", f"{OTHER_PORT} {OTHER_PORT}")
            with plain_socket("::1", TCP) as taken:
                taken.bind(("::", OTHER_PORT))
                equal(before, unreachable(), "what cannot be reached")
        equal(beside_v6only(OTHER_PORT), beside_v6only(0), "a rule of bind()")


FORBIDS = answer_with(0)
# r0 = the port; if it is 0, exit
FORBIDS_0 = instruction(0x61, 0x10, USER_PORT) + instruction(0x15, 0, 1) + answer_with(1)
MOVES_PORT = store(USER_PORT, network(OTHER_PORT)) + answer_with(1)
MOVES_NEAR = store(USER_PORT, network(1)) + answer_with(1)
# r0 = the port; if it is not 0, skip the two instructions of store()
MOVES_0 = (instruction(0x61, 0x10, USER_PORT) + instruction(0x55, 0, 2) +
           store(USER_PORT, network(OTHER_PORT)) + answer_with(1))


@thorough(*FAMILIES)
def a_program_forbids_binds(family):
    with unloaded(), Program(family, FORBIDS) as program:
        fails_often(["EPERM"], "bind", "", program.code)


@test(*FAMILIES)
def a_program_moves_binds(family):
    with unloaded(), Program(family, MOVES_PORT) as program:
        fails_often(FAULT, rf"{TCP_OVER[family]}: bind\(\) to port 0 gave another port", "",
                    program.code)


@thorough(*FAMILIES)
def a_program_moves_binds_to_port_1(family):
    """Port 1 is what the module passes to the kernel instead of 0."""
    with unloaded(), Program(family, MOVES_NEAR) as program:
        fails_often(FAULT, "port", "", program.code)


@test(*FAMILIES)
def a_program_forbids_datagrams(family):
    """The module loads, and the log says what could not be checked: all, or what is sent to
    port 0."""
    for forbids, found in (FORBIDS, ["to", "from"]), (FORBIDS_0, ["to"]):
        with unloaded(), Program(family, forbids, Program.SENDMSG) as program:
            answer, lines = try_to_load("", program.code)
            equal("ok", answer)
            text = f"{UDP_OVER[family]}: nothing can be sent %s port 0 (errno {errno.EPERM})"
            equal(found, [way for way in ("to", "from")
                          if any(text % way in line for line in lines)], f"ways in {lines}")
            unload()


@test(*FAMILIES)
def a_program_moves_datagrams(family):
    """The program changes the destination of the self-check's datagrams."""
    with unloaded(), Program(family, MOVES_PORT, Program.SENDMSG) as program:
        fails_often(FAULT, rf"{UDP_OVER[family]}: sendto\(\) to port 0 has sent to another port",
                    "", program.code)


@test(*(FAMILIES if LONG else FAMILIES[:1]))
def a_program_renames_senders(family):
    """The program changes the source port that recvmsg() returns."""
    with unloaded(), Program(family, MOVES_PORT, Program.RECVMSG) as program:
        fails_often(FAULT, f"{UDP_OVER[family]}: a datagram came from another port", "",
                    program.code)


@test(*(FAMILIES if LONG else FAMILIES[1:]))
def a_program_renames_port_0(family):
    """Only datagrams from port 0 seem to come from another port."""
    with unloaded(), Program(family, MOVES_0, Program.RECVMSG) as program:
        fails_often(FAULT, f"{UDP_OVER[family]}: a datagram came from another port", "",
                    program.code)


@contextlib.contextmanager
def firewall(chain, *rules):
    """Rules of nft for IPv4, where the check is made."""
    words = ["add table ip port0", f"add chain ip port0 rules {{ {chain}; }}"]
    words += [f"add rule ip port0 rules {rule}" for rule in rules]
    try:
        run("nft", "; ".join(words))
    except (OSError, RuntimeError) as error:
        raise Skip(f"no such rules here: {error}") from None
    try:
        yield
    finally:
        run("nft", "delete table ip port0")


@test()
def a_firewall_drops_packets():
    """The module loads, within a short time."""
    with without_module(), firewall("type filter hook input priority 0",
                                    "tcp sport 0 drop", "udp dport 0 drop",
                                    "udp sport 0 drop"):
        began = time.monotonic()
        answer, lines = try_to_load()
        equal("ok", answer)
        for what in (f"{TCP_OVER['ip4']}: connections from port 0 do not arrive",
                     f"{UDP_OVER['ip4']}: datagrams to port 0 do not arrive",
                     f"{UDP_OVER['ip4']}: datagrams from port 0 do not arrive"):
            equal(True, any(what in line for line in lines), f"{what!r} in {lines}")
        equal(True, time.monotonic() - began < 60, "seconds")
        works()
        unload()
    with without_module(), firewall("type filter hook input priority 0", "udp dport 0 drop"):
        answer, lines = try_to_load()
        equal("ok", answer)
        equal(["to"], [way for way in ("to", "from")
                       if any(f"datagrams {way} port 0 do not arrive" in line
                              for line in lines)], f"ways in {lines}")


@test()
def packets_arrive_late():
    """The self-check waits for them."""
    with without_module(), slow_loopback(30):
        answer, lines = try_to_load()
        equal("ok", answer)
        equal([], [line for line in lines if "not checked" in line], "packets not received")


@thorough()
def a_program_moves_addresses():
    """The self-check looks at the port only."""
    moves = store(USER_IP4, struct.unpack("=i", bytes([127, 0, 0, 9]))[0]) + answer_with(1)
    with without_module(), Program("ip4", moves) as program:
        equal("ok", program.code(load))
        equal(0, users(), "references on the module")


@contextlib.contextmanager
def another_user_sends():
    """A process of another user, which sends to port 0 all the time.

    It has the CPU of this process and a real-time priority, so that it sends while the
    self-check has sockets on port 0.
    """
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})
    child = os.fork()
    if not child:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.setuid(65534)
        socks = [plain_socket(host, UDP) for host in LOOPBACK.values()]
        for sock, host in zip(socks, LOOPBACK.values()):
            sock.connect((host, 0))
        while os.getppid() != 1:
            for sock in socks:
                code(sock.send, b"foreign")
                # As long as that of the check
                code(sock.send, bytes(8))
            time.sleep(0.0001)
        os._exit(0)
    try:
        yield
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.sched_setaffinity(0, cpus)


@test()
def another_user_sends_meanwhile():
    """The self-check ignores datagrams from other sockets."""
    with restored(), another_user_sends():
        for _ in range(4):
            if is_loaded():
                unload()
            answer, lines = try_to_load()
            equal("ok", answer, f"with datagrams of another user, {lines}")


@test()
def an_option_is_taken():
    path = test_module("port0_squatter")
    with old_sockets():
        load_file(path)
        try:
            fails_often(["EBUSY"], "option")
            with Namespace(), plain_socket("127.0.0.1", TCP) as sock:
                equal("ENOPROTOOPT", code(set_mark, sock), "IPv4, registered and unregistered")
        finally:
            unload("port0_squatter")


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    main()

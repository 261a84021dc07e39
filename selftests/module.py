#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Loading and unloading port0, and what sockets see of it.

PORT0_KO names the module's file; without it, the installed module is used. When all is
done the module is loaded, or not, as it was before.
"""

import contextlib
import errno
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import traceback

from port0_bpf import USER_PORT, Program, answer_with, store
from port0_module import (ENABLED_FUNCTIONS, HAS_TRACER, SYS, absent, expect_tcp_sockets,
                          hooked, is_loaded, load, module_file, parameters, present, restored,
                          skip_without_list, skip_without_tracer, tcp_sockets, udp_sockets,
                          unload, users, wait_for)
from port0_test import (IO_TIMEOUT, KINDS, LOOPBACK, OTHER_PORT, TCP, UDP, Namespace, Skip,
                        bound_socket, code, equal, get_mark, holds_zero, is_ephemeral,
                        is_older_than, kernel_log, main, plain_socket, read,
                        reset_on_close, run, set_mark, test, write)

EVERY_KIND = [(family, kind) for family in LOOPBACK for kind in KINDS]
STRESS_ROUNDS = 3

FTRACE_ENABLED = "/proc/sys/kernel/ftrace_enabled"
# The errno of newer kernels when FTRACE_ENABLED is set to 0
NEVER = "ENOTSUP"

# The hooked functions that are armed on demand: by a bind() to port 0, by a marked UDP
# socket, and by a datagram to port 0. Until then, calls of other sockets do not run them.
HELD = {"inet_put_port", "udp_lib_unhash"}
SEND = {"udp_sendmsg", "udpv6_sendmsg", "__cgroup_bpf_run_filter_sock_addr"}
ROUTE = {"ip_route_output_flow", "ip6_sk_dst_lookup_flow", "ip_append_data"}
# Functions whose calls port0 never redirects
OBSERVED = HELD | ROUTE
# Functions that are not hooked with getname=0
NAMES = {"inet_getname", "inet6_getname"}


def modinfo(field):
    return run("modinfo", "-F", field, module_file()).strip()


def stock_behaviour():
    """What unmarked sockets must get, with the module and without it."""
    with Namespace():
        for host in LOOPBACK.values():
            for kind in (TCP, UDP):
                with plain_socket(host, kind) as sock, plain_socket(host, kind) as peer:
                    sock.bind((host, 0))
                    equal(True, is_ephemeral(sock.getsockname()[1]), "bind to 0 is ephemeral")
                    equal("EINVAL", code(sock.bind, (host, 0)), "second bind")
                    equal("ENOTCONN", code(sock.getpeername))
                    if kind == TCP:
                        sock.listen()
                    peer.connect(sock.getsockname())
                    equal(sock.getsockname(), peer.getpeername())
                    equal(True, is_ephemeral(peer.getsockname()[1]))
            with plain_socket(host, UDP) as sock:
                equal("EINVAL", code(sock.sendto, b"x", (host, 0)), "sendto port 0")
            with plain_socket(host, TCP) as sock:
                equal("ECONNREFUSED", code(sock.connect, (host, 0)), "connect to port 0")
                equal("ENOTCONN", code(sock.getpeername))


def name_of_peer_on_zero():
    """getpeername() of unmarked sockets: a port, or the error."""
    answers = set()
    with Namespace():
        for host in LOOPBACK.values():
            with plain_socket(host, UDP) as sock:
                sock.connect((host, 0))
                answers.add(code(sock.getpeername))
                if "ok" in answers:
                    equal((host, 0), sock.getpeername()[:2])
    equal(1, len(answers), f"one answer for IPv4 and IPv6: {answers}")
    return answers.pop()


def option_answer(host, kind):
    with plain_socket(host, kind) as sock:
        return code(set_mark, sock), code(get_mark, sock), code(holds_zero, sock)


def expect_pinned():
    equal("EAGAIN", code(unload), "unload while port 0 is held")
    equal(True, is_loaded())


def expect_free():
    """Expect that nothing holds a reference on the module."""
    equal(0, users(), "users of the module")


@test()
def modinfo_tells_what_it_is():
    for field in ("version", "description", "author", "vermagic", "srcversion"):
        equal(True, bool(modinfo(field)), field)
    equal("GPL", modinfo("license"))
    equal(True, bool(re.fullmatch(r"\d+(\.\d+)+\S*", modinfo("version"))), "a version number")


@test()
def modinfo_explains_every_parameter():
    present()
    texts = dict(line.split(":", 1) for line in modinfo("parm").splitlines())
    equal(set(parameters()), set(texts), "the parameters explained")
    for name, text in texts.items():
        equal(True, len(text.split()) > 3, f"a text for {name}")


# Hooked functions that no public header declares, as module/hooked.h has them.
STATIC = {
    "__inet6_bind": ["int (sock *, sockaddr *, int, u32)",
                     "int (sock *, sockaddr_unsized *, int, u32)"],
    "inet_autobind": ["int (sock *)"],
    "udp_v4_get_port": ["int (sock *, short unsigned int)"],
    "udp_v6_get_port": ["int (sock *, short unsigned int)"],
    "udpv6_sendmsg": ["int (sock *, msghdr *, size_t)"],
}


def prototype(types, number):
    """A type of the kernel's BTF, written in C without "struct" and "const"."""
    if not number:
        return "void"
    kind = types[number]
    if kind["kind"] == "FUNC_PROTO":
        params = ", ".join(prototype(types, param["type_id"]) for param in kind["params"])
        return f"{prototype(types, kind['ret_type_id'])} ({params})"
    if kind["kind"] == "PTR":
        return f"{prototype(types, kind['type_id'])} *"
    if kind["kind"] in ("CONST", "VOLATILE", "RESTRICT"):
        return prototype(types, kind["type_id"])
    return kind["name"]


@test()
def static_prototypes_are_the_kernels():
    btf = "/sys/kernel/btf/vmlinux"
    if not os.path.exists(btf):
        raise Skip("this kernel has no BTF")
    types = {kind["id"]: kind
             for kind in json.loads(run("bpftool", "-j", "btf", "dump", "file", btf))["types"]}
    seen = 0
    for kind in types.values():
        if kind["kind"] == "FUNC" and kind["name"] in STATIC:
            found = prototype(types, kind["type_id"])
            equal(True, found in STATIC[kind["name"]], f"{kind['name']} is {found}")
            seen += 1
    equal(True, seen >= 3, "functions found")


@test()
def parameters_that_root_may_change():
    present()
    equal({"getname": "Y", "hook": "ftrace" if HAS_TRACER else "kprobe", "drain": "N",
           "init_userns": "N"}, parameters(), "the defaults")
    for name in parameters():
        equal(0o644 if name in ("drain", "init_userns") else 0o444,
              os.stat(f"{SYS}/parameters/{name}").st_mode & 0o777, name)


@test()
def load_says_the_version():
    """And nothing else, such as what could not be checked, if lo is there."""
    absent()
    run("ip", "link", "set", "lo", "up")
    since = kernel_log()
    load()
    equal(modinfo("version"), read(f"{SYS}/version"))
    lines = [line for line in since() if line.startswith("port0: ")]
    # A compiler may have inlined the one function that need not be there.
    lines = [line for line in lines if "to hook here" not in line]
    equal(True, len(lines) == 1 and modinfo("version") in lines[0], lines)
    since = kernel_log()
    unload()
    lines = [line for line in since() if line.startswith("port0: ")]
    equal([f"port0: version {modinfo('version')} unloaded"], lines)


@test()
def load_twice():
    present()
    equal("EEXIST", code(load))
    equal(("ok",) * 3, option_answer("127.0.0.1", TCP))


@test()
def load_without_loopback():
    """What the module finds out at load must not depend on the addresses of lo."""
    absent()
    # Addresses of a device that is only set down can still be bound.
    run("ip", "link", "set", "lo", "up")
    run("ip", "address", "delete", "127.0.0.1/8", "dev", "lo")
    try:
        equal("ok", code(load))
    finally:
        run("ip", "address", "add", "127.0.0.1/8", "dev", "lo")
    with Namespace(), bound_socket("127.0.0.1", TCP, 0):
        expect_pinned()


@test()
def load_with_bindv6only():
    only = "/proc/sys/net/ipv6/bindv6only"
    if not os.path.exists(only):
        raise Skip("no IPv6")
    absent()
    before = read(only)
    try:
        write(only, "1")
        equal("ok", code(load))
    finally:
        write(only, before)
    with Namespace(), bound_socket("::1", TCP, 0):
        expect_pinned()


@test()
def load_with_a_bad_parameter():
    absent()
    equal("EINVAL", code(load, "getname=perhaps"))
    equal(False, is_loaded())
    since = kernel_log()
    equal("EINVAL", code(load, "hook=perhaps"))
    equal(True, any("hook=perhaps" in line for line in since()), "a line that says why")
    equal(False, is_loaded())
    load()


def expect_each_argument(host):
    """Calls that a backend has to pass on with every argument, on port 0."""
    with bound_socket(host, TCP, OTHER_PORT) as server, bound_socket(host, TCP, 0) as client:
        server.listen()
        client.connect((host, OTHER_PORT))
        child, name = server.accept()
        with child:
            equal(0, name[1], "the name that accept() returns")
            equal((host, 0), child.getpeername()[:2])
            reset_on_close(child)
    with bound_socket(host, UDP, 0) as sock, plain_socket(host, UDP) as peer:
        sock.sendto(b"x", (host, 0))
        equal(b"x", sock.recv(2))
        if ":" in host:
            equal("EINVAL", code(sock.setsockopt, socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1))
        equal("ENOTCONN", code(peer.getpeername))
    # Another user may bind port 1, which the module passes to the kernel, and not port 0.
    write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "1")
    child = os.fork()
    if not child:
        os.setuid(65534)
        with plain_socket(host, TCP) as sock:
            set_mark(sock)
            os._exit(code(sock.bind, (host, 0)) != "EACCES")
    equal(0, os.waitpid(child, 0)[1], "a bind() that is not allowed")


@test(("ftrace",), ("kprobe",), ("auto",))
def load_with_a_backend(name):
    """hook=auto means ftrace where the kernel has it."""
    wanted = name
    if name == "auto":
        wanted = "ftrace" if HAS_TRACER else "kprobe"
    absent()
    since = kernel_log()
    if wanted == "ftrace" and not HAS_TRACER:
        equal(True, code(load, f"hook={name}") in ("EOPNOTSUPP", "ENOTSUP"), "the errno")
        equal(True, any("hook=kprobe" in line for line in since()), "a line that says why")
        return
    load(f"hook={name}")
    equal(True, any(line.endswith(f"hooks by {wanted}") for line in since()), "the backend")
    with Namespace():
        with bound_socket("127.0.0.1", TCP, 0) as sock:
            equal("EINVAL", code(sock.bind, ("127.0.0.1", 0)))
        for host in LOOPBACK.values():
            expect_each_argument(host)
    expect_free()
    since = kernel_log()
    unload()
    # If a kprobe is hit in the handler of another one, it is missed, and the log says so.
    # That is rare: not every kprobe is.
    missed = [line for line in since() if re.search("^port0: .*calls of .*missed", line)]
    equal([], [line for line in missed if " 0 calls" in line], "kprobes that missed nothing")


@test()
def unload_and_load_again():
    present()
    unload()
    equal(False, is_loaded())
    load()
    equal(True, is_loaded())
    unload()
    equal("ENOENT", code(unload), "unload what is not loaded")


@test()
def before_with_and_after():
    for state, change, option, name in (("before", absent, "ENOPROTOOPT", "ENOTCONN"),
                                        ("with", load, "ok", "ok"),
                                        ("after", unload, "ENOPROTOOPT", "ENOTCONN")):
        change()
        stock_behaviour()
        for family, kind in EVERY_KIND:
            equal((option,) * 3, option_answer(LOOPBACK[family], KINDS[kind]),
                  f"{state}, {family} {kind}")
        equal(name, name_of_peer_on_zero(), state)


@test()
def getname_switches_the_repair_off():
    present("getname=0")
    equal("N", parameters()["getname"])
    equal("ENOTCONN", name_of_peer_on_zero())
    stock_behaviour()
    host = "127.0.0.1"
    with Namespace(), bound_socket(host, TCP, 0) as server, \
            plain_socket(host, TCP) as client:
        server.listen()
        client.connect((host, 0))
        child, _ = server.accept()
        with child:
            equal("ENOTCONN", code(client.getpeername))
            equal((host, 0), child.getsockname(), "the socket is on port 0")
            client.sendall(b"x")
            equal(b"x", child.recv(1))


@test()
def getname_off_leaves_accept_as_it_was():
    """getname=0 leaves out only these hooks."""
    host = "127.0.0.1"
    hooks = {}
    for args, outcome in (("getname=0", "ECONNABORTED"), ("getname=1", "ok")):
        present(args)
        hooks[args] = hooked() - HELD - SEND - ROUTE
        with Namespace(), bound_socket(host, TCP, OTHER_PORT) as server, \
                bound_socket("127.0.0.2", TCP, 0) as client:
            server.listen()
            client.connect((host, OTHER_PORT))
            reset_on_close(client)
            equal(outcome, code(server.accept), args)
    skip_without_list()
    equal(NAMES, hooks["getname=1"] - hooks["getname=0"])
    equal(set(), hooks["getname=0"] - hooks["getname=1"])


def armed_since_load():
    """Loads the module; returns a function that says what is hooked on demand since."""
    skip_without_list()
    absent()
    others = hooked()
    load()
    at_load = hooked()
    equal(set(), (at_load - others) & (HELD | SEND | ROUTE), "hooks that nobody needs")
    return lambda: hooked() - at_load


def with_cgroup(hooks):
    """Without CONFIG_CGROUP_BPF there are no such programs."""
    with open("/proc/kallsyms", encoding="ascii") as file:
        known = {line.split()[2] for line in file}
    return {name for name in hooks if name in known}


@test()
def hooks_on_datagrams_wait_for_need():
    send = with_cgroup(SEND)
    present()
    with plain_socket("127.0.0.1", UDP) as was_marked:
        set_mark(was_marked)
        set_mark(was_marked, 0)
        was_marked.bind(("127.0.0.1", 0))
        armed = armed_since_load()
    with Namespace():
        with bound_socket("127.0.0.1", TCP, 0) as server, \
                plain_socket("127.0.0.1", TCP) as client:
            server.listen()
            client.connect(("127.0.0.1", 0))
            equal(HELD, armed(), "for TCP on port 0")
        with plain_socket("127.0.0.1", UDP) as unmarked:
            unmarked.connect(("127.0.0.1", OTHER_PORT))
            equal(HELD, armed(), "for UDP sockets that are not marked")
        with bound_socket("127.0.0.1", UDP, 0) as server:
            equal(HELD | send, armed(), "for a marked UDP socket")
            with plain_socket("127.0.0.1", UDP) as client:
                client.connect(("127.0.0.1", 0))
                client.send(b"x")
                equal(b"x", server.recv(1))
            equal(HELD | send, armed(), "for a connected one")
            server.sendto(b"x", ("127.0.0.1", 0))
            equal(HELD | send | ROUTE, armed(), "for a datagram to port 0")


@test()
def hooks_on_close_wait_for_need():
    """Every close() in the system passes these hooks, and only sockets on port 0 need them."""
    host = "127.0.0.1"
    send = with_cgroup(SEND)
    armed = armed_since_load()
    with Namespace():
        with plain_socket(host, TCP) as stream, plain_socket(host, UDP) as dgram:
            set_mark(stream)
            equal(set(), armed(), "for a marked TCP socket")
            set_mark(dgram)
            equal(send, armed(), "for a marked UDP socket")
            equal("ok", code(dgram.sendto, b"x", (host, 0)))
            equal(send | ROUTE, armed(), "for a datagram to port 0")
        with bound_socket(host, TCP, 0):
            equal(HELD | send | ROUTE, armed(), "for a socket on port 0")


@test(("ip4", "tcp"), ("ip6", "udp"))
def a_program_chooses_port_0(family, kind):
    """A bind() to another port arms the hooks on close(), too, since a program may replace that
    port by 0."""
    host = LOOPBACK[family]

    def bind():
        with plain_socket(host, KINDS[kind]) as sock:
            set_mark(sock)
            sock.bind((host, OTHER_PORT))
            if sock.getsockname()[1] or not holds_zero(sock):
                raise OSError(errno.EADDRNOTAVAIL, "not on port 0")

    absent()
    load()
    with Namespace(), Program(family, store(USER_PORT, 0) + answer_with(1)) as program:
        equal("ok", program.code(bind))
    expect_free()


@test()
def hooks_stay_when_others_are_armed():
    """A bind() to TCP port 0 between two datagrams, of which only the second needs hooks."""
    host = "127.0.0.1"
    send = with_cgroup(SEND)
    armed = armed_since_load()
    with Namespace(), plain_socket(host, UDP) as dgram:
        set_mark(dgram)
        # The first datagram gives it a port, at which the hooks would be armed again.
        equal("ok", code(dgram.sendto, b"x", (host, OTHER_PORT)))
        with bound_socket(host, TCP, 0):
            equal(HELD | send, armed(), "for a TCP socket on port 0 as well")
            equal("ok", code(dgram.sendto, b"x", (host, 0)))
            equal(HELD | send | ROUTE, armed(), "for a datagram to port 0")


@test(("ftrace",), ("kprobe",))
def hooks_as_ftrace_lists_them(backend):
    """Only hooks that replace calls exclude livepatches (flag I). With ftrace, no hook wants all
    registers (flag R), and each is called directly, not by a function of ftrace's own: both
    would cost time.
    """
    if backend == "ftrace":
        skip_without_tracer()
    if not os.path.exists(ENABLED_FUNCTIONS):
        raise Skip("tracefs is not mounted")
    host = "127.0.0.1"
    absent()
    others = hooked()
    load(f"hook={backend}")
    with Namespace(), bound_socket(host, UDP, 0) as sock:
        sock.sendto(b"x", (host, 0))
        mine = hooked() - others
        listed = {}
        for line in read(ENABLED_FUNCTIONS).splitlines():
            name = line.split()[0]
            if name in mine:
                listed[name] = line
    if backend == "kprobe" and not listed:
        raise Skip("kprobes do not use ftrace here")
    equal(mine, set(listed), "what is listed")
    gates = {}
    for name, line in listed.items():
        flags = re.match(r"\S+ (?:\[\w+\] )?\(\d+\)([ A-Z]*)", line)[1].split()
        equal(name not in OBSERVED, "I" in flags, f"replaces calls: {line}")
        if backend == "ftrace" and not is_older_than(5, 11):
            equal(False, "R" in flags, f"wants all registers: {line}")
            if "tramp: " in line and "->" in line:
                equal(True, "->port0_ftrace_" in line, f"is called directly: {line}")
                gates[name] = re.search(r"->(\w+)", line)[1]
    # Beside a BPF program, a function can only be hooked together with all of its gate.
    for together in SEND, NAMES:
        equal(set(), {gates[name] for name in gates if name in together} &
              {gates[name] for name in gates if name not in together}, "gates of two sets")


@test()
def load_leaves_no_sockets():
    """The sockets of the self-check are closed, and none of them is in TIME_WAIT."""
    def time_waits():
        found = set()
        for name in ("tcp", "tcp6"):
            for line in read(f"/proc/self/net/{name}").splitlines()[1:]:
                _, own, peer, state = line.split()[:4]
                if state == "06" and (own.endswith(":0000") or peer.endswith(":0000")):
                    found.add((own, peer))
        return found

    absent()
    before, sockets, bound = time_waits(), tcp_sockets(), udp_sockets()
    for _ in range(3):
        load()
        unload()
    expect_tcp_sockets(sockets)
    equal(True, udp_sockets() <= bound, f"UDP sockets where there were {bound}")
    with contextlib.suppress(TimeoutError):
        wait_for("TIME_WAIT to go", lambda: not time_waits() - before)
    equal(set(), time_waits() - before, "TIME_WAIT of the check")


@test(*EVERY_KIND)
def held_by_a_bound_socket(family, kind):
    host = LOOPBACK[family]
    present()
    with Namespace():
        sock = bound_socket(host, KINDS[kind], 0)
        expect_pinned()
        if kind == "tcp":
            sock.listen()
        else:
            sock.connect((host, OTHER_PORT))
        expect_pinned()
        equal(1, holds_zero(sock))

        # Another descriptor of the same socket also holds the reference.
        other = sock.dup()
        sock.close()
        expect_pinned()
        other.close()
        expect_free()


@test(*EVERY_KIND)
def not_held_by_others(family, kind):
    host = LOOPBACK[family]
    present()
    with Namespace(), plain_socket(host, KINDS[kind]) as marked, \
            plain_socket(host, KINDS[kind]) as ephemeral, \
            plain_socket(host, KINDS[kind]) as loser:
        set_mark(marked)
        marked.bind((host, OTHER_PORT))
        ephemeral.bind((host, 0))
        expect_free()

        with bound_socket(host, KINDS[kind], 0):
            set_mark(loser)
            equal("EADDRINUSE", code(loser.bind, (host, 0)))
            expect_pinned()
        expect_free()


@test(*EVERY_KIND)
def held_by_every_socket_of_a_group(family, kind):
    host = LOOPBACK[family]
    present()
    with Namespace():
        group = []
        for _ in range(3):
            sock = plain_socket(host, KINDS[kind])
            set_mark(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((host, 0))
            group.append(sock)
        for sock in group:
            expect_pinned()
            sock.close()
        expect_free()


@test()
def held_by_a_client_from_port_0():
    present()
    with Namespace(), plain_socket("127.0.0.1", TCP) as server:
        server.bind(("127.0.0.1", OTHER_PORT))
        server.listen()
        client = bound_socket("127.0.0.2", TCP, 0)
        client.connect(("127.0.0.1", OTHER_PORT))
        expect_pinned()
        reset_on_close(client)
        client.close()
        expect_free()


@test()
def held_in_two_namespaces():
    present()
    with Namespace():
        here = bound_socket("127.0.0.1", TCP, 0)
    with Namespace():
        there = bound_socket("127.0.0.1", TCP, 0)
    expect_pinned()
    here.close()
    expect_pinned()
    there.close()
    expect_free()


@test(*EVERY_KIND)
def released_by_a_killed_process(family, kind):
    present()
    ready, say_ready = os.pipe()
    child = os.fork()
    if not child:
        with Namespace():
            sock = bound_socket(LOOPBACK[family], KINDS[kind], 0)
            os.write(say_ready, b"x")
            signal.pause()
            sock.close()
            os._exit(1)
    os.close(say_ready)
    equal(b"x", os.read(ready, 1), "the child is ready")
    os.close(ready)
    expect_pinned()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    expect_free()


@test()
def unload_after_the_last_close():
    present()
    with Namespace():
        socks = [bound_socket(LOOPBACK[family], KINDS[kind], 0) for family, kind in EVERY_KIND]
        done = subprocess.run(["rmmod", "port0"], capture_output=True, text=True, check=False)
        equal((1, True), (done.returncode, "in use" in done.stderr), "rmmod")
        for sock in socks:
            expect_pinned()
            sock.close()
        unload()


@test()
def children_outlive_the_module():
    present()
    pairs = []
    with Namespace():
        for host in LOOPBACK.values():
            with bound_socket(host, TCP, 0) as listener:
                listener.listen()
                client = plain_socket(host, TCP)
                client.connect((host, 0))
                child, _ = listener.accept()
                child.settimeout(IO_TIMEOUT)
                expect_pinned()
                pairs.append((host, client, child))
    unload()
    for host, client, child in pairs:
        equal("ENOTCONN", code(client.getpeername), "without the module")
        equal((host, 0), child.getsockname()[:2])
        client.sendall(b"question")
        equal(b"question", child.recv(100))
    load()
    for host, client, child in pairs:
        equal((host, 0), client.getpeername()[:2], "with the module again")
        equal(1, holds_zero(child))
        equal("EBUSY", code(set_mark, child, 0))
        child.sendall(b"answer")
        equal(b"answer", client.recv(100))
    unload()
    for _, client, child in pairs:
        child.close()
        equal(b"", client.recv(1), "the child is closed without the module")
        client.close()


@test(*LOOPBACK.items())
def loads_beside_children(_, host):
    """The self-check at load binds port 0 of the same address in this namespace."""
    present()
    with bound_socket(host, TCP, 0) as server, plain_socket(host, TCP) as client:
        server.listen()
        client.connect((host, 0))
        with server.accept()[0] as child:
            server.close()
            unload()
            equal("ok", code(load))
            equal(1, holds_zero(child))
            child.sendall(b"x")
            equal(b"x", client.recv(1))
            reset_on_close(child)


@test()
def a_mark_outlives_the_module():
    present()
    with Namespace():
        pairs = []
        for family, kind in EVERY_KIND:
            host, kind = LOOPBACK[family], KINDS[kind]
            pairs.append((host, plain_socket(host, kind), plain_socket(host, kind)))
        for _, early, late in pairs:
            set_mark(early)
            set_mark(late)
        unload()
        # Without the module nothing reads the mark: bind() is ephemeral.
        for host, early, _ in pairs:
            early.bind((host, 0))
            equal(True, is_ephemeral(early.getsockname()[1]))
        load()
        for host, early, late in pairs:
            equal(1, get_mark(late))
            late.bind((host, 0))
            equal((0, 1), (late.getsockname()[1], holds_zero(late)))
            equal(0, holds_zero(early))
            expect_pinned()
            late.close()
            expect_free()
            early.close()


def marks_outlive_for_sends(family, space):
    host = LOOPBACK[family]
    with space, plain_socket(host, UDP) as server, plain_socket(host, UDP) as client:
        for sock in server, client:
            set_mark(sock)
        unload()
        equal("EINVAL", code(client.sendto, b"x", (host, 0)), "sendto() without the module")
        load()
        equal(1, get_mark(client))
        equal("ok", code(client.sendto, b"x", (host, 0)), "sendto() to a port without a socket")
        server.bind((host, 0))
        equal("ok", code(client.sendto, b"y", (host, 0)), "sendto()")
        equal(b"y", server.recv(1))


@test(*[(family,) for family in LOOPBACK])
def a_mark_outlives_the_module_for_sends(family):
    """Under the new load, no socket is marked before the old one sends to port 0."""
    present()
    marks_outlive_for_sends(family, Namespace())


# The kernel's minimum for a namespace is 128.
CHAINS = 256


def space_with_a_table():
    """A namespace that has a table of UDP sockets of its own, with CHAINS chains."""
    size = "/proc/sys/net/ipv4/udp_child_hash_entries"
    if not os.path.exists(size):
        raise Skip("all namespaces have the same table of UDP sockets")
    write(size, str(CHAINS))
    try:
        return Namespace()
    finally:
        write(size, "0")


@test(*[(family,) for family in LOOPBACK])
def a_mark_outlives_the_module_in_a_table_of_its_own(family):
    """By default, namespaces share one table of UDP sockets."""
    present()
    marks_outlive_for_sends(family, space_with_a_table())


@test(*LOOPBACK.items())
def a_mark_outlives_the_module_before_another_table(_, host):
    """The socket is in a table that is neither the first nor the last that is searched."""
    present()
    with space_with_a_table(), plain_socket(host, UDP) as marked:
        set_mark(marked)
        marked.bind((host, OTHER_PORT))
        # A newer namespace, which has the table that most have
        with Namespace():
            unload()
            load()
        equal("ok", code(marked.sendto, b"x", (host, 0)), "sendto() to a port without a socket")


def chain_of(port):
    """The chain that an IPv4 UDP socket on this port is in."""
    for line in read("/proc/self/net/udp").splitlines()[1:]:
        chain, own = line.split()[:2]
        if own.endswith(f":{port:04X}"):
            return int(chain.rstrip(":"))
    raise AssertionError(f"no UDP socket on port {port}")


@test((0,), (CHAINS - 1,))
def a_mark_outlives_the_module_in_chain(wanted):
    """The first and the last chain, with an older socket after the marked one."""
    host = "127.0.0.1"
    present()
    with space_with_a_table(), plain_socket(host, UDP) as marked, \
            plain_socket(host, UDP) as older:
        with plain_socket(host, UDP) as probe:
            probe.bind((host, OTHER_PORT))
            port = OTHER_PORT + (wanted - chain_of(OTHER_PORT)) % CHAINS
        older.bind(("127.0.0.2", port))
        set_mark(marked)
        marked.bind((host, port))
        equal(wanted, chain_of(port), "the chain")
        unload()
        load()
        equal("ok", code(marked.sendto, b"x", (host, 0)), "sendto() to a port without a socket")


@test(*LOOPBACK.items())
def a_mark_outlives_the_module_for_the_first_send(_, host):
    """The module finds an unbound marked socket when it gets its ephemeral port."""
    present()
    with Namespace(), plain_socket(host, UDP) as client:
        set_mark(client)
        armed = armed_since_load()
        equal("ok", code(client.sendto, b"x", (host, 0)), "sendto() to a port without a socket")
        equal(with_cgroup(SEND) | ROUTE, armed(), "hooks")
        port = client.getsockname()[1]
        equal(True, is_ephemeral(port), f"it has port {port}")
        # It sends from that port, and receives on it.
        with bound_socket(host, UDP, 0) as server:
            client.sendto(b"y", (host, 0))
            word, source = server.recvfrom(2)
            equal((b"y", (host, port)), (word, source[:2]))
            server.sendto(b"z", (host, port))
            equal(True, bool(select.select([client], [], [], IO_TIMEOUT)[0]), "an answer")
            equal(b"z", client.recv(2))


@test(*LOOPBACK.items())
def a_mark_outlives_the_module_for_another_port(_, host):
    """The hooks that every connection passes wait for the first datagram to port 0."""
    present()
    with Namespace(), plain_socket(host, UDP) as client:
        set_mark(client)
        armed = armed_since_load()
        equal("ok", code(client.sendto, b"x", (host, OTHER_PORT)), "sendto() to another port")
        equal(with_cgroup(SEND), armed(), "hooks")


@test(*LOOPBACK.items())
def a_mark_outlives_the_module_for_a_later_bind(_, host):
    """bind() to another port gets the hooks on sendmsg() for an old mark."""
    present()
    with Namespace(), plain_socket(host, UDP) as client:
        set_mark(client)
        unload()
        load()
        client.bind((host, OTHER_PORT))
        equal("ok", code(client.sendto, b"x", (host, 0)), "sendto() to a port without a socket")


@test(*LOOPBACK.items())
def a_mark_outlives_the_module_where_no_port_is_free(_, host):
    """The first send ends like that of an unmarked socket."""
    present()
    with Namespace(), plain_socket(host, UDP) as holder, plain_socket(host, UDP) as plain, \
            plain_socket(host, UDP) as marked:
        write("/proc/sys/net/ipv4/ip_local_port_range", "40000 40000")
        holder.bind((host, 40000))
        set_mark(marked)
        unload()
        load()
        for sock in plain, marked:
            # With a timeout, Python repeats a call that ends with EAGAIN.
            sock.settimeout(None)
            equal("EAGAIN", code(sock.sendto, b"x", (host, OTHER_PORT)))
            equal(0, sock.getsockname()[1])
        holder.close()
        equal("ok", code(marked.sendto, b"x", (host, 0)), "sendto() to a port without a socket")
        equal(40000, marked.getsockname()[1])


@test()
def ftrace_cannot_be_switched_off_under_it():
    skip_without_tracer()
    present()
    try:
        equal(True, code(write, FTRACE_ENABLED, "0") in ("EBUSY", NEVER), "is refused")
        with Namespace(), bound_socket("127.0.0.1", TCP, 0) as sock:
            equal("EINVAL", code(sock.bind, ("127.0.0.1", OTHER_PORT)))
    finally:
        write(FTRACE_ENABLED, "1")


@test()
def load_without_ftrace_fails_whole():
    skip_without_tracer()
    absent()
    if code(write, FTRACE_ENABLED, "0") == NEVER:
        raise Skip("this kernel never switches ftrace off")
    try:
        since = kernel_log()
        equal(False, code(load) == "ok", "loaded without ftrace")
        equal(False, is_loaded())
        equal(True, any(line.startswith("port0: ") for line in since()), "a reason is given")
        equal(("ENOPROTOOPT",) * 3, option_answer("127.0.0.1", TCP))
    finally:
        write(FTRACE_ENABLED, "1")
    load()
    equal(("ok",) * 3, option_answer("127.0.0.1", TCP))


def use_once(host, kind):
    """Use a pair of sockets once; each call succeeds or fails in a known way.

    Returns the port that bind() took, or None.
    """
    with plain_socket(host, kind) as sock, plain_socket(host, kind) as client:
        equal(True, code(set_mark, sock) in ("ok", "ENOPROTOOPT"), "setsockopt()")
        # While the module is being unloaded bind() fails, rather than take another port.
        bound = code(sock.bind, (host, 0))
        if bound == "ENOPROTOOPT":
            return None
        equal("ok", bound, "bind()")
        address = sock.getsockname()
        if kind == TCP:
            sock.listen()
        client.connect(address)
        named = code(client.getpeername)
        equal(True, named == "ok" or (named == "ENOTCONN" and not address[1]), "getpeername()")
        client.send(b"x")
        if kind == UDP:
            equal(b"x", sock.recv(1))
        else:
            with sock.accept()[0] as child:
                equal(b"x", child.recv(1))
                reset_on_close(child)
        return address[1]


def use_until_stopped(stop, progress):
    """Use sockets until the pipe stop is closed, and report each that had port 0."""
    os.set_blocking(progress, False)
    while not select.select([stop], [], [], 0)[0]:
        for family, kind in EVERY_KIND:
            if use_once(LOOPBACK[family], KINDS[kind]) == 0:
                try:
                    os.write(progress, b"0")
                except BlockingIOError:
                    pass


class Worker:
    """A process that opens, uses and closes one socket after the other."""

    def __init__(self):
        stop, self.stop = os.pipe()
        self.progress, progress = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self.stop)
            status = 1
            try:
                with Namespace():
                    use_until_stopped(stop, progress)
                status = 0
            except Exception:
                print("".join(f"# {line}\n" for line in traceback.format_exc().splitlines()))
            finally:
                sys.stdout.flush()
                os._exit(status)
        os.close(stop)
        os.close(progress)

    def wait_for_progress(self):
        os.set_blocking(self.progress, False)
        try:
            while os.read(self.progress, 65536):
                pass
        except BlockingIOError:
            pass
        os.set_blocking(self.progress, True)
        equal(b"0", os.read(self.progress, 1), "a worker's socket on port 0")

    def end(self):
        os.close(self.stop)
        os.close(self.progress)
        equal(0, os.waitpid(self.pid, 0)[1], "a worker's status")


@test()
def unload_under_load():
    """Sockets are bound, connected and closed while the module is loaded and unloaded."""
    present()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    worker = Worker()
    try:
        for _ in range(STRESS_ROUNDS):
            worker.wait_for_progress()
            # Until it succeeds, or the time of the test ends
            while (error := code(unload)) != "ok":
                equal("EAGAIN", error)
            equal("ENOPROTOOPT", option_answer("127.0.0.1", TCP)[0])
            load()
    finally:
        worker.end()


if __name__ == "__main__":
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    with restored():
        main()

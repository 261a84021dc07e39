#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Test port0-probe; KTAP on stdout.

 client -10.0.1- r1 -10.0.2- r2 -10.0.3- r3 -10.0.4- server
       .1      .2  .1      .2  .1      .2  .1      .2      and fd00:N::, too

Each is a network namespace, and the filters are in between. Tests that need the module
are skipped if it is not loaded, and the reverse.
"""

import argparse
import contextlib
import ctypes
import functools
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

from ktap import MARK, needs_module, needs_no_module, needs_program, run_command as run, run_tests

HERE = os.path.dirname(os.path.realpath(__file__))
PROBE = os.environ.get("PORT0_PROBE", os.path.join(os.path.dirname(HERE), "port0-probe"))
CONTROL = 7030
NOBODY = 65534
NAMES = ("client", "r1", "r2", "r3", "server")
ROUTERS = NAMES[1:4]
SERVER = {4: "10.0.4.2", 6: "fd00:4::2"}
SECOND = {4: "10.0.4.3", 6: "fd00:4::3"}
BY_NAME = "far.example"
WAYS = ("control", "to 0", "from 0", "0 to 0")
SILENCE = 2		# seconds that a test waits in vain
CGROUP = f"/sys/fs/cgroup/port0-probe-{os.getpid()}"

libc = ctypes.CDLL(None, use_errno=True)


def says(text, *words):
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


def name(where):
    return f"port0-{os.getpid()}-{where}"


def inside(where, *argv):
    return ("ip", "netns", "exec", name(where), *argv)


@contextlib.contextmanager
def entered(where):
    """Sockets that are opened inside "with" belong to that namespace."""
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{name(where)}", os.O_RDONLY)
    assert libc.setns(there, 0x40000000) == 0
    try:
        yield
    finally:
        assert libc.setns(home, 0x40000000) == 0
        os.close(home)
        os.close(there)


def build():
    """Namespaces in a row, and routes between them."""
    for where in NAMES:
        run("ip", "netns", "add", name(where))
        run(*inside(where, "ip", "link", "set", "lo", "up"))
        for key in ("ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1", "ipv4.icmp_ratelimit=0",
                    "ipv6.icmp.ratelimit=0"):
            run(*inside(where, "sysctl", "-qw", f"net.{key}"))
    for n, (left, right) in enumerate(zip(NAMES, NAMES[1:]), 1):
        run("ip", "link", "add", "right", "netns", name(left), "type", "veth", "peer", "name", "left",
            "netns", name(right))
        for where, device, number in ((left, "right", 1), (right, "left", 2)):
            run(*inside(where, "ip", "address", "add", f"10.0.{n}.{number}/24", "dev", device))
            run(*inside(where, "ip", "address", "add", f"fd00:{n}::{number}/64", "dev", device, "nodad"))
            run(*inside(where, "ip", "link", "set", device, "up"))
    for n, where in enumerate(NAMES):
        for net in range(1, len(NAMES)):
            if net > n + 1:
                gateways = f"10.0.{n + 1}.2", f"fd00:{n + 1}::2", "right"
            elif net < n:
                gateways = f"10.0.{n}.1", f"fd00:{n}::1", "left"
            else:
                continue
            run(*inside(where, "ip", "route", "add", f"10.0.{net}.0/24", "via", gateways[0]))
            run(*inside(where, "ip", "route", "add", f"fd00:{net}::/64", "via", gateways[1], "dev",
                        gateways[2]))
    for address in ("10.0.4.3/24", "fd00:4::3/64"):
        run(*inside("server", "ip", "address", "add", address, "dev", "left",
                    *(["nodad"] if ":" in address else [])))
    os.makedirs(f"/etc/netns/{name('client')}")
    with open(f"/etc/netns/{name('client')}/hosts", "w", encoding="ascii") as f:
        f.write("".join(f"{address} {BY_NAME}\n" for address in (*SERVER.values(), *SECOND.values())) +
                f"{SERVER[6]} six.example\n10.9.9.9 mixed.example\n{SERVER[4]} mixed.example\n" +
                "".join(f"10.0.8.{n} many.example\n" for n in range(1, 20)))


def tear_down():
    for where in NAMES:
        subprocess.run(["ip", "netns", "delete", name(where)], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(f"/etc/netns/{name('client')}", ignore_errors=True)
    with contextlib.suppress(OSError):
        os.rmdir("/etc/netns")


@contextlib.contextmanager
def filters(where, rules, hook="forward", kind="filter"):
    """Rules of one nftables chain, as long as the block lasts."""
    priority = {"filter": 0, "nat": 100}[kind]
    run(*inside(where, "nft", "-f", "-"), input=f"""
        table inet probe {{ chain it {{
            type {kind} hook {hook} priority {priority}
            {rules}
        }}
        }}""")
    try:
        yield
    finally:
        run(*inside(where, "nft", "flush", "ruleset"))


@contextlib.contextmanager
def serving(*options, where="server"):
    server = subprocess.Popen(inside(where, PROBE, "--serve", *options), text=True,
                              stdout=subprocess.PIPE)
    try:
        says(server.stdout.readline(), "answers on TCP and UDP")
        yield server
        assert server.poll() is None, f"the server ended: {server.returncode}"
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


class Report:
    """The JSON of one run, in terms of (protocol, family, way)."""

    def __init__(self, *argv, status, prefix=(), where="client", **kwargs):
        done = run(*inside(where, *prefix, PROBE, "--json", "--timeout", str(SILENCE), *argv),
                   status=status, **kwargs)
        self.said, self.errors = done.stdout, done.stderr
        self.json = json.loads(done.stdout)
        assert self.json["status"] == status
        self.tests = {}
        for address in self.json["addresses"]:
            for test in address["tests"]:
                self.tests[address["address"], test["protocol"], test["family"], test["way"]] = test

    def __getitem__(self, way):
        """The tests that go this way."""
        found = [test for key, test in self.tests.items() if key[3] == way]
        assert found, f"no test {way!r}"
        return found

    def expect(self, **verdicts):
        """The expected verdict for each way, with _ for a space; the default is "answered"."""
        for (address, protocol, _, way), test in self.tests.items():
            want = verdicts.get({"0 to 0": "both"}.get(way, way.replace(" ", "_")), "answered")
            assert test["verdict"] == want, f"{protocol} {address} {way}: {test['text']!r}, not {want!r}"
            assert test["passes"] == (want == "answered")


def hosts(family=None):
    return [SERVER[family]] if family else list(SERVER.values())


# ---- without the far end ----

def test_help_and_version():
    says(run(PROBE, "--help").stdout, "usage: port0-probe", "--serve", "--trace")
    says(run(PROBE, "--version").stdout, "port0-probe ")


def test_wrong_arguments():
    for argv in ([], ["--nonsense", "127.0.0.1"], ["--control", "0", "127.0.0.1"], ["a", "b"],
                 ["--control", "65536", "127.0.0.1"], ["--timeout", "0", "127.0.0.1"],
                 ["--timeout", "-1", "127.0.0.1"], ["--hops", "x", "127.0.0.1"], ["-4", "-6", "::1"],
                 ["--serve", "--trace"], ["--rate", "5", "127.0.0.1"], ["--serve", "--rate", "0"],
                 [""], ["[]"]):
        done = run(PROBE, *argv, status=3)
        says(done.stderr, "port0-probe: ")
        assert not done.stdout


def test_no_such_name():
    for argv in (["no.such.name.invalid"], ["-6", "127.0.0.1"], ["-4", "::1"]):
        done = run(*inside("client", PROBE, *argv), status=3)
        says(done.stderr, "does not resolve")
        assert len(done.stderr.splitlines()) == 1 and not done.stdout, done


def test_no_such_interface():
    for argv in (["--to", "fe80::1%nothere"], ["--to", "[fe80::1%nothere]"], ["--serve", "fe80::1%nothere"]):
        done = run(PROBE, *argv, status=3)
        says(done.stderr, "there is no interface nothere")
        assert len(done.stderr.splitlines()) == 1, done


def test_strange_name_of_an_interface():
    """It is not printed as it is, which a terminal would obey."""
    strange = b"a\x1b[2J\xff"
    run(*inside("client", "ip", "link", "add", strange, "type", "veth", "peer", "name", "other"))
    try:
        run(*inside("client", "ip", "address", "add", "fe80::5/64", "dev", strange, "nodad"))
        run(*inside("client", "ip", "link", "set", "up", "dev", strange))
        run(*inside("client", "ip", "link", "set", "up", "dev", "other"))
        for options in ([], ["--json"]):
            done = subprocess.run(inside("client", PROBE, "--to", "--tcp", "--timeout", "1", *options,
                                         b"fe80::5%" + strange), stdout=subprocess.PIPE,
                                  stderr=subprocess.DEVNULL, check=False)
            said = done.stdout.replace(b"\n", b" ")
            assert b"fe80::5%a?[2J?" in said and all(32 <= c < 127 for c in said), said
    finally:
        run(*inside("client", "ip", "link", "delete", strange))


@needs_module
def test_serve_without_interface():
    says(run(PROBE, "--serve", "fe80::1", status=3).stderr, "fe80::1: a link-local address takes an interface")


def test_no_route():
    for host, why in (("192.0.2.1", "no route: "), ("2001:db8::1", "no route: "),
                      ("fe80::1", "ADDRESS%INTERFACE")):
        done = run(*inside("client", PROBE, "--to", host), status=3)
        says(done.stderr, f"port0-probe: {host}: not tried: ", why)
        assert len(done.stderr.splitlines()) == 1, done
        assert not done.stdout, done


@needs_module
def test_many_addresses():
    """Those that are not tried are not answered, either: the status says so."""
    run(*inside("client", "ip", "route", "add", "local", "10.0.8.0/24", "dev", "lo"))
    with serving(where="client"):
        report = Report("--to", "many.example", status=3)
    run(*inside("client", "ip", "route", "delete", "local", "10.0.8.0/24", "dev", "lo"))
    report.expect()
    says(report.errors, "many.example has more than 16 addresses, the others are not tried")
    assert len(report.json["addresses"]) == 16, report.said


def test_not_one_host():
    """The kernel would send these to all, or to itself."""
    for host, why in (("0.0.0.0", "no host's address"), ("::", "no host's address"), ("224.0.0.1", "multicast"),
                      ("ff02::1%right", "multicast"), ("255.255.255.255", "broadcast"), ("10.0.1.255", "broadcast")):
        done = run(*inside("client", PROBE, "--to", host), status=3)
        says(done.stderr, f"port0-probe: {host}: not tried: ", why)
        assert len(done.stderr.splitlines()) == 1 and not done.stdout, done


def test_routes_that_stop_it():
    for kind, why in (("prohibit", "EACCES: a route that prohibits it"), ("blackhole", "EINVAL: a route that drops it")):
        for host in ("10.0.9.9", "fd00:9::9"):
            run(*inside("client", "ip", "route", "add", kind, host))
            report = Report("--to", host, status=2)
            run(*inside("client", "ip", "route", "delete", kind, host))
            report.expect(control="stopped", to_0="stopped")
            assert len(report.tests) == 4, report.said
            for test in report.tests.values():
                says(test["text"], "connect(): " + why)


def test_output_that_cannot_be_written():
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([PROBE, "--to", "127.0.0.1"], stdout=full, stderr=subprocess.PIPE,
                              text=True, check=False, timeout=60)
    assert done.returncode == 3, done
    says(done.stderr, "cannot write")


def test_closed_descriptors():
    """If standard output or error is closed, no socket gets its number."""
    def close():
        for fd in range(3):
            os.close(fd)

    assert subprocess.run([PROBE, "--to", "127.0.0.1"], check=False, timeout=60, preexec_fn=close).returncode == 3
    done = subprocess.run([PROBE, "--help"], stderr=subprocess.PIPE, text=True, check=False,
                          preexec_fn=lambda: os.close(1))
    assert done.returncode == 3, done
    says(done.stderr, "cannot write")


@needs_module
def test_serve_without_standard_output():
    done = subprocess.run([PROBE, "--serve", "127.0.0.1"], stderr=subprocess.PIPE, text=True, check=False,
                          timeout=60, preexec_fn=lambda: os.close(1))
    assert done.returncode == 3, done
    says(done.stderr, "cannot write")


def deny_mark(error=1):
    """Any setsockopt(fd, level, 0x7030, ...) gives EPERM, as with the module's drain."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    number = 54 if os.uname().machine == "x86_64" else 208
    code = struct.pack("=" + "HBBI" * 6, 0x20, 0, 0, 0, 0x15, 0, 3, number, 0x20, 0, 0, 32,
                       0x15, 0, 1, 0x7030, 6, 0, 0, 0x50000 | error, 6, 0, 0, 0x7fff0000)
    code = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(struct.pack("=HxxxxxxQ", 6, ctypes.addressof(code)))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.addressof(program), 0, 0) == 0


def test_mark_that_is_refused():
    """Only tests from port 0 need the mark."""
    done = run(PROBE, "--to", "--json", "127.0.0.1", status=2, preexec_fn=deny_mark)
    assert {test["verdict"] for test in json.loads(done.stdout)["addresses"][0]["tests"]} == {"refused"}, done
    done = run(PROBE, "127.0.0.1", status=2, preexec_fn=deny_mark)
    assert done.stdout.count("not tried: EPERM: the administrator forbids it") == 4, done
    says(done.stderr, "from port 0 not tried: EPERM")
    says(run(PROBE, "--serve", status=3, preexec_fn=deny_mark).stderr, "EPERM: the administrator forbids it")


def test_mark_without_effect():
    """As if the module were unloaded behind the mark: no ephemeral port is served."""
    done = run(PROBE, "--serve", "127.0.0.1", status=3, preexec_fn=lambda: deny_mark(0))
    assert not done.stdout, done
    says(done.stderr, "127.0.0.1: the kernel module port0 is not loaded")


def test_nobody_serves():
    """Each refusal names its sender; tests that need no module are run without it."""
    report = Report("--to", *hosts(4), status=2)
    assert {(t["protocol"], t["verdict"], t["by"], t["how"]) for t in report.tests.values()} == {
        ("tcp", "refused", SERVER[4], "rst"), ("udp", "refused", SERVER[4], "icmp")}, report.said
    says(report.errors, "no control is answered", "--serve")


def test_nobody_there():
    """For an absent host, a router reports "host unreachable", or this machine's kernel
    if the host would be on the link."""
    far = Report("--timeout", "5", "--to", "10.0.4.99", status=2)
    for test in far.tests.values():
        assert (test["verdict"], test["by"], test["icmp_code"]) == ("refused", "10.0.3.2", 1), far.said
    near = Report("--timeout", "5", "--to", "10.0.1.99", status=2)
    for test in near.tests.values():
        assert test["verdict"] == "silent", near.said
        says(test["text"], "nobody on the link")


@needs_no_module
def test_no_module():
    done = run(PROBE, "--serve", status=3)
    assert done.stderr == ("port0-probe: the kernel module port0 is not loaded: "
                           "as root, run modprobe port0 or insmod port0.ko\n"), done
    report = Report(SERVER[4], status=2)
    report.expect(control="refused", to_0="refused", from_0="not tried", both="not tried")
    for test in report["from 0"]:
        says(test["text"], "module port0 is not loaded")
    says(report.errors, "port0-probe: from port 0 not tried", "modprobe port0")


# A simple far end, which may answer with another token than that of the question
ANSWERER = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 7030)); print(flush=True)
while True:
    data, (host, port) = s.recvfrom(512)
    token = sys.argv[1].encode() if sys.argv[1:] else data.split()[1]
    s.sendto(b"port0-probe: %s %s %d\\n" % (token, host.encode(), port), (host, port))
"""


@needs_no_module
def test_to_0_without_the_module():
    """The far end has no module, either: it redirects port 0 to its control port."""
    server = subprocess.Popen(inside("server", sys.executable, "-c", ANSWERER), stdout=subprocess.PIPE)
    try:
        server.stdout.readline()
        with filters("server", "udp dport 0 redirect to 7030", hook="prerouting", kind="nat"):
            Report("--udp", "--to", SERVER[4], status=0,
                   prefix=("setpriv", f"--reuid={NOBODY}", "--clear-groups", "--")).expect()
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


# ---- all passes ----

@needs_module
def test_all_answered():
    with serving():
        for family in SERVER:
            report = Report(SERVER[family], status=0)
            report.expect()
            assert len(report.tests) == 8
            for test in report.tests.values():
                assert test["seen"]["port"] == test["source_port"], test
                assert bool(test["source_port"]) == (test["way"] in ("control", "to 0")), test
                assert test["seen"]["address"] in ("10.0.1.1", "fd00:1::1"), test
        # again at once, between the same ports
        for _ in range(3):
            Report("--from", SERVER[4], status=0).expect()
        left = run(*inside("server", "ss", "-Htan", "state", "time-wait")).stdout
        assert not left, f"connections are left on the server: {left}"


@needs_module
def test_table():
    with serving():
        lines = run(*inside("client", PROBE, SERVER[4])).stdout.splitlines()
    assert lines == [f"{SERVER[4]}, from 10.0.1.1", *(f"  {kind} IPv4  {way:<8} answered"
                     for kind in ("TCP", "UDP") for way in WAYS)], lines


@needs_module
def test_addresses_of_a_name():
    """All addresses; the host answers from the address that was asked."""
    with serving():
        report = Report(BY_NAME, status=0)
        report.expect()
        assert len(report.tests) == 32 and len(report.json["addresses"]) == 4, report.said
        assert len(Report("-6", BY_NAME, status=0).tests) == 16
        assert len(Report("six.example", status=0).tests) == 8
        assert len(Report("--tcp", "--from", "[fd00:4::2]", status=0).tests) == 3
        mixed = Report("mixed.example", status=3)
        mixed.expect()
        assert len(mixed.tests) == 8
        says(mixed.errors, "10.9.9.9: not tried: no route")
        says("".join(address.get("why", "") for address in mixed.json["addresses"]), "no route")
        assert len(Report("::ffff:10.0.4.2", status=0).tests) == 8


@needs_module
def test_chosen_addresses_and_port():
    with serving("--control", "7777", SECOND[4], SECOND[6]):
        Report("--control", "7777", SECOND[4], status=0).expect()
        report = Report(SECOND[6], status=2)
        report.expect(control="refused", from_0="refused")
        report = Report("--control", "7777", SERVER[4], status=2)
        report.expect(control="refused", from_0="refused", to_0="refused", both="refused")
    with serving(f"::ffff:{SECOND[4]}", f"[{SECOND[6]}]"):
        for address in SECOND.values():
            Report(f"[{address}]", status=0).expect()


@needs_module
def test_no_privilege():
    nobody = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
    with serving():
        Report("--to", SERVER[4], status=0, prefix=nobody).expect()
        report = Report(SERVER[4], status=3, prefix=nobody)
        report.expect(from_0="not tried", both="not tried")
        for test in report["from 0"]:
            says(test["text"], "CAP_NET_BIND_SERVICE")
        says(run(*inside("r1", *nobody, PROBE, "--serve"), status=3).stderr, "CAP_NET_BIND_SERVICE")
        run(*inside("client", "sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=0"))
        Report(SERVER[4], status=0, prefix=nobody).expect()
        run(*inside("client", "sysctl", "-qw", "net.ipv4.ip_unprivileged_port_start=1024"))


@needs_module
def test_port_0_is_taken_here():
    with serving(), serving(where="client"):
        report = Report(SERVER[4], status=3)
        report.expect(from_0="not tried", both="not tried")
        says(report["from 0"][0]["text"], "another socket", "port0-ls")
    with serving():
        says(run(*inside("server", PROBE, "--serve"), status=3).stderr, "another socket has it")
        says(run(*inside("server", PROBE, "--serve", "192.0.2.1"), status=3).stderr,
             "does not have the address")


@needs_module
def test_answer_from_another_port():
    """A socket connected to port 0 also receives from other ports; it must not count."""
    with serving(), filters("r1", 'iifname "right" udp sport 0 udp sport set 53'):
        report = Report("--udp", "--to", SERVER[4], status=1)
        report.expect(to_0="other")
        says(report["to 0"][0]["text"], "the answer came from port 53")


def test_answer_to_another_question():
    server = subprocess.Popen(inside("server", sys.executable, "-c", ANSWERER, "0123456789abcdef"),
                              stdout=subprocess.PIPE)
    try:
        server.stdout.readline()
        Report("--udp", "--to", SERVER[4], status=2).expect(control="silent", to_0="refused")
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


@needs_module
def test_late_answers():
    """A late second answer arrives when the next question is sent from the same port."""
    run(*inside("server", "tc", "qdisc", "add", "dev", "left", "root", "netem", "delay", "1200ms"))
    try:
        with serving():
            Report("--timeout", "4", "--udp", SERVER[4], status=0).expect()
    finally:
        run(*inside("server", "tc", "qdisc", "delete", "dev", "left", "root"))


@needs_module
def test_another_program_answers():
    with entered("server"), contextlib.ExitStack() as stack:
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            for port in (0, CONTROL):
                s = stack.enter_context(socket.socket(socket.AF_INET, kind))
                s.setsockopt(socket.SOL_IP, MARK, 1)
                s.bind(("", port))
                if kind == socket.SOCK_STREAM:
                    s.listen()
        report = Report("--tcp", "--to", SERVER[4], status=2)
        report.expect(control="silent", to_0="silent")
        says(report["to 0"][0]["text"], "it connects, then nothing comes")


def control_of(data, status):
    """The test of the control over TCP, if the far end sends this and then waits."""
    with entered("server"), socket.create_server(("", CONTROL)) as listener:
        listener.settimeout(60)
        probe = subprocess.Popen(inside("client", PROBE, "--json", "--tcp", "--to", "--timeout", str(SILENCE),
                                        SERVER[4]), text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with listener.accept()[0] as s:
            s.sendall(data.replace(b"TOKEN", s.recv(100).split()[1]))
            said, _ = probe.communicate(timeout=60)
    assert probe.returncode == status, said
    return json.loads(said)["addresses"][0]["tests"][0]


def test_part_of_an_answer():
    """Without the end of its line, the number of the port may be a part of it."""
    control = control_of(b"port0-probe: TOKEN 10.0.1.1 1", status=2)
    assert control["verdict"] == "silent" and "seen" not in control, control
    says(control["text"], "it connects, then nothing comes")


def test_greeting_without_a_line():
    """A database greets in binary, a terminal server with a prompt."""
    for data in b"\x4a\0\0\0\x0a8.0.36\0", b"login: ", b"port0-probes\n":
        control = control_of(data, status=2)
        assert control["verdict"] == "other", control
        says(control["text"], "it connects, but to another program")


def test_datagram_before_the_answer():
    """It does not count, nor is it given as a reason."""
    with entered("server"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("", CONTROL))
        s.settimeout(60)
        probe = subprocess.Popen(inside("client", PROBE, "--json", "--udp", "--to", "--timeout", str(SILENCE),
                                        SERVER[4]), text=True, stdout=subprocess.PIPE)
        asked_, peer = s.recvfrom(100)
        for data in b"hello", b"port0-probe: %s %s %d\n" % (asked_.split()[1], peer[0].encode(), peer[1]):
            s.sendto(data, peer)
        said, _ = probe.communicate(timeout=60)
    control = json.loads(said)["addresses"][0]["tests"][0]
    assert control["verdict"] == "answered" and "why" not in control, said


# ---- filters on the way ----

def of_all(test):
    """Filters at the first hop, in the middle, and at the last hop: one test for each."""
    for place in ROUTERS:
        globals()[f"test_{test.__name__}_at_{place}"] = needs_module(functools.partial(test, place))
    return test


@of_all
def drop_in(place):
    with serving(), filters(place, 'iifname "left" th dport 0 drop'):
        for host in hosts():
            Report(host, status=1).expect(to_0="silent", both="silent")


@of_all
def drop_out(place):
    """Filters on replies only: each kind of test ends differently."""
    with serving(), filters(place, 'iifname "right" th sport 0 drop'):
        for host in hosts():
            Report(host, status=1).expect(to_0="silent", both="silent")


@needs_module
def test_drop_of_source_0():
    with serving():
        with filters("r2", 'iifname "left" th sport 0 drop'):
            Report(SERVER[4], status=1).expect(from_0="silent", both="silent")
        with filters("r2", 'iifname "right" th dport 0 drop'):
            Report(SERVER[6], status=1).expect(from_0="silent", both="silent")
        with filters("r2", 'iifname "left" th dport 0 th sport 0 drop'):
            Report(SERVER[4], status=1).expect(both="silent")


@of_all
def reject_in(place):
    hop = ROUTERS.index(place) + 1
    for how, codes in (("admin-prohibited", {4: (3, 13), 6: (1, 1)}),
                       ("port-unreachable", {4: (3, 3), 6: (1, 4)}),
                       ("host-unreachable", {4: (3, 1), 6: (1, 3)})):
        with serving(), filters(place, f'iifname "left" th dport 0 reject with icmpx type {how}'):
            for family, host in SERVER.items():
                report = Report(host, status=1)
                report.expect(to_0="refused", both="refused")
                for test in report["to 0"] + report["0 to 0"]:
                    by = f"10.0.{hop}.2" if family == 4 else f"fd00:{hop}::2"
                    got = test["by"], test["how"], test["icmp_type"], test["icmp_code"]
                    assert got == (by, "icmp", *codes[family]), test
                    says(test["text"], f"refused by {by}: ICMP {how.replace('admin-', 'administratively ').replace('-', ' ')}"
                         if how != "host-unreachable" else "unreachable")


@of_all
def reject_with_reset(place):
    with serving(), filters(place, 'iifname "left" tcp dport 0 reject with tcp reset'):
        for host in hosts():
            report = Report("--tcp", host, status=1)
            report.expect(to_0="refused", both="refused")
            says(report["to 0"][0]["text"], f"RST in the name of {host}")


@of_all
def reject_out(place):
    """The server gets the question, the client gets no answer."""
    with serving(), filters(place, 'iifname "right" udp sport 0 reject'):
        Report("--udp", SERVER[4], status=1).expect(to_0="silent", both="silent")


@needs_module
def test_filters_of_the_server():
    with serving():
        with filters("server", "th dport 0 drop", hook="input"):
            Report("--to", SERVER[4], status=1).expect(to_0="silent")
        with filters("server", "th dport 0 reject", hook="input"):
            report = Report("--to", SERVER[6], status=1)
            report.expect(to_0="refused")
            assert all(test["by"] == SERVER[6] for test in report["to 0"])
        with filters("server", "th sport 0 drop", hook="output"):
            Report("--to", SERVER[4], status=1).expect(to_0="silent")
        with filters("server", f"th dport {CONTROL} drop", hook="input"):
            Report("--to", SERVER[4], status=2).expect(control="silent")
        with filters("server", f"tcp dport {CONTROL} drop", hook="input"):
            report = Report("--to", SERVER[4], status=1)
            assert report["control"][0]["verdict"] == "silent"
            assert report["control"][1]["verdict"] == "answered"


@needs_module
def test_refusals_that_are_rare():
    """A router limited to one ICMP error a second: only a repeated question gets one."""
    run(*inside("r2", "sysctl", "-qw", "net.ipv4.icmp_ratelimit=1000"))
    try:
        with serving(), filters("r2", 'iifname "left" th dport 0 reject'):
            for _ in range(4):
                report = Report("--timeout", "4", SERVER[4], status=1)
                report.expect(to_0="refused", both="refused")
    finally:
        run(*inside("r2", "sysctl", "-qw", "net.ipv4.icmp_ratelimit=0"))


@needs_module
def test_loss():
    """Every second question is lost."""
    with serving(), filters("r2", 'iifname "left" th dport 0 numgen inc mod 2 == 0 drop'):
        Report("--timeout", "5", SERVER[4], status=0).expect()


@needs_module
def test_conntrack():
    rules = 'ct state invalid drop\nct state established,related,new accept\ndrop'
    with serving(), filters("r2", rules):
        for host in hosts():
            Report(host, status=0).expect()
    with serving(), filters("r2", 'iifname "right" ct state established accept\niifname "right" drop'):
        Report(SERVER[4], status=0).expect()


@needs_module
def test_masquerade():
    """Each test uses another router, since NAT does not change known connections for a while."""
    rules = 'oifname "right" meta l4proto { tcp, udp } th sport 0 masquerade to :5000-5099'
    with serving(), filters("r1", rules, hook="postrouting", kind="nat"):
        for host in hosts():
            report = Report(host, status=1)
            report.expect(from_0="rewritten", both="rewritten")
            for test in report["from 0"] + report["0 to 0"]:
                assert 5000 <= test["seen"]["port"] < 5100, test
                says(test["text"], f"source port rewritten to {test['seen']['port']} on the way")
    with serving(), filters("r2", 'oifname "right" masquerade random', hook="postrouting", kind="nat"):
        report = Report("--to", SERVER[4], status=0)
        report.expect()
        for test in report.tests.values():
            says(test["text"], f"seen as 10.0.3.1 port {test['seen']['port']}")
    with serving(), filters("r3", 'oifname "right" masquerade', hook="postrouting", kind="nat"):
        report = Report(SERVER[4], status=0)
        report.expect()
        assert {test["seen"]["address"] for test in report.tests.values()} == {"10.0.4.1"}, report.said


# ---- stopped on this machine ----

@needs_module
def test_own_firewall():
    with serving():
        for rule in ("th dport 0 drop", "th dport 0 reject"):
            with filters("client", rule, hook="output"):
                for host in hosts():
                    report = Report(host, status=1)
                    report.expect(to_0="stopped", both="stopped")
                    for test in report["to 0"] + report["0 to 0"]:
                        says(test["text"], "stopped on this machine", "firewall")
        # Dropped after the firewall, which most programs do not see as an error
        run(*inside("client", "tc", "qdisc", "add", "dev", "right", "clsact"))
        run(*inside("client", "tc", "filter", "add", "dev", "right", "egress", "protocol", "ip", "u32",
                    "match", "ip", "dport", "0", "0xffff", "action", "drop"))
        report = Report("--to", SERVER[4], status=1)
        report.expect(to_0="stopped")
        for test in report["to 0"]:
            says(test["text"], "tc")
        run(*inside("client", "tc", "qdisc", "delete", "dev", "right", "clsact"))
        with filters("client", "th sport 0 drop", hook="input"):
            Report(SERVER[4], status=1).expect(to_0="silent", both="silent")


def bpf(command, attr):
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    buffer = ctypes.create_string_buffer(attr, len(attr))
    done = libc.syscall(number, command, buffer, len(attr))
    assert done >= 0, f"bpf({command}): {os.strerror(ctypes.get_errno())}"
    return done


@contextlib.contextmanager
def forbidden(program_type, attach_type, port_at=None):
    """A control group in which a BPF program forbids all of it, or what has port 0 in the
    field at port_at."""
    def insn(code, to=0, source=0, at=0, value=0):
        return struct.pack("<BBhi", code, source << 4 | to, at, value)
    program = insn(0xb7, 0, value=0)			# r0 = 0
    if port_at is not None:
        program += (insn(0x61, 2, 1, port_at) +		# r2 = *(u32 *)(r1 + at)
                    insn(0x15, 2, at=1, value=0) +	# skip one if r2 is 0
                    insn(0xb7, 0, value=1))		# r0 = 1
    program += insn(0x95)
    code, text = ctypes.create_string_buffer(program), ctypes.create_string_buffer(b"GPL")
    attr = struct.pack("<IIQQIIQII16sII", program_type, len(program) // 8, ctypes.addressof(code),
                       ctypes.addressof(text), 0, 0, 0, 0, 0, b"", 0, attach_type)
    os.mkdir(CGROUP)
    directory = os.open(CGROUP, os.O_RDONLY)
    fd = None
    try:
        fd = bpf(5, attr)
        bpf(8, struct.pack("<IIII", directory, fd, attach_type, 0))
        yield
    finally:
        os.close(directory)
        if fd is not None:
            os.close(fd)
        for _ in range(100):
            with contextlib.suppress(OSError):
                os.rmdir(CGROUP)
                break
            time.sleep(0.1)


def join_group():
    with open(f"{CGROUP}/cgroup.procs", "w", encoding="ascii") as f:
        f.write("0")


SKB, SOCK_ADDR = 8, 18
EGRESS, BIND, CONNECT = 1, {4: 8, 6: 9}, {4: 10, 6: 11}
USER_PORT = 24


@needs_module
def test_control_group():
    group = os.path.basename(CGROUP)
    # "ip netns exec" has a /sys of its own, without control groups in it.
    visible = ("sh", "-c", 'mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$0" "$@"')
    nobody = ("setpriv", f"--reuid={NOBODY}", "--clear-groups", "--")
    with serving():
        for family, host in SERVER.items():
            with forbidden(SOCK_ADDR, CONNECT[family], USER_PORT):
                report = Report(host, status=1, preexec_fn=join_group, prefix=visible)
                report.expect(to_0="stopped", both="stopped")
                for test in report["to 0"] + report["0 to 0"]:
                    says(test["text"], "connect(): EPERM", f"BPF program of control group /{group}")
                report = Report("--to", host, status=1, preexec_fn=join_group, prefix=nobody)
                report.expect(to_0="stopped")
                says(report["to 0"][0]["text"], "connect(): EPERM: a BPF program of a control group or")
            with forbidden(SOCK_ADDR, BIND[family], USER_PORT):
                report = Report(host, status=1, preexec_fn=join_group, prefix=visible)
                report.expect(from_0="stopped", both="stopped")
                for test in report["from 0"] + report["0 to 0"]:
                    says(test["text"], "bind(): EPERM", f"/{group}", "SocketBindDeny")
        with forbidden(SKB, EGRESS):
            report = Report("--to", SERVER[4], status=2, preexec_fn=join_group, prefix=visible)
            report.expect(control="stopped", to_0="stopped")
            for test in report["to 0"]:
                says(test["text"], f"control group /{group}", "IPAddressDeny")


def only_the_control():
    """Landlock: TCP may connect to the control port only."""
    ruleset = struct.pack("<QQ", 0, 2)
    fd = libc.syscall(444, ruleset, len(ruleset), 0)
    rule = struct.pack("<QQ", 2, CONTROL)
    libc.prctl(38, 1, 0, 0, 0)
    if fd < 0 or libc.syscall(445, fd, 2, rule, 0) or libc.syscall(446, fd, 0):
        raise OSError(ctypes.get_errno(), "landlock")


@needs_module
def test_security_module():
    if libc.syscall(444, None, 0, 1) < 4:
        print("# this kernel's Landlock knows no ports")
        return
    with serving():
        report = Report("--to", SERVER[4], status=1, preexec_fn=only_the_control)
        tcp, udp = report["to 0"]
        assert (tcp["verdict"], udp["verdict"]) == ("stopped", "answered"), report.said
        says(tcp["text"], "connect(): EACCES: a security module (Landlock")


# ---- where packets are dropped ----

@of_all
def trace_of_a_drop(place):
    hop = ROUTERS.index(place) + 1
    with serving(), filters(place, 'iifname "left" th dport 0 drop'):
        for family, host in SERVER.items():
            by = f"10.0.{hop}.2" if family == 4 else f"fd00:{hop}::2"
            report = Report("--trace", *(["--to"] if family == 6 else []), host, status=1)
            report.expect(to_0="silent", both="silent")
            for test in report["to 0"] + (report["0 to 0"] if family == 4 else []):
                trace, control = test["trace"], test["control_trace"]
                assert trace["last"] == hop and trace["hops"][hop - 1] == by, test
                assert not trace["end"] and control["end"] == 4, test
                assert len([h for h in control["hops"] if h]) == 3, test
            assert all("trace" not in test for test in report["control"])
    with serving(), filters(place, 'iifname "left" th dport 0 drop'):
        said = run(*inside("client", PROBE, "--trace", "--to", "--udp", SERVER[4]), status=1).stdout
        says(said, f"answers up to hop {hop}, 10.0.{hop}.2", "; the control passes, 4 hops")
        assert ("the last before the host" in said) == (hop == 3), said


@needs_module
def test_trace_of_replies_and_resets():
    with serving():
        with filters("r2", 'iifname "right" th sport 0 drop'):
            report = Report("--trace", "--to", "--udp", SERVER[4], status=1)
            assert report["to 0"][0]["trace"]["last"] == 3, report.said
        with filters("r2", 'iifname "left" tcp dport 0 reject with tcp reset'):
            report = Report("--trace", "--to", "--tcp", SERVER[4], status=1)
            trace = report["to 0"][0]["trace"]
            assert (trace["last"], trace["end"]) == (2, 3), report.said
            said = run(*inside("client", PROBE, "--trace", "--to", "--tcp", SERVER[4]), status=1).stdout
            says(said, "answers up to hop 2, 10.0.2.2, refused with hop limit 3; the control passes, 4")
        with filters("r2", f'iifname "left" th dport {{ 0, {CONTROL} }} drop'):
            said = run(*inside("client", PROBE, "--trace", "--to", "--udp", SERVER[4]), status=2).stdout
            says(said, "answers up to hop 2, 10.0.2.2\n",
                 "answers up to hop 2, 10.0.2.2; the control up to hop 2, 10.0.2.2\n")


@needs_module
def test_trace_that_is_answered():
    """The test is silent, but its trace gets an answer."""
    with serving(), filters("server", "udp dport 0 quota until 300 bytes drop", hook="input"):
        said = run(*inside("client", PROBE, "--timeout", "2", "--trace", "--to", "--udp", SERVER[4]),
                   status=1).stdout
    says(said, "to 0     silent\n", "answers up to hop 3, 10.0.3.2, answered with hop limit 4; the control passes, 4")


def test_trace_is_one_flow():
    """All packets of a test and its trace have one source port, so they go the same way if a
    router has several."""
    with entered("client"), socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)) as wire:
        wire.bind(("right", 3))
        wire.settimeout(0)
        with filters("r2", f'iifname "left" th dport {{ 0, {CONTROL} }} drop'):
            Report("--trace", "--hops", "3", "--to", BY_NAME, status=2)
        ports = {}
        with contextlib.suppress(BlockingIOError):
            while True:
                packet, (_, _, kind, *_) = wire.recvfrom(200)
                protocol, start = (packet[6], 40) if packet[0] >> 4 == 6 else (packet[9], 20)
                if kind == socket.PACKET_OUTGOING and protocol in (6, 17):
                    # by the addresses, the protocol, the destination port and the flow label
                    source, *to = struct.unpack_from("!HH", packet, start)
                    flow = packet[start - 8:start] if start == 20 else packet[:4] + packet[8:40]
                    ports.setdefault((flow, protocol, *to), set()).add(source)
    assert len(ports) == 16 and all(len(sources) == 1 for sources in ports.values()), ports


ECHO = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 7030)); print(flush=True)
while True: s.sendto(*s.recvfrom(512))
"""


def test_trace_to_another_program():
    server = subprocess.Popen(inside("server", sys.executable, "-c", ECHO), stdout=subprocess.PIPE)
    try:
        server.stdout.readline()
        with filters("r2", 'iifname "left" th dport 0 drop'):
            said = run(*inside("client", PROBE, "--timeout", "2", "--trace", "--to", "--udp", SERVER[4]),
                       status=2).stdout
        says(said, "another datagram came back\n",
             "answers up to hop 2, 10.0.2.2; the control is answered by another program, 4 hops")
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


# ---- the far end under attack ----

QUESTION = b"port0-probe? %s"


def question(size=96, token=b"0123456789abcdef"):
    return (QUESTION % token).ljust(size - 1)[:size - 1] + b"\n"


def asked(data, kind=socket.SOCK_DGRAM, port=0, wait=20):
    """Send these bytes from the client's namespace; return the reply."""
    with entered("client"), socket.socket(socket.AF_INET, kind) as s:
        s.settimeout(wait)
        s.connect((SERVER[4], port))
        s.send(data)
        try:
            return s.recv(4096)
        except (TimeoutError, ConnectionResetError):
            return b""


@needs_module
def test_answer_is_never_longer():
    with serving():
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            sizes = {}
            for size in (1, 13, 14, 29, 30, 31, 46, 47, 48, 60, 96, 400):
                sizes[size] = len(asked(question(size), kind, wait=20 if size in (96, 400) else 0.7))
            assert all(got <= size for size, got in sizes.items()), sizes
            assert sizes[96] and sizes[400] == sizes[96] and not sizes[30], sizes


@needs_program("socat")
def test_question_by_hand():
    """The example in the manual page."""
    with open(os.path.join(os.path.dirname(HERE), "port0-probe.1"), encoding="ascii") as f:
        line = next(line for line in f if "| socat" in line).replace("\\e", "\\")
    with serving():
        said = run(*inside("client", "sh", "-c", line.replace("192.0.2.1", SERVER[4]))).stdout
        says(said, "port0-probe: me 10.0.1.1 ")


@needs_module
def test_garbage_is_not_answered():
    with serving():
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            for data in (b"\n", b"\0" * 400, b"GET / HTTP/1.0\r\n\r\n".ljust(200), os.urandom(400),
                         b"port0-probe: 0123456789abcdef 10.0.1.1 0\n".ljust(96),
                         b"port0-probe? \n".ljust(96), question(96, b"x" * 40),
                         question(96, b"\x1b[2J\x07xxxx"), b"port0-probe?" * 40):
                assert not asked(data, kind, wait=0.7), data
        answer = asked(question())
        assert answer.startswith(b"port0-probe: 0123456789abcdef 10.0.1.1 "), answer
        assert not asked(answer.ljust(96), wait=1), "an answer is answered"
        # Questions to multicast and broadcast addresses get no answer.
        with entered("r3"), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            s.settimeout(1)
            s.sendto(question(), ("10.0.4.255", CONTROL))
            with contextlib.suppress(TimeoutError):
                raise AssertionError(f"a broadcast is answered: {s.recv(100)}")


@needs_module
def test_rate_is_bounded():
    with serving("--rate", "20"), entered("client"), \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((SERVER[4], 0))
        start, sent, got = time.monotonic(), 0, 0
        while time.monotonic() < start + 5:
            s.send(question())
            sent += 1
            with contextlib.suppress(BlockingIOError):
                while s.recv(200, socket.MSG_DONTWAIT):
                    got += 1
        # A burst of a second, and 20 in each second since
        most = 20 * (time.monotonic() - start + 1)
        assert 20 <= got <= most and sent > 2 * most, f"{got} answers to {sent} questions"


@needs_module
def test_burst_is_bounded():
    """As many answers at once as in one second, and not one more."""
    with serving("--rate", "1"), entered("client"), \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.connect((SERVER[4], 0))
        for _ in range(10):
            s.send(question())
        s.settimeout(20)
        assert s.recv(200)
        s.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            raise AssertionError(f"a second one: {s.recv(200)}")


@needs_module
def test_rate_of_neighbours():
    """Each IPv6 /64 has a limit of its own, also beside others of one /48. Rarely two share one."""
    sources = [f"fd00:ee:0:{n:x}::1" for n in range(16)]
    for source in sources:
        run(*inside("server", "ip", "address", "add", f"{source}/128", "dev", "lo", "nodad"))
    with serving("--rate", "2"), entered("server"), contextlib.ExitStack() as stack:
        sockets = []
        for source in sources:
            sockets.append(stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)))
            sockets[-1].settimeout(20)
            sockets[-1].bind((source, 9))
            sockets[-1].connect((SERVER[6], CONTROL))
            sockets[-1].send(question())
        silent = []
        for s, source in zip(sockets, sources):
            try:
                s.recv(200)
            except TimeoutError:
                silent.append(source)
    for source in sources:
        run(*inside("server", "ip", "address", "delete", f"{source}/128", "dev", "lo"))
    assert not silent, f"not answered: {silent}"


@needs_module
def test_forged_questions():
    """Datagrams from a thousand addresses use up the limit of UDP, but not that of TCP."""
    pktinfo = 8
    run(*inside("server", "ip", "route", "add", "local", "10.0.44.0/22", "dev", "lo"))
    with serving("--rate", "2"):
        with entered("server"):
            forger = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        end, answers = time.monotonic() + 4, []
        while time.monotonic() < end or len(answers) < 4:
            for n in range(1, 1000):
                source = bytes(4) + struct.pack("!BBH", 10, 0, (44 << 8) + n) + bytes(4)
                forger.sendmsg([question()], [(socket.SOL_IP, pktinfo, source)], 0, (SERVER[4], CONTROL))
            answers.append(asked(question(), socket.SOCK_STREAM, CONTROL))
        forger.close()
    run(*inside("server", "ip", "route", "delete", "local", "10.0.44.0/22", "dev", "lo"))
    good = sum(answer.startswith(b"port0-probe: ") for answer in answers)
    assert good >= 4, f"{good} of {len(answers)} connections are answered"


@needs_module
def test_answers_that_are_rare():
    """One question a second: if it is repeated, it is answered."""
    with serving("--rate", "1"):
        Report("--timeout", "6", SERVER[4], status=0).expect()


def ticks(server):
    """Processor time that the server took, in clock ticks."""
    with open(f"/proc/{server.pid}/stat", encoding="ascii") as f:
        return sum(int(n) for n in f.read().split()[13:15])


def memory(server):
    with open(f"/proc/{server.pid}/statm", encoding="ascii") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")


FLOOD = """
import os, socket, sys, time
host, port, kind, data = sys.argv[1], int(sys.argv[2]), sys.argv[3], bytes.fromhex(sys.argv[4])
print(flush=True)
if kind == "udp":
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect((host, port))
while True:
    try:
        if kind == "udp":
            s.send(data)
            continue
        with socket.create_connection((host, port), timeout=5) as s:
            s.sendall(data)
    except OSError:
        pass
"""


@needs_module
def test_floods():
    """A flood from a neighbour of the client; the client is still served."""
    for data in (os.urandom(300), question()):
        with serving() as server, contextlib.ExitStack() as stack:
            before = memory(server)
            for port in (0, CONTROL):
                for kind in ("udp", "tcp"):
                    flood = subprocess.Popen(inside("r1", sys.executable, "-c", FLOOD, SERVER[4], str(port),
                                                    kind, data.hex()), stdout=subprocess.PIPE)
                    stack.callback(flood.stdout.close)
                    stack.callback(flood.wait)
                    stack.callback(flood.kill)
                    flood.stdout.readline()
            time.sleep(1)
            for host in hosts():
                Report("--timeout", "10", host, status=0).expect()
            assert memory(server) < before + (1 << 20), f"{before} -> {memory(server)} bytes"


@needs_module
def test_silent_connections():
    """More idle connections than it has slots, from one address and from many."""
    for i in range(10, 60):
        run(*inside("r1", "ip", "address", "add", f"10.0.2.{i}/24", "dev", "right"))
    with serving() as server:
        before, held = memory(server), []
        with entered("r1"):
            for n in range(600):
                s = socket.socket()
                s.settimeout(20)
                s.bind((f"10.0.2.{10 + n % 50}" if n % 2 else "10.0.2.1", 0))
                s.connect((SERVER[4], 0 if n % 3 else CONTROL))
                if n % 5 == 0:
                    s.send(b"port0-probe? 01")
                held.append(s)
        open_files = len(os.listdir(f"/proc/{server.pid}/fd"))
        assert open_files < 300, f"{open_files} descriptors"
        Report(SERVER[4], status=0).expect()
        Report(SERVER[4], status=0, where="r1").expect()
        assert memory(server) < before + (1 << 20)
        # Idle connections are closed after five seconds, and cost no CPU time meanwhile.
        spent, start = ticks(server), time.monotonic()
        time.sleep(3)
        assert ticks(server) - spent < 30, f"{ticks(server) - spent} ticks in 3 seconds"
        while len(os.listdir(f"/proc/{server.pid}/fd")) > 20:
            assert time.monotonic() < start + 30, "they stay open"
            time.sleep(0.5)
        for s in held:
            s.close()


@needs_module
def test_few_descriptors():
    limited = subprocess.Popen(inside("server", "sh", "-c", f'ulimit -n 40; exec "{PROBE}" --serve'),
                               stdout=subprocess.PIPE)
    try:
        limited.stdout.readline()
        held = []
        with entered("r1"):
            for _ in range(100):
                held.append(socket.create_connection((SERVER[4], 0), timeout=20))
        Report(SERVER[4], status=0).expect()
        assert limited.poll() is None
        for s in held:
            s.close()
    finally:
        limited.kill()
        limited.wait()
        limited.stdout.close()


@needs_module
def test_slow_question():
    with serving(), entered("client"):
        with socket.create_connection((SERVER[4], 0), timeout=20) as s:
            for part in (question()[:5], question()[5:40], question()[40:]):
                s.sendall(part)
                time.sleep(0.5)
            assert s.recv(200).startswith(b"port0-probe: 0123456789abcdef 10.0.1.1 ")
        with socket.create_connection((SERVER[4], 0), timeout=20) as s:
            # A correct start of a question, but too slow
            with contextlib.suppress(ConnectionError):
                for byte in question(96)[:-1]:
                    s.sendall(bytes([byte]))
                    time.sleep(0.2)
                raise AssertionError("it listens for ever")


@needs_module
def test_progress_on_a_terminal_only():
    code = "import pty, sys; sys.exit(pty.spawn(sys.argv[1:]) >> 8)"
    with serving():
        said = run(*inside("client", sys.executable, "-c", code, PROBE, "--to", SERVER[4]),
                   stdin=subprocess.DEVNULL).stdout
        says(said, f"{SERVER[4]}: TCP, to 0 ...", "\x1b[K")
        assert not run(*inside("client", PROBE, "--to", SERVER[4])).stderr


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("test", nargs="*", help="run these only")
    chosen = parser.parse_args().test
    if os.geteuid():
        sys.exit("probe.py: needs root, for network namespaces")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        build()
        return run_tests(globals(), chosen)
    finally:
        tear_down()


if __name__ == "__main__":
    sys.exit(main())

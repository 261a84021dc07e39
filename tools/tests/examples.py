#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Run every recipe in tools/examples; KTAP on stdout.

For a guest (scripts/proof examples) with the module loaded and the packages of
scripts/packages.examples. The recipes serve in the network namespace far; their clients
are in near.
"""

import argparse
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from ktap import MARK, run_command, run_tests, wait_for

HERE = os.path.dirname(os.path.realpath(__file__))
TOOLS = os.path.dirname(HERE)
RUN = os.path.join(TOOLS, "port0-run")
EXAMPLES = os.path.join(TOOLS, "examples")
NEAR = {4: "192.0.2.1", 6: "2001:db8::1"}
FAR = {4: "192.0.2.2", 6: "2001:db8::2"}
IN_FAR = ("nsenter", "--net=/run/netns/far")
STREAM, DGRAM = socket.SOCK_STREAM, socket.SOCK_DGRAM
REQUESTS = 20


def example(name):
    path = os.path.join(EXAMPLES, name)
    assert os.path.exists(path), f"no {path}"
    return path


def fresh_hosts():
    """Two connected namespaces, near and far; new ones, so no test sees a TIME-WAIT of another."""
    for name in ("near", "far"):
        run_command("ip", "netns", "delete", name, status=None)
        run_command("ip", "netns", "add", name)
        run_command("ip", "-n", name, "link", "set", "lo", "up")
    run_command("ip", "-n", "near", "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", "far")
    for name, addresses in (("near", NEAR), ("far", FAR)):
        run_command("ip", "-n", name, "address", "add", f"{addresses[4]}/24", "dev", "eth0")
        run_command("ip", "-n", name, "address", "add", f"{addresses[6]}/64", "dev", "eth0", "nodad")
        run_command("ip", "-n", name, "link", "set", "eth0", "up")


@contextlib.contextmanager
def inside(name):
    """Run this process in a network namespace."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/self/ns/net", "rb") as home, open(f"/run/netns/{name}", "rb") as away:
        assert not libc.setns(away.fileno(), 0), os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert not libc.setns(home.fileno(), 0), os.strerror(ctypes.get_errno())


def port_0_is_taken(kind):
    """Tell whether a server in far has port 0."""
    for name in {STREAM: ("tcp", "tcp6"), DGRAM: ("udp", "udp6")}[kind]:
        with inside("far"), open(f"/proc/self/net/{name}", encoding="ascii") as f:
            for line in f.readlines()[1:]:
                local, state = line.split()[1], line.split()[3]
                if int(local.rpartition(":")[2], 16) == 0 and state in ("0A", "07"):
                    return True
    return False


@contextlib.contextmanager
def server(*argv, kinds=(STREAM, DGRAM), **kwargs):
    """A recipe's server; "with" is entered when it listens, and yields a function that
    returns its output so far."""
    assert not any(map(port_0_is_taken, kinds)), "something is on port 0 already"
    with tempfile.TemporaryFile("w+") as said:
        child = subprocess.Popen([*IN_FAR, *argv], stdout=said, stderr=said, stdin=subprocess.DEVNULL, **kwargs)

        def read():
            said.seek(0)
            return said.read()

        try:
            wait_for(lambda: child.poll() is not None or all(map(port_0_is_taken, kinds)), f"{argv} is late", 120)
            assert child.poll() is None, f"{argv}: it ended: {read()}"
            yield read
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()
    wait_for(lambda: not any(map(port_0_is_taken, kinds)), "port 0 is still in use")


def connected(family, kind, from_zero=False):
    """A client of the server on port 0; with from_zero, itself on port 0."""
    with inside("near"):
        s = socket.socket(socket.AF_INET if family == 4 else socket.AF_INET6, kind)
    s.settimeout(60 if kind == STREAM else 5)
    if from_zero:
        s.setsockopt(socket.SOL_IP, MARK, 1)
        s.bind((NEAR[family], 0))
    s.connect((FAR[family], 0))
    assert s.getpeername()[1] == 0 and (s.getsockname()[1] == 0) == from_zero
    return s


def echo(family, kind, from_zero=False):
    with connected(family, kind, from_zero) as s:
        for n in range(REQUESTS):
            text = b"knock %d" % n
            # Repeated, since a datagram may be lost.
            for _ in range(1 if kind == STREAM else 5):
                s.sendall(text)
                with contextlib.suppress(TimeoutError):
                    said = s.recv(100)
                    assert said == text, f"IPv{family}: {said}"
                    break
            else:
                raise AssertionError(f"IPv{family}: no answer to datagram {n}")
        if kind == STREAM:
            s.shutdown(socket.SHUT_WR)
            assert s.recv(1) == b""


def leave_early(family):
    """A client that sends more than it reads and then closes: the server must survive that."""
    for _ in range(5):
        with connected(family, STREAM) as s, contextlib.suppress(OSError):
            s.setblocking(False)
            while True:
                s.send(bytes(65536))
        time.sleep(0.1)


def echoes(*argv):
    """Both protocols and families, from ordinary ports and from port 0."""
    with server(*argv):
        for family in NEAR:
            leave_early(family)
            for _ in range(3):
                echo(family, STREAM)
            echo(family, DGRAM)
            echo(family, STREAM, from_zero=True)
            echo(family, DGRAM, from_zero=True)


def test_python_asyncio_echo():
    echoes(sys.executable, example("asyncio_echo.py"))


def test_go():
    echoes(os.path.join(HERE, "listen-go"))


def test_rust():
    echoes(os.path.join(HERE, "listen-rs"))


def test_ruby():
    echoes("ruby", example("listen.rb"))


def test_php():
    echoes("php", example("listen.php"))


def test_perl():
    echoes("perl", example("listen.pl"))


def get(family):
    """A whole HTTP answer from port 0."""
    with connected(family, STREAM) as s:
        s.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return b"".join(iter(lambda: s.recv(65536), b"")).decode()


def test_python_http_server():
    with tempfile.TemporaryDirectory() as directory:
        open(os.path.join(directory, "a page"), "w", encoding="ascii").close()
        with server(sys.executable, example("http_server.py"), kinds=(STREAM,), cwd=directory):
            for _ in range(REQUESTS):
                assert "a%20page" in get(4)


def test_node_by_socket_activation():
    with server(RUN, "--listen", "::", "--fd", "--", "node", example("activated.js"), kinds=(STREAM,)):
        for family, host in ((4, f"::ffff:{NEAR[4]}"), (6, NEAR[6])):
            for _ in range(REQUESTS):
                said = get(family)
                assert " 200 " in said and f"hello {host} port " in said, said
    said = run_command("node", example("activated.js"), status=1).stderr
    assert "no socket was passed" in said, said


def knock():
    """The lines that the honeypot must have logged."""
    with connected(4, STREAM, from_zero=True) as s:
        s.sendall(b"GET / from 0\xff")
        s.shutdown(socket.SHUT_WR)
        assert s.recv(1) == b""
    with connected(6, STREAM) as s:
        tcp_port = s.getsockname()[1]
        s.shutdown(socket.SHUT_WR)
        assert s.recv(1) == b""
    with connected(4, DGRAM, from_zero=True) as s:
        s.send(b"hello\n\"")
    with connected(6, DGRAM) as s:
        s.send(b"")
        port = s.getsockname()[1]
    return {("tcp", NEAR[4], 0, "GET / from 0\xff"), ("tcp", NEAR[6], tcp_port, ""),
            ("udp", NEAR[4], 0, "hello\n\""), ("udp", NEAR[6], port, "")}


def knocks(said):
    entries = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert all(abs(e["time"] - time.time()) < 600 for e in entries)
    return {(e["protocol"], e["address"], e["port"], e["data"]) for e in entries}


def test_honeypot():
    with server(sys.executable, example("knocks.py")) as said:
        expected = knock()
        wait_for(lambda: len(said().splitlines()) >= 4, "no four lines")
        assert knocks(said()) == expected, said()


def test_honeypot_under_a_flood():
    """More silent connections than it waits for at a time: each is logged nevertheless."""
    with server(sys.executable, example("knocks.py")) as said:
        silent = [connected(4, STREAM) for _ in range(300)]
        wait_for(lambda: len(said().splitlines()) >= 40, "silent connections delay others", 120)
        for s in silent:
            s.close()
        wait_for(lambda: len(said().splitlines()) >= 300, "not all are logged", 120)
        expected = knock()
        wait_for(lambda: expected <= knocks(said()), "it does not serve any more")


@contextlib.contextmanager
def systemd(unit):
    """Run systemd as in a container, in the network namespace of the guest, for one unit."""
    run_command("systemctl", "enable", unit)
    # With /sys read-only, systemd does not touch devices.
    script = """
mount -o remount,bind,ro /sys
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
exec /lib/systemd/systemd --unit=multi-user.target --log-target=console --show-status=no"""
    with tempfile.TemporaryFile("w+") as log:
        child = subprocess.Popen([*IN_FAR, "unshare", "--fork", "--kill-child", "--pid", "--uts", "--mount", "--mount-proc",
                                  "sh", "-c", script], stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                 env={**os.environ, "container": "port0"})

        def read():
            log.seek(0)
            return log.read()

        try:
            wait_for(lambda: port_0_is_taken(STREAM), f"no service of {unit}", 600)
            yield read
        except AssertionError as problem:
            raise AssertionError(f"{problem}; see the console\n{read()[-2000:]}") from problem
        finally:
            child.kill()
            child.wait()
            run_command("systemctl", "disable", unit)
    wait_for(lambda: not port_0_is_taken(STREAM), "port 0 is still in use")


def install():
    run_command("install", example("knocks.py"), "/usr/local/bin")
    run_command("install", RUN, "/usr/bin")
    shutil.copy(example("activated.js"), "/usr/local/lib/activated.js")
    shutil.copy(example("knocks.service"), "/etc/systemd/system/knocks.service")
    shutil.copy(os.path.join(TOOLS, "port0@.service"), "/etc/systemd/system/port0@.service")
    os.makedirs("/etc/port0", exist_ok=True)
    with open("/etc/port0/node.conf", "w", encoding="ascii") as f:
        f.write("LISTEN=--listen ::\nCOMMAND=node /usr/local/lib/activated.js\n")


def test_systemd_unit_of_the_honeypot():
    """The unit writes to the journal; here, its output goes to a file."""
    install()
    with open("/etc/systemd/system/knocks.service", "a", encoding="ascii") as f:
        f.write("[Service]\nStandardOutput=append:/var/log/knocks\n")
    with systemd("knocks.service"):
        wait_for(lambda: port_0_is_taken(DGRAM), "no UDP socket")
        expected = knock()
        with open("/var/log/knocks", encoding="ascii") as f:
            said = []
            wait_for(lambda: said.append(f.read()) or expected <= knocks("".join(said)), f"not all logged: {said}")
        owner = next(p for p in os.listdir("/proc") if p.isdigit() and b"knocks.py" in
                     open(f"/proc/{p}/cmdline", "rb").read())
        assert os.stat(f"/proc/{owner}").st_uid != 0


def test_systemd_unit_that_hands_over_sockets():
    install()
    with systemd("port0@node.service"):
        assert f"hello {NEAR[6]} port " in get(6)


def test_packets_of_your_own():
    expected = {
        "tcp from 0 to 0": "open", "tcp from 7030 to 0": "open",
        "tcp from 0 to 7030": "refused", "tcp from 7030 to 7030": "refused",
        "udp from 0 to 0": "answered", "udp from 7030 to 0": "answered",
        "udp from 0 to 7030": "unreach", "udp from 7030 to 7030": "unreach",
    }
    with server(sys.executable, example("asyncio_echo.py")):
        for host in FAR.values():
            done = run_command("ip", "netns", "exec", "near", sys.executable, example("craft.py"), host)
            got = dict(line.split(": ", 1) for line in done.stdout.splitlines())
            assert got.keys() == expected.keys(), done
            for what, word in expected.items():
                assert word in got[what].lower(), f"{host}: {what}: {got[what]}, not {word}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tests", nargs="*", help="names without test_ (default: all)")
    return run_tests(globals(), parser.parse_args().tests, before=fresh_hosts)


if __name__ == "__main__":
    sys.exit(main())

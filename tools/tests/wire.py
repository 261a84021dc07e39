#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""One end of a wire between two guests (scripts/wire).

 client 10.0.0.2, fd00::2                        server 10.0.0.1, fd00::1
 a kernel without port0       ---- wire ----     echoes on port 0, TCP and UDP

The client sends from ephemeral ports, then from port 0. It has no module, so nftables
rewrites its source port 4321 to 0, and back in the answers. Then it runs port0-probe,
whose other end is at 10.0.0.3 and fd00::3.
"""

import argparse
import contextlib
import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time

MARK = 0x7030
SERVER = {socket.AF_INET: "10.0.0.1", socket.AF_INET6: "fd00::1"}
OWN = {socket.AF_INET: "10.0.0.2", socket.AF_INET6: "fd00::2"}
PROBE = os.path.join(os.path.dirname(os.path.realpath(__file__)), "..", "port0-probe")
PROBED = {socket.AF_INET: "10.0.0.3", socket.AF_INET6: "fd00::3"}
DISGUISED = 4321
CONTROL = 7000
ROUNDS = 20
BULK = os.urandom(200_000)

NFT = f"""
table inet wire {{
	chain out {{
		type filter hook output priority raw
		tcp dport 0 tcp sport {DISGUISED} tcp sport set 0
		udp dport 0 udp sport {DISGUISED} udp sport set 0
	}}
	chain in {{
		type filter hook prerouting priority raw
		tcp sport 0 tcp dport 0 tcp dport set {DISGUISED}
		udp sport 0 udp dport 0 udp dport set {DISGUISED}
	}}
}}
"""


def network(number):
    subprocess.run(["modprobe", "virtio_net"], check=True)
    until = time.monotonic() + 60
    while not os.path.exists("/sys/class/net/eth0"):
        assert time.monotonic() < until, "no eth0"
        time.sleep(0.2)
    for argv in (["link", "set", "eth0", "up"],
                 ["address", "add", f"10.0.0.{number}/24", "dev", "eth0"],
                 ["address", "add", f"fd00::{number}/64", "dev", "eth0", "nodad"]):
        subprocess.run(["ip", *argv], check=True)


def on_port_0(family, kind):
    s = socket.socket(family, kind)
    s.setsockopt(socket.SOL_IP, MARK, 1)
    s.bind((SERVER[family], 0))
    return s


def echo_tcp(listener):
    while True:
        s, peer = listener.accept()
        with s, contextlib.suppress(ConnectionResetError):
            assert s.getpeername()[:2] == peer[:2]
            while data := s.recv(65536):
                s.sendall(data)


def echo_udp(s):
    while True:
        data, peer = s.recvfrom(65536)
        s.sendto(data, peer)


def server():
    network(1)
    for family in SERVER:
        listener = on_port_0(family, socket.SOCK_STREAM)
        listener.listen()
        for target, s in ((echo_tcp, listener), (echo_udp, on_port_0(family, socket.SOCK_DGRAM))):
            threading.Thread(target=target, args=(s,), daemon=True).start()
    subprocess.run(["ip", "address", "add", "10.0.0.3/24", "dev", "eth0"], check=True)
    subprocess.run(["ip", "address", "add", "fd00::3/64", "dev", "eth0", "nodad"], check=True)
    with subprocess.Popen([PROBE, "--serve", *PROBED.values()]) as other_end:
        with socket.create_server((SERVER[socket.AF_INET], CONTROL)) as control:
            print("# server is up", flush=True)
            control.accept()[0].recv(100)
        other_end.terminate()


def reach_server():
    until = time.monotonic() + 300
    while True:
        with contextlib.suppress(OSError):
            return socket.create_connection((SERVER[socket.AF_INET], CONTROL), timeout=5)
        assert time.monotonic() < until, "no server"
        time.sleep(1)


def connected(family, kind, port):
    s = socket.socket(family, kind)
    s.settimeout(60)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((OWN[family], port))
    s.connect((SERVER[family], 0))
    return s


def tcp(family, port):
    for n in range(ROUNDS):
        with connected(family, socket.SOCK_STREAM, port) as s:
            data = BULK if n == 0 else b"%d" % n
            sender = threading.Thread(target=s.sendall, args=(data,))
            sender.start()
            back = b""
            while len(back) < len(data):
                chunk = s.recv(65536)
                assert chunk, "it closed"
                back += chunk
            sender.join()
            assert back == data, "other data came back"
            if port:
                # Reset, or the port would be in TIME_WAIT in the next round.
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def udp(family, port):
    for n in range(ROUNDS):
        with connected(family, socket.SOCK_DGRAM, port) as s:
            for size in (1, 1000, 8000):
                data = BULK[:size] + b"%d" % n
                s.sendall(data)
                assert s.recv(65536) == data, "another datagram came back"


def probe(family):
    """port0-probe without the module: tests that do not need it, and a message about the others."""
    done = subprocess.run([PROBE, "--json", "--timeout", "20", PROBED[family]], text=True,
                          capture_output=True, timeout=300, check=False)
    assert done.returncode == 3, f"exit {done.returncode}: {done.stdout}{done.stderr}"
    assert "from port 0 not tried" in done.stderr and "modprobe" in done.stderr, done.stderr
    tests = json.loads(done.stdout)["addresses"][0]["tests"]
    assert len(tests) == 8, tests
    for test in tests:
        want = "answered" if test["way"] in ("control", "to 0") else "not tried"
        assert test["verdict"] == want, test
        assert want == "not tried" or test["seen"]["address"] == OWN[family], test
    assert subprocess.run([PROBE, "--to", PROBED[family]], check=False).returncode == 0


def client():
    network(2)
    control = reach_server()
    assert not os.path.exists("/sys/module/port0")
    subprocess.run(["nft", "-f", "-"], input=NFT, text=True, check=True)
    print("TAP version 13\n1..10")
    number = failed = 0
    for source, port in (("an ephemeral port", 0), ("port 0", DISGUISED)):
        for family in SERVER:
            for test in (tcp, udp):
                number += 1
                name = f"{test.__name__} IPv{4 if family == socket.AF_INET else 6} from {source}"
                try:
                    test(family, port)
                    print(f"ok {number} {name}: {ROUNDS} rounds", flush=True)
                except (AssertionError, OSError) as problem:
                    failed += 1
                    print(f"# {type(problem).__name__}: {problem}\nnot ok {number} {name}", flush=True)
    for family in SERVER:
        number += 1
        name = f"port0-probe IPv{4 if family == socket.AF_INET else 6} without the module"
        try:
            probe(family)
            print(f"ok {number} {name}", flush=True)
        except (AssertionError, OSError, subprocess.SubprocessError) as problem:
            failed += 1
            print(f"# {type(problem).__name__}: {problem}\nnot ok {number} {name}", flush=True)
    control.sendall(b"bye")
    return bool(failed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("end", choices=("server", "client"))
    sys.exit({"server": server, "client": client}[parser.parse_args().end]())

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Test port0-ls; KTAP on stdout.

For a guest (scripts/proof tools): it needs root, and nothing else may be on port
0. Tests that need the module are skipped if it is not loaded, and the reverse.
"""

import argparse
import collections
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time

from ktap import (loaded, needs_module, needs_no_module, needs_program, run_command, run_tests,
                  wait_for)

HERE = os.path.dirname(os.path.realpath(__file__))
LS = os.environ.get("PORT0_LS", os.path.join(os.path.dirname(HERE), "port0-ls"))
BLUE = "port0 *blue"
OTHER_USER = 2000

# The first lines of each process that holds sockets
PROLOGUE = """
import array, ctypes, os, socket, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
TCP, UDP, V4, V6 = socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.AF_INET, socket.AF_INET6

def check(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def marked(family=V4, kind=TCP, v6only=1):
    s = socket.socket(family, kind)
    if family == V6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, v6only)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.SOL_IP, 0x7030, 1)
    return s

def bound(address="127.0.0.1", kind=TCP, v6only=1):
    s = marked(V6 if ":" in address else V4, kind, v6only)
    s.bind((address, 0))
    return s

def listening(*args):
    s = bound(*args)
    s.listen(16)
    return s

def client(address="127.0.0.1", source=None):
    s = source or socket.socket(V6 if ":" in address else V4)
    s.settimeout(60)
    s.connect((address, 0))
    return s

def unshare(what):
    check(libc.unshare(what))

NEWNET, FILES = 0x40000000, 0x400
"""


@contextlib.contextmanager
def holder(code, *prefix, more=""):
    """A process that runs @code and then waits; @more is what its forked child does."""
    code = f"{PROLOGUE}\n{code}\nprint('ready', os.getpid(), flush=True)\nsys.stdin.read()\n{more}"
    child = subprocess.Popen([*prefix, sys.executable, "-c", code], text=True,
                             stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        said = child.stdout.readline().split()
        assert said[:1] == ["ready"], f"the holder ended: {said}"
        child.python = int(said[1])
        yield child
    finally:
        child.stdin.close()
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
            child.wait()
        child.stdout.close()


@contextlib.contextmanager
def namespace(name=BLUE):
    run_command("ip", "netns", "add", name)
    try:
        run_command("ip", "-n", name, "link", "set", "lo", "up")
        yield ("ip", "netns", "exec", name)
    finally:
        run_command("ip", "netns", "delete", name)


def fresh_namespace():
    """A new namespace: no test sees a TIME-WAIT of another."""
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
        sys.exit(f"ls.py: no network namespace: {os.strerror(ctypes.get_errno())}")
    run_command("ip", "link", "set", "lo", "up")


def ls(*prefix, status=0):
    """The JSON output of port0-ls, and its standard error."""
    done = run_command(*prefix, LS, "--json", status=status)
    said = json.loads(done.stdout)
    said["stderr"] = done.stderr
    return said


def table(*prefix, status=0):
    return run_command(*prefix, LS, status=status).stdout


def short(socket_):
    """A socket in one line, without the ports that the kernel chose."""
    peer = socket_["peer"]
    local = socket_["local"]
    assert local["port"] == 0, socket_
    return (f"{socket_['protocol']} {socket_['state']} {local['address']} "
            f"{peer['address'] if peer else '-'} "
            f"{ {True: 'keeps', False: 'no', None: '?'}[socket_['keeps_module']] } "
            f"{len(socket_['processes'])}")


def lists(said, *expected):
    got = sorted(short(s) for s in said["sockets"])
    assert got == sorted(expected), f"\nexpected {sorted(expected)}\ngot {got}\n{said['stderr']}"


def only(said):
    assert len(said["sockets"]) == 1, said
    return said["sockets"][0]


def test_help_and_version():
    assert run_command(LS, "--help").stdout.startswith("usage: port0-ls")
    assert run_command(LS, "--version").stdout.startswith("port0-ls ")


def test_wrong_arguments():
    for argv in (["--nonsense"], ["tcp"], ["--json=x"]):
        said = run_command(LS, *argv, status=2)
        assert "port0-ls" in said.stderr and not said.stdout, said


def test_nowhere_to_write():
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([LS, "--json"], stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2 and b"No space" in done.stderr, done
    for option in ("--help", "--json"):
        done = subprocess.run([LS, option], stderr=subprocess.PIPE, check=False,
                              preexec_fn=lambda: os.close(1))
        assert done.returncode == 2 and b"Bad file descriptor" in done.stderr, done


@needs_no_module
def test_without_module():
    said = ls()
    lists(said)
    assert said["module"] == {"loaded": False, "references": 0, "unseen": 0}, said
    assert "not loaded" in said["stderr"], said


@needs_module
def test_without_sys():
    """As in a chroot: the module is loaded, but its references are not known."""
    said = ls("unshare", "-m", "sh", "-c", 'umount -l /sys && exec "$@"', "sh", status=1)
    assert said["module"] == {"loaded": True, "references": None, "unseen": None}, said
    assert "refcnt" in said["stderr"] and "not loaded" not in said["stderr"], said


@needs_module
def test_nothing():
    said = ls()
    lists(said)
    assert said["module"] == {"loaded": True, "references": 0, "unseen": 0}, said
    assert said["no_right"] == {"processes": 0, "namespaces": 0}, said
    assert not said["stderr"], said
    assert table() == ""


@needs_module
def test_not_on_port_0():
    """Unbound, ephemeral and ordinary ones, and clients that connect to port 0."""
    with holder("""
s = [socket.socket(f, k) for f in (V4, V6) for k in (TCP, UDP)]
for one in s[:2]: one.bind(("", 0))
s += [marked(f, k) for f in (V4, V6) for k in (TCP, UDP)]
s += [socket.socket(V4, k) for k in (TCP, UDP)]
for one in s[-2:]: one.bind(("127.0.0.1", 7030))
u = socket.socket(V4, UDP); u.connect(("127.0.0.1", 0))
"""):
        lists(ls())


@needs_module
def test_tcp_bound_and_listening():
    """inet_diag leaves out idle bound sockets."""
    with holder("""
s = [bound("127.0.0.1"), bound("::1"), listening("127.0.0.2"), listening("::", TCP, 1)]
"""):
        said = ls()
        lists(said, "tcp bound 127.0.0.1 - keeps 1", "tcp bound ::1 - keeps 1",
              "tcp listen 127.0.0.2 - keeps 1", "tcp listen :: - keeps 1")
        assert said["module"] == {"loaded": True, "references": 4, "unseen": 0}, said


@needs_module
def test_tcp_dual_stack_and_mapped():
    with holder("""
s = [listening("::", TCP, 0)]
c = client("127.0.0.1"); a = s[0].accept()
"""):
        lists(ls(), "tcp listen :: - keeps 1",
              "tcp established ::ffff:127.0.0.1 ::ffff:127.0.0.1 no 1")
    with holder("s = [bound('::ffff:127.0.0.1', TCP, 0), bound('::ffff:127.0.0.2', UDP, 0)]"):
        lists(ls(), "tcp bound ::ffff:127.0.0.1 - keeps 1", "udp bound ::ffff:127.0.0.2 - keeps 1")


@needs_module
def test_tcp_accepted_children_do_not_keep_the_module():
    for address in ("127.0.0.1", "::1"):
        fresh_namespace()
        with holder(f"""
s = listening("{address}")
c = [client("{address}") for _ in range(3)]; a = [s.accept() for _ in range(2)]
"""):
            said = ls()
            lists(said, f"tcp listen {address} - keeps 1", *[f"tcp established {address} {address} no 1"] * 2,
                  f"tcp established {address} {address} no 0")
            assert said["module"]["references"] == 1, said
            assert "(not accepted)" in table()


@needs_module
def test_tcp_children_that_outlive_the_listener():
    with holder("s = listening(); c = client(); a = s.accept(); s.close()"):
        said = ls()
        lists(said, "tcp established 127.0.0.1 127.0.0.1 no 1")
        assert said["module"]["references"] == 0, said


@needs_module
def test_tcp_connected_from_port_0():
    """Such a socket keeps the module loaded, where a child in the same state does not."""
    for address in ("127.0.0.1", "::1"):
        fresh_namespace()
        with holder(f"""
s = socket.socket(V6 if ":" in "{address}" else V4); s.bind(("{address}", 7030)); s.listen()
c = bound("{address}"); c.settimeout(60); c.connect(("{address}", 7030)); a = s.accept()[0]
"""):
            said = ls()
            lists(said, f"tcp established {address} {address} keeps 1")
            assert only(said)["peer"]["port"] == 7030, said


@needs_module
def test_tcp_from_0_to_0():
    with holder("s = listening('127.0.0.1'); c = client('127.0.0.1', bound('127.0.0.2')); a = s.accept()"):
        lists(ls(), "tcp listen 127.0.0.1 - keeps 1", "tcp established 127.0.0.1 127.0.0.2 no 1",
              "tcp established 127.0.0.2 127.0.0.1 keeps 1")


@needs_module
def test_tcp_closing():
    """FIN-WAIT-2 and CLOSE-WAIT, with and without a process; TIME-WAIT."""
    with holder("""
s = listening()
c = [client() for _ in range(4)]; a = [s.accept()[0] for _ in range(4)]
a[0].shutdown(socket.SHUT_WR); c[0].recv(1)
c[1].close(); a[1].recv(1)
a[2].close(); c[2].recv(1)
a[3].close(); c[3].recv(1); c[3].close()
"""):
        wait_for(lambda: "time-wait" in table(), "no TIME-WAIT")
        said = ls()
        lists(said, "tcp listen 127.0.0.1 - keeps 1",
              "tcp fin-wait-2 127.0.0.1 127.0.0.1 no 1",
              "tcp close-wait 127.0.0.1 127.0.0.1 no 1",
              "tcp fin-wait-2 127.0.0.1 127.0.0.1 no 0",
              "tcp time-wait 127.0.0.1 127.0.0.1 no 0")
        assert said["module"]["references"] == 1, said
        assert "(closed)" in table()


@needs_module
def test_udp():
    with holder("""
s = [bound("127.0.0.1", UDP), bound("::1", UDP), bound("127.0.0.2", UDP), bound("::", UDP, 1)]
s[2].connect(("127.0.0.1", 7030)); s[3].connect(("::1", 7030))
"""):
        said = ls()
        lists(said, "udp bound 127.0.0.1 - keeps 1", "udp bound ::1 - keeps 1",
              "udp connected 127.0.0.2 127.0.0.1 keeps 1", "udp connected ::1 ::1 keeps 1")
        assert said["module"]["references"] == 4, said


@needs_module
def test_many():
    """More sockets than fit into one netlink message, and more descriptors than a shell allows."""
    with holder("""
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
s = []
for n in range(1500):
    s.append(marked(V4, UDP))
    s[-1].bind((f"127.1.{n >> 8}.{n & 255}", 0))
t = [bound(f"127.2.{n >> 8}.{n & 255}") for n in range(500)]
"""):
        said = ls()
        count = collections.Counter(s["protocol"] for s in said["sockets"])
        assert count == {"udp": 1500, "tcp": 500}, count
        assert len({s["local"]["address"] for s in said["sockets"]}) == 2000
        assert said["module"]["references"] == 2000 and said["module"]["unseen"] == 0, said["module"]
        assert all(len(s["processes"]) == 1 for s in said["sockets"])


@needs_module
def test_device():
    with holder("""
s = [marked(V4, TCP), marked(V4, UDP), marked(V6, TCP)]
for one in s: one.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
for one in s: one.bind(("", 0))
s[2].listen()
"""):
        said = ls()
        assert [s["device"] for s in said["sockets"]] == ["lo"] * 3, said
        assert "0.0.0.0%lo:0" in table() and "[::%lo]:0" in table(), table()


@needs_module
def test_shared_descriptors():
    """A duplicated descriptor, and an inherited one in a child: both are listed."""
    with holder("s = bound(); d = os.dup(s.fileno()); pid = os.fork()\nif not pid: time.sleep(1000)",
                more="import signal; os.kill(pid, signal.SIGKILL); os.wait()") as parent:
        processes = only(ls())["processes"]
        assert len(processes) == 2, processes
        assert all(len(p["fds"]) == 2 for p in processes), processes
        assert parent.python in [p["pid"] for p in processes]
        assert all(f"[{p['pid']}]" in table() for p in processes), table()


@needs_module
def test_named_namespace():
    """In a namespace whose name has a blank and a wildcard in it."""
    with namespace() as inside, holder("s = [bound(), listening('::1'), bound('127.0.0.1', UDP)]", *inside):
        said = ls()
        lists(said, "tcp bound 127.0.0.1 - keeps 1", "tcp listen ::1 - keeps 1", "udp bound 127.0.0.1 - keeps 1")
        for s in said["sockets"]:
            assert s["netns"]["name"] == BLUE and not s["netns"]["this"], s
        assert BLUE in table()
        # From inside, that namespace is "this", and the host's is another one.
        assert all(s["netns"]["this"] for s in ls(*inside)["sockets"])


@needs_module
def test_same_address_in_two_namespaces():
    with namespace() as inside, holder("s = listening()", *inside), holder("s = listening()"):
        said = ls()
        lists(said, *["tcp listen 127.0.0.1 - keeps 1"] * 2)
        assert [s["netns"]["this"] for s in said["sockets"]] == [True, False], said


@needs_module
def test_namespace_of_a_process():
    with holder("unshare(NEWNET); libc.system(b'ip link set lo up'); s = [bound(), listening('::1')]") as child:
        said = ls()
        lists(said, "tcp bound 127.0.0.1 - keeps 1", "tcp listen ::1 - keeps 1")
        for s in said["sockets"]:
            assert s["netns"]["pid"] == child.python and s["netns"]["name"] is None, s
        assert f"of {child.python}" in table()


@needs_module
def test_namespace_of_a_thread():
    with holder("""
done = threading.Event()
def work():
    global s
    unshare(NEWNET); libc.system(b"ip link set lo up"); s = listening(); done.set(); time.sleep(1000)
threading.Thread(target=work, daemon=True).start()
done.wait(60)
"""):
        lists(ls(), "tcp listen 127.0.0.1 - keeps 1")


@needs_module
def test_namespace_that_only_sockets_are_in():
    """The process is back in its own namespace; only its two sockets keep the other one."""
    with holder("""
home = os.open("/proc/self/ns/net", os.O_RDONLY)
unshare(NEWNET); libc.system(b"ip link set lo up")
s = [bound(), listening("::1"), bound("127.0.0.1", UDP)]; c = client("::1"); a = s[1].accept()
check(libc.setns(home, NEWNET)); os.close(home)
"""):
        said = ls()
        lists(said, "tcp bound 127.0.0.1 - keeps 1", "tcp listen ::1 - keeps 1",
              "udp bound 127.0.0.1 - keeps 1", "tcp established ::1 ::1 no 1")
        assert {(s["netns"]["this"], s["netns"]["name"], s["netns"]["pid"]) for s in said["sockets"]} \
            == {(False, None, None)}, said
        assert "net:[" in table()


@needs_module
def test_namespace_that_a_descriptor_keeps():
    """Only a connection that its process has closed keeps the namespace."""
    with holder("""
home = os.open("/proc/self/ns/net", os.O_RDONLY)
unshare(NEWNET); libc.system(b"ip link set lo up")
s = listening("::1"); c = client("::1"); a = s.accept()[0]; a.close(); s.close()
away = os.open("/proc/self/ns/net", os.O_RDONLY)
check(libc.setns(home, NEWNET))
c.close(); c = None
"""):
        states = [s["state"] for s in ls()["sockets"]]
        assert states and set(states) <= {"time-wait", "fin-wait-2"}, states


def test_descriptor_that_changes():
    """A process whose descriptors are a namespace at one moment and a FIFO at the next: to
    open that would wait for ever."""
    with tempfile.TemporaryDirectory() as directory, holder(f"""
os.mkfifo("{directory}/fifo")
fifo = os.open("{directory}/fifo", os.O_RDONLY | os.O_NONBLOCK)
away = []
for _ in range(4):
    unshare(NEWNET); away.append(os.open("/proc/self/ns/net", os.O_RDONLY))
def change():
    while True:
        for there in (*away, fifo):
            for fd in range(50, 60): os.dup2(there, fd)
threading.Thread(target=change, daemon=True).start()
"""):
        for _ in range(20):
            done = run_command(LS, status=None, timeout=60)
            assert done.returncode in (0, 1), done


# A file system of this process, which does not answer once it is silent. The numbers are
# those of <linux/fuse.h>.
FUSE = """
import struct
unshare(0x20000)	# so that the mount ends with this process
device, silent = os.open("/dev/fuse", os.O_RDWR), False
check(libc.mount(b"none", b"/", None, 0x44000, None))
def reply(unique, data=b"", error=0):
    os.write(device, struct.pack("=IiQ", 16 + len(data), -error, unique) + data)
def attributes(node):
    return struct.pack("=6Q10I", node, *[0] * 8, 0o40755 if node == 1 else 0o100644, 1, 0, 0, 0, 4096, 0)
def answer():
    while True:
        _, call, unique, node = struct.unpack_from("=IIQQ", os.read(device, 1 << 20))
        if call == 26: reply(unique, struct.pack("=4I2H2I2HI28x", 7, 31, 0, 0, 9, 9, 65536, 1, 0, 0, 0))
        elif call == 1: reply(unique, struct.pack("=4Q2I", 2, 0, 0, 0, 0, 0) + attributes(2))
        elif call == 14: reply(unique, bytes(16))
        elif silent and call in (3, 17, 22): pass	# what stat(), statfs() and getxattr() ask
        elif call == 3: reply(unique, struct.pack("=Q2I", 0, 0, 0) + attributes(node))
        elif call not in (2, 42): reply(unique, error=38)
check(libc.mount(b"none", b"/mnt", b"fuse", 0, b"fd=%d,rootmode=40000,user_id=0,group_id=0" % device))
threading.Thread(target=answer, daemon=True).start()
file = os.open("/mnt/file", os.O_RDONLY)
silent = True
"""


def test_file_system_that_does_not_answer():
    """A process whose descriptors are a socket or a namespace at one moment and a file of
    its own FUSE at the next."""
    for there in ("socket.socket().detach()", "os.open('/proc/self/ns/net', os.O_RDONLY)"):
        with holder(FUSE + f"""
unshare(NEWNET)
there = {there}
def change(low):
    while True:
        for fd in range(low, low + 50): os.dup2(there, fd)
        for fd in range(low, low + 50): os.dup2(file, fd)
for low in (100, 200): threading.Thread(target=change, args=(low,), daemon=True).start()
""") as changing:
            for _ in range(20):
                with subprocess.Popen([LS], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
                    try:
                        assert child.wait(60) in (0, 1), child.returncode
                    except subprocess.TimeoutExpired:
                        changing.kill()	# The child waits for it, and cannot be killed before.
                        child.kill()
                        raise


@needs_module
def test_namespace_of_another_user_namespace():
    with holder("libc.system(b'ip link set lo up'); s = [bound(), bound('::1', UDP)]",
                "unshare", "--user", "--map-root-user", "--net"):
        lists(ls(), "tcp bound 127.0.0.1 - keeps 1", "udp bound ::1 - keeps 1")


def as_user(uid):
    return ("setpriv", "--reuid", str(uid), "--regid", str(uid), "--clear-groups",
            "--inh-caps", "+net_bind_service", "--ambient-caps", "+net_bind_service")


@needs_module
def test_users():
    with holder("s = [bound(), bound('127.0.0.1', UDP)]", *as_user(OTHER_USER)), holder("s = bound('::1')"):
        said = ls()
        assert sorted((s["uid"], s["user"]) for s in said["sockets"]) == \
            [(0, "root"), (OTHER_USER, None), (OTHER_USER, None)], said
        assert str(OTHER_USER) in table() and "root" in table()


@needs_module
def test_unprivileged():
    """It lists the sockets of its own namespace, and says what it could not see."""
    nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    with namespace() as inside, holder("s = listening()", *inside), \
            holder("s = [bound(), listening('127.0.0.2'), bound('::1', UDP)]"):
        said = ls(*nobody, status=1)
        lists(said, "tcp listen 127.0.0.2 - keeps 0", "udp bound ::1 - keeps 0")
        assert said["no_right"]["processes"] > 1 and said["no_right"]["namespaces"] == 1, said["no_right"]
        assert said["module"] == {"loaded": True, "references": 4, "unseen": 2}, said["module"]
        for words in ("no right to look into", "run it as root", "2 more sockets keep the module loaded"):
            assert words in said["stderr"], said["stderr"]
        assert "(no process seen)" in table(*nobody, status=1)


@needs_module
def test_unprivileged_sees_its_own():
    """It still says that other processes could not be examined."""
    user = ("setpriv", "--reuid", str(OTHER_USER), "--regid", str(OTHER_USER), "--clear-groups")
    run_command("sysctl", "-w", "net.ipv4.ip_unprivileged_port_start=0")
    with holder("s = [bound(), listening('127.0.0.2')]", *user):
        said = ls(*user, status=1)
        lists(said, "tcp bound 127.0.0.1 - keeps 1", "tcp listen 127.0.0.2 - keeps 1")
        assert said["module"]["unseen"] == 0 and "more socket" not in said["stderr"], said


@needs_program("strace")
def test_process_that_ends_meanwhile():
    """The kernel says EACCES for files of a process that is there no more."""
    with subprocess.Popen(["sleep", "60"]) as child:
        inject = ["-P", f"/proc/{child.pid}/task/{child.pid}/ns/net",
                  "-e", "inject=statx,openat:error=EACCES:delay_enter=2000000"]
        with subprocess.Popen(["strace", "-o", "/dev/null", *inject, LS], text=True,
                              stderr=subprocess.PIPE) as listing:
            time.sleep(1.5)
            child.kill()
            child.wait()
            said = listing.communicate()[1]
        assert not listing.returncode and "no right" not in said, f"{listing.returncode} {said}"


def test_hidden_processes():
    """With hidepid, a user sees no processes of others, and is told so."""
    user = ("setpriv", "--reuid", str(OTHER_USER), "--regid", str(OTHER_USER), "--clear-groups")
    for how in ("1", "2"):
        hide = ("unshare", "-m", "sh", "-c", f'mount -t proc -o hidepid={how} proc /proc && exec "$@"', "sh")
        said = ls(*hide, *user, status=1)
        assert "hidepid): run it as root" in said["stderr"]
        # With hidepid=1, it can be seen that there are processes.
        assert (said["no_right"]["processes"] > 0) == (how == "1"), said
        assert "hidepid" not in ls(*hide, status=None)["stderr"]


def test_proc_of_another_namespace():
    """The numbers in /proc are not those by which it could get at the descriptors."""
    with holder("s = socket.socket(V4, TCP); s.listen()"):
        said = ls("unshare", "--pid", "--fork", status=1)
        assert "/proc is that of another PID namespace" in said["stderr"], said
        said = ls("unshare", "--pid", "--fork", "--mount-proc", status=None)
        assert "PID namespace" not in said["stderr"], said


@needs_module
def test_without_right_to_duplicate():
    """With permission to read descriptors but not to ptrace, idle sockets are not found."""
    with holder("s = [bound(), listening('127.0.0.2')]", *as_user(OTHER_USER)):
        said = ls("setpriv", "--bounding-set", "-sys_ptrace", status=1)
        assert said["no_right"]["processes"] >= 1, said
        assert said["module"]["unseen"] == 1, said
        assert "1 more socket keeps the module loaded and was not found" in said["stderr"], said


@needs_module
def test_without_kcmp():
    """A container may refuse kcmp(): each descriptor is listed once nevertheless."""
    source = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/syscall.h>
long syscall(long number, long a, long b, long c, long d, long e, long f)
{
	long (*next)(long, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");

	errno = EPERM;
	return number == SYS_kcmp ? -1 : next(number, a, b, c, d, e, f);
}
"""
    with tempfile.TemporaryDirectory() as directory:
        library = os.path.join(directory, "no_kcmp.so")
        run_command("cc", "-shared", "-fPIC", "-x", "c", "-o", library, "-", input=source)
        with holder("s = listening()\n"
                    "for _ in range(3): threading.Thread(target=time.sleep, args=(999,), daemon=True).start()"):
            said = ls("env", f"LD_PRELOAD={library}", status=None)
    assert [len(p["fds"]) for s in said["sockets"] for p in s["processes"]] == [1], said


@needs_module
def test_in_flight():
    """A socket in an unread message is in no descriptor table."""
    with holder("""
pair = socket.socketpair(socket.AF_UNIX, UDP)
for one in (bound(), bound("127.0.0.1", UDP), listening("::1")):
    socket.send_fds(pair[0], [b"x"], [one.fileno()]); one.close()
"""):
        said = ls(status=1)
        lists(said, "udp bound 127.0.0.1 - keeps 0", "tcp listen ::1 - keeps 0")
        assert said["module"] == {"loaded": True, "references": 3, "unseen": 1}, said
        assert "1 more socket keeps the module loaded and was not found: in a message" in said["stderr"], said


@needs_module
def test_in_io_uring():
    with holder("""
params = (ctypes.c_uint32 * 30)()
ring = check(libc.syscall(425, 1, params))
s = bound()
fds = (ctypes.c_int * 1)(s.fileno())
check(libc.syscall(427, ring, 2, fds, 1))
s.close()
"""):
        said = ls(status=1)
        lists(said)
        assert said["module"]["unseen"] == 1 and "io_uring" in said["stderr"], said


@needs_module
def test_thread_with_its_own_descriptors():
    """Before Linux 6.9, an idle socket there cannot be looked at, but it is counted."""
    with holder("""
done = threading.Event()
def work():
    unshare(FILES)
    global s
    s = [bound(), listening("127.0.0.2")]; done.set(); time.sleep(1000)
threading.Thread(target=work, daemon=True).start()
done.wait(60)
""") as child:
        new = tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 9)
        said = ls(status=0 if new else 1)
        lists(said, "tcp listen 127.0.0.2 - keeps 1", *["tcp bound 127.0.0.1 - keeps 1"] * new)
        assert said["sockets"][0]["processes"][0]["pid"] == child.python, said
        assert said["module"]["unseen"] == (0 if new else 1), said


@needs_module
def test_name_of_a_process():
    """Names of processes are escaped before they are printed."""
    name = b'*\x1b[2J\n"\\\xff'
    with holder(f"s = bound(); libc.prctl(15, {name!r}, 0, 0, 0)"):
        assert only(ls())["processes"][0]["command"] == '*\\x1b[2J\\x0a"\\x5c\\xff', ls()
        said = table()
        assert all(" " <= c <= "~" or c == "\n" for c in said) and said.count("\n") == 2, repr(said)


@needs_module
def test_leaves_nothing_behind():
    """A socket that is closed after port0-ls has looked at it drops its reference."""
    with holder("s = [bound(), listening('::1')]"):
        for _ in range(5):
            ls()
    said = ls()
    lists(said)
    assert said["module"]["references"] == 0, said


@needs_module
def test_children_after_the_module_has_gone():
    with holder("s = listening(); c = client(); a = s.accept(); s.close()"):
        run_command("rmmod", "port0")
        try:
            said = ls()
            lists(said, "tcp established 127.0.0.1 127.0.0.1 no 1")
            assert not said["module"]["loaded"], said
        finally:
            run_command("insmod", os.environ["PORT0_KO"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tests", nargs="*", help="names without test_ (default: all)")
    wanted = parser.parse_args().tests
    if os.geteuid():
        sys.exit("ls.py: needs root")
    if loaded() and ls()["sockets"]:
        sys.exit(f"ls.py: something is on port 0 already:\n{table()}")
    return run_tests(globals(), wanted, before=fresh_namespace)


if __name__ == "__main__":
    sys.exit(main())

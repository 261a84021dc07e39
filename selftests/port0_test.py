# SPDX-License-Identifier: GPL-2.0
"""Shared by the Python tests of port0: KTAP, files, namespaces, marked sockets."""

import ctypes
import errno
import getopt
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import traceback

IP_BIND_PORT_ZERO = 0x7030
IP_BOUND_PORT_ZERO = 0x7031

CONTROL_PORT = 7
OTHER_PORT = 8080

# In seconds, long enough for an emulated machine; every wait has a limit.
IO_TIMEOUT = 10
TEST_TIMEOUT = 300

# Whether tests run in their long form
LONG = int(os.environ.get("PORT0_LONG") or 0) != 0

TCP = socket.SOCK_STREAM
UDP = socket.SOCK_DGRAM
KINDS = {"tcp": TCP, "udp": UDP}
LOOPBACK = {"ip4": "127.0.0.1", "ip6": "::1"}

CLONE_NEWNET = 0x40000000

libc = ctypes.CDLL(None, use_errno=True)


class Skip(Exception):
    """The test cannot run here, for the reason given."""


def check(result):
    """Turn libc's -1 into an exception."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def equal(want, got, what=""):
    if want != got:
        raise AssertionError(f"{what + ': ' if what else ''}expected {want!r}, got {got!r}")


def code(call, *args):
    """The name of the error that a call ends with, or "ok"."""
    try:
        call(*args)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    return "ok"


class Namespace:
    """A network namespace that lasts as long as this object; "with" enters it."""

    def __init__(self):
        home = os.open("/proc/self/ns/net", os.O_RDONLY)
        check(libc.unshare(CLONE_NEWNET))
        self.fd = os.open("/proc/self/ns/net", os.O_RDONLY)
        run("ip", "link", "set", "lo", "up")
        check(libc.setns(home, CLONE_NEWNET))
        os.close(home)
        self.outer = []

    @property
    def path(self):
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def __enter__(self):
        self.outer.append(os.open("/proc/self/ns/net", os.O_RDONLY))
        check(libc.setns(self.fd, CLONE_NEWNET))
        return self

    def __exit__(self, *_):
        home = self.outer.pop()
        check(libc.setns(home, CLONE_NEWNET))
        os.close(home)

    def __del__(self):
        os.close(self.fd)


def read(path):
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read().strip()


def write(path, text, how=os.O_TRUNC):
    # Not open(): it seeks before it appends, and tracefs refuses to seek.
    fd = os.open(path, os.O_WRONLY | how)
    data = text.encode()
    try:
        # tracefs takes one word per write.
        while data:
            data = data[os.write(fd, data):]
    finally:
        os.close(fd)


def kernel_log():
    """Returns a function that returns the lines that the kernel has logged since this call; it
    can be called again."""
    log = os.fdopen(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK), "rb", 0)
    os.lseek(log.fileno(), 0, os.SEEK_END)
    lines = []

    def since():
        while True:
            try:
                record = os.read(log.fileno(), 8192).decode(errors="replace")
            except BlockingIOError:
                return lines
            except BrokenPipeError:
                # The oldest lines were overwritten; the next read gets those that are left.
                continue
            lines.append(record.partition(";")[2].partition("\n")[0])
    return since


def is_older_than(major, minor):
    """Whether this kernel is older; for use only if user space cannot find out otherwise."""
    return [int(word) for word in re.findall(r"\d+", os.uname().release)[:2]] < [major, minor]


def run(*argv):
    """Run a command; return its output. If it fails, the exception has the output."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, timeout=TEST_TIMEOUT, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {done.stdout.strip()}")
    return done.stdout


def family_of(host):
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def plain_socket(host, kind):
    sock = socket.socket(family_of(host), kind)
    sock.settimeout(IO_TIMEOUT)
    return sock


def reset_on_close(sock):
    """Make close() send a reset, so that no TIME_WAIT blocks the next bind()."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def is_ephemeral(port):
    return 32768 <= port <= 60999


def set_mark(sock, value=1):
    sock.setsockopt(socket.SOL_IP, IP_BIND_PORT_ZERO, value)


def get_mark(sock):
    return sock.getsockopt(socket.SOL_IP, IP_BIND_PORT_ZERO)


def holds_zero(sock):
    return sock.getsockopt(socket.SOL_IP, IP_BOUND_PORT_ZERO)


def bound_socket(host, kind, port):
    """A socket on which bind() took port literally, 0 included."""
    sock = plain_socket(host, kind)
    try:
        if not port:
            set_mark(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(kind == TCP))
        sock.bind((host, port))
        equal(port, sock.getsockname()[1], "the bound port")
        if not port:
            equal(1, holds_zero(sock), "IP_BOUND_PORT_ZERO")
    except BaseException:
        sock.close()
        raise
    return sock


# The options of each test program; the C harness has -t, too.
USAGE = """\
  -t NAME  only the cases of one test
  -x       stop after the first one that fails"""

TESTS = []


def test(*args):
    """Register a function as a test; with arguments, one test for each tuple."""
    def register(function):
        name = function.__name__
        for case in args or [()]:
            words = ("any" if word is None else str(word) for word in case)
            full = ".".join([name, *words])
            TESTS.append((full, function, case))
        return function
    return register


def on_alarm(*_):
    raise TimeoutError(f"no end after {TEST_TIMEOUT} seconds")


def mark_kernel_log(text):
    """Write to the kernel log which test runs, to find the cause of a warning."""
    write("/dev/kmsg", f"kselftest: {text}\n")


def main():
    """Run every registered test, print KTAP, and exit as kselftest wants."""
    try:
        options, _ = getopt.getopt(sys.argv[1:], "ht:x", ["help"])
    except getopt.GetoptError as error:
        sys.exit(f"{error}, see --help")
    if {("-h", ""), ("--help", "")} & set(options):
        print(f"usage: {os.path.basename(sys.argv[0])} [-t NAME] [-x]\n\n"
              f"{sys.modules['__main__'].__doc__.strip()}\n\n{USAGE}")
        return
    for option, name in options:
        if option == "-t":
            TESTS[:] = [case for case in TESTS if name in (case[0], case[1].__name__)]
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGALRM, on_alarm)
    program = os.path.basename(sys.argv[0])
    failed = 0
    print(f"TAP version 13\n1..{len(TESTS)}")
    for number, (name, function, case) in enumerate(TESTS, 1):
        result, comment = "ok", ""
        mark_kernel_log(f"{program} {name}")
        signal.alarm(TEST_TIMEOUT)
        try:
            function(*case)
        except Skip as reason:
            comment = f" # SKIP {reason}"
        except Exception:
            result = "not ok"
            failed += 1
            for line in traceback.format_exc().splitlines():
                print(f"# {line}")
        finally:
            signal.alarm(0)
        print(f"{result} {number} {name}{comment}")
        if failed and ("-x", "") in options:
            break
    sys.exit(1 if failed else 0)

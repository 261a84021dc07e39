#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Test port0-run and libport0.so; KTAP on stdout.

Runs in a network namespace of its own. What needs the module is skipped where
it is not loaded, what needs it absent where it is.
"""

import argparse
import ctypes
import errno
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.realpath(__file__))
TOOLS = os.path.dirname(HERE)
RUN = os.environ.get("PORT0_RUN", os.path.join(TOOLS, "port0-run"))
BINDER = os.path.join(HERE, "binder")
MARK, BOUND = 0x7030, 0x7031
NOBODY = 65534


def loaded():
    with socket.socket() as s:
        try:
            s.setsockopt(socket.SOL_IP, MARK, 1)
        except OSError:
            return False
    return True


def run(*argv, status=0, **kwargs):
    """Run a command to its end; its exit status is part of every test."""
    done = subprocess.run(argv, text=True, capture_output=True, timeout=60, check=False, **kwargs)
    assert done.returncode == status, f"{argv}: exit {done.returncode}: {done.stdout}{done.stderr}"
    return done


def says(text, *words):
    for word in words:
        assert word in text, f"{word!r} is not in {text!r}"


def python(code, *options, status=0, **kwargs):
    """Run Python code under port0-run."""
    return run(RUN, *options, "--", sys.executable, "-c", code, status=status, **kwargs)


PROLOGUE = f"""
import os, socket, sys
def port(s):
    try: literal = s.getsockopt(socket.SOL_IP, {BOUND})
    except OSError: literal = 0
    return "literal" if literal else "ephemeral" if s.getsockname()[1] > 32767 else s.getsockname()[1]
"""


def bound(port, family="AF_INET", kind="SOCK_STREAM"):
    return PROLOGUE + f"s = socket.socket(socket.{family}, socket.{kind})\ns.bind(('', {port}))\nprint(port(s))\n"


def needs_module(test):
    test.needs = "module"
    return test


def needs_no_module(test):
    test.needs = "no module"
    return test


def test_help_and_version():
    says(run(RUN, "--help").stdout, "usage: port0-run", "--map PORT", "--listen")
    says(run(RUN, "--version").stdout, "port0-run ")


def test_wrong_arguments():
    for argv in ([], ["--map", "70000", "true"], ["--map", "x", "true"], ["--map", "-1", "true"],
                 ["--map", "", "true"], ["--to", "65536", "true"],
                 ["--fd", "true"], ["--listen", "::", "true"],
                 ["--listen", "::", "--fd", "--map", "0", "true"],
                 ["--listen", "localhost", "--fd", "true"], ["--listen", "", "--fd", "true"],
                 ["--nonsense", "true"]):
        said = run(RUN, *argv, status=125).stderr
        says(said, "port0-run: ")


def test_message_is_quoted():
    said = run(RUN, "--map", "it's a port", "true", status=125).stderr
    says(said, "'it'\\''s a port'")


def test_static_program_is_refused():
    said = run(RUN, f"{BINDER}-static", "plain", "0", status=126).stderr
    says(said, "statically linked", "--listen ADDR --fd")


def test_script_of_static_program_is_refused():
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        script = os.path.join(directory, "script")
        with open(script, "w", encoding="ascii") as f:
            f.write(f"#! {BINDER}-static plain\n")
        os.chmod(script, 0o755)
        says(run(RUN, script, "0", status=126).stderr, "statically linked")


def test_setuid_program_is_refused():
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        program = shutil.copy(BINDER, os.path.join(directory, "a program"))
        os.chown(program, NOBODY, NOBODY)
        os.chmod(program, 0o4755)
        said = run(RUN, program, "plain", "0", status=126).stderr
        says(said, "setuid", "'/", "--listen ADDR --fd")


def test_go_program_is_refused():
    """The note of a Go linker is all that is looked at."""
    with tempfile.TemporaryDirectory() as directory:
        program, note = os.path.join(directory, "program"), os.path.join(directory, "note")
        with open(note, "wb") as f:
            f.write(b"\4\0\0\0\4\0\0\0\4\0\0\0Go\0\0abcd")
        source = os.path.join(directory, "program.c")
        with open(source, "w", encoding="ascii") as f:
            f.write(f'__asm__(".section .note.go.buildid,\\"a\\",@note\\n.incbin \\"{note}\\"\\n'
                    '.text\\n");\nint main(void) { return 0; }\n')
        run("cc", "-o", program, source)
        says(run(RUN, program, status=126).stderr, "Go program", "--listen ADDR --fd")


def test_program_of_another_c_library_is_refused():
    with tempfile.TemporaryDirectory() as directory:
        program = os.path.join(directory, "program")
        run("cc", "-x", "c", "-o", program, "-Wl,--dynamic-linker=/lib/ld-other.so.1", "-",
            input="int main(void) { return 0; }")
        says(run(RUN, program, status=126).stderr, "another C library", "--listen ADDR --fd")


def test_strange_files():
    """What cannot be run is for the kernel to say; none of it is waited for, or a crash."""
    with tempfile.TemporaryDirectory() as directory:
        fifo, broken = os.path.join(directory, "fifo"), os.path.join(directory, "broken")
        os.mkfifo(fifo, 0o755)
        run(RUN, "--to", "1", fifo, status=126)
        with open(BINDER, "rb") as f:
            image = bytearray(f.read())
        for place in (len(image), 1 << 40, (1 << 64) - 64):
            image[32:40] = place.to_bytes(8, "little")
            with open(broken, "wb") as f:
                f.write(image)
            os.chmod(broken, 0o755)
            says(run(RUN, "--to", "1", broken, status=126).stderr, "statically linked")


@needs_no_module
def test_module_missing():
    for argv in (["true"], ["--client", "true"], ["--listen", "127.0.0.1", "--fd", "true"]):
        says(run(RUN, *argv, status=125).stderr, "not loaded", "modprobe port0")


@needs_no_module
def test_library_fails_closed():
    """Port 0 must not become ephemeral when the module has gone meanwhile."""
    env = {**os.environ, "LD_PRELOAD": os.path.join(TOOLS, "libport0.so"), "PORT0_MAP": "0,80"}
    for port in (0, 80):
        done = subprocess.run([sys.executable, "-c", bound(port)], env=env, text=True,
                              capture_output=True, check=False)
        says(done.stderr, os.strerror(errno.ENOPROTOOPT))


def test_library_leaves_the_rest_alone():
    env = {**os.environ, "LD_PRELOAD": os.path.join(TOOLS, "libport0.so"), "PORT0_MAP": "0"}
    code = PROLOGUE + """
import errno, ctypes, tempfile
s = socket.socket(); s.bind(('127.0.0.1', 81)); assert port(s) == 81
s = socket.socket(socket.AF_INET6); s.bind(('::1', 82)); assert port(s) == 82
s = socket.socket(socket.AF_UNIX); s.bind(tempfile.mktemp())
s = socket.socket(socket.AF_UNIX); s.bind('')
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); s.bind((0, 0))
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253); s.bind(('127.0.0.1', 0))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.bind(-1, b'\\2' + bytes(15), 16) == -1 and ctypes.get_errno() == errno.EBADF
s = socket.socket()
assert libc.bind(s.fileno(), None, 16) == -1 and ctypes.get_errno() == errno.EFAULT
assert libc.bind(s.fileno(), b'\\2' + bytes(15), 3) == -1 and ctypes.get_errno() == errno.EINVAL
assert libc.socket(-1, 1, 0) == -1 and ctypes.get_errno() in (errno.EINVAL, errno.EAFNOSUPPORT)
"""
    run(sys.executable, "-c", code, env=env)
    env["PORT0_MAP"] = "80"
    says(run(sys.executable, "-c", bound(0), env=env).stdout, "ephemeral")


def test_bad_pointers():
    """bind() and connect() say what they say without the library."""
    code = """
import ctypes, errno, mmap, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
# a page between two that are not there
page = mmap.PAGESIZE
start = libc.mmap(None, ctypes.c_size_t(3 * page), 3, 0x22, -1, ctypes.c_long(0)) + page
end = start + page
for hole in (start - page, end):
    assert libc.munmap(ctypes.c_void_p(hole), ctypes.c_size_t(page)) == 0

def attempt(call, fd, where, length):
    ctypes.set_errno(4711)
    done = call(fd, ctypes.c_void_p(where), length)
    return call.__name__, length, done, errno.errorcode.get(ctypes.get_errno())

def places():
    yield from (1, 2**63, 2**64 - 1, start - 1, start - 8, end - 1, end)
    # so many bytes can be read, family and port the first of them
    for size in (4, 12):
        for family, port in ((socket.AF_INET, 0), (socket.AF_INET6, 8080), (socket.AF_UNSPEC, 0)):
            head = family.to_bytes(2, sys.byteorder) + port.to_bytes(2, 'big')
            ctypes.memmove(end - size, head, len(head))
            yield end - size

for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for call in (libc.bind, libc.connect):
            for length in (0, 2, 4, 15, 16, 28, 128, 129):
                for n, where in enumerate(places()):
                    with socket.socket(family, kind) as s:
                        print(family.name, kind.name, n, attempt(call, s.fileno(), where, length))
print(attempt(libc.bind, -1, end, 16), attempt(libc.connect, -1, end, 16))
with socket.socket() as s:
    # Zeros are AF_UNSPEC, which disconnects; errno stays.
    print(attempt(libc.connect, s.fileno(), start, 16))
"""
    plain = run(sys.executable, "-c", code).stdout.splitlines()
    assert len(plain) == 3 * 2 * 2 * 8 * 13 + 2, plain
    says(plain[-2], "EBADF")
    env = {**os.environ, "LD_PRELOAD": os.path.join(TOOLS, "libport0.so")}
    for settings in ({"PORT0_MAP": "0,8080"}, {"PORT0_CLIENT": "1"}, {"PORT0_TO": "0,8080"}):
        said = run(sys.executable, "-c", code, env={**env, **settings}).stdout.splitlines()
        wrong = [pair for pair in zip(said, plain, strict=True) if pair[0] != pair[1]]
        assert not wrong, f"{settings}: with and without the library: {wrong[:3]}"


@needs_module
def test_bind_is_literal():
    for family in ("AF_INET", "AF_INET6"):
        for kind in ("SOCK_STREAM", "SOCK_DGRAM"):
            says(python(bound(0, family, kind)).stdout, "literal")


@needs_module
def test_map():
    says(python(bound(8080), "--map", "80", "--map", "8080").stdout, "literal")
    says(python(bound(80), "--map", "80", "--map", "8080").stdout, "literal")
    says(python(bound(81), "--map", "80").stdout, "81")
    says(python(bound(0), "--map", "80").stdout, "ephemeral")
    says(python(bound(0), "--map", "80", "--map", "0").stdout, "literal")


@needs_module
def test_awkward_places():
    for how in ("plain", "signal", "vfork", "thread"):
        for argv in ((RUN, BINDER, how, "0"), (RUN, "--map", "65535", BINDER, how, "65535")):
            said = run(*argv).stdout
            assert said == "0 1\n", f"{how}: {said}"


@needs_module
def test_constructor_of_another_library():
    env = {**os.environ, "LD_PRELOAD": os.path.join(HERE, "early.so")}
    said = run(RUN, "/bin/true", env=env).stdout
    assert said == "early 1\n", said


@needs_module
def test_dlopen():
    said = run(RUN, sys.executable, "-c", "import ctypes, sys; ctypes.CDLL(sys.argv[1])",
               os.path.join(HERE, "early.so")).stdout
    assert said == "early 1\n", said


@needs_module
def test_fork_exec_and_shell():
    says(run(RUN, "sh", "-c", '(exec env "$0" plain 0) | cat', BINDER).stdout, "0 1")
    code = PROLOGUE + """
s = socket.socket()
if os.fork() == 0:
    s.bind(('', 0)); print(port(s), flush=True); os._exit(0)
os.wait()
"""
    says(python(code).stdout, "literal")


@needs_module
def test_environment_taken_apart():
    """As nginx and sshd do it, before they bind again."""
    code = PROLOGUE + """
import ctypes
ctypes.CDLL(None).clearenv()
s = socket.socket(); s.bind(('', 8080)); print(port(s))
"""
    says(python(code, "--map", "8080").stdout, "literal")


@needs_module
def test_failed_bind_leaves_no_mark():
    code = PROLOGUE + f"""
a = socket.socket(); a.bind(('', 8080)); a.listen()
b = socket.socket()
try: b.bind(('', 8080))
except OSError as e: print(e.strerror)
print(b.getsockopt(socket.SOL_IP, {MARK}))
b.bind(('', 0)); print(port(b))
"""
    said = python(code, "--map", "8080")
    assert said.stdout == f"{os.strerror(errno.EADDRINUSE)}\n0\nephemeral\n", said.stdout
    says(said.stderr, "another socket has it")


@needs_module
def test_no_privilege():
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        for name in ("port0-run", "libport0.so"):
            shutil.copy(os.path.join(os.path.dirname(RUN), name), directory)
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]
        mine = os.path.join(directory, "port0-run")
        said = run(*drop, mine, sys.executable, "-c", bound(0), status=1).stderr
        says(said, "CAP_NET_BIND_SERVICE", os.strerror(errno.EACCES))
        said = run(*drop, mine, "--listen", "127.0.0.1", "--fd", "true", status=125).stderr
        says(said, "CAP_NET_BIND_SERVICE")


@needs_module
def test_nothing_written_to_another_stderr():
    code = PROLOGUE + """
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); os.dup2(fd, 2)
a = socket.socket(); a.bind(('', 0)); a.listen()
try: socket.socket().bind(('', 0))
except OSError: print("refused")
"""
    with tempfile.NamedTemporaryFile() as f:
        said = run(RUN, sys.executable, "-c", code, f.name)
        assert said.stdout == "refused\n" and not said.stderr and not f.read()


@needs_module
def test_stderr_that_nobody_reads():
    """A message must not end a program, or stop it."""
    code = PROLOGUE + """
import signal
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
a = socket.socket(); a.bind(('', 0)); a.listen()
try: socket.socket().bind(('', 0))
except OSError: print("refused")
"""
    for full in (False, True):
        reader, writer = os.pipe()
        if full:
            os.set_blocking(writer, False)
            try:
                while True:
                    os.write(writer, bytes(4096))
            except BlockingIOError:
                os.set_blocking(writer, True)
        else:
            os.close(reader)
        done = subprocess.run([RUN, sys.executable, "-c", code], text=True, timeout=60, check=False,
                              stdout=subprocess.PIPE, stderr=writer)
        os.close(writer)
        if full:
            os.close(reader)
        assert done.stdout == "refused\n", f"full: {full}, exit {done.returncode}"


@needs_module
def test_client_sends_to_port_0():
    send = PROLOGUE + """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if len(sys.argv) > 1: s.bind(('127.0.0.1', 0))
s.sendto(b'hello', ('127.0.0.1', 0)); s.settimeout(20)
print(port(s), s.recvfrom(100))
"""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_IP, MARK, 1)
        s.bind(("127.0.0.1", 0))
        s.settimeout(20)

        def echo():
            for _ in range(2):
                data, peer = s.recvfrom(100)
                s.sendto(data.upper(), peer)

        thread = threading.Thread(target=echo)
        thread.start()
        for extra in ([], ["bind"]):
            said = run(RUN, "--client", "--", sys.executable, "-c", send, *extra).stdout
            says(said, "ephemeral", "HELLO", "('127.0.0.1', 0)")
        thread.join()


def test_to():
    """On a stock kernel as well, where port 0 is a port that nobody listens on."""
    code = """
import socket, errno
with socket.create_server(('127.0.0.1', 8081)) as other:
    for port, result in ((8080, errno.ECONNREFUSED), (8081, 0)):
        s = socket.socket()
        assert s.connect_ex(('127.0.0.1', port)) == result, port
        s.close()
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.connect(('127.0.0.1', 8080))
print(open('/proc/net/udp').read())
"""
    says(python(code, "--to", "8080", "--to", "1").stdout, "0100007F:0000")


@needs_module
def test_to_reaches_port_0():
    with socket.socket() as s:
        s.setsockopt(socket.SOL_IP, MARK, 1)
        s.bind(("127.0.0.1", 0))
        s.listen()
        says(python("import socket\nprint(socket.create_connection(('127.0.0.1', 5201), 20).getpeername())",
                    "--to", "5201").stdout, "('127.0.0.1', 0)")


@needs_module
def test_exit_status():
    run(RUN, "sh", "-c", "exit 42", status=42)
    run(RUN, "no-such-command", status=127)
    run(RUN, "/etc/passwd", status=126)
    child = subprocess.Popen([RUN, "sleep", "60"])
    time.sleep(1)
    child.terminate()
    assert child.wait() == -signal.SIGTERM


RECEIVER = PROLOGUE + """
assert int(os.environ['LISTEN_PID']) == os.getpid()
n = int(os.environ['LISTEN_FDS'])
assert os.environ['LISTEN_FDNAMES'] == ':'.join(['port0'] * n)
assert 'LD_PRELOAD' not in os.environ
for fd in range(3, 3 + n):
    s = socket.socket(fileno=fd)
    print(s.family.name, s.type.name, port(s), s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
"""


@needs_module
def test_listen_hands_over():
    said = run(RUN, "--listen", "127.0.0.1", "--listen", "udp:127.0.0.1", "--listen", "tcp:[::1]",
               "--listen", "udp:::1", "--fd", "--", sys.executable, "-c", RECEIVER).stdout
    assert said.splitlines() == [
        "AF_INET SOCK_STREAM literal 1", "AF_INET SOCK_DGRAM literal 0",
        "AF_INET6 SOCK_STREAM literal 1", "AF_INET6 SOCK_DGRAM literal 0"], said


@needs_module
def test_listen_over_inherited_descriptors():
    """Descriptors 3 and up were in use: the protocol says where they go."""
    said = run("sh", "-c", 'exec 3</dev/null 4</dev/null 5</dev/null; exec "$@"', "sh",
               RUN, "--listen", "127.0.0.1", "--listen", "::1", "--fd",
               sys.executable, "-c", RECEIVER).stdout
    assert said.splitlines() == ["AF_INET SOCK_STREAM literal 1", "AF_INET6 SOCK_STREAM literal 1"]


@needs_module
def test_listen_static_program():
    run(RUN, "--listen", "127.0.0.1", "--fd", f"{BINDER}-static", "plain", "8080")


@needs_module
def test_listen_errors():
    says(run(RUN, "--listen", "127.0.0.1", "--listen", "127.0.0.1", "--fd", "true",
             status=125).stderr, "another socket has port 0")
    says(run(RUN, "--listen", "192.0.2.1", "--fd", "true", status=125).stderr,
         "does not have the address")


@needs_module
def test_examples():
    """The examples in the source, as a reader would start them."""
    examples = os.path.join(TOOLS, "examples")
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "index.html"), "w", encoding="ascii") as f:
            f.write("example")
        for name, request in (("http_server.py", b"GET / HTTP/1.0\r\n\r\n"),
                              ("asyncio_echo.py", b"example")):
            server = subprocess.Popen([sys.executable, os.path.join(examples, name)], cwd=directory,
                                      stderr=subprocess.DEVNULL)
            try:
                says(answer(request), "example")
                if name == "asyncio_echo.py":
                    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                        s.settimeout(60)
                        s.connect(("127.0.0.1", 0))
                        s.send(request)
                        assert s.recv(100) == request
            finally:
                server.kill()
                server.wait()


def answer(request):
    """What a server on port 0 says, as soon as it is there."""
    until = time.monotonic() + 60
    while True:
        try:
            with socket.create_connection(("127.0.0.1", 0), timeout=60) as s:
                s.sendall(request)
                s.shutdown(socket.SHUT_WR)
                return b"".join(iter(lambda: s.recv(65536), b"")).decode()
        except ConnectionRefusedError:
            assert time.monotonic() < until, "no server"
            time.sleep(0.5)


def main():
    argparse.ArgumentParser(description=__doc__).parse_args()
    if os.geteuid():
        sys.exit("run.py: needs root, for a network namespace of its own")
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x40000000):
        sys.exit(f"run.py: no network namespace: {os.strerror(ctypes.get_errno())}")
    run("ip", "link", "set", "lo", "up")
    have = "module" if loaded() else "no module"
    tests = [(name[5:], test) for name, test in globals().items() if name.startswith("test_")]
    print(f"TAP version 13\n1..{len(tests)}")
    failed = 0
    for number, (name, test) in enumerate(tests, 1):
        if getattr(test, "needs", have) != have:
            print(f"ok {number} {name} # SKIP needs {test.needs}", flush=True)
            continue
        try:
            test()
            print(f"ok {number} {name}", flush=True)
        except (AssertionError, OSError, subprocess.SubprocessError) as problem:
            failed += 1
            for line in f"{type(problem).__name__}: {problem}".splitlines():
                print(f"# {line}")
            print(f"not ok {number} {name}", flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

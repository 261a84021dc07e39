#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Test port0-run and libport0.so; KTAP on stdout.

Each test runs in its own network namespace. Tests that need the module are skipped if it
is not loaded, those that need it absent are skipped if it is loaded.
"""

import argparse
import contextlib
import ctypes
import errno
import fcntl
import ftplib
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

from ktap import (BOUND, MARK, loaded, needs_module, needs_no_module, needs_program, run_tests,
                  run_command as run)

HERE = os.path.dirname(os.path.realpath(__file__))
TOOLS = os.path.dirname(HERE)
RUN = os.environ.get("PORT0_RUN", os.path.join(TOOLS, "port0-run"))
BINDER = os.path.join(HERE, "binder")
NOBODY = 65534
DROP = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--"]


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


def wait_for(what, *arguments):
    until = time.monotonic() + 60
    while not what(*arguments):
        assert time.monotonic() < until, f"not in a minute: {what.__name__}{arguments}"
        time.sleep(0.2)


def removed(directory):
    with contextlib.suppress(OSError):
        os.rmdir(directory)
    return not os.path.exists(directory)


def is_listening(port, host="127.0.0.1", kind="tcp"):
    """Tell from /proc/net, without a connection, which a server would count."""
    address = socket.inet_aton(host)[::-1].hex().upper() + f":{port:04X}"
    with open(f"/proc/net/{kind}", encoding="ascii") as f:
        return any(line.split()[1] == address and line.split()[3] in ("0A", "07")
                   for line in f.readlines()[1:])


@contextlib.contextmanager
def server(*argv, ready=(), **kwargs):
    """Run a server; "with" is entered when it is ready."""
    with tempfile.TemporaryFile() as log:
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **kwargs)

        def said():
            log.seek(0)
            return log.read().decode()

        try:
            if ready:
                wait_for(lambda: ready[0](*ready[1:]) or child.poll() is not None)
            assert child.poll() is None, f"{argv}: it ended: {said()}"
            yield child
        finally:
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def test_help_and_version():
    says(run(RUN, "--help").stdout, "usage: port0-run", "--map PORT", "--reply", "--from", "--listen")
    says(run(RUN, "--version").stdout, "port0-run ")


def test_nowhere_to_write():
    for closed in (False, True):
        with open("/dev/full", "w", encoding="ascii") as full:
            done = subprocess.run([RUN, "--help"], stdout=full, stderr=subprocess.PIPE, text=True, check=False,
                                  preexec_fn=(lambda: os.close(1)) if closed else None)
        assert done.returncode == 125, done
        says(done.stderr, "cannot write")


def test_closed_descriptors():
    """A message is not written to a socket that has got the number of standard error."""
    def close(*fds):
        for fd in fds:
            os.close(fd)
    for fds in ((2,), (1, 2), (0, 1, 2)):
        for argv in (["--reply", "no-such-command"], ["--to", "1", "no-such-command"],
                     ["--listen", "192.0.2.1", "--fd", "no-such-command"]):
            done = subprocess.run([RUN, *argv], check=False, preexec_fn=lambda fds=fds: close(*fds))
            assert done.returncode in (125, 127), f"{fds} {argv}: {done}"
        # The command finds them closed.
        code = f"import os, sys; sys.exit(any(os.path.exists(f'/proc/self/fd/{{n}}') for n in {fds}))"
        run(RUN, "--to", "1", sys.executable, "-c", code, preexec_fn=lambda fds=fds: close(*fds))


def test_wrong_arguments():
    for argv in ([], ["--map", "70000", "true"], ["--map", "x", "true"], ["--map", "-1", "true"],
                 ["--map", "", "true"], ["--to", "65536", "true"], ["--map", "80-", "true"],
                 ["--map", "-80", "true"], ["--map", "81-80", "true"], ["--to", "1-65536", "true"],
                 ["--map", "1-2-3", "true"], ["--map", "80-x", "true"], ["--map", "80,81", "true"],
                 ["--listen", "fe80::1%no-such", "--fd", "true"], ["--listen", "fe80::1%", "--fd", "true"], ["--from", "--listen", "::", "--fd", "true"],
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
    """A file is taken for a Go program if it has the note of the Go linker."""
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


def test_program_of_another_c_library_is_started_without_the_library():
    """musl ends such a program: it does not find all symbols that the library needs."""
    source = """
#include <stdio.h>
#include <stdlib.h>
int main(void) { puts(getenv("LD_PRELOAD") ?: ""); return 0; }
"""
    with tempfile.TemporaryDirectory() as directory:
        # It only looks like one.
        linker, program = (os.path.join(directory, name) for name in ("ld-other.so.1", "program"))
        script = os.path.join(directory, "script")
        interpreter = run("sh", "-c", "ldd /bin/sh | sed -n 's/^[[:space:]]*\\(\\/[^ ]*\\).*/\\1/p'").stdout.strip()
        os.symlink(interpreter, linker)
        run("cc", "-x", "c", "-o", program, f"-Wl,--dynamic-linker={linker}", "-", input=source)
        with open(script, "w", encoding="ascii") as f:
            f.write(f"#!{program}\n")
        os.chmod(script, 0o755)
        for name in (program, script):
            for how in ("exec $0", "env -u LD_PRELOAD $0; true", f"{sys.executable} -c 'import subprocess, sys\n"
                        "subprocess.run([sys.argv[1]], close_fds=False)' $0"):
                said = run(RUN, "--to", "1", "sh", "-c", how, name)
                assert said.stdout == "\n", said
                says(said.stderr, program, "another C library")
            said = run(RUN, "--to", "1", "sh", "-c", "LD_PRELOAD=/a/x.so:$LD_PRELOAD:/b/y.so exec $0", name)
            assert said.stdout == "/a/x.so:/b/y.so\n", said


def test_setuid_bit_without_effect():
    """On a file system that is mounted nosuid, the program does not change its user,
    and loads the library."""
    def mount():
        libc = ctypes.CDLL(None)
        assert libc.unshare(0x20000) == 0
        assert libc.mount(b"none", b"/", None, 0x44000, None) == 0
        assert libc.mount(b"none", directory.encode(), b"tmpfs", 2, None) == 0
        program = shutil.copy("/usr/bin/env", os.path.join(directory, "env"))
        os.chown(program, NOBODY, NOBODY)
        os.chmod(program, 0o4755)

    with tempfile.TemporaryDirectory() as directory:
        says(run(RUN, "--to", "1", os.path.join(directory, "env"), preexec_fn=mount).stdout, "PORT0_TO=1")


def test_dynamic_linker_by_name():
    """As wrappers of some packages do it: ld.so PROGRAM."""
    with open("/proc/self/maps", encoding="ascii") as f:
        linker = next(line.split()[-1] for line in f if "/ld-linux" in line)
    says(run(RUN, "--to", "1", linker, "/usr/bin/env").stdout, "PORT0_TO=1")


def test_preloaded_library_that_is_not_there():
    """The outer port0-run's library is not there, as in a chroot: this one's is used,
    with the options of both."""
    env = {**os.environ, "LD_PRELOAD": "/no/such/libport0.so", "PORT0_TO": "2"}
    said = run(RUN, "--to", "1", "env", env=env).stdout.splitlines()
    libraries = next(line for line in said if line.startswith("LD_PRELOAD=")).split("=")[1].split(":")
    assert os.access(libraries[0], os.R_OK) and libraries[1:] == ["/no/such/libport0.so"], said
    assert "PORT0_TO=1-2" in said, said


def test_settings_left_over():
    """Settings without the library are ignored."""
    names = {f"PORT0_{name}" for name in ("MAP", "TO", "FIRST", "FROM", "CLIENT", "KEEP", "SOCKETS")}
    env = {**os.environ, **{name: "1" for name in names}}
    env.pop("LD_PRELOAD", None)
    said = {line for line in run(RUN, "--to", "2", "env", env=env).stdout.splitlines()
            if line.split("=")[0] in names}
    assert said == {"PORT0_MAP=", "PORT0_TO=2"}, said


def test_strange_files():
    """For files that cannot be run, the kernel's error is reported, without hang or crash."""
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
        # One header, a note of 1 TB in a file with a hole
        image = image[:32] + struct.pack("=QQIHHHHHH", 64, 0, 0, 64, 56, 1, 0, 0, 0)
        with open(broken, "wb") as f:
            f.write(image + struct.pack("=IIQQQQQQ", 4, 4, 4096, 0, 0, 1 << 40, 1 << 40, 8))
            f.truncate(1 << 34)
        says(run(RUN, "--to", "1", broken, status=126, timeout=60).stderr, "statically linked")


@needs_no_module
def test_module_missing():
    for argv in (["true"], ["--client", "true"], ["--listen", "127.0.0.1", "--fd", "true"]):
        says(run(RUN, *argv, status=125).stderr, "not loaded", "modprobe port0")


@needs_no_module
def test_library_fails_closed():
    """Port 0 must not become an ephemeral port if the module has been unloaded meanwhile."""
    env = {**os.environ, "LD_PRELOAD": os.path.join(TOOLS, "libport0.so"), "PORT0_MAP": "0,80"}
    for port in (0, 80):
        done = subprocess.run([sys.executable, "-c", bound(port)], env=env, text=True,
                              capture_output=True, check=False)
        says(done.stderr, os.strerror(errno.ENOPROTOOPT))
    # On this connection, send() is sendto() to the kernel, and needs the mark.
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        code = f"import socket; socket.socket(fileno={s.fileno()}).connect(('::ffff:127.0.0.1', 0))"
        env = {**env, "PORT0_MAP": "", "PORT0_CLIENT": "1"}
        done = run(sys.executable, "-c", code, env=env, pass_fds=[s.fileno()], status=1)
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


@needs_no_module
def test_smc():
    """A mapped port is not bound on an SMC socket either, which is TCP underneath."""
    # Few kernels have SMC, and the library asks by syscall(): say that the socket is one.
    source = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/syscall.h>
long syscall(long number, ...)
{
	long (*next)(long number, ...) = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
	va_list list;
	long args[6];

	va_start(list, number);
	for (int n = 0; n < 6; n++)
		args[n] = va_arg(list, long);
	va_end(list);
	if (number == SYS_getsockopt && args[1] == SOL_SOCKET && args[2] == SO_DOMAIN) {
		*(int *)args[3] = AF_SMC;
		return 0;
	}
	return next(number, args[0], args[1], args[2], args[3], args[4], args[5]);
}
"""
    with tempfile.TemporaryDirectory() as directory:
        library = os.path.join(directory, "smc.so")
        run("cc", "-shared", "-fPIC", "-x", "c", "-o", library, "-", input=source)
        env = {**os.environ, "LD_PRELOAD": f"{TOOLS}/libport0.so {library}", "PORT0_MAP": "80"}
        says(run(sys.executable, "-c", bound(80), env=env, status=1).stderr, os.strerror(errno.ENOPROTOOPT))
        assert run(sys.executable, "-c", bound(81), env=env).stdout == "81\n"


def test_bad_pointers():
    """bind(), connect(), execve() and execveat() with bad addresses return the same as without
    the library."""
    code = """
import ctypes, errno, mmap, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
# a page between two that are not mapped
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
    # the number of bytes that can be read; family and port come first
    for size in (4, 12, 16):
        for family, port in ((socket.AF_INET, 0), (socket.AF_INET6, 8080), (socket.AF_UNSPEC, 0)):
            if size == 16 and family != socket.AF_INET6: continue	# that is a whole address
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
argv = (ctypes.c_char_p * 2)(b'x', None)
print(*(attempt(lambda fd, path, flags: libc.execveat(fd, path, argv, argv, flags), -100, path, flags)[1:]
        for path in (None, 1, end) for flags in (0, 0x1000)))
ctypes.memmove(end - 8, (1).to_bytes(8, sys.byteorder), 8)
print(*(attempt(lambda _, env, __: libc.execve(b'/bin/true', argv, env), -1, env, 0)[2:]
        for env in (1, end, end - 8, start - 8)))
with socket.socket() as s:
    # Zeros are AF_UNSPEC, which disconnects; errno is not changed.
    print(attempt(libc.connect, s.fileno(), start, 16))
"""
    plain = run(sys.executable, "-c", code).stdout.splitlines()
    assert len(plain) == 3 * 2 * 2 * 8 * 14 + 4, plain
    says(plain[-4], "EBADF")
    assert plain[-2].count("EFAULT") == 4, plain[-2]
    env = {**os.environ, "LD_PRELOAD": os.path.join(TOOLS, "libport0.so")}
    for settings in ({"PORT0_MAP": "0,8080"}, {"PORT0_CLIENT": "1"}, {"PORT0_TO": "0,8080"},
                     {"PORT0_TO": "8080"}):
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
    """The program overwrites its environment, as nginx and sshd do, before it binds again."""
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


@contextlib.contextmanager
def installed():
    """A copy of port0-run that every user may read."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        for name in ("port0-run", "libport0.so"):
            shutil.copy(os.path.join(os.path.dirname(RUN), name), directory)
        yield os.path.join(directory, "port0-run")


@needs_module
def test_no_privilege():
    with installed() as mine:
        said = run(*DROP, mine, sys.executable, "-c", bound(0), status=1).stderr
        says(said, "CAP_NET_BIND_SERVICE", "--ambient-caps=+net_bind_service",
             "ip_unprivileged_port_start", os.strerror(errno.EACCES))
        said = run(*DROP, mine, "--listen", "127.0.0.1", "--fd", "true", status=125).stderr
        says(said, "CAP_NET_BIND_SERVICE")
        # The advice in the message works.
        said = run(DROP[0], "--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service",
                   *DROP[1:], mine, sys.executable, "-c", bound(0)).stdout
        assert said == "literal\n", said


@needs_module
def test_nothing_written_to_another_stderr():
    code = PROLOGUE + """
fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); os.dup2(fd, 2)
a = socket.socket(); a.bind(('', 0)); a.listen()
try: socket.socket().bind(('', 0))
except OSError: print("refused")
"""
    with tempfile.NamedTemporaryFile() as f:
        said = run(RUN, "--map", "0", sys.executable, "-c", code, f.name)
        assert said.stdout == "refused\n" and not said.stderr and not f.read()


def test_message_on_another_terminal():
    """sudo gives a program a terminal of its own: what people read there is for them."""
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('127.0.0.1', 1))"
    pty = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    env = {**os.environ, "LD_PRELOAD": os.path.join(TOOLS, "libport0.so"), "PORT0_TO": "1",
           "PORT0_STDERR": "1:1"}
    done = run(sys.executable, "-c", pty, sys.executable, "-c", code, env=env, status=None,
               stdin=subprocess.DEVNULL)
    assert loaded() or "port0: send to port 0: " in done.stdout, done


@needs_module
def test_stderr_that_nobody_reads():
    """Printing a message must neither kill nor block a program."""
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
        done = subprocess.run([RUN, "--map", "0", sys.executable, "-c", code], text=True,
                              timeout=60, check=False, stdout=subprocess.PIPE, stderr=writer)
        os.close(writer)
        if full:
            os.close(reader)
        assert done.stdout == "refused\n", f"full: {full}, exit {done.returncode}"


def test_long_message_into_a_pipe():
    """The pipe has room for one page, which is all that poll() guarantees: the program
    must not block."""
    reader, writer = os.pipe()
    os.write(writer, bytes(fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ) - 4096))
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        deep = os.path.join(directory, *["d" * 250] * 15)
        os.makedirs(deep)
        program = shutil.copy(f"{BINDER}-static", os.path.join(deep, "s" * 250))
        done = subprocess.run([RUN, "--to", "1", sys.executable, "-c",
                               "import os, sys; os.execv(sys.argv[1], ['binder'])", program],
                              timeout=60, check=False, stdout=subprocess.PIPE, stderr=writer)
    assert done.returncode == 2, done
    os.set_blocking(reader, False)
    assert b"port0: /tmp/" in os.read(reader, 1 << 20)
    os.close(reader)
    os.close(writer)


class Echo:
    """UDP and TCP on one port: a datagram comes back in capitals, a connection gets its peer."""

    def __init__(self, family=socket.AF_INET, port=0, peers=None):
        host = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}[family]
        self.peers = [] if peers is None else peers
        self.udp = socket.socket(family, socket.SOCK_DGRAM)
        self.tcp = socket.socket(family, socket.SOCK_STREAM)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for s in (self.udp, self.tcp):
            # Marked, so that it can answer port 0.
            if loaded():
                s.setsockopt(socket.SOL_IP, MARK, 1)
            s.bind((host, port))
        self.tcp.listen()
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self.answer, self.accept)]
        for thread in self.threads:
            thread.start()

    def answer(self):
        while True:
            data, peer = self.udp.recvfrom(100)
            if data == b"end":
                return
            self.peers.append(peer[1])
            self.udp.sendto(data.upper(), peer)

    def accept(self):
        while True:
            connection, peer = self.tcp.accept()
            with connection:
                if connection.recv(100) == b"end":
                    return
                self.peers.append(peer[1])
                connection.sendall(b"%d" % peer[1])
                # The server closes first, so that TIME_WAIT is here.
                connection.shutdown(socket.SHUT_WR)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with socket.socket(self.udp.family, socket.SOCK_DGRAM) as s:
            s.connect(self.udp.getsockname())
            s.send(b"end")
        with socket.create_connection(self.tcp.getsockname()[:2]) as s:
            s.send(b"end")
        for thread in self.threads:
            thread.join(30)
        self.udp.close()
        self.tcp.close()


CALLS = PROLOGUE + """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
class Iovec(ctypes.Structure): _fields_ = [('base', ctypes.c_char_p), ('len', ctypes.c_size_t)]
class Msghdr(ctypes.Structure):
    _fields_ = [('name', ctypes.c_void_p), ('namelen', ctypes.c_uint), ('iov', ctypes.POINTER(Iovec)),
                ('iovlen', ctypes.c_size_t), ('control', ctypes.c_void_p),
                ('controllen', ctypes.c_size_t), ('flags', ctypes.c_int)]
class Mmsghdr(ctypes.Structure): _fields_ = [('hdr', Msghdr), ('len', ctypes.c_uint)]

def packed(family, host, port):
    head = int(family).to_bytes(2, sys.byteorder) + port.to_bytes(2, 'big')
    if family == socket.AF_INET: return head + socket.inet_aton(host) + bytes(8)
    return head + bytes(4) + socket.inet_pton(family, host) + bytes(4)

def messages(count, address, data):
    vec = (Mmsghdr * count)()
    keep = []
    for n, m in enumerate(vec):
        name = ctypes.create_string_buffer(address, 28)
        iov = Iovec(data[n] if data else bytes(100), 100 if not data else len(data[n]))
        keep += [name, iov]
        m.hdr.name, m.hdr.namelen = ctypes.addressof(name), len(address) if data else 28
        m.hdr.iov, m.hdr.iovlen = ctypes.pointer(iov), 1
    return vec, keep

def sender(s, how, data, address):
    if how == 'sendto': return s.sendto(data, address)
    if how == 'sendmsg': return s.sendmsg([data], [], 0, address)
    if how == 'connect': s.connect(address); return s.send(data)
    vec, keep = messages(1, packed(s.family, *address[:2]), [data])
    assert libc.sendmmsg(s.fileno(), vec, 1, 0) == 1, os.strerror(ctypes.get_errno())

def receiver(s, how):
    if how in ('sendto', 'connect'): return s.recvfrom(100)[1][1]
    if how == 'sendmsg': return s.recvmsg(100)[3][1]
    s.setblocking(True)
    vec, keep = messages(2, bytes(28), None)
    assert libc.recvmmsg(s.fileno(), vec, 2, 0x10000, None) >= 1
    return int.from_bytes(bytes(keep[0])[2:4], 'big')
"""
HOW = ("sendto", "sendmsg", "sendmmsg", "connect")


@needs_module
def test_reply():
    """--reply, and its old name --client."""
    send = PROLOGUE + """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
if len(sys.argv) > 1: s.bind(('127.0.0.1', 0))
s.sendto(b'hello', ('127.0.0.1', 0)); s.settimeout(20)
print(port(s), s.recvfrom(100))
"""
    with Echo():
        for option in ("--reply", "--client"):
            for extra in ([], ["bind"]):
                said = run(RUN, option, "--", sys.executable, "-c", send, *extra).stdout
                says(said, "ephemeral", "HELLO", "('127.0.0.1', 0)")


@needs_module
def test_reply_on_an_inherited_socket():
    """A socket that was passed by systemd or another server, not created under port0-run."""
    for how in HOW[:3]:
        with Echo(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.bind(("127.0.0.1", 0))
            code = CALLS + f"""
s = socket.socket(fileno={s.fileno()}); s.settimeout(20)
sender(s, {how!r}, b'hello', ('127.0.0.1', 0)); print(receiver(s, {how!r}), port(s))
"""
            says(python(code, "--reply", pass_fds=[s.fileno()]).stdout, "0 ephemeral")
    # A connection of an IPv6 socket over IPv4, where the kernel sends as if by address
    with Echo(), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
        code = CALLS + f"""
s = socket.socket(fileno={s.fileno()}); s.settimeout(20)
sender(s, 'connect', b'hello', ('::ffff:127.0.0.1', 0)); print(receiver(s, 'connect'))
"""
        assert python(code, "--reply", pass_fds=[s.fileno()]).stdout == "0\n"


@needs_module
def test_reply_leaves_a_program_that_marks_alone():
    code = PROLOGUE + f"""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_IP, {MARK}, 1); s.bind(('', 0)); print(port(s))
t = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); t.bind(('', 0)); print(port(t))
"""
    assert python(code, "--reply").stdout == "literal\nephemeral\n"


@needs_module
def test_from():
    """Every way to connect or send, bound to an address or not, as seen by the peer."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with Echo(family, 7777) as there:
            for bound_to in (None, host, "any"):
                bind = "" if bound_to is None else f"s.bind(({'' if bound_to == 'any' else host!r}, 0))"
                there.peers.clear()
                code = CALLS + f"""
for how in {HOW}:
    s = socket.socket({int(family)}, socket.SOCK_DGRAM); s.settimeout(20)
    {bind}
    sender(s, how, b'hello', ({host!r}, 7777)); receiver(s, how)
    sender(s, how if how != 'connect' else 'sendto', b'hello', ({host!r}, 7777)); receiver(s, how)
    print(port(s)); s.close()
s = socket.socket({int(family)})
{bind}
s.connect(({host!r}, 7777)); s.send(b'x'); print(s.recv(100), port(s))
s.recv(100)
"""
                said = python(code, "--from")
                assert said.stdout == "literal\n" * 4 + "b'0' literal\n" and not said.stderr, said
                assert there.peers == [0] * 9, there.peers


@needs_module
def test_from_curl():
    """curl from port 0; only one connection at a time is possible."""
    with socket.create_server(("127.0.0.1", 7777)) as s:
        seen = []

        def serve():
            for _ in range(2):
                connection, peer = s.accept()
                with connection:
                    seen.append(peer[1])
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.0 200 OK\r\n\r\nhello")
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1000)

        thread = threading.Thread(target=serve)
        thread.start()
        for extra in ([], ["--interface", "127.0.0.1"]):
            says(run(RUN, "--from", "curl", "-sS", *extra, "http://127.0.0.1:7777/").stdout, "hello")
        thread.join()
        assert seen == [0, 0], seen


@needs_module
def test_from_keeps_a_port_of_its_own():
    with Echo(port=7777) as there:
        code = CALLS + """
for how in ('sendto', 'sendmsg', 'sendmmsg', 'connect'):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 5000)); s.settimeout(20)
    sender(s, how, b'hello', ('127.0.0.1', 7777)); receiver(s, how); print(port(s)); s.close()
s = socket.socket(); s.bind(('', 5000)); s.connect(('127.0.0.1', 7777)); s.send(b'x'); print(s.recv(9))
# A listening socket does not connect.
s = socket.socket(); s.bind(('', 0)); s.listen(); print(port(s))
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 0)); print(port(s))
s = socket.socket(socket.AF_UNIX); s.bind('')
"""
        said = python(code, "--from").stdout
        assert said == "5000\n" * 4 + "b'5000'\nephemeral\nephemeral\n", said
        assert there.peers == [5000] * 5


@needs_module
def test_from_keeps_the_device():
    code = PROLOGUE + """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b'lo'); s.bind(('127.0.0.1', 0))
s.connect(('127.0.0.1', 7777))
print(port(s), s.getsockname(), s.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 20))
"""
    assert python(code, "--from").stdout == r"literal ('127.0.0.1', 0) b'lo\x00'" + "\n"


@needs_module
def test_from_one_connection_per_4_tuple():
    with Echo(port=7777), Echo(port=7778):
        code = PROLOGUE + """
import errno
a, b, c = (socket.socket() for _ in range(3))
a.connect(('127.0.0.1', 7777)); b.connect(('127.0.0.1', 7778)); print(port(a), port(b))
for s in (c, socket.socket()): print(errno.errorcode[s.connect_ex(('127.0.0.1', 7777))])
for s in (a, b): s.send(b'x'); s.recv(9); s.recv(9)
u, v = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
u.connect(('127.0.0.1', 7777)); v.connect(('127.0.0.1', 7778)); print(port(u), port(v))
w = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
print(errno.errorcode[w.connect_ex(('127.0.0.1', 7777))]); w.close()
u.send(b'u'); v.send(b'v'); print(u.recv(9), v.recv(9)); u.close(); v.close()
u, v = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
u.sendto(b'u', ('127.0.0.1', 7777))
try: v.sendto(b'v', ('127.0.0.1', 7777))
except OSError as e: print(errno.errorcode[e.errno])
print(u.recv(9))
"""
        said = python(code, "--from")
        assert said.stdout == ("literal literal\n" + "EADDRNOTAVAIL\n" * 2 + "literal literal\n"
                               "EADDRNOTAVAIL\nb'U' b'V'\nEADDRINUSE\nb'U'\n"), said.stdout
        says(said.stderr, "one at a time", "another socket has it")
        assert said.stderr.count("one at a time") == 1, said.stderr


@needs_module
def test_from_without_ipv6():
    """EADDRNOTAVAIL then has nothing to do with port 0."""
    without = "ip link set lo up; sysctl -qw net.ipv6.conf.lo.disable_ipv6=1; exec \"$@\""
    code = """
import errno, socket
for kind in socket.SOCK_STREAM, socket.SOCK_DGRAM:
    print(errno.errorcode[socket.socket(socket.AF_INET6, kind).connect_ex(('::1', 7777))])
"""
    said = run("unshare", "-n", "sh", "-c", without, "sh", RUN, "--from", sys.executable, "-c", code)
    assert said.stdout == "EADDRNOTAVAIL\n" * 2 and not said.stderr, said


@needs_module
def test_from_in_threads():
    """Several threads send on one new socket at once: one of them binds it, none fails."""
    code = PROLOGUE + """
import errno, threading
def work():
    barrier.wait()
    try: s.sendto(b'x', ('127.0.0.1', 7777))
    except OSError as e: failed.append(errno.errorcode[e.errno])
failed, barrier = [], threading.Barrier(4)
for n in range(400):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if n % 2: s.bind(('127.0.0.1', 0))
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    if port(s) != 'literal': failed.append(port(s))
    s.close()
print(failed)
"""
    said = python(code, "--from")
    assert said.stdout == "[]\n" and not said.stderr, said


@needs_module
def test_from_without_right():
    code = PROLOGUE + "import errno\ns = socket.socket()\n" \
        "print(errno.errorcode[s.connect_ex(('127.0.0.1', 7777))], port(s))"
    with installed() as mine:
        said = run(*DROP, mine, "--from", sys.executable, "-c", code)
        assert said.stdout == "EACCES 0\n", said
        says(said.stderr, "leave from port 0", "CAP_NET_BIND_SERVICE")


@needs_module
def test_fast_open():
    """A call that connects and sends at once."""
    with open("/proc/sys/net/ipv4/tcp_fastopen", "w", encoding="ascii") as f:
        f.write("3")
    for option, port, peer in (("--from", 7777, "b'0' literal"), ("--to", 5201, "ephemeral")):
        for how in HOW[:2]:
            with Echo(port=0 if option == "--to" else 7777):
                code = CALLS + f"""
s = socket.socket()
if {how!r} == 'sendto': s.sendto(b'x', 0x20000000, ('127.0.0.1', {port}))
else: s.sendmsg([b'x'], [], 0x20000000, ('127.0.0.1', {port}))
print(s.recv(9), port(s), s.getpeername()); s.recv(9)
"""
                says(python(code, option, *([] if option == "--from" else ["5201"])).stdout, peer,
                     f"('127.0.0.1', {7777 if option == '--from' else 0})")


def test_to():
    """This works on a stock kernel, too, where no socket listens on port 0."""
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
    for options in (["--to", "8080", "--to", "1"], ["--to", "8070-8080"]):
        says(python(code, *options).stdout, "0100007F:0000")


@needs_module
def test_to_reaches_port_0():
    with socket.socket() as s:
        s.setsockopt(socket.SOL_IP, MARK, 1)
        s.bind(("127.0.0.1", 0))
        s.listen()
        says(python("import socket\nprint(socket.create_connection(('127.0.0.1', 5201), 20).getpeername())",
                    "--to", "5201").stdout, "('127.0.0.1', 0)")


@needs_module
def test_to_by_datagram():
    """To the program, the reply comes from the port that it has sent to."""
    for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with Echo(family), Echo(family, 7777):
            code = CALLS + f"""
for how in {HOW}:
    for port in (5353, 7777, 5354):
        s = socket.socket({int(family)}, socket.SOCK_DGRAM); s.settimeout(20)
        sender(s, how, b'hello', ({host!r}, port))
        print(how, port, receiver(s, how), *(s.getpeername()[1:2] if how == 'connect' else ()))
"""
            said = python(code, "--to", "5353-5354").stdout
            wanted = "".join(f"{how} {port} {port}{f' {port}' if how == 'connect' else ''}\n"
                             for how in HOW for port in (5353, 7777, 5354))
            assert said == wanted, said


@needs_module
def test_to_v4_mapped():
    """A connection of an IPv6 socket over IPv4, where the kernel sends as if by address."""
    with Echo():
        code = CALLS + """
for how in ('sendto', 'sendmsg', 'sendmmsg', 'connect'):
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(20)
    sender(s, how, b'hello', ('::ffff:127.0.0.1', 5353)); print(receiver(s, how))
"""
        assert python(code, "--to", "5353").stdout == "5353\n" * 4


def test_to_by_ipv4_address():
    """An IPv6 socket may also send to an IPv4 address; its peers are v4-mapped."""
    code = CALLS + """
import struct
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.settimeout(20); s.bind(('::', 9000))
hosts = ('127.0.0.1', 5353), ('127.0.0.2', 5354)
for host, number in hosts: libc.sendto(s.fileno(), b'x', 1, 0, packed(socket.AF_INET, host, number), 16)
# Without the module, nothing was sent; these are the replies nevertheless.
for host, _ in hosts:
    raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP); raw.bind((host, 0))
    raw.sendto(struct.pack('!HHHH', 0, 9000, 9, 0) + b'y', ('127.0.0.1', 0))
    print(*s.recvfrom(9)[1][:2])
"""
    said = python(code, "--to", "5353-5354").stdout
    assert said == "::ffff:127.0.0.1 5353\n::ffff:127.0.0.2 5354\n", said


def test_to_that_is_refused():
    """EACCES has more reasons than a security module."""
    code = "import socket; socket.socket(type=socket.SOCK_DGRAM).connect(('127.255.255.255', 5353))"
    says(python(code, "--to", "5353", status=1).stderr, "SO_BROADCAST", "a route", "Landlock")


@needs_module
def test_to_many_messages():
    """More messages than fit in one call, to several ports; the kernel refuses one of them."""
    with Echo(), Echo(port=7777):
        code = CALLS + """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(20)
data = [b'%d' % n for n in range(100)]
vec, keep = messages(100, packed(s.family, '127.0.0.1', 5353), data)
for n in range(1, 100, 2): ctypes.memmove(vec[n].hdr.name, packed(s.family, '127.0.0.1', 7777), 16)
assert libc.sendmmsg(s.fileno(), vec, 100, 0) == 100
assert [m.len for m in vec] == [len(d) for d in data]
got = sorted((int(d), p[1]) for d, p in (s.recvfrom(100) for _ in range(100)))
assert got == [(n, 7777 if n % 2 else 5353) for n in range(100)], got
vec[40].hdr.name = 1
assert libc.sendmmsg(s.fileno(), vec, 100, 0) == 40
assert libc.sendmmsg(s.fileno(), ctypes.byref(vec, 40 * ctypes.sizeof(Mmsghdr)), 60, 0) == -1
assert ctypes.get_errno() == errno.EFAULT
"""
        python(code, "--to", "5353")


def test_to_more_messages_than_it_sends_at_a_time():
    """All datagrams from port 0 that recvmmsg() returns get the port, however many it is given."""
    code = CALLS + """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('127.0.0.1', 0))
s.setsockopt(socket.SOL_SOCKET, 33, 1 << 24)	# SO_RCVBUFFORCE
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)
for n in range(1500): raw.sendto(struct.pack('!HHHH', 0, s.getsockname()[1], 9, 0) + b'x', s.getsockname())
vec, keep = messages(1500, bytes(28), None)
ports = []
while len(ports) < 1500:
    for n in range(1500): vec[n].hdr.namelen = 28
    got = libc.recvmmsg(s.fileno(), vec, 1500, 0x40, None)
    assert got > 0, os.strerror(ctypes.get_errno())
    ports += [int.from_bytes(bytes(keep[2 * n])[2:4], 'big') for n in range(got)]
print(len(ports), set(ports))
"""
    assert python("import struct" + code, "--to", "5353").stdout == "1500 {5353}\n"


@needs_module
def test_to_short_buffers():
    """If a program gives no buffer for the address, or a short one, no more is written."""
    with Echo():
        code = CALLS + """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for room, fill in ((r, f) for r in (0, 1, 2, 3, 4, 8, 15, 16, 100) for f in (b'\\xaa', b'\\0')):
    s.sendto(b'hello', ('127.0.0.1', 5353))
    addr, size = ctypes.create_string_buffer(fill * 128, 128), ctypes.c_uint(room)
    data = ctypes.create_string_buffer(100)
    assert libc.recvfrom(s.fileno(), data, 100, 0, addr, ctypes.byref(size)) == 5 and size.value == 16
    written = min(room, 16)
    assert addr.raw[written:] == fill * (128 - written), (room, addr.raw)
    assert addr.raw[:written] == packed(s.family, '127.0.0.1', 5353)[:written] or room < 4, (room, addr.raw)
s.sendto(b'hello', ('127.0.0.1', 5353))
assert libc.recvfrom(s.fileno(), data, 100, 0, None, None) == 5
s.connect(('127.0.0.1', 5353))
for room in (0, 3, 4, 16):
    addr, size = ctypes.create_string_buffer(b'\\xaa' * 128, 128), ctypes.c_uint(room)
    assert libc.getpeername(s.fileno(), addr, ctypes.byref(size)) == 0
    assert addr.raw[room:] == b'\\xaa' * (128 - room)
"""
        python(code, "--to", "5353")


def test_bad_pointers_in_messages():
    """The other calls with bad pointers return the same as without the library, or
    crash as there."""
    code = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(('127.0.0.1', 5354))
addr, data, fd = ctypes.create_string_buffer(128), ctypes.create_string_buffer(100), s.fileno()
for bad in (1, 2**64 - 1):
    where = ctypes.c_void_p(bad)
    for name, call in (('recvfrom', lambda: libc.recvfrom(fd, data, 100, 0x40, addr, where)),
                       ('getpeername', lambda: libc.getpeername(fd, addr, where)),
                       ('getsockname', lambda: libc.getsockname(fd, addr, where)),
                       ('recvmsg', lambda: libc.recvmsg(fd, where, 0x40)),
                       ('sendmsg', lambda: libc.sendmsg(fd, where, 0)),
                       ('sendmmsg', lambda: libc.sendmmsg(fd, where, 1, 0)),
                       ('recvmmsg', lambda: libc.recvmmsg(fd, where, 1, 0x40, None)),
                       ('sendto', lambda: libc.sendto(fd, data, 1, 0, where, 16))):
        if os.fork() == 0:
            done = call()
            os._exit(ctypes.get_errno() if done == -1 else 255)
        print(name, bad, os.wait()[1])
"""
    plain = run(sys.executable, "-c", code).stdout
    assert plain.count("\n") == 16, plain
    env = {**os.environ, "LD_PRELOAD": os.path.join(TOOLS, "libport0.so")}
    for settings in ({}, {"PORT0_CLIENT": "1"}, {"PORT0_TO": "5353"}):
        said = run(sys.executable, "-c", code, env={**env, **settings}).stdout
        assert said == plain, f"{settings}: {said}, without: {plain}"


def test_bad_pointers_and_a_filter():
    """Where a filter answers, the kernel has not looked at the address."""
    code = INHIBITED + """
s = socket.socket()
for call in 'connect', 'sendto': seccomp(call, errno.EADDRNOTAVAIL)
for bad in None, 1, 2**64 - 1:
    where = ctypes.c_void_p(bad)
    for result in (libc.connect(s.fileno(), where, 16),
                   libc.sendto(s.fileno(), b'x', 1, socket.MSG_FASTOPEN, where, 16)):
        print(result, errno.errorcode[ctypes.get_errno()])
"""
    env = {**os.environ, "LD_PRELOAD": os.path.join(TOOLS, "libport0.so"), "PORT0_FROM": "1"}
    said = run(sys.executable, "-c", code, env=env)
    assert said.stdout == "-1 EADDRNOTAVAIL\n" * 6 and not said.stderr, said


def test_errno_is_kept():
    """Calls that succeed do not change errno."""
    code = CALLS + """
a, b = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
b.bind(('127.0.0.1', 0)); a.connect(b.getsockname()); b.connect(a.getsockname())
addr, data, size = ctypes.create_string_buffer(128), ctypes.create_string_buffer(9), ctypes.c_uint(128)
vec, keep = messages(1, bytes(28), None)
vec[0].hdr.name, vec[0].hdr.namelen = None, 0
# one more than the library sends at a time; the last one cannot be sent
many, kept = messages(9, packed(a.family, *b.getsockname()), [b'x'] * 9)
many[8].hdr.name = 1
# A raw socket has no ports: it receives from port 0.
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, 253); raw.sendto(b'x', ('127.0.0.1', 0))
peek = 2
for call in (lambda: libc.sendto(a.fileno(), data, 9, 0, None, 0), lambda: libc.sendmsg(a.fileno(), vec, 0),
             lambda: libc.sendmmsg(a.fileno(), vec, 1, 0), lambda: libc.recvmsg(b.fileno(), vec, peek),
             lambda: libc.sendmmsg(a.fileno(), many, 9, 0),
             lambda: libc.recvfrom(b.fileno(), data, 9, peek, addr, ctypes.byref(size)),
             lambda: libc.recvfrom(raw.fileno(), data, 9, peek, addr, ctypes.byref(size)),
             lambda: libc.recvmmsg(b.fileno(), vec, 1, peek, None),
             lambda: libc.getpeername(b.fileno(), addr, ctypes.byref(size)),
             lambda: libc.getsockname(b.fileno(), addr, ctypes.byref(size)),
             lambda: libc.connect(b.fileno(), addr, size)):
    ctypes.set_errno(4711)
    assert call() >= 0
    print(ctypes.get_errno())
"""
    env = {**os.environ, "LD_PRELOAD": os.path.join(TOOLS, "libport0.so")}
    for settings in ({"PORT0_TO": "5353"}, {"PORT0_CLIENT": "1"}):
        assert run(sys.executable, "-c", code, env={**env, **settings}).stdout == "4711\n" * 11


@needs_module
def test_to_fortified_program():
    """If the compiler knows the size of the buffer, it calls another function (_FORTIFY_SOURCE)."""
    source = """
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
int main(int argc, char **argv)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(5353) };
	struct sockaddr_in from;
	socklen_t len = sizeof(from);
	char buf[64];
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	sendto(fd, "hello", 5, 0, (struct sockaddr *)&addr, sizeof(addr));
	if (argc == 2 && recvfrom(fd, buf, atoi(argv[1]), 0, (struct sockaddr *)&from, &len) == 5)
		printf("%d\\n", ntohs(from.sin_port));
	return 0;
}
"""
    with tempfile.TemporaryDirectory() as directory, Echo():
        program = os.path.join(directory, "program")
        run("cc", "-O2", "-U_FORTIFY_SOURCE", "-D_FORTIFY_SOURCE=2", "-x", "c", "-o", program, "-",
            input=source)
        with open(program, "rb") as f:
            assert b"__recvfrom_chk" in f.read()
        assert run(RUN, "--to", "5353", program, "60").stdout == "5353\n"


@needs_no_module
def test_to_in_a_later_message():
    """Of several messages on a connected socket only some may have an address."""
    code = CALLS + """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(('127.0.0.1', 7777))
vec, keep = messages(2, packed(s.family, '127.0.0.1', 5353), [b'a', b'b'])
vec[0].hdr.name, vec[0].hdr.namelen = None, 0
print(libc.sendmmsg(s.fileno(), vec, 2, 0))
"""
    with Echo(port=7777), Echo(port=5353) as wrong:
        said = python(code, "--to", "5353")
        assert said.stdout == "1\n" and not wrong.peers, said
        says(said.stderr, "modprobe port0")


@needs_no_module
def test_to_by_datagram_without_module():
    for how in HOW[:3]:
        code = CALLS + f"""
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
try: sender(s, {how!r}, b'hello', ('127.0.0.1', 5353))
except (OSError, AssertionError) as e: print(e)
"""
        said = python(code, "--to", "5353")
        says(said.stdout, os.strerror(errno.ENOPROTOOPT))
        says(said.stderr, "modprobe port0")


@needs_module
def test_first_bind_on_an_address():
    """Other sockets that bind to 0 get any free port, and a message is printed."""
    code = PROLOGUE + """
import subprocess, time
def again(what): return [sys.executable, '-uc', sys.orig_argv[-1].partition('# ' + 'what')[0] + what]
def make(family, kind, address, options, protocol=0):
    s = socket.socket(family, kind, protocol)
    for level, name in options: s.setsockopt(level, name, 1)
    s.bind((address, 0))
    if kind == socket.SOCK_STREAM: s.listen()
    os.write(1, f"{port(s)}\\n".encode()); return s	# in one piece, beside others
def tcp(address, *options): return make(socket.AF_INET, socket.SOCK_STREAM, address, options)
def tcp6(address, *options): return make(socket.AF_INET6, socket.SOCK_STREAM, address, options)
def udp(address, *options): return make(socket.AF_INET, socket.SOCK_DGRAM, address, options)
def udp6(address, *options): return make(socket.AF_INET6, socket.SOCK_DGRAM, address, options)
def lite(address): return make(socket.AF_INET, socket.SOCK_DGRAM, address, (), 136)
only6 = (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY)
share, reuse = ((socket.SOL_SOCKET, n) for n in (socket.SO_REUSEPORT, socket.SO_REUSEADDR))
# what
"""
    for what, wanted in {
            # FTP: data sockets, bound by any process
            "a = tcp(''); b = tcp('127.0.0.1'); c = tcp('')": "lee",
            "a = tcp('127.0.0.1'); b = tcp('127.0.0.1'); c = tcp('')": "lee",
            "a = tcp('')\nif os.fork() == 0: a.close(); tcp('127.0.0.1'); os._exit(0)\nos.wait()": "le",
            # both families, TCP and UDP, several addresses
            "a = tcp6('', only6); b = tcp('')": "ll",
            "a = tcp6(''); b = tcp('')": "le",
            "a = tcp(''); b = tcp6('::1')": "le",
            "a = tcp(''); b = udp('')": "ll",
            # UDP-Lite, which the module does not know
            "a = lite(''); b = udp('')": "el",
            "a = tcp('127.0.0.1'); b = tcp('127.0.0.2'); c = tcp6('::1')": "lll",
            # a group shares the port; workers that bind for themselves
            "a = tcp('', share); b = tcp('', share)": "ll",
            "for n in range(3):\n  if os.fork() == 0: tcp('', share); os.read(0, 1); os._exit(0)": "lll",
            # a server that opens its socket again, also in another process
            "a = tcp(''); a.close(); b = tcp('')": "ll",
            "if os.fork() == 0:\n  a = tcp(''); parent = os.getpid()\n  if os.fork() == 0:\n"
            "    while os.getppid() == parent: time.sleep(0.1)\n    a.close(); tcp('')\n"
            "  os._exit(0)\nos.wait()": "ll",
            # its parent has ended, but nobody has waited for it yet
            "r, w = os.pipe()\nif os.fork() == 0:\n  a = tcp(''); parent = os.getpid()\n"
            "  if os.fork() == 0:\n    while os.getppid() == parent: time.sleep(0.1)\n"
            "    a.close(); tcp('')\n  os._exit(0)\nos.close(w); os.read(r, 1); os.wait()": "ll",
            # a socket that gets another number
            "a = tcp(''); os.dup2(a.fileno(), 900); a.close(); b = tcp(''); os.close(900); c = tcp('')": "lel",
            "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))\n"
            "a = tcp(''); os.dup2(a.fileno(), 4000); a.close(); b = tcp('')": "le",
            # a helper, which is another program; a program that replaces itself
            "a = tcp(''); subprocess.run(again(\"tcp('')\"), check=True)": "le",
            "a = tcp(''); subprocess.run(again(\"udp('')\"), check=True)": "ll",
            "a = tcp6(''); subprocess.run(again(\"tcp('127.0.0.1')\"), check=True)": "le",
            "a = tcp('127.0.0.1'); subprocess.run(again(\"tcp('127.0.0.2')\"), check=True)": "ll",
            "a = tcp(''); subprocess.run(['unshare', '-pf', *again(\"tcp('')\")], check=True)": "le",
            "a = tcp(''); os.execv(sys.executable, again(\"tcp('')\"))": "ll",
            "a = tcp(''); os.set_inheritable(a.fileno(), True)\n"
            "os.execv(sys.executable, again(\"tcp(''); os.closerange(3, 99); tcp('')\"))": "lel",
            # a server that goes into the background, and what that starts
            **{"if os.fork() == 0:\n  a = tcp('')\n  if os.fork(): os._exit(0)\n  time.sleep(1)\n"
               f"  {start}\n  os._exit(0)\nos.wait(); os.read(0, 1)": "le"
               for start in ("if os.fork() == 0: a.close(); tcp('127.0.0.1'); os._exit(0)\n  os.wait()",
                             "subprocess.run(again(\"tcp('127.0.0.1')\"), check=True)",
                             # by vfork() in Python 3.13, too
                             "subprocess.run(again(\"tcp('127.0.0.1')\"), check=True, cwd='/')")},
            # TFTP, and a resolver that asks over IPv6 too
            "a = udp('', reuse); b = udp('', reuse)": "le",
            "a = udp('127.0.0.1'); b = udp(''); c = udp6('', only6)": "lee",
            # a client's socket that has an address and gets its port later
            "s = socket.socket(); s.setsockopt(0, 24, 1); s.bind(('127.0.0.1', 0))\n"
            "t = socket.create_server(('127.0.0.1', 7777)); s.connect(t.getsockname())\n"
            "print(port(s))": "e"}.items():
        reader, writer = os.pipe()
        child = subprocess.Popen([RUN, sys.executable, "-uc", code + what], text=True, stdin=reader,
                                 stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        os.close(reader)
        # If a line is missing, the others would wait for ever.
        end = threading.Timer(120, os.killpg, (child.pid, signal.SIGKILL))
        end.start()
        said = "".join(child.stdout.readline()[:1] for _ in wanted)
        end.cancel()
        os.close(writer)
        rest, complaint = child.communicate(timeout=60)
        assert said == wanted and not rest, f"{what}: {said}{rest}{complaint}"
        if "e" in wanted[1:]:
            says(complaint, "any free port", "--map 0")
            assert complaint.count("any free port") == 1
        else:
            assert not complaint, f"{what}: {complaint}"


@needs_module
def test_first_bind_on_another_address_fails():
    """A program that has port 0 elsewhere gets the error, and the reason is printed."""
    code = PROLOGUE + f"""
def attempt(host):
    try: return port(keep.append(socket.create_server((host, 0))) or keep[-1])
    except OSError as e: return os.strerror(e.errno)
keep = []
print(attempt('127.0.0.1'), attempt('127.0.0.2'), sep=', ')
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
print(attempt('127.0.0.3'))
"""
    with socket.socket() as s:
        s.setsockopt(socket.SOL_IP, MARK, 1)
        s.bind(("127.0.0.2", 0))
        said = python(code)
    assert said.stdout.splitlines() == [f"literal, {os.strerror(errno.EADDRINUSE)}",
                                        os.strerror(errno.EACCES)], said
    says(said.stderr, "another socket has it on this address", "has given it up before it binds")
    assert "this program has it" not in said.stderr, said.stderr


@needs_module
def test_first_bind_on_a_link_local_address():
    """The same address of two interfaces is two addresses."""
    for ends in ("v0", "v1"), ("v2", "v3"):
        run("ip", "link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for end in ends:
            run("ip", "link", "set", end, "up")
        run("ip", "address", "add", "fe80::1/64", "dev", ends[0], "nodad")
    code = PROLOGUE + """
keep = []
for device in 'v0', 'v2', 'v2':
    s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); keep.append(s)
    s.bind(socket.getaddrinfo('fe80::1%' + device, 0, type=s.type)[0][4]); print(port(s))
"""
    assert python(code).stdout.split() == ["literal", "literal", "ephemeral"]


@needs_module
def test_first_of_several_threads():
    code = PROLOGUE + """
import threading
barrier, keep = threading.Barrier(8), []
def work():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    barrier.wait(); s.bind(('', 0)); keep.append(s)
threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(sorted(port(s) for s in keep))
"""
    for _ in range(20):
        said = python(code)
        assert said.stdout == str(["ephemeral"] * 7 + ["literal"]) + "\n", said


@needs_module
def test_every_bind():
    """With --map 0, every bind to 0 is literal, or fails if another socket has port 0."""
    code = PROLOGUE + """
a = socket.socket(); a.bind(('', 0)); a.listen()
try: socket.socket().bind(('', 0))
except OSError as e: print(e.strerror)
"""
    assert python(code, "--map", "0").stdout == os.strerror(errno.EADDRINUSE) + "\n"
    with socket.socket() as s:
        s.setsockopt(socket.SOL_IP, MARK, 1)
        s.bind(("", 0))
        s.listen()
        says(python(bound(0), status=1).stderr, os.strerror(errno.EADDRINUSE), "another socket has it")


@needs_module
def test_range():
    for port in (8000, 8050, 8100):
        says(python(bound(port), "--map", "8000-8100").stdout, "literal")
    for port in (7999, 8101):
        says(python(bound(port), "--map", "8000-8100").stdout, str(port))
    says(python(bound(65535), "--map", "1-65535").stdout, "literal")


@needs_module
def test_many_ports():
    """Thousands of mapped ports, in any order, work like one."""
    for ports in (range(1, 65536, 2), range(25000, 0, -1), range(2, 50000, 3)):
        options = [word for port in ports for word in ("--map", str(port))]
        assert run(RUN, *options, "true", timeout=60).stdout == ""
        for port in (ports[0], ports[-1]):
            says(python(bound(port), *options).stdout, "literal")
        for port in (ports[0] + 1, ports[-1] + 1):
            if port not in ports and port < 65536:
                says(python(bound(port), *options).stdout, str(port) if port < 32768 else "ephemeral")


@needs_module
def test_nested():
    """A nested port0-run adds its options to those of the outer one, in any format."""
    code = "".join(f"""
s = socket.socket(); s.bind(('127.0.0.{n}', {port})); print(port(s))"""
                   for n, port in ((1, 80), (2, 81), (3, 0), (4, 82)))
    many = [word for port in range(1, 65536, 2) for word in ("--map", str(port))]
    for outer, inner, wanted in ((["--map", "80"], ["--map", "81"], "literal literal ephemeral 82"),
                                 (["--map", "80"], [], "literal 81 literal 82"),
                                 ([], ["--map", "80"], "literal 81 literal 82"),
                                 (many, ["--map", "80"], "literal literal ephemeral 82"),
                                 (["--map", "80"], many, "literal literal ephemeral 82"),
                                 (["--reply", "--map", "81"], ["--to", "82"], "80 literal ephemeral 82")):
        said = python(PROLOGUE + code, *outer, RUN, *inner)
        assert said.stdout.split() == wanted.split(), f"{outer[:4]} {inner[:4]}: {said}"
    with Echo():
        said = python("import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
                      "for port in (0, 53): s.sendto(b'hello', ('127.0.0.1', port)); print(s.recvfrom(9))",
                      "--to", "53", RUN, "--reply")
        assert said.stdout.count("HELLO") == 2, said


EMPTIED = PROLOGUE + f"""
import ctypes, subprocess
libc = ctypes.CDLL(None, use_errno=True)
binder, how = {BINDER!r}, sys.argv[1]
argv = [binder, 'plain', '8080']
text = [a.encode() for a in argv]
nothing = (ctypes.c_char_p * 1)(None)
vector = (ctypes.c_char_p * 4)(*text, None)
def cleared(): libc.clearenv(); libc.setenv(b'PATH', os.path.dirname(binder).encode(), 1)
if how == 'execve': os.execve(binder, argv, {{}})
if how == 'execve null': libc.execve(text[0], vector, None)
if how == 'own preload': os.execve(binder, argv, {{'LD_PRELOAD': '/lib/none.so'}})
if how == 'two preloads':
    twice = (ctypes.c_char_p * 3)(('LD_PRELOAD=' + os.environ['LD_PRELOAD']).encode(), b'LD_PRELOAD=/lib/none.so', None)
    libc.execve(text[0], vector, twice)
if how == 'only preload': os.execve(binder, argv, {{'LD_PRELOAD': os.environ['LD_PRELOAD']}})
if how == 'fexecve': os.execve(os.open(binder, os.O_RDONLY), argv, {{}})
if how == 'execveat': libc.execveat(-100, text[0], vector, nothing, 0)
if how == 'execveat fd': libc.execveat(os.open(binder, os.O_RDONLY), b'', vector, nothing, 0x1000)
if how == 'execle': libc.execle(text[0], *text, None, nothing)
if how == 'execvpe': os.environ['PATH'] = os.path.dirname(binder); libc.execvpe(b'binder', vector, nothing)
if how == 'posix_spawn': os.waitpid(os.posix_spawn(binder, argv, {{}}), 0); sys.exit()
if how == 'posix_spawnp': os.waitpid(os.posix_spawnp(binder, argv, {{}}), 0); sys.exit()
if how == 'subprocess': subprocess.run(argv, env={{}}); sys.exit()
if how == 'execv': cleared(); libc.execv(text[0], vector)
if how == 'execl': cleared(); libc.execl(text[0], *text, None)
if how == 'execlp': cleared(); libc.execlp(b'binder', *text, None)
if how == 'execvp': cleared(); libc.execvp(b'binder', vector)
if how in ('pidfd_spawn', 'pidfd_spawnp'):
    pidfd = ctypes.c_int()
    assert libc[how](ctypes.byref(pidfd), text[0], None, None, vector, nothing) == 0
    os.waitid(os.P_PIDFD, pidfd.value, os.WEXITED); sys.exit()
if how == 'system': cleared(); libc.system(' '.join(argv).encode()); sys.exit()
if how == 'wordexp':
    cleared(); result = (ctypes.c_void_p * 3)()
    assert libc.wordexp(f'$({{" ".join(argv)}})'.encode(), result, 0) == 0
    words = ctypes.cast(result[1], ctypes.POINTER(ctypes.c_char_p))
    print(words[0].decode(), words[1].decode()); sys.exit()
if how == 'popen':
    cleared(); libc.popen.restype = ctypes.c_void_p
    libc.pclose(ctypes.c_void_p(libc.popen(' '.join(argv).encode(), b'w'))); sys.exit()
sys.exit(f'{{how}} did not happen: {{os.strerror(ctypes.get_errno())}}')
"""


@needs_module
def test_environment_emptied_before_exec():
    """With an emptied environment, by every function that starts a program."""
    for how in ("execve", "execve null", "own preload", "only preload", "two preloads",
                "fexecve", "execveat", "execveat fd", "execle", "execvpe", "posix_spawn", "posix_spawnp",
                "subprocess", "execv", "execl", "execlp", "execvp", "system", "popen", "wordexp",
                "pidfd_spawn", "pidfd_spawnp"):
        if how.startswith("pidfd") and not hasattr(ctypes.CDLL(None), how):
            continue    # older than glibc 2.39
        said = run(RUN, "--map", "8080", sys.executable, "-c", EMPTIED, how)
        assert said.stdout == "0 1\n", f"{how}: {said}"
    said = run(RUN, "--map", "8080", "env", "-i", BINDER, "plain", "8080")
    assert said.stdout == "0 1\n", said
    for options, port in (([], "0"), (["--map", "1-9000"], "8080")):
        said = run(RUN, *options, "sh", "-c", 'env -i sh -c "env - $0 plain $1"', BINDER, port)
        assert said.stdout == "0 1\n", said


def test_several_preloads():
    """Of two, the dynamic linker uses the last one, and getenv() the first one."""
    code = """
import ctypes, os
own, other = 'LD_PRELOAD=' + os.environ['LD_PRELOAD'], 'LD_PRELOAD=/lib/none.so'
vector = lambda *texts: (ctypes.c_char_p * (len(texts) + 1))(*(t.encode() for t in texts), None)
for entries in (own, other), (other, own), (other, other), (own, own):
    if os.fork() == 0:
        # env starts the next program without any of them.
        ctypes.CDLL(None).execve(b'/usr/bin/env', vector('env', '-i', '/bin/sh', '-c', 'echo $PORT0_TO'),
                                 vector(*entries))
        os._exit(1)
    os.wait()
"""
    assert python(code, "--to", "7").stdout == "7\n" * 4


def test_system_in_threads():
    """Threads call system(), which changes the environment that they share."""
    source = """
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
static void *work(void *nothing)
{
	for (int n = 0; n < 100; n++) {
		if (n % 2 ? system("test $PORT0_TO = 1") : pclose(popen("test $PORT0_TO = 1", "w")))
			exit(1);
	}
	return nothing;
}
int main(void)
{
	pthread_t threads[4];

	clearenv();
	setenv("A", "b", 1);
	for (int n = 0; n < 4; n++)
		pthread_create(threads + n, NULL, work, NULL);
	for (int n = 0; n < 4; n++)
		pthread_join(threads[n], NULL);
	puts(getenv("A"));
	return 0;
}
"""
    with tempfile.TemporaryDirectory() as directory:
        program = os.path.join(directory, "program")
        run("cc", "-O2", "-pthread", "-x", "c", "-o", program, "-", input=source)
        assert run(RUN, "--to", "1", program).stdout == "b\n"


def test_small_stack():
    """A thread with the smallest stack may make these calls, and failing ones with a message."""
    source = """
#define _GNU_SOURCE
#include <limits.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
static char *const nothing[] = { NULL };
static void *work(void *program)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_port = htons(5353) };
	struct mmsghdr message = { .msg_hdr = { .msg_name = &addr, .msg_namelen = sizeof(addr) } };
	char *const argv[] = { program, NULL };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	sendmmsg(fd, &message, 1, 0);
	recvmmsg(fd, &message, 1, MSG_DONTWAIT, NULL);
	addr.sin_port = 0;
	bind(fd, (struct sockaddr *)&addr, sizeof(addr));
	if (!fork()) {
		execve(program, argv, nothing);
		_exit(1);
	}
	wait(NULL);
	return system("true") ? NULL : program;
}
int main(int argc, char **argv)
{
	pthread_attr_t attr;
	pthread_t thread;
	void *result = NULL;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, PTHREAD_STACK_MIN);
	if (argc == 2 && !pthread_create(&thread, &attr, work, argv[1]))
		pthread_join(thread, &result);
	return !result;
}
"""
    env = {**os.environ, "LD_PRELOAD": os.path.join(TOOLS, "libport0.so"), "PORT0_TO": "5353", "PORT0_MAP": "0"}
    with tempfile.TemporaryDirectory() as directory:
        program = os.path.join(directory, "program")
        run("cc", "-O2", "-pthread", "-x", "c", "-o", program, "-", input=source)
        done = run("sh", "-c", 'PORT0_STDERR=$(stat -L -c %d:%i /dev/fd/2) exec "$0" "$1"', program,
                   f"{BINDER}-static", env=env)
    says(done.stderr, "statically linked")


def test_no_new_cancellation_points():
    """A thread that is to be cancelled gets through exec() and bind(), as without the library."""
    source = """
#define _GNU_SOURCE
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
static char *const argv[] = { "true", NULL }, *const envp[] = { NULL };
static int how, done;
static void *work(void *nothing)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	int fd = how < 4 ? open("/bin/true", O_RDONLY) : socket(AF_INET, SOCK_STREAM, 0);
	pid_t pid;

	pthread_cancel(pthread_self());
	if (!how)
		execve("/bin/true", argv, envp);
	else if (how == 1)
		execvp("true", argv);
	else if (how == 2)
		fexecve(fd, argv, envp);
	else if (how == 3)
		posix_spawn(&pid, "/bin/true", NULL, NULL, argv, envp);
	else
		bind(fd, (struct sockaddr *)&addr, sizeof(addr));
	done = how > 2;
	return nothing;
}
int main(int argc, char **argv)
{
	pthread_t thread;

	how = argc > 1 ? atoi(argv[1]) : 0;
	pthread_create(&thread, NULL, work, NULL);
	pthread_join(thread, NULL);
	while (wait(NULL) > 0)
		;
	return !done;
}
"""
    env = {**os.environ, "LD_PRELOAD": os.path.join(TOOLS, "libport0.so"), "PORT0_MAP": "0"}
    # To say why it gets EPERM, the library reads files.
    refuse = INHIBITED + "seccomp('setsockopt', errno.EPERM); os.execv(sys.argv[1], sys.argv[1:])"
    with tempfile.TemporaryDirectory() as directory:
        program = os.path.join(directory, "program")
        run("cc", "-O2", "-pthread", "-x", "c", "-o", program, "-", input=source)
        for how in range(5):
            run(program, str(how), env=env)
        run(sys.executable, "-c", refuse, program, "4", env=env)


def test_stack_of_a_signal_handler():
    """A crash handler starts a debugger from the stack of sigaltstack(), which has 8192 bytes."""
    source = """
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
static char *program;
static int how;
static void on_signal(int number)
{
	char *const argv[] = { program, NULL }, *const envp[] = { "A=b", NULL };
	int status;

	(void)number;
	if (!fork()) {
		if (!how)
			execve(program, argv, envp);
		else if (how == 1)
			execvp(program, argv);
		else
			execl(program, program, NULL);
		_exit(1);
	}
	wait(&status);
	_exit(status ? 1 : 0);
}
int main(int argc, char **argv)
{
	/* The lower half cannot be written to. */
	char *memory = mmap(NULL, 2 * 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = SA_ONSTACK };
	stack_t stack = { .ss_sp = memory + 8192, .ss_size = 8192 };

	if (argc != 3 || memory == MAP_FAILED || mprotect(memory + 8192, 8192, PROT_READ | PROT_WRITE) ||
	    sigaltstack(&stack, NULL) || sigaction(SIGUSR1, &action, NULL))
		return 2;
	program = argv[1];
	how = atoi(argv[2]);
	raise(SIGUSR1);
	return 3;
}
"""
    with tempfile.TemporaryDirectory() as directory:
        program = os.path.join(directory, "program")
        run("cc", "-O2", "-x", "c", "-o", program, "-", input=source)
        for how in ("0", "1", "2"):
            for name in ("/bin/true", "true")[:1 + (how == "1")]:
                run(RUN, "--to", "1", program, name, how)


@needs_module
def test_what_is_set_in_an_environment_stays():
    said = python("import os; os.execve('/usr/bin/env', ['env'], {'A': '1', 'LD_PRELOAD': '', 'B': '2'})",
                  "--map", "80").stdout.splitlines()
    assert said[0] == "A=1" and said[1].startswith("LD_PRELOAD=/") and said[2] == "B=2", said
    assert "PORT0_MAP=80" in said, said


@needs_module
def test_successor():
    """As in an upgrade of nginx: inherited sockets are recognised by their ports."""
    code = PROLOGUE + """
def start(*arguments):
    code = os.environ['CODE']
    os.execve(sys.executable, [sys.executable, '-c', code, *arguments], {'CODE': code})
if len(sys.argv) == 1:
    sockets = []
    for family, kind, address, number in ((2, 1, '127.0.0.1', 8080), (2, 1, '127.0.0.2', 8081),
                                          (10, 1, '::1', 8080), (2, 2, '127.0.0.1', 8082),
                                          (2, 1, '127.0.0.1', 8090)):
        s = socket.socket(family, kind); s.bind((address, number))
        if kind == 1: s.listen()
        sockets.append(s)
    c = socket.create_connection(('127.0.0.1', 0)); sockets.append(sockets[0].accept()[0])
    for s in (c, *sockets): os.set_inheritable(s.fileno(), True)
    print(*(s.getsockname()[1] for s in sockets), flush=True)
    start('again', *(str(s.fileno()) for s in sockets))
sockets = [socket.socket(fileno=int(n)) for n in sys.argv[2:]]
print(*(s.getsockname()[1] for s in sockets), flush=True)
if sys.argv[1] == 'again':
    start('last', *sys.argv[2:])
"""
    said = python(code, "--map", "8080-8082", env={**os.environ, "CODE": code}).stdout
    names = "8080 8081 8080 8082 8090 0\n"
    assert said == "0 0 0 0 8090 0\n" + names * 2, said


@needs_module
def test_what_cannot_be_reached_is_said():
    """Started by COMMAND; port0-run itself would refuse to run it."""
    with tempfile.TemporaryDirectory() as directory, installed() as mine:
        os.chmod(directory, 0o755)
        program = shutil.copy(BINDER, os.path.join(directory, "setuid"))
        os.chmod(program, 0o4755)
        for how in ("$0 plain 8080; true", "exec $0 plain 8080", "env -i $0 plain 8080"):
            said = run(RUN, "--map", "8080", "sh", "-c", how, f"{BINDER}-static")
            says(said.stdout, "8080 0")
            says(said.stderr, "statically linked", f"{BINDER}-static")
            assert said.stderr.count("statically") == 1, said.stderr
        said = run(*DROP, mine, "--to", "8080", "sh", "-c", "$0 plain 8080; true", program)
        says(said.stderr, program, "setuid")
        # If root runs it, it is an ordinary program.
        said = run(RUN, "--map", "8080", program, "plain", "8080")
        assert said.stdout == "0 1\n" and not said.stderr, said
        # So it is with no_new_privs, where the set-user-ID bit has no effect.
        said = run("setpriv", "--no-new-privs", "--inh-caps=+net_bind_service",
                   "--ambient-caps=+net_bind_service", *DROP[1:], mine, "--map", "8080", program, "plain", "8080")
        assert said.stdout == "0 1\n" and not said.stderr, said


@needs_module
def test_root_given_up_before_the_bind():
    code = PROLOGUE + f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
how = sys.argv[1]
os.setgroups([]); os.setgid({NOBODY})
if how == 'setuid': os.setuid({NOBODY})
if how == 'setreuid': os.setreuid({NOBODY}, {NOBODY})
if how == 'setresuid': os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
if how == 'seteuid': os.seteuid({NOBODY})
status = dict(l.split(':', 1) for l in open('/proc/thread-self/status'))
s = socket.socket(); s.bind(('', 8080)); print(port(s), status['CapEff'].strip(), status['CapPrm'].strip())
if how == 'seteuid': os.seteuid(0); print('root again', port(s))
else:
    try: os.setuid(0)
    except PermissionError: print('for good')
"""
    right = "0000000000000400"
    with installed() as mine:
        for how in ("setuid", "setreuid", "setresuid", "seteuid"):
            said = run(mine, "--map", "8080", sys.executable, "-c", code, how, status=1)
            says(said.stderr, os.strerror(errno.EACCES), "has given it up before it binds", "--keep-right",
                 "setpriv", "--ambient-caps=+net_bind_service")
            said = run(mine, "--map", "8080", "--keep-right", sys.executable, "-c", code, how).stdout
            says(said, f"literal {right}", "root again literal" if how == "seteuid" else f"{right}\nfor good")


def test_program_that_keeps_its_own_rights():
    """With --keep-right, a program that keeps capabilities itself, as chronyd does,
    does not lose them."""
    code = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(8, 1, 0, 0, 0) == 0
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
status = dict(l.split(':', 1) for l in open('/proc/thread-self/status'))
print(status['CapEff'].strip(), status['CapPrm'].strip(), libc.prctl(7, 0, 0, 0, 0))
"""
    plain = run(sys.executable, "-c", code).stdout.split()
    said = python(code, "--to", "1", "--keep-right").stdout.split()
    assert plain[0] == "0" * 16 and said == ["0000000000000400", *plain[1:]], (plain, said)


def test_root_given_up_in_steps():
    """The right to bind survives each step, and nothing else survives the last one."""
    code = """
import os, sys
for ids in sys.argv[1:]: os.setresuid(*map(int, ids.split(',')))
status = dict(l.split(':', 1) for l in open('/proc/thread-self/status'))
print(*(status[name].strip() for name in ('CapEff', 'CapPrm', 'CapAmb')))
"""
    user = NOBODY
    for steps in ((f"{user},{user},{user}",), (f"-1,{user},-1", f"{user},{user},{user}"),
                  (f"{user},-1,-1", f"-1,{user},-1", f"-1,-1,{user}"),
                  (f"-1,{user},-1", "-1,0,-1", f"{user},{user},{user}"),
                  (f"-1,{user},{user}", f"{user},-1,-1")):
        said = run(RUN, "--to", "1", "--keep-right", sys.executable, "-c", code, *steps).stdout
        assert said == f"{1 << 10:016x} {1 << 10:016x} {0:016x}\n", f"{steps}: {said}"


def test_rights_that_cannot_be_dropped():
    """Where a filter denies capset(), a program that gives up root keeps nothing."""
    code = INHIBITED + f"""
seccomp('capset', errno.EPERM)
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
status = dict(l.split(':', 1) for l in open('/proc/thread-self/status'))
print(status['CapEff'].strip(), status['CapPrm'].strip())
"""
    said = python(code, "--to", "1", "--keep-right")
    assert said.stdout == f"{0:016x} {0:016x}\n", said
    says(said.stderr, "keep the right to bind port 0", "seccomp filter")


@contextlib.contextmanager
def control_group(program):
    """A control group whose members may not do what a BPF program refuses."""
    mount = tempfile.mkdtemp()
    run("mount", "-t", "cgroup2", "none", mount)
    group = os.path.join(mount, "port0-run")
    os.mkdir(group)
    libc = ctypes.CDLL(None, use_errno=True)

    def bpf(command, attr):
        buf = ctypes.create_string_buffer(attr.ljust(128, b"\0"))
        fd = libc.syscall(321 if os.uname().machine == "x86_64" else 280, command, buf, len(buf))
        assert fd >= 0, os.strerror(ctypes.get_errno())
        return fd

    code = b"\xb7\0\0\0\0\0\0\0" + b"\x95\0\0\0\0\0\0\0"    # return 0
    insns, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
    load = struct.pack("=IIQQ", 18, 2, ctypes.addressof(insns), ctypes.addressof(licence))
    fd = bpf(5, load.ljust(68, b"\0") + struct.pack("=I", program))
    def enter():
        with open(os.path.join(group, "cgroup.procs"), "w", encoding="ascii") as f:
            f.write(str(os.getpid()))

    directory = os.open(group, os.O_RDONLY)
    bpf(8, struct.pack("=IIII", directory, fd, program, 0))
    try:
        yield enter
    finally:
        os.close(directory)
        os.close(fd)
        # A process may be counted in its control group for a while after it has ended.
        wait_for(removed, group)
        run("umount", mount)
        os.rmdir(mount)


BIND4, CONNECT4, SENDMSG4 = 8, 10, 14
INHIBITED = PROLOGUE + """
import ctypes, errno, struct
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
X86 = os.uname().machine == 'x86_64'
CALL = {'connect': (42, 203), 'sendto': (44, 206), 'bind': (49, 200), 'setsockopt': (54, 208),
        'getsockopt': (55, 209), 'capset': (126, 91)}
def seccomp(call, answer):
    number = CALL[call][0 if X86 else 1]
    code = struct.pack('=' + 'HBBI' * 4, 0x20, 0, 0, 0, 0x15, 0, 1, number,
                       6, 0, 0, 0x50000 | answer, 6, 0, 0, 0x7fff0000)
    code = ctypes.create_string_buffer(code)
    prog = ctypes.create_string_buffer(struct.pack('=HxxxxxxQ', 4, ctypes.addressof(code)))
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.prctl(22, 2, ctypes.addressof(prog), 0, 0) == 0, os.strerror(ctypes.get_errno())
def landlock(*ports):
    rule = ctypes.create_string_buffer(struct.pack('=QQ', 0, 1))
    fd = libc.syscall(444, rule, 16, 0)
    if fd < 0: print('no Landlock for ports'); sys.exit()
    for number in ports:
        rule = ctypes.create_string_buffer(struct.pack('=QQ', 1, number))
        assert libc.syscall(445, fd, 2, rule, 0) == 0
    assert libc.prctl(38, 1, 0, 0, 0) == 0
    assert libc.syscall(446, fd, 0) == 0
def attempt(number, kind=socket.SOCK_STREAM):
    s = socket.socket(socket.AF_INET, kind)
    try: s.bind(('127.0.0.1', number)); print('bound')
    except OSError as e: print(errno.errorcode[e.errno])
"""


@needs_module
def test_who_has_refused():
    """EACCES and EPERM have many causes."""
    seen = "You allowed port 80? The kernel sees port 0"
    said = python(INHIBITED + "landlock(80); attempt(80)", "--map", "80")
    if "no Landlock" not in said.stdout:
        assert said.stdout == "EACCES\n", said
        says(said.stderr, "Landlock", "rule for port 0", seen)
        assert "no right" not in said.stderr and "--ambient-caps" not in said.stderr, said.stderr
        said = python(INHIBITED + f"landlock(0); os.setuid({NOBODY}); attempt(80)", "--map", "80")
        assert said.stdout == "EACCES\n" and "Landlock" not in said.stderr, said
        says(said.stderr, "no right to ports below 1024")
        assert python(INHIBITED + "landlock(0); attempt(80)", "--map", "80").stdout == "bound\n"
    with control_group(BIND4) as enter:
        for number, words in ((80, (seen,)), (0, ())):
            said = python(INHIBITED + f"attempt({number})", "--map", str(number), preexec_fn=enter)
            assert said.stdout == "EPERM\n", said
            says(said.stderr, "BPF program of its control group", "SocketBindDeny", *words)
            assert ("You allowed" in said.stderr) == bool(words), said.stderr
        said = run(RUN, "--listen", "127.0.0.1", "--fd", "true", status=125, preexec_fn=enter)
        says(said.stderr, "--listen 127.0.0.1", "SocketBindDeny")
    for answer in (errno.EPERM, errno.EACCES):
        said = python(INHIBITED + f"seccomp('bind', {answer}); attempt(80)", "--map", "80")
        assert said.stdout == errno.errorcode[answer] + "\n", said
        says(said.stderr, "seccomp filter denies bind()")
    with control_group(CONNECT4) as enter:
        said = python("import socket; print(socket.socket().connect_ex(('127.0.0.1', 22)))", "--to", "22",
                      preexec_fn=enter)
        assert said.stdout == f"{errno.EPERM}\n", said
        says(said.stderr, "control group", "sees port 0")


@needs_module
def test_administrator_forbids():
    """The parameters of the module; the errno is the same as from a BPF program."""
    def parameter(name, value):
        with open(f"/sys/module/port0/parameters/{name}", "w", encoding="ascii") as f:
            f.write(value)

    code = PROLOGUE + "print(flush=True)\ninput()\ns = socket.socket()\ntry: s.bind(('', 0))\nexcept OSError as e: print(e)"
    with subprocess.Popen([RUN, sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True) as child:
        child.stdout.readline()
        parameter("drain", "1")
        try:
            done = run(RUN, "true", status=125)
            out, problem = child.communicate("\n", 60)
        finally:
            parameter("drain", "0")
    says(done.stderr, "administrator", "drain")
    says(out, os.strerror(errno.EPERM))
    says(problem, "administrator", "drain")
    parameter("init_userns", "1")
    try:
        done = run("unshare", "--user", "--map-root-user", RUN, "true", status=125)
    finally:
        parameter("init_userns", "0")
    says(done.stderr, "administrator", "init_userns")


@needs_module
def test_sandbox_that_denies_the_options():
    """If marking fails, bind() fails: it never binds the mapped port or an ephemeral one."""
    for call in ("getsockopt", "setsockopt"):
        # A filter may also return success without doing it.
        for answer in (errno.EPERM, errno.EACCES, errno.ENOSYS, 0):
            for options, number in (([], 0), (["--map", "80"], 80), (["--map", "0"], 0)):
                said = python(INHIBITED + f"seccomp({call!r}, {answer}); attempt({number})", *options)
                wanted = errno.errorcode[answer or errno.EPERM]
                assert said.stdout == wanted + "\n", f"{call} {answer} {options}: {said}"
                says(said.stderr, "a seccomp filter: it has to allow them")
            said = python(INHIBITED + f"seccomp({call!r}, {answer}); attempt(81)", "--map", "80")
            assert said.stdout == "bound\n" and not said.stderr, said
            with Echo(port=7777) as there:
                said = python(INHIBITED + f"s = socket.socket()\nseccomp({call!r}, {answer})\n"
                              "print(s.connect_ex(('127.0.0.1', 7777)))", "--from")
                assert said.stdout == f"{answer or errno.EPERM}\n" and not there.peers, said
                says(said.stderr, "leave from port 0", "seccomp")
            said = python(INHIBITED + f"seccomp({call!r}, {answer})\n"
                          "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)", "--reply")
            says(said.stderr, "may send to port 0", "seccomp")


def test_listen_in_a_sandbox_that_pretends():
    """A filter returns success for every setsockopt(): no socket gets an ephemeral port."""
    for kind in ("tcp", "udp"):
        said = run(sys.executable, "-c", INHIBITED + "seccomp('setsockopt', 0); os.execv(sys.argv[1], sys.argv[1:])",
                   RUN, "--listen", f"{kind}:127.0.0.1", "--fd", "true", status=125).stderr
        says(said, f"--listen {kind}:127.0.0.1: ", "modprobe port0")


@needs_module
def test_without_proc():
    """As in a chroot."""
    def hide():
        libc = ctypes.CDLL(None)
        assert libc.unshare(0x20000) == 0
        assert libc.mount(b"none", b"/", None, 0x44000, None) == 0
        assert libc.umount2(b"/proc", 2) == 0

    for argv in ([RUN], [os.path.relpath(RUN)]):
        said = run(*argv, "--map", "8080", BINDER, "plain", "8080", preexec_fn=hide)
        assert said.stdout == "0 1\n", said
    says(run(RUN, f"{BINDER}-static", "plain", "0", status=126, preexec_fn=hide).stderr, "statically linked")
    said = run(RUN, "--listen", "127.0.0.1", "--fd", BINDER, "plain", "8080", preexec_fn=hide)
    assert said.stdout == "8080 0\n", said
    said = run(RUN, "sh", "-c", "env -i $0 plain 0", BINDER, preexec_fn=hide)
    assert said.stdout == "0 1\n", said


@needs_module
def test_link_local_address():
    for address in ("fe80::1", "udp:fe80::1", "tcp:[fe80::1]", "udp:ff02::1"):
        said = run(RUN, "--listen", address, "--fd", "true", status=125).stderr
        says(said, "name it", "%eth0")
    said = run(RUN, "--listen", "fe80::1%no-such", "--fd", "true", status=125).stderr
    says(said, "no interface no-such")
    run("ip", "link", "add", "veth-run", "type", "veth", "peer", "name", "veth-run2")
    run("ip", "address", "add", "fe80::77/64", "dev", "veth-run", "nodad")
    run("ip", "link", "set", "veth-run", "up")
    try:
        run(RUN, "--listen", "fe80::77%veth-run", "--fd", "true")
    finally:
        run("ip", "link", "del", "veth-run")


@needs_program("nginx")
def test_nginx_upgrade():
    """The new nginx starts with another environment and recognises the sockets by their ports."""
    with tempfile.TemporaryDirectory() as work:
        os.chmod(work, 0o755)
        conf, pid = os.path.join(work, "conf"), os.path.join(work, "pid")
        with open(conf, "w", encoding="ascii") as f:
            f.write(f"""
error_log {work}/log; pid {pid}; worker_processes 1; events {{ }}
http {{ access_log off; server {{ listen 127.0.0.1:80; listen 127.0.0.2:81; return 200 "hello"; }} }}
""")

        def number(path):
            with contextlib.suppress(FileNotFoundError, ValueError), open(path, encoding="ascii") as f:
                return int(f.read())
            return 0

        def gone(process):
            return not os.path.exists(f"/proc/{process}")

        # nginx starts the new program by the name that it was started with itself.
        run(RUN, "--map", "80-81", shutil.which("nginx"), "-c", conf)
        try:
            for _ in range(2):
                wait_for(number, pid)
                old = number(pid)
                os.kill(old, signal.SIGUSR2)
                # The new one writes its number once it has its sockets.
                wait_for(lambda: number(pid) not in (0, old))
                new = number(pid)
                with open(os.path.join(work, "log"), encoding="utf-8") as f:
                    log = f.read()
                assert not gone(new) and "emerg" not in log, log
                os.kill(old, signal.SIGQUIT)
                wait_for(gone, old)
                for host in ("127.0.0.1", "127.0.0.2"):
                    assert run("curl", "-sS", f"http://{host}:0/").stdout == "hello"
                assert not is_listening(80) and not is_listening(81, "127.0.0.2")
        finally:
            last = number(pid)
            os.kill(last, signal.SIGTERM)
            wait_for(gone, last)


@needs_program("sudo")
def test_sudo():
    with installed() as mine:
        shutil.copy(BINDER, os.path.dirname(mine))
        binder = os.path.join(os.path.dirname(mine), "binder")
        said = run(mine, "--map", "8080", "sudo", "-n", binder, "plain", "8080")
        assert said.stdout == "0 1\n", said
        said = run(mine, "--map", "8080", "sudo", "-n", "-u", f"#{NOBODY}", binder, "plain", "8080", status=1)
        assert said.stdout == "failed Permission denied\n", said
        says(said.stderr, "no right to ports below 1024")
        said = run(*DROP, mine, "sudo", "true", status=126)
        says(said.stderr, "sudo", "setuid", "--listen ADDR --fd")


@needs_program("memcached")
def test_memcached():
    """A server that gives up root before it binds."""
    argv = ["memcached", "-u", "nobody", "-l", "127.0.0.1", "-U", "11211"]
    said = run(RUN, "--map", "11211", *argv, status=71).stderr
    says(said, "has given it up before it binds", "--keep-right")
    with server(RUN, "--map", "11211", "--keep-right", *argv, ready=(is_listening, 0)):
        says(answer(b"version\r\nquit\r\n"), "VERSION")


@needs_program("chronyd")
def test_chronyd():
    """A client that checks the source of the reply."""
    with tempfile.TemporaryDirectory() as work:
        argv = []
        for name, text in (("server", "local stratum 1\nallow\nbindaddress 127.0.0.1\n"),
                           ("client", "server 127.0.0.1 iburst\n")):
            path = os.path.join(work, name)
            with open(path, "w", encoding="ascii") as f:
                f.write(f"{text}cmdport 0\nbindcmdaddress /\npidfile {path}.pid\ndriftfile {path}.drift\n")
            argv.append(["chronyd", "-x", "-u", "root", "-f", path])
        with server(RUN, "--reply", "--map", "123", *argv[0], "-d", ready=(is_listening, 0, "127.0.0.1", "udp")):
            said = run(RUN, "--to", "123", *argv[1], "-Q", "-t", "30")
            says(said.stdout + said.stderr, "System clock wrong by")


@needs_program("dig")
def test_dig():
    """A client that binds its socket to 0 first."""
    seen = []

    def reply(query):
        return query[:2] + b"\x84\x03" + query[4:6] + bytes(6) + query[12:query.index(b"\0", 12) + 5]

    def udp(s):
        query, peer = s.recvfrom(1000)
        seen.append(peer[1])
        s.sendto(reply(query), peer)

    def tcp(s):
        connection, peer = s.accept()
        with connection:
            seen.append(peer[1])
            said = reply(connection.recv(1000)[2:])
            connection.sendall(len(said).to_bytes(2, "big") + said)
            connection.recv(1000)

    for kind, work, extra in ((socket.SOCK_DGRAM, udp, []), (socket.SOCK_STREAM, tcp, ["+tcp"]),
                              (socket.SOCK_DGRAM, udp, ["-b", "127.0.0.1"])):
        with socket.socket(socket.AF_INET, kind) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.setsockopt(socket.SOL_IP, MARK, 1)
            s.bind(("127.0.0.1", 5353))
            if kind == socket.SOCK_STREAM:
                s.listen()
            thread = threading.Thread(target=work, args=(s,), daemon=True)
            thread.start()
            said = run(RUN, "--from", "dig", "@127.0.0.1", "-p", "5353", "+tries=1", "+time=20", "+noedns",
                       *extra, "port0.example")
            says(said.stdout, "NXDOMAIN")
            assert not said.stderr, said.stderr
            thread.join(30)
    assert seen == [0] * 3, seen


@needs_program("socat")
def test_socat():
    """A client that closes its socket and binds a new one to 0 for every datagram."""
    with server(RUN, "socat", "UDP4-RECVFROM:0,fork", "EXEC:cat", ready=(is_listening, 0, "0.0.0.0", "udp")):
        for n in range(10):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.settimeout(5)
                s.connect(("127.0.0.1", 0))
                for _ in range(5):
                    # Repeated, since there may be no socket at that moment.
                    with contextlib.suppress(TimeoutError, ConnectionRefusedError):
                        s.send(b"%d" % n)
                        assert s.recv(100) == b"%d" % n
                        break
                    time.sleep(1)
                else:
                    raise AssertionError(f"no answer to datagram {n}")


@needs_program("pyftpdlib")
def test_ftp():
    """Passive data connections have ports of their own."""
    with tempfile.TemporaryDirectory() as work:
        with open(os.path.join(work, "file"), "w", encoding="ascii") as f:
            f.write("hello\n")
        os.chmod(work, 0o755)
        argv = [sys.executable, "-m", "pyftpdlib", "-i", "127.0.0.1", "-p", "0", "-d", work]
        with server(RUN, *argv, ready=(is_listening, 0)):
            ftp = ftplib.FTP(timeout=60)
            # ftplib's connect() takes port 0 for no port.
            ftp.port = 0
            ftp.connect("127.0.0.1")
            ftp.login()
            for _ in range(3):
                lines = []
                ftp.retrlines("RETR file", lines.append)
                assert lines == ["hello"], lines
            ftp.quit()


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
    """The sockets get the descriptors from 3 on, even if these were in use."""
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
    """The answer of a server on port 0, as soon as it listens."""
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


def own_network():
    """A new network namespace: a TIME_WAIT of one test cannot disturb the next one."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x40000000):
        sys.exit(f"run.py: no network namespace: {os.strerror(ctypes.get_errno())}")
    run("ip", "link", "set", "lo", "up")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="tests to run, by how their names begin (default: all)")
    names = tuple(parser.parse_args().names)
    if os.geteuid():
        sys.exit("run.py: needs root, for a network namespace of its own")
    chosen = [name[5:] for name in globals()
              if name.startswith("test_") and name[5:].startswith(names)] if names else ()
    if names and not chosen:
        sys.exit(f"run.py: no test's name begins with {' or '.join(names)}")
    return run_tests(globals(), chosen, before=own_network)


if __name__ == "__main__":
    sys.exit(main())

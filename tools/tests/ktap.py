# SPDX-License-Identifier: GPL-2.0
"""Run a module's test_ functions; KTAP on stdout."""

import importlib.util
import shutil
import socket
import subprocess
import time

MARK, BOUND = 0x7030, 0x7031


def loaded():
    """Whether the kernel module is loaded."""
    with socket.socket() as s:
        try:
            s.setsockopt(socket.SOL_IP, MARK, 1)
        except OSError:
            return False
    return True


def needs_module(test):
    test.needs = "module"
    return test


def needs_no_module(test):
    test.needs = "no module"
    return test


def needs_program(name):
    """Decorator: the test also needs a program, or a Python module, of that name."""
    def mark(test):
        test.program = name
        return needs_module(test)
    return mark


def missing(test):
    """What a test needs and this machine does not have; empty if it can run."""
    needs, program = getattr(test, "needs", ""), getattr(test, "program", "")
    if needs and needs != ("module" if loaded() else "no module"):
        return needs
    if program and not (shutil.which(program) or importlib.util.find_spec(program)):
        return program
    return ""


def run_command(*argv, status=0, timeout=600, **kwargs):
    """Run a command to its end and check its exit status; None allows any."""
    done = subprocess.run(argv, text=True, errors="replace", capture_output=True, timeout=timeout,
                          check=False, **kwargs)
    assert status in (None, done.returncode), \
        f"{argv[:6]}: exit {done.returncode}: {(done.stdout + done.stderr)[-800:]}"
    return done


def wait_for(condition, what, seconds=60):
    """Wait until the condition is true."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, what
        time.sleep(0.2)


def run_tests(namespace, wanted=(), always=(), before=lambda: None):
    """Run those named in @wanted, or all, each after @before; returns an exit status."""
    tests = [(name[5:], test) for name, test in namespace.items() if name.startswith("test_")]
    unknown = set(wanted) - {name for name, _ in tests}
    if unknown:
        print(f"no test is called {', '.join(sorted(unknown))}")
        return 2
    tests = [(n, t) for n, t in tests if not wanted or n in wanted or n in always]
    print(f"TAP version 13\n1..{len(tests)}")
    failed = 0
    for number, (name, test) in enumerate(tests, 1):
        needs = missing(test)
        if needs:
            print(f"ok {number} {name} # SKIP needs {needs}", flush=True)
            continue
        try:
            before()
            test()
            print(f"ok {number} {name}", flush=True)
        except Exception as problem:  # pylint: disable=broad-except
            failed += 1
            for line in f"{type(problem).__name__}: {problem}".splitlines():
                print(f"# {line}")
            print(f"not ok {number} {name}", flush=True)
    return int(failed > 0)

# SPDX-License-Identifier: GPL-2.0
"""Shared by the commands in scripts/: paths, errors, privileges and packages."""

import contextlib
import errno
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
SCRIPTS = os.path.join(TOP, "scripts")
BUILD = os.path.join(TOP, "build")
CACHE = os.path.realpath(os.environ.get("PORT0_CACHE") or os.path.join(BUILD, "cache"))

MACHINES = ("amd64", "arm64")

# What is made here is used by others: by apt's own user in a root, by the users in a guest.
os.umask(0o022)

# chroot and others are here, which is not in the PATH of an ordinary user on Debian.
os.environ["PATH"] = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"


class Failure(Exception):
    """Ends a command with one line for the user and an exit status."""

    def __init__(self, text, status=1):
        super().__init__(text)
        self.status = status


def say(text):
    sys.stdout.flush()
    print(f"{os.path.basename(sys.argv[0])}: {text}", file=sys.stderr, flush=True)


def native():
    """This machine's architecture, by Debian's name."""
    machine = os.uname().machine
    try:
        return {"x86_64": "amd64", "aarch64": "arm64"}[machine]
    except KeyError:
        raise Failure(f"this machine is a {machine}: use one that is "
                      + " or ".join(MACHINES)) from None


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


@contextlib.contextmanager
def lock(path, what):
    """Hold a lock; tell the user if this has to wait for it."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="ascii") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that makes {what}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


# Set if the command runs as root of its own user namespace only
UNPRIVILEGED = "PORT0_UNPRIVILEGED"
NAMESPACE = ["setpriv", "--pdeathsig", "KILL", "unshare", "--user", "--map-root-user",
             "--map-auto", "--mount", "--pid", "--fork", "--kill-child"]


def become_root():
    """Run again as root of a new user namespace, if this machine allows that."""
    if os.getuid() == 0:
        return
    try:
        done = subprocess.run([*NAMESPACE, "true"], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True, check=False)
        why = done.stderr.strip()
    except FileNotFoundError:
        done, why = None, "no unshare"
    if done and not done.returncode:
        sys.exit(run_as_root())
    need_root.why = why.splitlines()[-1] if why else ""


def run_as_root():
    """Run this command in a namespace where it is root; returns its status."""
    def pass_on(number, _):
        # unshare keeps SIGTERM from itself, and does not pass it on.
        with contextlib.suppress(OSError):
            for pid in read(f"/proc/{child.pid}/task/{child.pid}/children").split():
                os.kill(int(pid), number)

    child = subprocess.Popen([*NAMESPACE, sys.executable, *sys.argv],
                             env={**os.environ, UNPRIVILEGED: "1"})
    on_signals(pass_on, signal.SIGTERM, signal.SIGHUP)
    # The terminal sends this one to both.
    on_signals(lambda *_: None, signal.SIGINT)
    status = child.wait()
    return status if status >= 0 else 128 - status


def need_root(what):
    if os.getuid():
        raise Failure(f"{what} needs root, or user namespaces ({need_root.why}): run it with sudo, "
                      "or install uidmap and have your user in /etc/subuid and /etc/subgid")


need_root.why = ""


APT_LOCKS = ("/var/lib/apt/lists/lock", "/var/lib/dpkg/lock-frontend", "/var/lib/dpkg/lock",
             "/var/cache/apt/archives/lock")
APT_PATIENCE = 600


def apt_is_busy():
    for path in APT_LOCKS:
        try:
            with open(path, "r+b") as file:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            pass
        except OSError:
            return True
    return False


def may_install():
    return not (os.getuid() or os.environ.get(UNPRIVILEGED)) and bool(shutil.which("apt-get"))


def need(wanted):
    """Make sure that this machine has commands and files, {name: package}: install what
    is missing if this is root, else fail with one line that names the packages."""
    missing = sorted({package for name, package in wanted.items()
                      if not os.path.exists(name) and not shutil.which(name)})
    if not missing:
        return
    if not may_install():
        raise Failure(f"this machine lacks: {' '.join(missing)} (on Debian and Ubuntu: "
                      f"sudo apt-get install {' '.join(missing)})")
    say(f"installing {' '.join(missing)}")
    deadline = time.monotonic() + APT_PATIENCE
    if apt_is_busy():
        say("waiting for another program that uses apt")
        while apt_is_busy() and time.monotonic() < deadline:
            time.sleep(2)
    options = ["-qq", "-o", f"DPkg::Lock::Timeout={APT_PATIENCE}"]
    for command in (["update"], ["install", "--no-install-recommends", "-y", *missing]):
        done = subprocess.run(["apt-get", *options, *command], stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
                              check=False)
    if done.returncode:
        for line in done.stdout.splitlines()[-5:]:
            say(f"  {line}")
        raise Failure(f"apt-get could not install {' '.join(missing)}: install them by hand "
                      "and try again")


def on_signals(handler, *numbers):
    """Handle these signals, except those that are ignored, as by nohup."""
    for number in numbers:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def call(argv, **kwargs):
    """Run a command. If this one is interrupted, end that with a signal on which it removes
    what it has made; subprocess.run() would kill it."""
    with subprocess.Popen(argv, **kwargs) as child:
        try:
            out, _ = child.communicate()
        except BaseException:
            child.terminate()
            raise
    return subprocess.CompletedProcess(argv, child.returncode, out)


# What to do about errors of this machine
ADVICE = {
    errno.EACCES: "if root has made it, remove it as root ('sudo make distclean' removes all)",
    errno.ENOSPC: "make room, or let PORT0_CACHE name a directory on another disk",
}


def explained(error):
    """An error, and what to do about it if that is known."""
    advice = ADVICE.get(getattr(error, "errno", None))
    return f"{error}: {advice}" if advice else f"{error}"


def run_command(main):
    """Run a command's main() and exit with its status."""
    if not {"--help", "-h"} & set(sys.argv[1:]):
        become_root()

    def leave(number, _):
        # sys.exit() runs the clean-up code of what is running. A second signal must not
        # interrupt that: timeout(1) sends two.
        on_signals(signal.SIG_IGN, signal.SIGTERM, signal.SIGHUP)
        sys.exit(128 + number)

    on_signals(leave, signal.SIGTERM, signal.SIGHUP)
    try:
        sys.exit(main(sys.argv[1:]))
    except Failure as failure:
        say(failure)
        sys.exit(failure.status)
    except OSError as error:
        if error.errno not in ADVICE:
            raise
        say(explained(error))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)

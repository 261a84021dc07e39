# SPDX-License-Identifier: GPL-2.0
"""Checks, before any work is done, that this machine has the programs to run guests."""

import os
import shutil
import subprocess

from . import UNPRIVILEGED, may_install, need
from .root import KEYRING

QEMU = {"amd64": ("qemu-system-x86_64", "qemu-system-x86"),
        "arm64": ("qemu-system-aarch64", "qemu-system-arm")}
# Older releases have it in a package of QEMU, newer ones in a package of its own.
VIRTIOFSD = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd")


def virtiofsd():
    """The path of virtiofsd, or where it would be installed."""
    return next((path for path in VIRTIOFSD if os.access(path, os.X_OK)), VIRTIOFSD[0])


def own_run():
    """The words before virtiofsd's command. It writes to /run, which only real root can
    do, so in a user namespace it gets a /run of its own."""
    if not os.environ.get(UNPRIVILEGED):
        return []
    return ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs run /run; exec "$0" "$@"']


def succeeds(*argv):
    return subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False).returncode == 0


def virtiofsd_package():
    """The package that has virtiofsd. A machine whose apt has no lists yet, such as a
    container, knows none of the packages: get the lists first."""
    if not shutil.which("apt-cache"):
        return "virtiofsd"
    if may_install() and not succeeds("apt-cache", "show", "qemu-system-common"):
        subprocess.run(["apt-get", "-qq", "update"], stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, check=False)
    return "virtiofsd" if succeeds("apt-cache", "show", "virtiofsd") else "qemu-system-common"


def for_guests(targets):
    """Make sure that this machine has what the guests of these suites need."""
    wanted = {"mmdebstrap": "mmdebstrap", "gpg": "gpg", "setpriv": "util-linux",
              "unshare": "util-linux", KEYRING: "debian-archive-keyring"}
    wanted.update(QEMU[target.machine] for target in targets)
    if not os.path.exists(virtiofsd()):
        wanted[virtiofsd()] = virtiofsd_package()
    need(wanted)

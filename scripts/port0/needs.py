# SPDX-License-Identifier: GPL-2.0
"""What this machine must have to run guests: found before any work is done."""

import os
import subprocess

from . import UNPRIVILEGED, need
from .root import KEYRING

QEMU = {"amd64": ("qemu-system-x86_64", "qemu-system-x86"),
        "arm64": ("qemu-system-aarch64", "qemu-system-arm")}
# Older releases ship it inside QEMU's packages, newer by itself.
VIRTIOFSD = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd")


def virtiofsd():
    """Where it is, or would be."""
    return next((path for path in VIRTIOFSD if os.access(path, os.X_OK)), VIRTIOFSD[0])


def own_run():
    """What to start it by: as no true root it cannot write in /run, where it must."""
    if not os.environ.get(UNPRIVILEGED):
        return []
    return ["unshare", "--mount", "sh", "-ec", 'mount -t tmpfs run /run; exec "$0" "$@"']


def virtiofsd_package():
    known = subprocess.run(["apt-cache", "show", "virtiofsd"], stdout=subprocess.DEVNULL,
                           stderr=subprocess.DEVNULL, check=False).returncode == 0
    return "virtiofsd" if known else "qemu-system-common"


def for_guests(targets):
    """Have all that the guests of these suites take."""
    wanted = {"mmdebstrap": "mmdebstrap", "gpg": "gpg", "setpriv": "util-linux",
              "unshare": "util-linux", KEYRING: "debian-archive-keyring"}
    wanted.update(QEMU[target.machine] for target in targets)
    if not os.path.exists(virtiofsd()):
        wanted[virtiofsd()] = virtiofsd_package()
    need(wanted)

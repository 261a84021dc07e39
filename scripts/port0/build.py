# SPDX-License-Identifier: GPL-2.0
"""Compiling for a suite's kernel, inside the suite's root."""

import os
import re
import shutil
import subprocess

from . import BUILD, TOP, Failure, lock, native, need_root, read, say
from .inside import inside
from .kernel import MAKE

SELFTESTS = "/usr/src/kselftest/tools/testing/selftests"
SOURCE = "/usr/src/port0"

# What can be built: (sources, where they are compiled in the root, what is returned). The
# files in debian/ name what the packages need, so these get the whole tree.
WHATS = {
    "module": (["Kbuild", "Makefile", "module"], SOURCE, "port0.ko"),
    "selftests": (["selftests/"], f"{SELFTESTS}/net/port0", ""),
    "kselftest": (["selftests/"], SOURCE, "installed"),
    "tools": (["module", "tools"], SOURCE, "tools"),
    "deb": (["--exclude=/.git", "./"], SOURCE, ""),
}

# Warnings that are ignored: Debian may update the compiler after it has built the
# kernel, and libc6 of arm64 has a diversion.
NO_FAULT = re.compile("the compiler differs from the one used to build the kernel"
                      "|dpkg-shlibdeps: warning: diversions involved")

DEB = """\
cd "$0/source"
dpkg-buildpackage -us -uc -b "--host-arch=$2"
${1:+lintian --fail-on error,warning,info --allow-root ../*.changes}
rm -r ../source
"""


def compile_in(root, name, what, dest, check, extra, llvm=False):
    """The commands that compile, in the root."""
    sources, place, _ = WHATS[what]
    machine = read(os.path.join(root, "machine")).strip()
    kdir = f"KDIR=/lib/modules/{read(os.path.join(root, 'release')).strip()}/build"
    jobs = f"-j{os.cpu_count()}"
    cross = MAKE[machine]["CROSS_COMPILE"] if machine != native() else ""
    # Debian's headers know their architecture; other trees need ARCH and CROSS_COMPILE.
    told = [f"{key}={value}" for key, value in MAKE[machine].items()] if cross else []
    if llvm:
        told.append("LLVM=1")
    # A copy of the kernel tree, which this build may write to
    kernel_tree = f"{place}/tree/tools/testing/selftests"
    to = place + {
        "deb": "/source", "kselftest": "/tree/tools/testing/selftests/net/port0"}.get(what, "")
    # The .gitignore files leave out objects that were built in the source directories; the
    # filter does not find the one at the top. A file that differs gets the time of the
    # copy: one that was put back may be older than the objects that were made from another
    # version of it.
    copy = ["sh", "-euc", 'to=$0; cd /mnt; '
            '[ ! -e .gitignore ] || set -- --exclude-from=.gitignore "$@"; '
            'exec rsync -a --no-times --checksum --filter=":- .gitignore" "$@" "$to"',
            to, *sources]
    steps, env = [copy], {}
    if what == "kselftest":
        steps.insert(0, ["cp", "-a", "/usr/src/kselftest", f"{place}/tree"])
    if what == "module":
        # C=1 alone does not work: newer headers test for sparse with a script that
        # Debian does not ship, and then skip it. KBUILD_CHECKSRC=1 is not tested.
        checks = ["W=1", "C=1", "KBUILD_CHECKSRC=1",
                  "CHECK=/mnt/scripts/port0/sparse"] if check else []
        make = ["make", "-C", place, jobs, kdir, *told, *checks, *extra]
    elif what == "selftests":
        make = ["make", "-C", place, jobs, f"KSELFTEST_DIR={SELFTESTS}", kdir, *told,
                "USERCFLAGS=-I/mnt/module/uapi", *extra]
    elif what == "kselftest":
        # The test modules are built for the suite's own kernel only.
        modules = [] if extra else [kdir]
        make = ["make", "-C", kernel_tree, jobs, "TARGETS=net/port0", "W=1",
                f"KSFT_INSTALL_PATH={place}/installed", *told, *modules, *extra, "install"]
    elif what == "tools":
        cc = [f"CC={cross}gcc"] if cross else []
        make = ["make", "-C", f"{place}/tools", jobs, *cc, "all", "tests", *extra]
    else:
        if cross:
            env = {"CC": f"{cross}gcc", "DEB_BUILD_OPTIONS": "nocheck"}
        make = ["sh", "-euc", DEB, place, "1" if check else "", machine]
    for argv in (*steps, make):
        yield inside(os.path.join(root, "tree"), argv, env=env,
                     binds=[(TOP, "/mnt", "ro"), (dest, place)])


def build(name, root, what, check=False, extra=(), llvm=False):
    """Compile in a suite's root; returns the path of what was made."""
    need_root(f"building in the {name} root")
    dest = os.path.join(BUILD, name, what)
    log = os.path.join(BUILD, "logs", f"{name}-build-{what}.log")
    note = os.path.join(BUILD, name, f"{what}.root")
    image = os.stat(os.path.join(root, "root.erofs"))
    used = f"{root} {image.st_ino} {image.st_mtime_ns}\n"
    os.makedirs(os.path.dirname(log), exist_ok=True)
    # Only one run at a time may build in this directory.
    with lock(os.path.join(BUILD, name, "lock"), f"the {what} for {name}"):
        # The files of another root may be older than the objects and differ all the same.
        if (check or what in ("deb", "kselftest") or not os.path.exists(note)
                or read(note) != used):
            shutil.rmtree(dest, ignore_errors=True)
            with open(note, "w", encoding="utf-8") as file:
                file.write(used)
        os.makedirs(os.path.join(dest, "source") if what == "deb" else dest, exist_ok=True)
        with open(log, "w", encoding="utf-8") as out:
            for argv in compile_in(root, name, what, dest, check, extra, llvm):
                status = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                        check=False).returncode
                if status:
                    break
        lines = read(log).splitlines()
        if status:
            errors = [line for line in lines if re.search(r"error|\*\*\*", line)]
            for line in errors[:20] or lines[-20:]:
                say(f"  {line}")
            raise Failure(f"the {what} for {name} did not build; log: {log}")
        warnings = [line for line in lines
                    if "warning" in line.lower() and not NO_FAULT.search(line)]
        if check and warnings:
            for line in warnings[:20]:
                say(f"  {line}")
            raise Failure(f"the {what} for {name} builds with warnings; log: {log}")
    return os.path.join(dest, WHATS[what][2]).rstrip("/")

# SPDX-License-Identifier: GPL-2.0
"""Debian roots: the file systems that guests boot and in which their code is compiled."""

import collections
import contextlib
import hashlib
import os
import re
import shlex
import shutil
import subprocess
import tempfile
import time

from . import CACHE, SCRIPTS, Failure, lock, native, need, need_root, read, say
from .inside import inside
from .suites import MAY_BE_ABSENT, FLAVOURS

STEPS = [os.path.join(SCRIPTS, "port0", name) for name in ("linux-source", "root-steps")]
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
UNUSED_DAYS = 14
# No longer supported by Debian: their archives of updates are not complete.
ENDED = ("bullseye",)

# Cross compilers. CROSS_32: the compiler for 32-bit programs where the 64-bit one has
# no -m32.
CROSS = {"amd64": ["crossbuild-essential-amd64"], "arm64": ["crossbuild-essential-arm64"]}
CROSS_32 = {"amd64": [], "arm64": ["gcc-arm-linux-gnueabihf"]}


class Absent(Failure):
    """Debian has no such kernel now."""


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def archive(label):
    """The address from which this machine's own apt gets packages of a Debian archive."""
    try:
        said = subprocess.run(
            ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(CREATED_BY)|$(REPO_URI)"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False).stdout
    except FileNotFoundError:
        said = ""
    found = collections.Counter(uri for uri in re.findall(
        rf"^Debian\|{label}\|Packages\|(.*)", said, re.M) if not uri.startswith("cdrom:"))
    return plain(found.most_common(1)[0][0]) if found else ""


def plain(uri):
    """The address itself. Debian's images for clouds have the name of a file of this machine,
    which lists mirrors; it is not in a root."""
    match = re.fullmatch(r"mirror\+file:/*(/.*?)/*", uri)
    if not match:
        return uri
    mirrors = [line.split()[0] for line in read(match[1]).splitlines()
               if line.strip() and not line.startswith("#")]
    if not mirrors:
        raise Failure(f"apt's sources name {match[1]}, which lists no mirror")
    return mirrors[0].rstrip("/") + "/"


def sources(target):
    """What apt gets packages from: the release, and the kernel's archive."""
    main, security = archive("Debian"), archive("Debian-Security")
    release, kernel = target.suite.release, target.kernel_archive
    if not main:
        # Another distribution's machine: mmdebstrap's own default serves.
        if kernel == release:
            return []
        raise Failure(f"no Debian archive in this machine's apt sources: {target.suite.name} "
                      "cannot be had without; add one to /etc/apt/sources.list.d")
    # sid changes every day, so a mirror's Release file may have expired: accept it.
    lax = "[check-valid-until=no] " if release == "sid" else ""
    lines = [f"deb {lax}{main} {release} main"]
    if release != "sid" and release not in ENDED:
        lines.append(f"deb {main} {release}-updates main")
        if security:
            lines.append(f"deb {security} {release}-security main")
    if kernel != release:
        lines.append(f"deb {lax}{main} {kernel} main")
    return lines


def pin(target):
    """Take only the kernel from its own archive."""
    if target.kernel_archive == target.suite.release:
        return ""
    by = "n" if "-" in target.kernel_archive else "a"
    return (f"Package: linux-*\nPin: release {by}={target.kernel_archive}\n"
            "Pin-Priority: 900\n")


def packages(target, machine):
    names = []
    for file in target.lists():
        names += re.sub(r"#.*", "", read(file)).split()
    return [name.replace("@machine@", machine).replace("@flavour@", FLAVOURS[target.flavour])
            for name in names]


def proxies():
    """As this machine's own apt has them."""
    for scheme in ("http", "https"):
        try:
            said = subprocess.run(["apt-config", "shell", "P", f"Acquire::{scheme}::Proxy"],
                                  stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
                                  check=False).stdout
        except FileNotFoundError:
            return
        found = re.match(r"P='(.*)'", said)
        if found and found[1]:
            yield f'--aptopt=Acquire::{scheme}::Proxy "{found[1]}"'


def mmdebstrap(target, directory, work, out, *options):
    hooks = []
    if pin(target):
        preferences = os.path.join(work, "pin")
        with open(preferences, "w", encoding="ascii") as file:
            file.write(pin(target))
        hooks.append(f"--setup-hook=mkdir -p \"$1\"/etc/apt/preferences.d; "
                     f"cp {shlex.quote(preferences)} \"$1\"/etc/apt/preferences.d/kernel")
    # mmdebstrap starts Python for every package; let it be the system's, since another
    # one in the caller's PATH may be slow to start.
    env = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    run(["mmdebstrap", "--mode=root", *proxies(),
         "--aptopt=DPkg::Lock::Timeout \"600\"",
         *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale")),
         *hooks, *options, target.suite.release, directory, *sources(target)], out, env=env)


def run(argv, out, **kwargs):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False,
                          **kwargs)
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, argv[0])


def script(name):
    return "".join(map(read, STEPS)) + name


def step(name, new, out):
    """Run a step in the new root, which has the directory that is made at /mnt."""
    tree = os.path.join(new, "tree")
    run(inside(tree, ["bash", "-c", script(name)], writable=True, binds=[(new, "/mnt")]), out)


def build(target, new, out):
    tree = os.path.join(new, "tree")
    foreign = target.machine != native()
    names = packages(target, native()) + CROSS_32[target.machine]
    options = ["--variant=apt",
               # The guest has its own initrd (first_stage), so do not build the package's.
               "--dpkgopt=path-exclude=/etc/kernel/postinst.d/initramfs-tools"]
    if foreign:
        names += CROSS[target.machine]
        if "deb" in target.packages:
            # dpkg-shlibdeps looks up dependencies in installed libraries.
            options.append(f"--architectures={native()},{target.machine}")
            names.append(f"libc6:{target.machine}")
    # These hooks need apt's lists, which are deleted later.
    image = "linux-image-" + FLAVOURS[target.flavour] + native()
    policy = os.path.join(new, "policy")
    options += [f'--customize-hook=chroot "$1" bash -c {shlex.quote(script("kselftest"))}',
                f'--customize-hook=chroot "$1" apt-cache policy {image} > {shlex.quote(policy)}']
    mmdebstrap(target, tree, new, out, *options, f"--include={','.join(names)}")
    if target.suite.name in MAY_BE_ABSENT:
        installed = re.search(r"\*\*\* .*\n((?: {8,}.*\n)*)", read(policy))
        if not installed or f"/{target.kernel_archive}" not in installed[1]:
            raise Absent(f"{target.suite.name} has no kernel of its own now", 3)
    if foreign:
        guest = os.path.join(new, "guest")
        # In older releases, the caller must create the links /bin, /sbin and /lib.
        mmdebstrap(target, guest, new, out, "--variant=extract",
                   f"--architectures={target.machine}",
                   '--setup-hook=cd "$1"; for dir in bin sbin lib; do '
                   "mkdir -p usr/$dir; ln -s usr/$dir $dir; done",
                   "--include=?essential",
                   f"--include={','.join(packages(target, target.machine))}")
        step("foreign_guest", new, out)
        shutil.rmtree(guest)
    else:
        step("native_guest", new, out)
    for name in ("policy", "pin"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(new, name))
    with open(os.path.join(new, "machine"), "w", encoding="ascii") as file:
        file.write(target.machine + "\n")


def discard(directory):
    """Remove a directory. If this is interrupted, it is not taken for a whole one later."""
    place, name = os.path.split(directory)
    old = tempfile.mkdtemp(prefix=f".{name}.", dir=place)
    with contextlib.suppress(FileNotFoundError):
        os.rename(directory, old)
    shutil.rmtree(old, ignore_errors=True)


def sweep(directory):
    """Remove what nobody has used for two weeks, and what was left half made or half removed
    two days ago."""
    def age(path):
        with contextlib.suppress(FileNotFoundError):
            return (time.time() - os.stat(path).st_mtime) / 86400
        return 0

    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if not os.path.isdir(path):
            continue
        if name.startswith("."):
            if age(path) > 2:
                shutil.rmtree(path, ignore_errors=True)
        elif age(os.path.join(path, "release")) > UNUSED_DAYS:
            discard(path)


def make(target, refresh=False):
    """The directory of a suite's root, which is made if it is not there yet."""
    if target.is_own:
        from . import kernel  # it stands on this file
        return kernel.root_of(kernel.own(target))
    # A root is named after everything that it is made from.
    key = digest(repr([*map(read, [*target.lists(), *STEPS, os.path.realpath(__file__)]),
                       pin(target)]))
    directory = os.path.join(CACHE, "roots", f"{target.name}-{key}")
    used = os.path.join(directory, "release")

    def have():
        if not os.path.exists(used) or refresh:
            return False
        os.utime(used)
        return True

    if have():
        return directory
    with lock(os.path.join(CACHE, "roots", f"{target.name}.lock"), f"the {target.name} root"):
        if have():
            return directory
        need_root(f"making the {target.name} root")
        need({"mmdebstrap": "mmdebstrap", "gpg": "gpg", "unshare": "util-linux",
              KEYRING: "debian-archive-keyring"})
        new = tempfile.mkdtemp(prefix=f".{target.name}.", dir=os.path.join(CACHE, "roots"))
        log = os.path.join(CACHE, "roots", f"{target.name}.log")
        say(f"making the {target.name} root, which takes a minute or two; log: {log}")
        try:
            os.chmod(new, 0o755)
            with open(log, "w", encoding="utf-8") as out:
                try:
                    build(target, new, out)
                except subprocess.CalledProcessError as error:
                    out.flush()
                    for line in read(log).splitlines()[-15:]:
                        say(f"  {line}")
                    raise Failure(f"could not make the {target.name} root ({error.cmd} failed); "
                                  f"the whole log is {log}") from None
            # A run that still uses the old one keeps its open files.
            discard(directory)
            os.rename(new, directory)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        sweep(os.path.join(CACHE, "roots"))
    say(f"the {target.name} root is ready: kernel {read(used).strip()}")
    return directory

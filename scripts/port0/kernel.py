# SPDX-License-Identifier: GPL-2.0
"""Kernels that are built here: the debug kernels, and those of any source tree."""

import collections
import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import tempfile

from . import CACHE, SCRIPTS, TOP, Failure, lock, need_root, read, root, say, suites
from .inside import inside
from .root import digest

KERNEL_STEPS = os.path.join(SCRIPTS, "port0", "kernel-steps")

# Variables for the kernel's makefiles, and where the built image is, per architecture
MAKE = {"amd64": {"ARCH": "x86", "CROSS_COMPILE": "x86_64-linux-gnu-"},
        "arm64": {"ARCH": "arm64", "CROSS_COMPILE": "aarch64-linux-gnu-"}}
IMAGES = {"amd64": ["arch/x86/boot/bzImage"],
          "arm64": ["arch/arm64/boot/Image.gz", "arch/arm64/boot/Image"]}

# Options that a kernel must have to run in scripts/vm with the module.
NEEDED = """
64BIT BLK_DEV_INITRD BINFMT_ELF BINFMT_SCRIPT DEVTMPFS EROFS_FS INET KALLSYMS MODULES
MODULE_UNLOAD NETFILTER OVERLAY_FS PRINTK PROC_FS SYSFS TMPFS VIRTIO_BLK VIRTIO_CONSOLE
VIRTIO_FS VIRTIO_PCI KPROBES
""".split()
CONSOLE = {"amd64": "SERIAL_8250_CONSOLE", "arm64": "SERIAL_AMBA_PL011_CONSOLE"}

Kernel = collections.namedtuple("Kernel", "name base machine tree built llvm configs")


def fragments(name, machine):
    """The config fragments of a kernel that is built here; later ones override."""
    files = [os.path.join(TOP, "selftests", "config")]
    for part in ("guest", name):
        file = os.path.join(SCRIPTS, "configs", part)
        files += [f for f in (file, f"{file}.{machine}") if os.path.exists(f)]
    return files


def own(target):
    """The kernel of a suite whose kernel is built here."""
    base = suites.target(f"{target.suite.release}@{target.machine}")
    return Kernel(target.name, base, target.machine, None, False, False,
                  fragments(target.suite.name, target.machine))


def of_tree(directory, base, llvm):
    """The kernel of a source tree, with the rest of the guest from a suite."""
    directory = os.path.realpath(directory)
    machine = base.machine
    if base.is_own:
        raise Failure(f"'{base.name}' has a kernel of its own: --kernel works with Debian's suites only")
    config = os.path.join(directory, ".config")
    source = os.path.realpath(os.path.join(directory, "source"))
    makefile = os.path.join(directory, "Makefile")
    if not os.path.isdir(source):
        source = directory
    elif os.path.exists(config):
        makefile = os.path.join(source, "Makefile")
    if not (os.path.exists(makefile) and os.path.exists(os.path.join(source, "Kconfig"))
            and re.search(r"^PATCHLEVEL = \d", read(makefile), re.M)):
        raise Failure(f"no kernel tree: {directory}")
    built = all(os.path.exists(os.path.join(directory, name))
                for name in (".config", "Module.symvers", "vmlinux"))
    if built:
        options = read(config)
        wrong = lacking(options, machine)
        if not any(os.path.exists(os.path.join(directory, image)) for image in IMAGES[machine]):
            raise Failure(f"{directory} was built, but has no {machine} kernel image "
                          f"({' or '.join(IMAGES[machine])})")
        if wrong:
            raise Failure(f"the config of {directory} lacks what the module or its guest needs: "
                          + " ".join(wrong))
        llvm = llvm or "\nCONFIG_CC_IS_CLANG=y\n" in options
    elif os.path.exists(config) or os.path.isdir(os.path.join(directory, "include", "config")):
        raise Failure(f"{directory} was configured in place and not built: finish that, "
                      "or undo it by 'make mrproper' there")
    name = re.sub(r"[^\w.-]", "_", os.path.basename(directory))
    name = f"{base.base}-tree-{name}-{digest(directory)[:6]}{'-llvm' if llvm else ''}"
    if llvm:
        base = base.plus("llvm")
    return Kernel(name, base, machine, directory, built, llvm,
                  [] if built else fragments("tree", machine))


def lacking(options, machine):
    """The needed options that a config does not have."""
    have = set(re.findall(r"^CONFIG_(\w+)=[ym]$", options, re.M))
    return [f"CONFIG_{need}" for need in [*NEEDED, CONSOLE[machine]] if need not in have]


# A tree and its state, for the commands that this one starts
PINNED = "PORT0_TREE_STATE"


def pin(directory):
    """Let all commands from now on use this tree as it is now, even if somebody edits it."""
    os.environ[PINNED] = f"{state(directory)} {directory}"


def state(directory):
    """A digest that changes when any file of a tree changes."""
    known, _, pinned = os.environ.get(PINNED, "").partition(" ")
    if pinned == directory:
        return known
    found = hashlib.sha256()
    for place, directories, files in os.walk(directory):
        directories[:] = sorted(set(directories) - {".git"})
        for name in sorted(files):
            path = os.path.join(place, name)
            status = os.lstat(path)
            found.update(f"{path} {status.st_size} {status.st_mtime_ns}\n".encode())
    return found.hexdigest()


def make_dir(kernel, directory, steps, base, binds=()):
    """Make a directory by these steps; if one fails, nothing is left."""
    log = os.path.join(CACHE, "kernels", f"{kernel.name}.log")
    env = dict(MAKE[kernel.machine])
    env["TREE"] = kernel.tree or "/mnt/linux"
    if kernel.llvm:
        env["LLVM"] = "1"
    if kernel.tree:
        env["LENIENT"] = "1"
    new = tempfile.mkdtemp(prefix=f".{kernel.name}.", dir=os.path.dirname(directory))
    try:
        os.chmod(new, 0o755)
        layer = os.path.join(new, "layer")
        os.mkdir(layer)
        with open(os.path.join(new, "wanted"), "w", encoding="ascii") as file:
            file.write("".join(map(read, kernel.configs)))
        with open(os.path.join(new, "steps"), "w", encoding="ascii") as file:
            file.write("".join(map(read, [KERNEL_STEPS, *root.STEPS])))
        binds = [(new, "/mnt"), (base, "/base"), *binds]
        covered = []
        if kernel.tree:
            covered.append(kernel.tree)
            source = os.path.realpath(os.path.join(kernel.tree, "source"))
            if kernel.built and os.path.isdir(source):
                covered.append(source)
        with open(log, "w", encoding="utf-8") as out:
            for step in steps:
                say(f"step {step}")
                script = f". /mnt/steps; {step}"
                done = subprocess.run(
                    inside(os.path.join(base, "tree"), ["nice", "bash", "-c", script],
                           layer=layer, binds=binds, covered=covered, env=env),
                    stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False)
                if done.returncode:
                    out.flush()
                    lines = read(log).splitlines()
                    errors = [line for line in lines if re.search(r"error:|\*\*\*", line)]
                    for line in errors[:15] or lines[-15:]:
                        say(line)
                    raise Failure(f"could not make the {kernel.name} kernel; the whole log is {log}")
                if step == "configure":
                    for line in re.findall(r"^note: (.*)", read(log), re.M):
                        say(line)
                    wrong = lacking(read(os.path.join(new, "config")), kernel.machine)
                    if wrong:
                        raise Failure(f"the {kernel.name} kernel does not take what the module "
                                      "or its guest needs: " + " ".join(wrong))
        for name in ("linux", "layer"):
            shutil.rmtree(os.path.join(new, name), ignore_errors=True)
        for name in ("steps", "wanted", "refused"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(new, name))
        os.rename(new, directory)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    root.sweep(os.path.dirname(directory))


def root_of(kernel):
    """Return the directory of a kernel's root; make it first if need be."""
    need_root(f"making the {kernel.name} kernel")
    base = root.make(kernel.base)
    if kernel.built:
        compiling = ["tools", "prepare", "keep"]
    elif kernel.tree:
        compiling = ["tools", "configure", "compile", "keep"]
    else:
        compiling = ["tools", "debian_source", "configure", "compile", "keep"]
    # The name of a kernel has a digest of everything that it is made from, and that of
    # a root a digest of its kernel and the release's root.
    made_from = [read(KERNEL_STEPS), *map(read, kernel.configs), *compiling,
                 state(kernel.tree) if kernel.tree else ""]
    if kernel.tree:
        made_from.append(base)
    there = os.path.join(CACHE, "kernels", f"{kernel.name}-{digest(repr(made_from))}")
    directory = os.path.join(CACHE, "roots", f"{kernel.name}-{digest(repr([base, there, *map(read, root.STEPS)]))}")
    with lock(os.path.join(CACHE, "kernels", f"{kernel.name}.lock"),
              f"the {kernel.name} kernel"):
        if not os.path.exists(os.path.join(there, "release")):
            if not kernel.built:
                say(f"building the {kernel.name} kernel, which takes many minutes; "
                    f"log: {CACHE}/kernels/{kernel.name}.log")
            make_dir(kernel, there, compiling, base)
        if not os.path.exists(os.path.join(directory, "release")):
            make_dir(kernel, directory, ["root_tree"], base, [(there, "/kernel", "ro")])
        for used in (there, directory):
            os.utime(os.path.join(used, "release"))
    return directory

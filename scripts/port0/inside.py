# SPDX-License-Identifier: GPL-2.0
"""The way into a Debian root."""

import os
import shlex

ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/tmp"}


def inside(tree, argv, layer=None, writable=False, binds=(), covered=(), env=None):
    """The command line that runs argv in the root tree.

    With a layer, an empty directory, the root is the lower directory of an overlay and
    all changes go into the layer. Without one, the root is read-only except for /tmp,
    which is empty, unless writable is set. binds are (source, place) or (source, place,
    "ro"). A covered directory is visible at its own path, and changes to it go into the
    layer. All mounts and processes end with the one that this starts, even if it is killed.
    """
    lines, root = [], tree

    def mount(*words):
        lines.append(shlex.join(["mount", *words]))

    def cover(lower, name, place):
        upper, work, seen = (os.path.join(layer, name, part) for part in ("upper", "work", "lower"))
        lines.append(shlex.join(["mkdir", "-p", upper, work, seen, place]))
        # A bind mount with a plain path, since a comma or colon in the name would
        # separate mount options.
        mount("--bind", lower, seen)
        mount("-t", "overlay", "overlay", "-o",
              f"lowerdir={seen},upperdir={upper},workdir={work}", place)

    if layer:
        root = os.path.join(layer, "root")
        cover(tree, "base", root)
    elif not writable:
        mount("--bind", tree, tree)
        mount("-o", "remount,bind,ro", tree)
        mount("-t", "tmpfs", "tmp", f"{tree}/tmp")
    mount("-t", "proc", "proc", f"{root}/proc")
    mount("--rbind", "/dev", f"{root}/dev")
    for source, place, *ro in binds:
        if layer:
            lines.append(shlex.join(["mkdir", "-p", root + place]))
        mount("--bind", source, root + place)
        if ro:
            mount("-o", "remount,bind,ro", root + place)
    for number, directory in enumerate(covered):
        cover(directory, f"covered{number}", root + directory)
    # A new bind mount on the current directory is not what "." refers to.
    lines.append(shlex.join(["cd", root]))
    words = [f"{name}={value}" for name, value in {**ENV, **(env or {})}.items()]
    lines.append(shlex.join(["exec", "chroot", root, "env", "-i", *words, *argv]))
    return ["unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child",
            "sh", "-euc", "\n".join(lines)]

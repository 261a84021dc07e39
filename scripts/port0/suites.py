# SPDX-License-Identifier: GPL-2.0
"""The suites: which kernels there are, and what is run on them."""

import collections
import os
import re

from . import MACHINES, SCRIPTS, Failure, native

# release   the Debian release that compiler and programs are from
# kernel    roughly the kernel's version, for people: Debian updates it
# patience  factor for time limits, compared with a kernel without debug options
# test      the variants that "make test" runs, longest first; CI runs these, too
# debug     the variants that "make test-debug" runs
#
# A variant is "native" or "here" (this machine's architecture) or "foreign" (the other
# one). With --machine, native means that architecture, and here runs only if that is this
# machine's. After a colon there may be a value of the module parameter "hook".
Suite = collections.namedtuple("Suite", "name release kernel patience test debug")

SUITES = [Suite(*row) for row in (
    # name                release     kernel                  patience  test            debug
    ("bullseye",          "bullseye", "5.10",                        1, "native",       ""),
    ("bookworm",          "bookworm", "6.1",                         1, "native",       ""),
    ("bookworm-backports", "bookworm", "6.12",                       1, "",             ""),
    ("trixie",            "trixie",   "6.12",                        1,
     "foreign native native:kprobe", ""),
    ("trixie-backports",  "trixie",   "7.3",                         1, "native",       ""),
    ("sid",               "sid",      "7.2",                         1, "",             ""),
    ("experimental",      "sid",      "a release candidate",         1, "",             ""),
    # The kernels of these are built here, see scripts/kernel --help.
    ("debug",             "trixie",   "6.12, KASAN and lockdep",     5, "",
     "native native:kprobe"),
    ("kcsan",             "trixie",   "6.12, KCSAN",                 5, "",             "here"),
    ("kprobes",           "trixie",   "6.12, no function tracer",    2, "",
     "here:auto"),
    ("coverage",          "trixie",   "6.12, gcov",                  1, "",             ""),
)]
# Of these suites, "make test" runs only these tests, in three minutes or so: those of what
# is different there. In 5.10, TCP has no table for ports and addresses together.
SHORT = {"bullseye": "option bind groups names order_bind parity_bpf parity_ns parity_tcp "
                     "parity_udp privilege stream dgram".split()}
BY_NAME = {suite.name: suite for suite in SUITES}
OWN = [suite.name for suite in SUITES if suite.name in ("debug", "kcsan", "kprobes", "coverage")]
DEBIAN = [suite.name for suite in SUITES if suite.name not in OWN]

# Where "make bench" measures
BENCH = ["bookworm", "trixie", "trixie-backports"]

# Debian's kernels of a release. The cloud kernel has all that a guest needs.
FLAVOURS = {"cloud": "cloud-", "plain": "", "rt": "rt-"}
DEFAULT_FLAVOUR = "cloud"
# Suites that at times have no kernel of their own, newer than those of other suites
MAY_BE_ABSENT = ("experimental",)

# Words for the command line of a kernel that runs selftests. They count objects in slab
# caches. New bind buckets are filled with a pattern instead of zeros, so that a member that
# is not set shows.
KERNEL_WORDS = "slab_nomerge slub_debug=P,tcp_bind*"
# Tests that load modules and patch code spend much of their time waiting for RCU.
EXPEDITED = "rcupdate.rcu_expedited=1"

HOOKS = ("ftrace", "kprobe", "auto")

SYNTAX = f"""\
SUITE is one of
{"".join(f"  {suite.name:<19} {suite.kernel}" + chr(10) for suite in SUITES)}\
SUITE-plain and SUITE-rt have Debian's ordinary and its PREEMPT_RT kernel instead of
the one for clouds. SUITE@amd64 and SUITE@arm64 are of that architecture.
"""


class Target(collections.namedtuple("Target", "suite flavour machine packages")):
    """One root: a suite, in a flavour, for an architecture, with lists of packages."""

    @property
    def base(self):
        """The name without the lists of packages."""
        name = self.suite.name
        if self.flavour != DEFAULT_FLAVOUR:
            name += f"-{self.flavour}"
        return name if self.machine == native() else f"{name}@{self.machine}"

    @property
    def name(self):
        return self.base + "".join(f"+{name}" for name in self.packages)

    @property
    def is_own(self):
        return self.suite.name in OWN

    @property
    def kernel_archive(self):
        """The Debian suite that the kernel's packages are from."""
        return self.suite.name

    def plus(self, packages):
        return self._replace(packages=(packages,))

    def lists(self):
        """The files that list the packages of the root."""
        return [os.path.join(SCRIPTS, "packages"),
                *(os.path.join(SCRIPTS, f"packages.{name}") for name in self.packages)]


def target(text):
    """Parse SUITE[-FLAVOUR][@MACHINE][+LIST]."""
    match = re.fullmatch(r"([\w-]+?)(?:@(\w+))?((?:\+\w+)*)", text)
    if not match:
        raise Failure(f"'{text}' is not a suite: write SUITE, SUITE-FLAVOUR or SUITE@MACHINE")
    name, machine, packages = match[1], match[2] or native(), tuple(match[3].split("+")[1:])
    flavour = DEFAULT_FLAVOUR
    if name not in BY_NAME and name.rpartition("-")[2] in FLAVOURS:
        name, _, flavour = name.rpartition("-")
    if name not in BY_NAME:
        raise Failure(f"unknown suite '{name}': choose one of {' '.join(BY_NAME)}")
    if flavour != DEFAULT_FLAVOUR and name in OWN:
        raise Failure(f"'{name}' has a kernel of its own, in no flavour")
    if machine not in MACHINES:
        raise Failure(f"unknown architecture '{machine}': choose one of {' '.join(MACHINES)}")
    made = Target(BY_NAME[name], flavour, machine, packages)
    for file in made.lists():
        if not os.path.exists(file):
            raise Failure(f"no package list {os.path.relpath(file)} for '{text}'")
    return made


def variants(words, suite, machine=None):
    """The names of a suite's variants, in the form that scripts/test takes."""
    for word in words.split():
        where, _, hook = word.partition(":")
        if machine and (where == "foreign" or where == "here" and machine != native()):
            continue
        if where == "foreign":
            machine_of = next(other for other in MACHINES if other != native())
        else:
            machine_of = machine or native()
        name = suite if machine_of == native() else f"{suite}@{machine_of}"
        yield name + (f":{hook}" if hook else "")


def wanted(which, machine=None):
    """What "make test" (test), test-debug (debug) or test-all (all) runs."""
    rows = []
    for suite in SUITES:
        if which == "all" and suite.name in DEBIAN:
            rows += variants("foreign native", suite.name, machine)
            rows += [name for flavour in FLAVOURS if flavour != DEFAULT_FLAVOUR
                     for name in variants("native", f"{suite.name}-{flavour}", machine)]
            rows += [name for name in variants(suite.test, suite.name, machine) if ":" in name]
        elif which != "all":
            rows += variants(getattr(suite, which), suite.name, machine)
    # The foreign architecture first: it is emulated and takes longest.
    return sorted(rows, key=lambda name: "@" not in name)

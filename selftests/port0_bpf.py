# SPDX-License-Identifier: GPL-2.0
"""BPF programs of a control group, written as instructions, and calls in that group."""

import ctypes
import errno
import os
import struct
import time

from port0_test import IO_TIMEOUT, Skip, check, code, libc, write

CGROUP = "/sys/fs/cgroup"
# Members of the context
USER_IP4, USER_IP6, USER_PORT = 4, 8, 24


class Program:
    """A cgroup with a program on bind() or another call, and a method to make calls in
    the cgroup."""

    LOAD, ATTACH, TYPE = 5, 8, 18
    BIND = {"ip4": 8, "ip6": 9}
    SENDMSG = {"ip4": 14, "ip6": 15}
    RECVMSG = {"ip4": 19, "ip6": 20}
    NUMBER = {"x86_64": 321, "aarch64": 280}

    def __init__(self, family, code_of_program, on=None):
        self.type = (on or self.BIND)[family]
        self.insns = ctypes.create_string_buffer(code_of_program, len(code_of_program))
        self.licence = ctypes.create_string_buffer(b"GPL")
        self.path = f"{CGROUP}/port0-{os.getpid()}"

    def bpf(self, command, attr):
        buffer = ctypes.create_string_buffer(attr, len(attr))
        return check(libc.syscall(self.NUMBER[os.uname().machine], command, buffer, len(attr)))

    def __enter__(self):
        if not os.path.exists(f"{CGROUP}/cgroup.procs"):
            raise Skip(f"no cgroup2 at {CGROUP}")
        os.mkdir(self.path)
        # Old and new fields up to the expected attach type
        attr = struct.pack("<IIQQIIQII16sII", self.TYPE, len(self.insns.raw) // 8,
                           ctypes.addressof(self.insns), ctypes.addressof(self.licence),
                           0, 0, 0, 0, 0, b"", 0, self.type)
        program = self.bpf(self.LOAD, attr)
        group = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        self.bpf(self.ATTACH, struct.pack("<IIII", group, program, self.type, 0))
        os.close(program)
        os.close(group)
        return self

    def code(self, call, *args):
        """code(), called by a child process in the cgroup."""
        answer, say = os.pipe()
        child = os.fork()
        if not child:
            write(f"{self.path}/cgroup.procs", "0")
            os.write(say, code(call, *args).encode())
            os._exit(0)
        os.close(say)
        os.waitpid(child, 0)
        with os.fdopen(answer) as file:
            return file.read()

    def __exit__(self, *_):
        # A process may be counted in its control group for a while after it has ended.
        deadline = time.monotonic() + IO_TIMEOUT
        while True:
            try:
                os.rmdir(self.path)
                break
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)


def instruction(operation, registers=0, offset=0, value=0):
    return struct.pack("<BBhi", operation, registers, offset, value)


def answer_with(value):
    return instruction(0xb7, 0, 0, value) + instruction(0x95)


def store(field, value):
    """r2 = value; the field of the context = r2"""
    return instruction(0xb7, 2, 0, value) + instruction(0x63, 0x21, field)


def network(number):
    return struct.unpack("=H", struct.pack("!H", number))[0]

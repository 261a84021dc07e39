#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Connections over a route with several nexthops that are chosen by the ports.

Since about Linux 6.16, connect() from source port 0 takes a nexthop by chance, since the
kernel means to choose the port later. This is one of the known differences: the test
shows where it is, and that there is none elsewhere.
"""

import errno
import os

from port0_test import (OTHER_PORT, TCP, UDP, Namespace, Skip, bound_socket, equal, main,
                        plain_socket, run, test, write)

TRIES = 32
ANY = {"ip4": "0.0.0.0", "ip6": "::"}
PEER = {"ip4": "203.0.113.9", "ip6": "2001:db8:9::9"}


def two_ways():
    """A namespace with two links, and two nexthops for the peers."""
    if not os.path.exists("/proc/sys/net/ipv4/fib_multipath_hash_policy"):
        raise Skip("this kernel has no routes with several nexthops")
    space = Namespace()
    with space:
        for i in "12":
            run("ip", "link", "add", f"d{i}", "type", "veth", "peer", f"e{i}")
            for dev in f"d{i}", f"e{i}":
                run("ip", "link", "set", dev, "up")
            run("ip", "addr", "add", f"10.0.{i}.1/24", "dev", f"d{i}")
            run("ip", "addr", "add", f"fd00:{i}::1/64", "dev", f"d{i}", "nodad")
        for net, via in (("203.0.113.0/24", "10.0.{}.2"), ("2001:db8:9::/64", "fd00:{}::2")):
            run("ip", "route", "add", net,
                "nexthop", "via", via.format(1), "dev", "d1",
                "nexthop", "via", via.format(2), "dev", "d2")
        for version in "ipv4", "ipv6":
            write(f"/proc/sys/net/{version}/fib_multipath_hash_policy", "1")
    return space


def ways(family, kind, make):
    """How many nexthops connect() chooses: each has a source address of its own."""
    found = set()
    for _ in range(TRIES):
        with make(ANY[family], kind) as sock:
            sock.setblocking(False)
            equal(True, sock.connect_ex((PEER[family], 9)) in (0, errno.EINPROGRESS))
            found.add(sock.getsockname()[0])
    return len(found)


def on_port(port):
    return lambda host, kind: bound_socket(host, kind, port)


@test(*[(family, kind) for family in ANY for kind in (TCP, UDP)])
def connect_over_several_nexthops(family, kind):
    with two_ways():
        equal(1, ways(family, kind, on_port(OTHER_PORT)), "from another port")
        # TCP chooses the port of an unbound socket only after the route.
        by_chance = ways(family, TCP, plain_socket)
        if (family, kind) == ("ip6", UDP):
            by_chance = 1
        equal(by_chance, ways(family, kind, on_port(0)), "from port 0")


if __name__ == "__main__":
    main()

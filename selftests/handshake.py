#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""TCP and UDP with port 0 between two namespaces, every packet checked.

    +---- client ----------+            +---- server ----------+
    |  veth0  10.0.0.1/24  |            |  veth0  10.0.0.2/24  |
    |         fd00::1/64   +------------+         fd00::2/64   |
    +----------------------+            +----------^-----------+
                                                   |
                                       captured here, both directions

Each conversation is also held on an ordinary port, where the same packets must
be seen: this tests the test.
"""

import socket
import struct
import time
from collections import namedtuple

from port0_test import (CONTROL_PORT, IO_TIMEOUT, OTHER_PORT, TCP, UDP, Namespace, bound_socket,
                        code, equal, main, plain_socket, read, reset_on_close, run, set_mark,
                        test, write)

ETH_P_ALL = 3
SOCKETS = ("/proc/self/net/tcp", "/proc/self/net/tcp6")
FLAGS = {"FIN": 1, "SYN": 2, "RST": 4, "ACK": 16}

CLIENT = {"ip4": "10.0.0.1", "ip6": "fd00::1"}
SERVER = {"ip4": "10.0.0.2", "ip6": "fd00::2"}
# An address on the wire that no host has
NOBODY = {"ip4": "10.0.0.9", "ip6": "fd00::9"}
# The state of a connection whose handshake is not complete
SYN_RECV = 3

# The client's port (None: an ephemeral one) and the server's.
PORTS = [(None, CONTROL_PORT), (None, 0), (0, OTHER_PORT), (0, 0)]
EVERY_WAY = [(family, *ports) for family in CLIENT for ports in PORTS]

# "what" is TCP's flags or the ICMP error's name; "about" is the packet that
# an ICMP error quotes.
Packet = namedtuple("Packet", "sender protocol sport dport what data about", defaults=[None])


def parse_transport(sender, protocol, data):
    if protocol == socket.IPPROTO_TCP:
        sport, dport, _, _, offset, flags = struct.unpack_from("!HHIIBB", data)
        what = "+".join(name for name, bit in FLAGS.items() if flags & bit)
        return Packet(sender, "tcp", sport, dport, what, data[(offset >> 4) * 4:])
    if protocol == socket.IPPROTO_UDP:
        sport, dport, length = struct.unpack_from("!HHH", data)
        return Packet(sender, "udp", sport, dport, "", data[8:length])
    unreachable = {socket.IPPROTO_ICMP: (3, 3), socket.IPPROTO_ICMPV6: (1, 4)}
    if unreachable.get(protocol) == (data[0], data[1]):
        return Packet(sender, "icmp", None, None, "port unreachable", b"", parse_ip(data[8:]))
    return None


def parse_ip(data):
    if data[0] >> 4 == 4:
        header, length = (data[0] & 15) * 4, struct.unpack_from("!H", data, 2)[0]
        sender = socket.inet_ntop(socket.AF_INET, data[12:16])
        return parse_transport(sender, data[9], data[header:length])
    length = struct.unpack_from("!H", data, 4)[0]
    sender = socket.inet_ntop(socket.AF_INET6, data[8:24])
    return parse_transport(sender, data[6], data[40:40 + length])


def parse_frame(frame):
    """The Packet in a frame, or None if it is not part of a conversation (ARP, MLD, ...)."""
    if frame[12:14] in (b"\x08\x00", b"\x86\xdd"):
        return parse_ip(frame[14:])
    return None


class Wire:
    """The two namespaces, the cable between them, and the socket that captures."""

    def __init__(self):
        self.client = Namespace()
        self.server = Namespace()
        with self.client:
            run("ip", "link", "add", "veth0", "type", "veth",
                "peer", "name", "veth0", "netns", self.server.path)
        self.address(self.client, CLIENT)
        self.address(self.server, SERVER)
        for namespace in (self.client, self.server):
            # No TIME_WAIT, so that a client can connect from the same port again at once.
            with namespace:
                write("/proc/sys/net/ipv4/tcp_max_tw_buckets", "0")
        with self.server:
            # No rate limit for ICMP errors.
            write("/proc/sys/net/ipv4/icmp_ratemask", "0")
            write("/proc/sys/net/ipv6/icmp/ratelimit", "0")
            self.tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.tap.bind(("veth0", ETH_P_ALL))
        self.tap.settimeout(IO_TIMEOUT)
        self.wait_for_addresses()

    @staticmethod
    def address(namespace, addresses):
        with namespace:
            run("ip", "address", "add", addresses["ip4"] + "/24", "dev", "veth0")
            run("ip", "address", "add", addresses["ip6"] + "/64", "dev", "veth0", "nodad")
            run("ip", "link", "set", "veth0", "up")

    def wait_for_addresses(self):
        """An IPv6 address can be used once the kernel has made its local route."""
        deadline = time.monotonic() + IO_TIMEOUT
        for namespace, addresses in ((self.client, CLIENT), (self.server, SERVER)):
            with namespace:
                while addresses["ip6"] not in run("ip", "-6", "route", "show", "table", "local"):
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"no route for {addresses['ip6']}")
                    time.sleep(0.01)

    def fall_silent(self):
        """Wait until earlier connections have ended, since they may repeat packets."""
        deadline = time.monotonic() + IO_TIMEOUT
        for namespace in (self.client, self.server):
            with namespace:
                while any(len(text.splitlines()) > 1 for text in map(read, SOCKETS)):
                    if time.monotonic() > deadline:
                        raise TimeoutError("a connection does not end")
                    time.sleep(0.01)

    def drain(self):
        self.fall_silent()
        self.tap.setblocking(False)
        try:
            while self.tap.recv(65536):
                pass
        except BlockingIOError:
            self.tap.settimeout(IO_TIMEOUT)

    def packets(self):
        while True:
            packet = parse_frame(self.tap.recv(65536))
            if packet:
                yield packet

    def first_packet(self):
        return next(self.packets())

    def see(self, *expected):
        """Wait for these packets in this order.

        Retransmissions and bare acknowledgements may come between. Every TCP
        or UDP packet must have the ports of an expected one.
        """
        seen = []
        waiting = list(expected)
        allowed = {packet[:4] for packet in expected}
        try:
            for packet in self.packets():
                seen.append(packet)
                if packet.protocol != "icmp" and packet[:4] not in allowed:
                    raise AssertionError(f"a packet with wrong ports: {packet}")
                if packet == waiting[0]:
                    waiting.pop(0)
                if not waiting:
                    break
        except TimeoutError:
            lines = "\n".join(map(str, seen))
            raise AssertionError(f"no {waiting[0]}\namong\n{lines}") from None


def the_wire():
    """The Wire, made by the first test that needs it, so that a failure counts as that
    test's result."""
    if not hasattr(the_wire, "it"):
        the_wire.it = Wire()
    the_wire.it.drain()
    return the_wire.it


def open_client(wire, family, kind, port):
    with wire.client:
        if port is None:
            return plain_socket(CLIENT[family], kind)
        return bound_socket(CLIENT[family], kind, port)


def connect(sock, family, port):
    sock.connect((SERVER[family], port))
    equal((SERVER[family], port), sock.getpeername()[:2], "the client's getpeername()")


class Flow:
    """Makes the packets that one conversation is expected to send."""

    def __init__(self, family, protocol, cport, sport):
        self.to_server = Packet(CLIENT[family], protocol, cport, sport, "", b"")
        self.to_client = Packet(SERVER[family], protocol, sport, cport, "", b"")

    def there(self, what="", data=b""):
        return self.to_server._replace(what=what, data=data)

    def back(self, what="", data=b""):
        return self.to_client._replace(what=what, data=data)

    def unreachable(self, data=b""):
        return self.to_client._replace(protocol="icmp", sport=None, dport=None,
                                       what="port unreachable", about=self.there("", data))


def serve(wire, host, port):
    with wire.server:
        listener = bound_socket(host, TCP, port)
    listener.listen()
    return listener


def hold_tcp_conversation(wire, family, listener, client, port):
    connect(client, family, port)
    cport = client.getsockname()[1]
    child, peer = listener.accept()
    child.settimeout(IO_TIMEOUT)
    seen_as = CLIENT[family]
    if listener.family == socket.AF_INET6 and family == "ip4":
        seen_as = f"::ffff:{seen_as}"
    equal((seen_as, cport), peer[:2], "accept()")
    equal(peer, child.getpeername(), "the child's getpeername()")
    equal(port, child.getsockname()[1], "the child's getsockname()")

    client.sendall(b"question")
    equal(b"question", child.recv(100))
    child.sendall(b"answer")
    equal(b"answer", client.recv(100))
    client.shutdown(socket.SHUT_WR)
    equal(b"", child.recv(100), "the end of what the client sends")
    child.sendall(b"last words")
    equal(b"last words", client.recv(100))
    child.close()
    equal(b"", client.recv(100), "the end of what the server sends")
    client.close()

    flow = Flow(family, "tcp", cport, port)
    wire.see(flow.there("SYN"), flow.back("SYN+ACK"), flow.there("ACK"),
             flow.there("ACK", b"question"), flow.back("ACK", b"answer"),
             flow.there("FIN+ACK"), flow.back("ACK", b"last words"),
             flow.back("FIN+ACK"), flow.there("ACK"))


@test(*EVERY_WAY)
def tcp(family, cport, sport):
    wire = the_wire()
    with serve(wire, SERVER[family], sport) as listener, \
            open_client(wire, family, TCP, cport) as client:
        hold_tcp_conversation(wire, family, listener, client, sport)


@test(*[(family, *ports) for family in CLIENT for ports in PORTS[:2]])
def tcp_dual_stack(family, cport, sport):
    wire = the_wire()
    with serve(wire, "::", sport) as listener, \
            open_client(wire, family, TCP, cport) as client:
        hold_tcp_conversation(wire, family, listener, client, sport)


@test(*EVERY_WAY)
def tcp_refused(family, cport, sport):
    wire = the_wire()
    with open_client(wire, family, TCP, cport) as client:
        equal("ECONNREFUSED", code(client.connect, (SERVER[family], sport)))
        syn = wire.first_packet()
        equal((sport, "SYN"), (syn.dport, syn.what))
        if cport is not None:
            equal(cport, syn.sport, "the SYN's source port")
        flow = Flow(family, "tcp", syn.sport, sport)
        wire.see(flow.back("RST+ACK"))


@test(*EVERY_WAY)
def tcp_reset(family, cport, sport):
    wire = the_wire()
    with serve(wire, SERVER[family], sport) as listener, \
            open_client(wire, family, TCP, cport) as client:
        connect(client, family, sport)
        flow = Flow(family, "tcp", client.getsockname()[1], sport)
        child, _ = listener.accept()
        reset_on_close(child)
        child.close()
        equal("ECONNRESET", code(client.recv, 1))
        wire.see(flow.there("SYN"), flow.back("SYN+ACK"), flow.there("ACK"),
                 flow.back("RST+ACK"))


def checksum(data):
    words = struct.unpack(f"!{len(data) // 2}H", data)
    total = sum(words)
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff


def syn_with_data(family, cport, sport, data):
    """A packet from NOBODY that opens a connection and carries data, with no cookie asked
    for. The length of the data is even."""
    level = {"ip4": socket.AF_INET, "ip6": socket.AF_INET6}[family]
    source, dest = (socket.inet_pton(level, host[family]) for host in (NOBODY, SERVER))
    length = 20 + len(data)
    head = struct.pack("!HHIIBBHHH", cport, sport, 1000, 0, 5 << 4, FLAGS["SYN"], 65535, 0, 0)
    pseudo = source + dest + struct.pack("!II", socket.IPPROTO_TCP, length)
    head = head[:16] + struct.pack("!HH", checksum(pseudo + head + data), 0)
    if family == "ip4":
        return struct.pack("!BBHHHBBH", 0x45, 0, 20 + length, 1, 0, 64, socket.IPPROTO_TCP,
                           0) + source + dest + head + data
    return struct.pack("!IHBB", 6 << 28, length, socket.IPPROTO_TCP, 64) + source + dest + \
        head + data


@test(*[(family, cport, sport) for family in CLIENT for cport in (OTHER_PORT, 0)
        for sport in (CONTROL_PORT, 0)])
def tcp_fast_open(family, cport, sport):
    """The server accepts the SYN's data. Its answer gets to nobody, so the handshake does not
    go on, and the connection has a peer nevertheless."""
    wire = the_wire()
    with wire.server:
        write("/proc/sys/net/ipv4/tcp_fastopen", "0x202")
        run("ip", "neighbour", "replace", NOBODY[family], "lladdr", "02:00:00:00:00:09",
            "dev", "veth0")
    with serve(wire, SERVER[family], sport) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 5)
        with wire.client, socket.socket(listener.family, socket.SOCK_RAW,
                                        socket.IPPROTO_RAW) as raw:
            raw.sendto(syn_with_data(family, cport, sport, b"early!"), (SERVER[family], 0))
        child, peer = listener.accept()
        with child:
            reset_on_close(child)
            child.settimeout(IO_TIMEOUT)
            equal((NOBODY[family], cport), peer[:2], "accept()")
            equal(peer, child.getpeername(), "the child's getpeername()")
            equal(b"early!", child.recv(100))
            equal(SYN_RECV, child.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0])


@test(*EVERY_WAY)
def udp(family, cport, sport):
    wire = the_wire()
    with wire.server:
        server = bound_socket(SERVER[family], UDP, sport)
    # sendto() port 0 needs the mark, whatever port the socket is bound to.
    if cport == 0:
        set_mark(server)
    with server, open_client(wire, family, UDP, cport) as client:
        connect(client, family, sport)
        client.send(b"question")
        data, peer = server.recvfrom(100)
        equal((b"question", client.getsockname()[:2]), (data, peer[:2]))
        server.sendto(b"answer", peer)
        data, peer = client.recvfrom(100)
        equal((b"answer", (SERVER[family], sport)), (data, peer[:2]))

        flow = Flow(family, "udp", client.getsockname()[1], sport)
        wire.see(flow.there("", b"question"), flow.back("", b"answer"))


@test(*EVERY_WAY)
def udp_by_address(family, cport, sport):
    wire = the_wire()
    with wire.server:
        server = bound_socket(SERVER[family], UDP, sport)
    with server, open_client(wire, family, UDP, cport) as client:
        if sport == 0:
            set_mark(client)
        client.sendto(b"question", (SERVER[family], sport))
        _, peer = server.recvfrom(100)
        # A connected socket needs no mark to answer.
        server.connect(peer)
        equal(peer, server.getpeername())
        server.send(b"answer")
        equal(b"answer", client.recv(100))

        flow = Flow(family, "udp", peer[1], sport)
        wire.see(flow.there("", b"question"), flow.back("", b"answer"))


@test(*EVERY_WAY)
def udp_unreachable(family, cport, sport):
    wire = the_wire()
    with open_client(wire, family, UDP, cport) as client:
        connect(client, family, sport)
        client.send(b"anybody?")
        equal("ECONNREFUSED", code(client.recv, 1))
        flow = Flow(family, "udp", client.getsockname()[1], sport)
        wire.see(flow.there("", b"anybody?"), flow.unreachable(b"anybody?"))


if __name__ == "__main__":
    main()

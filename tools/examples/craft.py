#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Knock on port 0 with packets of your own, from port 0 and to it; needs no module.

    craft.py HOST

Prints the answers to a SYN and to a datagram, each from port 0 and from an ordinary
port, to port 0 and to an ordinary port (--control). It needs python3-scapy and root.
This machine's kernel does not know of these packets: it resets connections that the
SYNs open.
"""

import argparse

from scapy.all import ICMP, IP, TCP, UDP, IPv6, Raw, sr1


def answer(packet):
    reply = sr1(packet, timeout=3, retry=2, verbose=0)
    if reply is None:
        return "silent"
    if TCP in reply:
        return {"SA": "open", "RA": "refused"}.get(str(reply[TCP].flags), str(reply[TCP].flags))
    if UDP in reply:
        return "answered"
    if ICMP in reply:
        return reply[ICMP].sprintf("%ICMP.type% %ICMP.code%")
    return reply.payload.name


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--control", type=int, default=7030, help="an ordinary port (7030)")
    parser.add_argument("host", help="an address of another host, IPv4 or IPv6")
    options = parser.parse_args()
    network = IPv6 if ":" in options.host else IP
    for name, transport in (("tcp", TCP(flags="S", seq=7030)), ("udp", UDP() / Raw(b"port 0?"))):
        for sport in (0, options.control):
            for dport in (0, options.control):
                packet = network(dst=options.host) / transport.copy()
                packet[1].sport, packet[1].dport = sport, dport
                print(f"{name} from {sport} to {dport}: {answer(packet)}", flush=True)


if __name__ == "__main__":
    main()

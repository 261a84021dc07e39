#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""A honeypot: log who knocks on port 0, over TCP and UDP, IPv4 and IPv6.

One line of JSON for each connection and datagram. It never answers.
"""

import asyncio
import json
import socket
import sys
import time

IP_BIND_PORT_ZERO = 0x7030
AT_ONCE, BYTES, SECONDS = 256, 512, 10


def log(protocol, peer, data):
    entry = {"time": time.time(), "protocol": protocol, "address": peer[0].removeprefix("::ffff:"),
             "port": peer[1], "data": data[:BYTES].decode("latin-1")}
    print(json.dumps(entry), flush=True)


def port_zero(kind):
    sock = socket.socket(socket.AF_INET6, kind)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_IP, IP_BIND_PORT_ZERO, 1)
    sock.bind(("::", 0))
    return sock


class Datagrams(asyncio.DatagramProtocol):
    def datagram_received(self, data, addr):
        log("udp", addr, data)


async def knock(reader, writer, room=asyncio.Semaphore(AT_ONCE)):
    data = b""
    if not room.locked():
        async with room:
            try:
                data = await asyncio.wait_for(reader.read(BYTES), SECONDS)
            except (asyncio.TimeoutError, OSError):
                pass
    log("tcp", writer.get_extra_info("peername"), data)
    writer.close()


async def main():
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Datagrams, sock=port_zero(socket.SOCK_DGRAM))
    server = await asyncio.start_server(knock, sock=port_zero(socket.SOCK_STREAM))
    await server.serve_forever()


if __name__ == "__main__":
    if sys.argv[1:]:
        sys.exit(__doc__)
    asyncio.run(main())

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""An echo server on literal port 0, IPv4 and IPv6, TCP and UDP, on asyncio."""

import asyncio
import socket

IP_BIND_PORT_ZERO = 0x7030


def port_zero(kind):
    """A socket on port 0: asyncio takes sockets that are bound already."""
    sock = socket.socket(socket.AF_INET6, kind)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_IP, IP_BIND_PORT_ZERO, 1)
    sock.bind(("::", 0))
    return sock


async def echo_stream(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


class EchoDatagram(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, addr):
        # The mark lets it answer peers that send from port 0, too.
        self.transport.sendto(data, addr)


async def main():
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(EchoDatagram, sock=port_zero(socket.SOCK_DGRAM))
    server = await asyncio.start_server(echo_stream, sock=port_zero(socket.SOCK_STREAM))
    await server.serve_forever()


asyncio.run(main())

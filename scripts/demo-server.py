#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Python's http.server, which says what its sockets are called.

usage: demo-server.py [--port0] ADDRESS PORT
"""

import http.server
import socket
import sys

IP_BIND_PORT_ZERO = 0x7030


def name(address):
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else "{}:{}".format(*address)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = (f"server: getsockname() says {name(self.connection.getsockname())}, "
                f"getpeername() says {name(self.connection.getpeername())}\n").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    def server_bind(self):
        if port0:
            # The line that a server needs. It fails where the module is not loaded.
            self.socket.setsockopt(socket.SOL_IP, IP_BIND_PORT_ZERO, 1)
        super().server_bind()


port0 = sys.argv[1] == "--port0"
address, port = sys.argv[-2:]
if ":" in address:
    Server.address_family = socket.AF_INET6
server = Server((address, int(port)), Handler)
print(f"bind() to port {port}; getsockname() says {name(server.socket.getsockname())}", flush=True)
server.serve_forever()

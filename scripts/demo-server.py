#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""An HTTP server that answers with the addresses of its socket and its peer."""

import argparse
import http.server
import socket

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
        if options.port0:
            # The only line that a server has to add. It fails if the module is not
            # loaded.
            self.socket.setsockopt(socket.SOL_IP, IP_BIND_PORT_ZERO, 1)
        super().server_bind()


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--port0", action="store_true", help="mark the socket: port 0 is port 0")
parser.add_argument("address")
parser.add_argument("port", type=int)
options = parser.parse_args()
if ":" in options.address:
    Server.address_family = socket.AF_INET6
server = Server((options.address, options.port), Handler)
print(f"bind() to port {options.port}; getsockname() says {name(server.socket.getsockname())}", flush=True)
server.serve_forever()

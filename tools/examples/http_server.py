#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Serve the current directory over HTTP on literal port 0: http://HOST:0/"""

import http.server
import socket

IP_BIND_PORT_ZERO = 0x7030


class Server(http.server.ThreadingHTTPServer):
    """Marks its socket before it binds."""

    def server_bind(self):
        # OSError "Protocol not available": the module port0 is not loaded
        self.socket.setsockopt(socket.SOL_IP, IP_BIND_PORT_ZERO, 1)
        super().server_bind()


Server(("", 0), http.server.SimpleHTTPRequestHandler).serve_forever()

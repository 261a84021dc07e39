#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Connect to port 0 and print what getpeername() says."""

import argparse
import socket

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("address")
peer = socket.create_connection((parser.parse_args().address, 0))
try:
    print("client: getpeername() says {} port {}".format(*peer.getpeername()[:2]))
except OSError as error:
    print(f"client: getpeername() failed with errno {error.errno}: {error.strerror}")

#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Load a page from port 0 in browsers; KTAP on stdout. For a guest with the module
(scripts/proof browsers).
"""

import argparse
import base64
import contextlib
import http.server
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

RUN = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "port0-run")
URL = "http://127.0.0.1:0/"
PAGE = b"""<!doctype html><title>port 0</title>
<body style="font: 40px sans-serif; text-align: center; padding-top: 4em">
This page comes from literal TCP port 0.<script>
document.body.append(document.createElement("p"), location.href)</script>"""
agents = []


class Server(http.server.ThreadingHTTPServer):
    def server_bind(self):
        self.socket.setsockopt(socket.SOL_IP, 0x7030, 1)
        super().server_bind()


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/":
            agents.append(self.headers["User-Agent"])
        self.send_response(200 if self.path == "/" else 404)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(PAGE)

    def log_message(self, *_):
        pass


def to_port_0():
    """Packets sent to TCP port 0 so far."""
    said = subprocess.run(["nft", "list", "counter", "inet", "port0", "sent"], check=True, text=True,
                          stdout=subprocess.PIPE).stdout
    return int(re.search(r"packets (\d+)", said)[1])


def browse(*argv):
    """The output of a browser, and the number of packets that it sends to port 0."""
    before = to_port_0()
    with tempfile.TemporaryDirectory() as home:
        env = {**os.environ, "HOME": home, "XDG_RUNTIME_DIR": home}
        done = subprocess.run(argv, env=env, text=True, errors="replace", stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=1500, check=False)
    sent = to_port_0() - before
    error = re.search(r"net::ERR_\w+", done.stdout)
    print(f"# {os.path.basename(argv[0])} sent {sent} packets to port 0; "
          f"{error[0] if error else 'it names no error'}", flush=True)
    return sent


def is_picture(path):
    with open(path, "rb") as f:
        return f.read(8) == b"\x89PNG\r\n\x1a\n"


CHROMIUM = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
            "--disable-extensions", "--disable-background-networking", "--disable-dev-shm-usage",
            "--window-size=1000,600")


def loads(directory, name, *argv):
    """A screenshot by Chromium of a page from the server on port 0."""
    picture = os.path.join(directory, name)
    agents.clear()
    sent = browse(*argv[:-1], f"--screenshot={picture}", argv[-1])
    assert sent and is_picture(picture)
    assert any("Chrome" in agent for agent in agents), f"the server saw {agents}"


def chromium_maps(directory):
    """The URL has an allowed port, and Chromium's --host-rules map it to port 0."""
    loads(directory, "chromium.png", *CHROMIUM, "--host-rules=MAP * 127.0.0.1:0",
          "http://port0.example:8080/")


def chromium_under_port0_run(directory):
    """The same by port0-run --to."""
    loads(directory, "chromium-to.png", RUN, "--to", "8080", *CHROMIUM, "http://127.0.0.1:8080/")


def chromium_is_allowed(directory):
    """--explicitly-allowed-ports=0: some releases refuse port 0 nevertheless, without a packet."""
    picture = os.path.join(directory, "chromium-allowed.png")
    sent = browse(*CHROMIUM, f"--screenshot={picture}", "--explicitly-allowed-ports=0", URL)
    assert bool(sent) == os.path.exists(picture)


class Marionette:
    """Firefox's remote control: JSON messages in both directions, each after its length."""

    def __init__(self, browser):
        until = time.monotonic() + 900
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                self.socket = socket.create_connection(("127.0.0.1", 2828), timeout=600)
                break
            assert browser.poll() is None, "Firefox ended"
            assert time.monotonic() < until, "Firefox does not listen"
            time.sleep(1)
        self.stream = self.socket.makefile("rb")
        self.receive()

    def receive(self):
        size = b"".join(iter(lambda: self.stream.read(1), b":"))
        return json.loads(self.stream.read(int(size)))

    def request(self, command, **parameters):
        """(error, result), of which one is None"""
        question = json.dumps([0, 1, command, parameters]).encode()
        self.socket.sendall(b"%d:%s" % (len(question), question))
        return self.receive()[2:]


def firefox(directory):
    """By remote control, since Firefox's --screenshot never ends for this page."""
    before = to_port_0()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        browser = subprocess.Popen(["firefox-esr", "--headless", "--marionette", "--profile", home],
                                   env={**os.environ, "HOME": home, "XDG_RUNTIME_DIR": home},
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            control = Marionette(browser)
            control.request("WebDriver:NewSession")
            error = control.request("WebDriver:Navigate", url=URL)[0]
            picture = control.request("WebDriver:TakeScreenshot", full=False)[1]
        finally:
            browser.kill()
            browser.wait()
    sent = to_port_0() - before
    print(f"# firefox-esr sent {sent} packets to port 0; {error and error['message']}", flush=True)
    assert not sent and error and "deniedPortAccess" in error["message"]
    assert picture, "no picture"
    with open(os.path.join(directory, "firefox.png"), "wb") as f:
        f.write(base64.b64decode(picture["value"]))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", help="for pictures of what they show; those in it are deleted")
    parser.add_argument("tests", nargs="*", help="names (default: all)")
    options = parser.parse_args()
    directory = options.directory
    tests = [test for test in (chromium_maps, chromium_under_port0_run, chromium_is_allowed, firefox)
             if test.__name__ in options.tests or not options.tests]
    for name in os.listdir(directory):
        if name.endswith(".png"):
            os.remove(os.path.join(directory, name))
    subprocess.run(["nft", "-f", "-"], check=True, text=True, input="""
table inet port0 {
	counter sent { }
	chain out { type filter hook output priority 0; tcp dport 0 counter name sent; }
}
""")
    server = Server(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"TAP version 13\n1..{len(tests)}")
    failed = 0
    for number, test in enumerate(tests, 1):
        try:
            test(directory)
            print(f"ok {number} {test.__name__}", flush=True)
        except (AssertionError, OSError, ValueError, subprocess.SubprocessError) as problem:
            failed += 1
            for line in f"{type(problem).__name__}: {problem}".splitlines():
                print(f"# {line}")
            print(f"not ok {number} {test.__name__}", flush=True)
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())

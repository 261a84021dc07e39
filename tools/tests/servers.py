#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Unmodified servers and clients on literal port 0; KTAP on stdout.

For a guest (scripts/proof servers): it loads the module $PORT0_KO after the
first tests, which show a kernel without it. Every client makes 200 requests,
over IPv4 and IPv6 where it can, to port 0 and then, as the control, to the
server's ordinary port.
"""

import argparse
import contextlib
import glob
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

from ktap import MARK, run_tests

HERE = os.path.dirname(os.path.realpath(__file__))
RUN = os.path.join(os.path.dirname(HERE), "port0-run")
options = argparse.Namespace(host=None, port=0)
TEXT = "hello from port 0"
HOSTS = {4: "127.0.0.1", 6: "::1"}
# Other addresses of this host: for clients that are on port 0 themselves, and for
# servers that do not start with loopback addresses only
OTHERS = {4: "192.0.2.2", 6: "2001:db8::2"}
URL_HOSTS = {4: "127.0.0.1", 6: "[::1]"}
WORK = tempfile.mkdtemp(prefix="port0-")
WWW = os.path.join(WORK, "www")
REPORT = []


def write(name, text):
    path = os.path.join(WORK, name)
    with open(path, "w", encoding="ascii") as f:
        f.write(text)
    return path


def run(*argv, timeout=900, check=True, **kwargs):
    done = subprocess.run(argv, text=True, errors="replace", capture_output=True, timeout=timeout,
                          check=False, **kwargs)
    assert not check or done.returncode == 0, \
        f"{argv[:6]}: exit {done.returncode}: {(done.stdout + done.stderr)[-800:]}"
    return done


def listening(family, port, kind):
    """Whether a socket of this namespace is on the port; an IPv6 one may serve both."""
    sockets = []
    for name in (kind + "6",) if family == 6 else (kind, kind + "6"):
        with open(f"/proc/net/{name}", encoding="ascii") as f:
            sockets += [line.split() for line in f.readlines()[1:]]
    return any(int(s[1].rpartition(":")[2], 16) == port and s[3] in ("0A", "07") for s in sockets)


@contextlib.contextmanager
def server(*argv, kinds=("tcp",), families=(4, 6), port=0):
    """Run a server; "with" is entered when it listens."""
    log = os.path.join(WORK, "server.log")
    with open(log, "w", encoding="utf-8") as out:
        child = subprocess.Popen(argv, stdout=out, stderr=out, stdin=subprocess.DEVNULL,
                                 start_new_session=True, cwd=WWW)
    try:
        until = time.monotonic() + 60
        while not all(listening(family, port, kind) for kind in kinds for family in families):
            with open(log, encoding="utf-8", errors="replace") as f:
                said = f.read()[-800:]
            assert child.poll() is None, f"{argv}: it ended: {said}"
            assert time.monotonic() < until, f"{argv}: not on port {port}: {said}"
            time.sleep(0.3)
        yield child
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def serve(name, clients, *argv, port, kinds=("tcp",), families=(4, 6), run_options=()):
    """Run a server on port 0 by --map, and without it on its own port, with the same clients."""
    with server(RUN, "--map", str(port), *run_options, *argv, kinds=kinds, families=families):
        every(name, clients, families)
    options.port = port
    try:
        # On its own port, a server cannot answer a peer on port 0.
        with server(*argv, kinds=kinds, families=families, port=port):
            every(name, [c for c in clients if not getattr(c, "from_zero", False)], families)
    finally:
        options.port = 0


def serve_each(name, clients, argv, port, **kwargs):
    """For servers that bind one address: @argv makes the command from it."""
    for family, address in HOSTS.items():
        serve(name, clients, *argv(address), port=port, families=(family,), **kwargs)


def steered(port):
    """The prefix for a client that is given the server's ordinary port."""
    return () if options.port else (RUN, "--to", str(port))


def unconnected():
    """The prefix for a client that sends datagrams without connecting."""
    return () if options.port else (RUN, "--reply")


def url(family, scheme="http"):
    return f"{scheme}://{URL_HOSTS[family]}:{options.port}"


# Clients: each makes `count` requests and returns how many were answered.

def header():
    return ["--header", f"Host: {options.host}"] if options.host else []


def curl(family, count):
    """A connection for every request: an HTTP/1.0 one ends with its answer."""
    said = run("curl", "-sS", "-m", "600", *header(), "--http1.0",
               f"{url(family)}/?[1-{count}]").stdout
    return said.count(TEXT)


def curl_http2(family, count):
    said = run("curl", "-sS", "-m", "600", *header(), "--http2-prior-knowledge", "-w", "HTTP/%{http_version}\n",
               f"{url(family)}/?[1-{count}]").stdout
    return min(said.count(TEXT), said.count("HTTP/2\n"))


def wget(family, count):
    urls = write("urls", "".join(f"{url(family)}/?{n}\n" for n in range(count)))
    return run("wget", "-q", "-O-", "-T60", "-t1", "--no-http-keep-alive", *header(), "-i", urls).stdout.count(TEXT)


def shell(count, line):
    """One process per request, as in a script."""
    return run("sh", "-c", f"n=0; while [ $n -lt {count} ]; do n=$((n + 1)); {line}; done")


def socat(family, count):
    return shell(count, "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | "
                 f"socat -t 20 - TCP:{URL_HOSTS[family]}:{options.port}").stdout.count(TEXT)


def python_http(family, count):
    answered = 0
    for _ in range(count):
        peer = http.client.HTTPConnection(HOSTS[family], options.port, timeout=60)
        # The class takes port 0 for "no port given".
        peer.port = options.port
        peer.request("GET", "/", headers={"Host": options.host} if options.host else {})
        answered += TEXT in peer.getresponse().read().decode()
        assert peer.sock is None or peer.sock.getpeername()[1] == options.port
        peer.close()
    return answered


def ncat(family, count):
    return shell(count, f"echo ping | ncat {HOSTS[family]} {options.port}").stdout.count("ping")


def exchange(family, kind, count, make, is_answer, from_zero=False):
    """@make returns the request for each number."""
    answered = 0
    with contextlib.ExitStack() as stack:
        s = None
        for n in range(count):
            # One socket for all datagrams, since only one can be on port 0.
            if not s or kind == socket.SOCK_STREAM:
                s = stack.enter_context(socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind))
                s.settimeout(60 if kind == socket.SOCK_STREAM else 5)
                if from_zero:
                    s.setsockopt(socket.SOL_IP, MARK, 1)
                    s.bind((OTHERS[family], 0))
                s.connect((HOSTS[family], options.port))
                assert s.getpeername()[1] == options.port
            # Repeated, since a datagram may be lost.
            for _ in range(1 if kind == socket.SOCK_STREAM else 5):
                s.sendall(make(n))
                with contextlib.suppress(TimeoutError):
                    while not is_answer(n, s.recv(2000)):
                        pass
                    answered += 1
                    break
            if kind == socket.SOCK_STREAM:
                s.close()
    return answered


def client_of(name, kind, make, is_answer, from_zero=False):
    def client(family, count):
        return exchange(family, kind, count, make, is_answer, from_zero)
    client.__name__ = name
    client.from_zero = from_zero
    return client


def numbered(n):
    return b"%d\n" % n


def is_numbered(n, data):
    return data == numbered(n)


python_tcp = client_of("python_tcp", socket.SOCK_STREAM, numbered, is_numbered)
python_udp = client_of("python_udp", socket.SOCK_DGRAM, numbered, is_numbered)


def asks(name, make, is_answer):
    """Datagrams from an ordinary port, and from port 0."""
    return (client_of(name, socket.SOCK_DGRAM, make, is_answer),
            client_of(f"{name} from port 0", socket.SOCK_DGRAM, make, is_answer, from_zero=True))


def dig(family, count, *extra):
    batch = write("queries", f"port0.example {'AAAA' if family == 6 else 'A'}\n" * count)
    said = run("dig", f"@{HOSTS[family]}", "-p", str(options.port), "+short", "+tries=3", "+time=20", *extra,
               "-f", batch).stdout
    return said.count("192.0.2.7\n") + said.count("2001:db8::7\n")


def dig_tcp(family, count):
    return dig(family, count, "+tcp")


def kdig(family, count):
    query = ["port0.example", "AAAA" if family == 6 else "A"]
    said = run(*unconnected(), "kdig", f"@{HOSTS[family]}", "-p", str(options.port), "+short", "+retry=3", "+timeout=20",
               *query * count).stdout
    return said.count("192.0.2.7\n") + said.count("2001:db8::7\n")


def dns_query(n):
    """An A query of port0.example."""
    return struct.pack(">6H", n, 0x0100, 1, 0, 0, 0) + b"\5port0\7example\0\0\1\0\1"


def is_dns_answer(n, data):
    return data[:2] == struct.pack(">H", n) and data[2] & 0x80 and socket.inet_aton("192.0.2.7") in data


DNS_CLIENTS = (dig, dig_tcp, *asks("DNS", dns_query, is_dns_answer))


def iperf3(family, count, *extra):
    """A request is a block here."""
    said = run(*steered(5201), "iperf3", "-c", HOSTS[family], "-k", str(count), "-l", "1400",
               "-J", *extra).stdout
    report = json.loads(said)
    # On a UDP socket, port0-run --to shows the program the port that it has asked for.
    port = 5201 if "-u" in extra else options.port
    assert report["start"]["connected"][0]["remote_port"] == port, report["start"]["connected"]
    if "-u" in extra:
        # It sends in bursts, so the last block is not the last packet.
        total = report["end"]["sum"]
        return min(count, total["packets"] - total["lost_packets"])
    return report["end"]["sum_received"]["bytes"] // 1400


def iperf3_udp(family, count):
    return iperf3(family, count, "-u", "-b", "2M")


def ssh(family, count):
    """20 connections with 10 commands each: an emulated CPU takes seconds for a key exchange."""
    common = ["-F", write("ssh_config", ""), "-i", f"{WORK}/key", "-o", "StrictHostKeyChecking=no",
              "-o", f"UserKnownHostsFile={WORK}/known", "-o", "LogLevel=ERROR"]
    answered = 0
    for _ in range(0, count, 10):
        control = f"{WORK}/control"
        run(*steered(22), "ssh", *common, "-M", "-S", control, "-f", "-N", HOSTS[family])
        for n in range(min(count, 10)):
            said = run("ssh", *common, "-S", control, HOSTS[family], f"echo {n} $SSH_CONNECTION").stdout
            answered += said.split()[0] == str(n) and said.split()[-1] == str(options.port)
        run("ssh", *common, "-S", control, "-O", "exit", HOSTS[family])
    return answered


WEB_CLIENTS = (curl, wget, socat, python_http)
# Each by itself makes a connection for each request.
SOME_CLIENTS = (curl, python_http)


def every(name, clients, families=(4, 6)):
    """Run each client against the server, and add a line to the report."""
    for client in clients:
        for family in families:
            begun = time.monotonic()
            answered = client(family, options.requests)
            what = f"{name} x {client.__name__} IPv{family}, port {options.port}"
            REPORT.append(f"{what}: {answered}/{options.requests}")
            print(f"# {what}: {answered} of {options.requests}, {time.monotonic() - begun:.0f} s", flush=True)
            assert answered == options.requests, f"{what}: {answered} of {options.requests}"


APACHE = """
ServerRoot "/etc/apache2"
ServerName port0.example
PidFile "{work}/apache.pid"
ErrorLog "{work}/apache.log"
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule dir_module /usr/lib/apache2/modules/mod_dir.so
LoadModule http2_module /usr/lib/apache2/modules/mod_http2.so
User www-data
Group www-data
Listen 0.0.0.0:80
Listen [::]:80
Protocols h2c http/1.1
DocumentRoot "{www}"
DirectoryIndex index.html
<Directory "{www}">
Require all granted
</Directory>
"""


def apache_argv():
    return ["apache2", "-DFOREGROUND", "-f", write("apache.conf", APACHE.format(work=WORK, www=WWW))]


def experiment(url):
    """The request of the 2014 experiment: without a Host header."""
    said = run("curl", "-v", "-m", "60", "-H", "Host:", url, check=False)
    return said.stdout, said.stderr


def peer_errno():
    """The result of getpeername() for a peer on port 0: an errno, or the port."""
    with socket.create_connection(("127.0.0.1", 0), timeout=60) as s:
        try:
            return f"port {s.getpeername()[1]}"
        except OSError as problem:
            return f"errno {problem.errno}"


def test_experiment_of_2014_by_redirect():
    """HTTP/1.0, since servers now refuse HTTP/1.1 without a Host header."""
    with server(*apache_argv(), port=80):
        run("iptables", "-t", "nat", "-A", "OUTPUT", "-p", "tcp", "--dport", "0",
            "-j", "REDIRECT", "--to-ports", "80")
        try:
            body, said = experiment_any("http://127.0.0.1:0/")
            assert TEXT in body and "200 OK" in said, said
            found = peer_errno()
            assert found == "errno 107", found
        finally:
            run("iptables", "-t", "nat", "-F", "OUTPUT")
    REPORT.append("2014: Apache by REDIRECT: 200 OK, getpeername() errno 107")


def experiment_any(url):
    body, said = experiment(url)
    if " 400 " in said:
        done = run("curl", "-v", "-m", "60", "--http1.0", "-H", "Host:", url, check=False)
        body, said = done.stdout, done.stderr
    return body, said


def test_experiment_of_2014_without_server():
    """Nothing listens on port 0 yet, and nothing redirects to it."""
    with socket.socket() as s:
        assert s.connect_ex(("127.0.0.1", 0)) == 111


def test_load_module():
    run("insmod", os.environ["PORT0_KO"])


def test_experiment_of_2014_by_literal_port():
    with server(RUN, "--map", "80", *apache_argv()):
        body, said = experiment_any("http://127.0.0.1:0/")
        assert TEXT in body and "200 OK" in said, said
        found = peer_errno()
        assert found == "port 0", found
    REPORT.append("2014: Apache by literal port 0: 200 OK, getpeername() port 0")


@contextlib.contextmanager
def host_without_port():
    """For servers that refuse a Host header with port 0 in it."""
    options.host = "port0.example"
    try:
        yield
    finally:
        options.host = None


def test_apache():
    with host_without_port():
        serve("Apache", (*WEB_CLIENTS, curl_http2), *apache_argv(), port=80)


def test_nginx():
    conf = write("nginx.conf", f"""
error_log {WORK}/nginx.log; pid {WORK}/nginx.pid; daemon off; worker_processes 2;
events {{ }}
http {{ access_log off; server {{ listen 80; listen [::]:80; http2 on; root {WWW}; }} }}
""")
    serve("nginx", (*WEB_CLIENTS, curl_http2), "nginx", "-c", conf, port=80)


def test_nginx_reload():
    """nginx overwrites its environment, and binds again when its configuration is reloaded."""
    conf = f"""
error_log {WORK}/nginx.log; pid {WORK}/nginx.pid; daemon off; worker_processes 1;
events {{ }}
http {{ access_log off; server {{ listen %s; root {WWW}; }} }}
"""
    path = write("nginx.conf", conf % "81")
    with server(RUN, "--map", "80", "nginx", "-c", path, port=81, families=(4,)) as child:
        write("nginx.conf", conf % "80")
        child.send_signal(signal.SIGHUP)
        until = time.monotonic() + 60
        while not listening(4, 0, "tcp"):
            assert time.monotonic() < until, "not on port 0 after the reload"
            time.sleep(0.3)
        assert curl(4, 10) == 10


def test_lighttpd():
    conf = write("lighttpd.conf", f"""
server.port = 80
server.bind = "0.0.0.0"
server.document-root = "{WWW}"
server.errorlog = "{WORK}/lighttpd.log"
index-file.names = ( "index.html" )
server.feature-flags = ( "server.h2proto" => "enable", "server.h2c" => "enable" )
$SERVER["socket"] == "[::]:80" {{ }}
""")
    with host_without_port():
        serve("lighttpd", (*WEB_CLIENTS, curl_http2), "lighttpd", "-D", "-f", conf, port=80)


def test_python_http_server():
    for family, address in ((4, "0.0.0.0"), (6, "::")):
        with server(RUN, sys.executable, "-m", "http.server", "0", "-b", address, families=(family,)):
            every("Python http.server", WEB_CLIENTS, (family,))


def test_socat_tcp():
    for family, address in ((4, "TCP4-LISTEN:0"), (6, "TCP6-LISTEN:0,ipv6only=1")):
        # By default, socat waits half a second for an answer once the client has sent all.
        with server(RUN, "socat", "-t", "20", f"{address},fork,reuseaddr,backlog=64", "EXEC:cat",
                    families=(family,)):
            every("socat", (python_tcp, ncat), (family,))


def test_socat_udp():
    for family, address in ((4, "UDP4-RECVFROM:0"), (6, "UDP6-RECVFROM:0,ipv6only=1")):
        with server(RUN, "socat", "-t", "20", f"{address},fork", "EXEC:cat", kinds=("udp",),
                    families=(family,)):
            every("socat", (python_udp,), (family,))


def test_iperf3():
    for family in (4, 6):
        serve("iperf3", (iperf3, iperf3_udp), "iperf3", "-s", f"-{family}", port=5201, families=(family,))


def test_dnsmasq():
    # dnsmasq itself drops queries from port 0.
    serve("dnsmasq", DNS_CLIENTS[:3], "dnsmasq", "-k", "-C", "/dev/null", "--port=53", "--no-resolv",
          "--no-hosts", "--user=root", "--bind-interfaces", "--listen-address=127.0.0.1,::1",
          "--address=/port0.example/192.0.2.7", "--address=/port0.example/2001:db8::7",
          port=53, kinds=("tcp", "udp"))


def test_unbound():
    conf = write("unbound.conf", f"""
server:
  interface: 127.0.0.1
  interface: ::1
  port: 53
  chroot: ""
  username: ""
  directory: "{WORK}"
  pidfile: ""
  use-syslog: no
  do-daemonize: no
  access-control: 192.0.2.0/24 allow
  access-control: 2001:db8::/32 allow
  module-config: "iterator"
  local-zone: "port0.example." static
  local-data: "port0.example. A 192.0.2.7"
  local-data: "port0.example. AAAA 2001:db8::7"
remote-control:
  control-enable: no
""")
    serve("unbound", DNS_CLIENTS, "unbound", "-d", "-c", conf, port=53, kinds=("tcp", "udp"))


def test_dnsdist():
    conf = write("dnsdist.conf", """
addLocal("127.0.0.1:53")
addLocal("[::1]:53")
setACL({"0.0.0.0/0", "::/0"})
addAction(QNameRule("port0.example"), SpoofAction({"192.0.2.7", "2001:db8::7"}))
""")
    serve("dnsdist", DNS_CLIENTS, "dnsdist", "--supervised", "-C", conf, port=53, kinds=("tcp", "udp"))


def test_sshd():
    os.makedirs("/run/sshd", exist_ok=True)
    for name in ("key", "host_key"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{WORK}/{name}")
    conf = write("sshd_config", f"""
ListenAddress 127.0.0.1
ListenAddress ::1
HostKey {WORK}/host_key
AuthorizedKeysFile {WORK}/key.pub
StrictModes no
PermitRootLogin yes
PidFile none
UsePAM no
""")
    serve("sshd", (ssh,), "/usr/sbin/sshd", "-D", "-e", "-f", conf, port=22)


ZONE = """$ORIGIN port0.example.
@ 60 IN SOA ns hostmaster 1 60 60 60 60
@ 60 IN NS ns
ns 60 IN A 192.0.2.7
@ 60 IN A 192.0.2.7
@ 60 IN AAAA 2001:db8::7
"""


def serve_dns(name, *argv, clients=DNS_CLIENTS):
    serve(name, (*clients, kdig), *argv, port=53, kinds=("tcp", "udp"))


def test_nsd():
    conf = write("nsd.conf", f"""
server:
  ip-address: 127.0.0.1
  ip-address: ::1
  username: ""
  zonesdir: "{WORK}"
  pidfile: "{WORK}/nsd.pid"
  database: ""
  xfrdfile: "{WORK}/xfrd"
  zonelistfile: "{WORK}/zones"
  xfrdir: "{WORK}"
remote-control:
  control-enable: no
zone:
  name: port0.example
  zonefile: {write("zone", ZONE)}
""")
    serve_dns("nsd", "nsd", "-d", "-c", conf)


def test_knot():
    write("port0.example.zone", ZONE)
    os.makedirs(f"{WORK}/knot", exist_ok=True)
    conf = write("knot.conf", f"""
server:
  listen: [ 127.0.0.1@53, ::1@53 ]
  rundir: "{WORK}/knot"
control:
  listen: "{WORK}/knot/sock"
database:
  storage: "{WORK}/knot"
template:
  - id: default
    storage: "{WORK}"
zone:
  - domain: port0.example
""")
    serve_dns("knot", "knotd", "-c", conf)


def test_bind9():
    conf = write("named.conf", f"""
options {{
  directory "{WORK}"; pid-file none; session-keyfile none; recursion no; dnssec-validation no;
  listen-on port 53 {{ 127.0.0.1; }}; listen-on-v6 port 53 {{ ::1; }};
}};
controls {{ }};
zone "port0.example" {{ type primary; file "{write("zone", ZONE)}"; }};
""")
    serve_dns("BIND", "named", "-g", "-n", "1", "-c", conf)


def test_pdns():
    os.makedirs(f"{WORK}/pdns", exist_ok=True)
    zone = write("zone", ZONE)
    write("bind.conf", f'zone "port0.example" {{ type master; file "{zone}"; }};\n')
    write("pdns.conf", f"""
launch=bind
bind-config={WORK}/bind.conf
local-address=127.0.0.1, ::1
local-port=53
socket-dir={WORK}/pdns
zone-cache-refresh-interval=0
""")
    # PowerDNS itself drops queries from port 0.
    serve_dns("PowerDNS", "pdns_server", f"--config-dir={WORK}", "--daemon=no", "--guardian=no",
              clients=(dig, dig_tcp))


def test_haproxy():
    conf = write("haproxy.conf", f"""
defaults
  mode http
  timeout client 60s
  timeout connect 60s
  timeout server 60s
frontend port0
  bind 127.0.0.1:80
  bind ::1:80
  http-request return status 200 content-type text/plain string "{TEXT}"
""")
    serve("haproxy", SOME_CLIENTS, "haproxy", "-db", "-f", conf, port=80)


def test_php():
    serve_each("php -S", SOME_CLIENTS,
               lambda address: ("php", "-S", f"[{address}]:80" if ":" in address else f"{address}:80"), 80)


def test_node():
    script = write("http.js", f"""
require("http").createServer((q, r) => r.end("{TEXT}\\n")).listen(80, process.argv[2]);
""")
    serve_each("Node", SOME_CLIENTS, lambda address: ("node", script, address), 80)


def test_gunicorn():
    write("wsgi.py", f"""
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"{TEXT}"]
""")
    serve("gunicorn", SOME_CLIENTS, "gunicorn", "--chdir", WORK, "-b", "127.0.0.1:80", "-b", "[::1]:80",
          "wsgi:app", port=80)


def test_uvicorn():
    write("asgi.py", f"""
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": b"{TEXT}"}})
""")
    serve_each("uvicorn", SOME_CLIENTS,
               lambda address: ("uvicorn", "--app-dir", WORK, "--host", address, "--port", "80", "asgi:app"), 80)


def test_aiohttp():
    script = write("aio.py", f"""
import sys
from aiohttp import web
async def hello(request):
    return web.Response(text="{TEXT}")
app = web.Application()
app.router.add_get("/", hello)
web.run_app(app, host=sys.argv[1], port=80, print=None)
""")
    # The packages belong to the system's Python, which may not be the one that runs this.
    serve_each("aiohttp", SOME_CLIENTS, lambda address: ("/usr/bin/python3", script, address), 80)


def test_webrick():
    script = write("web.rb", f"""
require "webrick"
s = WEBrick::HTTPServer.new(BindAddress: ARGV[0], Port: 80, AccessLog: [], Logger: WEBrick::Log.new(nil, 0),
                            DoNotReverseLookup: true)
s.mount_proc("/") {{ |_, response| response.body = "{TEXT}" }}
s.start
""")
    serve_each("WEBrick", SOME_CLIENTS, lambda address: ("ruby", script, address), 80)


def test_http_daemon():
    script = write("daemon.pl", f"""
use HTTP::Daemon;
use HTTP::Response;
my $d = HTTP::Daemon->new(LocalAddr => $ARGV[0], LocalPort => 80, ReuseAddr => 1) or die "$!";
while (my $c = $d->accept) {{
	while (my $r = $c->get_request) {{
		$c->send_response(HTTP::Response->new(200, "OK", [], "{TEXT}\\n"));
	}}
	$c->close;
}}
""")
    serve_each("HTTP::Daemon", SOME_CLIENTS, lambda address: ("perl", script, address), 80)


def make_certificate():
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-subj", "/CN=port0.example", "-keyout", f"{WORK}/tls.key", "-out", f"{WORK}/tls.crt")


def test_openssl_s_server():
    make_certificate()
    serve_each("openssl s_server", (s_client,),
               lambda address: ("openssl", "s_server", "-accept", f"[{address}]:443" if ":" in address
                                else f"{address}:443", "-quiet", "-www", "-key", f"{WORK}/tls.key",
                                "-cert", f"{WORK}/tls.crt"), 443)


def s_client(family, count):
    """A handshake for each; curl makes them in one process."""
    said = run("curl", "-sSk", "-m", "1800", f"{url(family, 'https')}/?[1-{count}]").stdout
    return said.count("TLSv1.3, Cipher is")


def test_tinyproxy():
    conf = write("tinyproxy.conf", """
Port 8888
Listen 127.0.0.1
Listen ::1
Allow 127.0.0.1
Allow ::1
Timeout 60
""")
    with server(sys.executable, "-m", "http.server", "8080", "-b", "127.0.0.1", "-d", WWW,
                families=(4,), port=8080):
        serve("tinyproxy", (curl_by_proxy(8888),), "tinyproxy", "-d", "-c", conf, port=8888)


def curl_by_proxy(port):
    """curl takes port 0 of a proxy for no port."""
    def client(family, count):
        said = run(*steered(port), "curl", "-sS", "-m", "900", "-x", f"http://{URL_HOSTS[family]}:{port}",
                   f"http://127.0.0.1:8080/?[1-{count}]").stdout
        return said.count(TEXT)
    client.__name__ = "curl"
    return client


def test_squid():
    conf = write("squid.conf", f"""
http_port 127.0.0.1:3128
http_port [::1]:3128
http_access allow all
pid_filename {WORK}/squid.pid
cache_log /dev/null
access_log none
cache deny all
shutdown_lifetime 1 seconds
visible_hostname port0.example
pinger_enable off
""")
    with server(sys.executable, "-m", "http.server", "8080", "-b", "127.0.0.1", "-d", WWW,
                families=(4,), port=8080):
        serve("squid", (curl_by_proxy(3128),), "squid", "-N", "-f", conf, port=3128)


def test_stunnel():
    """It gives up root after it has bound."""
    make_certificate()
    conf = write("stunnel.conf", f"""
foreground = yes
pid =
setuid = nobody
setgid = nogroup
cert = {WORK}/tls.crt
key = {WORK}/tls.key
[4]
accept = 127.0.0.1:443
connect = 127.0.0.1:8080
[6]
accept = ::1:443
connect = 127.0.0.1:8080
""")
    with server(sys.executable, "-m", "http.server", "8080", "-b", "127.0.0.1", "-d", WWW,
                families=(4,), port=8080):
        serve("stunnel", (curl_tls,), "stunnel", conf, port=443)


def curl_tls(family, count):
    return run("curl", "-sSk", "-m", "1800", f"{url(family, 'https')}/?[1-{count}]").stdout.count(TEXT)


def curl_ftp(family, count):
    """One control connection, and one more for each file."""
    conf = write("urls", f'url = "{url(family, "ftp")}/index.html"\n' * count)
    return run("curl", "-sS", "-m", "900", "-K", conf).stdout.count(TEXT)


def test_vsftpd():
    os.makedirs("/run/vsftpd/empty", exist_ok=True)
    conf = write("vsftpd.conf", f"""
listen=NO
listen_ipv6=YES
background=NO
anonymous_enable=YES
no_anon_password=YES
anon_root={WWW}
seccomp_sandbox=NO
secure_chroot_dir=/run/vsftpd/empty
""")
    serve("vsftpd", (curl_ftp,), "vsftpd", conf, port=21)


def redis_cli(family, count):
    said = run("redis-cli", "-h", HOSTS[family], "-p", str(options.port), "-r", str(count), "INCR",
               f"port0-{family}").stdout
    return len(said.split())


def test_redis():
    serve("redis", (redis_cli,), "redis-server", "--bind", "127.0.0.1", "::1", "--port", "6379", "--save", "",
          "--dir", WORK, port=6379)


def mosquitto_pub(family, count):
    """As many messages on one connection, kept for a subscriber who fetches them."""
    common = ("-h", HOSTS[family], "-p", "1883", "-q", "1", "-t", "port0")
    subscribe = (*steered(1883), "mosquitto_sub", *common, "-c", "-i", f"port0-{family}")
    run(*subscribe, "-E")
    run(*steered(1883), "mosquitto_pub", *common, "-l", input="".join(f"{TEXT} {n}\n" for n in range(count)))
    return run(*subscribe, "-C", str(count), "-W", "300").stdout.count(TEXT)


def psql(family, count):
    """A connection with as many queries."""
    return run(*steered(5432), "psql", "-h", HOSTS[family], "-U", "postgres", "-Atq",
               input=f"select '{TEXT}';\n" * count).stdout.count(TEXT)


def test_postgresql():
    """It refuses to be started by root, so it is started with the right to bind."""
    home, programs = os.path.join(WORK, "postgresql"), glob.glob("/usr/lib/postgresql/*/bin")[0]
    user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
    os.makedirs(home)
    run("chown", "postgres", home)
    run(*user, f"{programs}/initdb", "-A", "trust", "-D", f"{home}/data")
    serve("PostgreSQL", (psql,), *user, "--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service",
          f"{programs}/postgres", "-D", f"{home}/data", "-k", home, "-h", "127.0.0.1,::1", port=5432)


def test_mosquitto():
    conf = write("mosquitto.conf", """
user root
allow_anonymous true
listener 1883 127.0.0.1
listener 1883 ::1
""")
    serve("mosquitto", (mosquitto_pub,), "mosquitto", "-c", conf, port=1883)


def memcached_request(n):
    """In UDP a header of request number, packet, packets and zero comes first."""
    return struct.pack(">4H", n, 0, 1, 0) + b"version\r\n"


def is_memcached_answer(n, data):
    return data[:2] == struct.pack(">H", n) and data[8:].startswith(b"VERSION ")


def test_memcached():
    tcp = client_of("python_tcp", socket.SOCK_STREAM, lambda n: b"version\r\n",
                    lambda n, data: data.startswith(b"VERSION "))
    serve("memcached", (tcp, *asks("python_udp", memcached_request, is_memcached_answer)),
          "memcached", "-u", "root", "-l", "127.0.0.1,::1", "-p", "11211", "-U", "11211", port=11211,
          kinds=("tcp", "udp"))


def logger(family, count, kind="--udp"):
    """rsyslog sends no answer: a file has the messages that arrived."""
    lines = write("lines", "".join(f"{kind} {family} {options.port} {n}\n" for n in range(count)))
    before = arrived()
    run("logger", kind, "-n", HOSTS[family], "-P", str(options.port), "-t", "port0", "-f", lines)
    until = time.monotonic() + 60
    while arrived() - before < count and time.monotonic() < until:
        time.sleep(0.3)
    return arrived() - before


def arrived():
    path = f"{WORK}/syslog"
    if not os.path.exists(path):
        return 0
    with open(path, encoding="utf-8") as f:
        return sum("port0" in line for line in f)


def logger_tcp(family, count):
    return logger(family, count, "--tcp")


def test_rsyslog():
    conf = write("rsyslog.conf", f"""
module(load="imudp")
module(load="imtcp")
input(type="imudp" port="514")
input(type="imtcp" port="514")
*.* action(type="omfile" file="{WORK}/syslog")
""")
    serve("rsyslog", (logger, logger_tcp), "rsyslogd", "-n", "-i", f"{WORK}/rsyslog.pid", "-f", conf, port=514,
          kinds=("tcp", "udp"))


def ntp_query(n):
    return struct.pack(">B39xQ", 0x23, 7030 + n)


def is_ntp_answer(n, data):
    return len(data) == 48 and data[24:32] == struct.pack(">Q", 7030 + n)


def test_chrony():
    conf = write("chrony.conf", """
allow all
local stratum 8
port 123
cmdport 0
bindcmdaddress /
bindaddress 127.0.0.1
bindaddress ::1
pidfile /run/chronyd.pid
""")
    serve("chronyd", asks("NTP", ntp_query, is_ntp_answer), "chronyd", "-d", "-x", "-u", "root", "-f", conf,
          port=123, kinds=("udp",))


def snmpwalk(family, count):
    """A request for each object, of which there are enough."""
    host = {4: f"udp:127.0.0.1:{options.port}", 6: f"udp6:[::1]:{options.port}"}[family]
    said = run(*unconnected(), "snmpwalk", "-v2c", "-c", "public", "-t", "20",
               "-On", host, ".1.3.6.1.2.1").stdout
    return min(count, said.count("\n.1.3.6.1.2.1."))


def test_snmpd():
    conf = write("snmpd.conf", """
agentAddress udp:127.0.0.1:161,udp6:[::1]:161
rocommunity public
rocommunity6 public
""")
    serve("snmpd", (snmpwalk,), "snmpd", "-f", "-C", "-c", conf, "-p", f"{WORK}/snmpd.pid", port=161,
          kinds=("udp",))


def tftp(family, count):
    """in.tftpd answers from a new port for each file."""
    path = os.path.join(WORK, "got")
    said = run(*unconnected(), "tftp", "-v", f"-{family}", "-m", "binary", HOSTS[family], str(options.port),
               input=f"get index.html {path}\n" * count + "quit\n").stdout
    with open(path, encoding="ascii") as f:
        assert TEXT in f.read()
    return said.count("Received ")


def test_tftpd():
    for family in (4, 6):
        serve("in.tftpd", (tftp,), "in.tftpd", "-L", f"-{family}", "-a", f"{URL_HOSTS[family]}:69", "-s", WWW,
              port=69, kinds=("udp",), families=(family,))


STUN_COOKIE = 0x2112a442


def stun_request(n):
    return struct.pack(">HHL12s", 1, 0, STUN_COOKIE, b"port0 %06d" % n)


def is_stun_answer(n, data):
    return data[:2] == b"\1\1" and data[8:20] == b"port0 %06d" % n


def test_coturn():
    serve("coturn", asks("STUN", stun_request, is_stun_answer), "turnserver", "-n", "-L", "127.0.0.1", "-L", "::1",
          "--listening-port", "3478", "--no-tls", "--no-dtls", "--no-cli", "--no-auth", "--log-file", "stdout",
          "--no-software-attribute", "--realm", "port0.example", "--pidfile", f"{WORK}/turn.pid",
          "--userdb", f"{WORK}/turndb", port=3478, kinds=("udp",))


def tracker_request(n):
    return struct.pack(">QLL", 0x41727101980, 0, n)


def is_tracker_answer(n, data):
    return len(data) == 16 and data[:8] == struct.pack(">LL", 0, n)


def test_opentracker():
    serve("opentracker", asks("tracker", tracker_request, is_tracker_answer), "opentracker", "-i", "127.0.0.1",
          "-P", "6969", "-d", WORK, port=6969, kinds=("udp",), families=(4,))


def test_uvloop():
    script = write("loop.py", """
import asyncio, sys, uvloop
class Echo(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport
    def datagram_received(self, data, addr):
        self.transport.sendto(data, addr)
async def main():
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(Echo, local_addr=(sys.argv[1], 7031))
    await asyncio.Event().wait()
uvloop.install()
asyncio.run(main())
""")
    serve_each("uvloop", asks("python_udp", numbered, is_numbered),
               lambda address: ("/usr/bin/python3", script, address), 7031, kinds=("udp",))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tests", nargs="*", help="names without test_ (default: all)")
    parser.add_argument("--requests", type=int, default=200, help="by each client (200)")
    parser.parse_args(namespace=options)
    os.chmod(WORK, 0o755)
    os.makedirs(WWW)
    write("www/index.html", TEXT + "\n")
    for address in OTHERS.values():
        run("ip", "address", "add", address, "dev", "lo")
    status = run_tests(globals(), options.tests, ("load_module",))
    for line in REPORT:
        print(f"# report: {line}")
    return status


if __name__ == "__main__":
    sys.exit(main())

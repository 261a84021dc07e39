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
# Another address of this host, for clients that are on port 0 themselves.
SECOND = "2001:db8::2"
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
    """A server in the foreground, from when it listens."""
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
    """A server on port 0 by --map, and as it is on its own port: the same clients."""
    with server(RUN, "--map", str(port), *run_options, *argv, kinds=kinds, families=families):
        every(name, clients, families)
    options.port = port
    try:
        with server(*argv, kinds=kinds, families=families, port=port):
            every(name, clients, families)
    finally:
        options.port = 0


def serve_each(name, clients, argv, port, **kwargs):
    """For servers with one address: @argv makes the command of it."""
    for family, address in HOSTS.items():
        serve(name, clients, *argv(address), port=port, families=(family,), **kwargs)


def steered(port):
    """What to put before a client that is told its server's ordinary port."""
    return () if options.port else (RUN, "--to", str(port))


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
    """One process per request, as a script would have it."""
    return run("sh", "-c", f"n=0; while [ $n -lt {count} ]; do n=$((n + 1)); {line}; done")


def socat(family, count):
    return shell(count, "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | "
                 f"socat -t 20 - TCP:{URL_HOSTS[family]}:{options.port}").stdout.count(TEXT)


def python_http(family, count):
    answered = 0
    for _ in range(count):
        peer = http.client.HTTPConnection(HOSTS[family], options.port, timeout=60)
        # The class takes a port of 0 for none given.
        peer.port = options.port
        peer.request("GET", "/", headers={"Host": options.host} if options.host else {})
        answered += TEXT in peer.getresponse().read().decode()
        assert peer.sock is None or peer.sock.getpeername()[1] == options.port
        peer.close()
    return answered


def ncat(family, count):
    return shell(count, f"echo ping | ncat {HOSTS[family]} {options.port}").stdout.count("ping")


def exchange(family, kind, count, make, is_answer, from_zero=False):
    """Each request is what @make gives for its number."""
    answered = 0
    with contextlib.ExitStack() as stack:
        s = None
        for n in range(count):
            # One socket for all datagrams: there is one port 0 to send from.
            if not s or kind == socket.SOCK_STREAM:
                s = stack.enter_context(socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind))
                s.settimeout(60 if kind == socket.SOCK_STREAM else 5)
                if from_zero:
                    s.setsockopt(socket.SOL_IP, MARK, 1)
                    s.bind((f"127.0.0.{2 + n}" if family == 4 else SECOND, 0))
                s.connect((HOSTS[family], options.port))
                assert s.getpeername()[1] == options.port
            # Asked again, since a datagram may be lost.
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


def iperf3(family, count, *extra):
    """A request is a block here."""
    said = run(*steered(5201), "iperf3", "-c", HOSTS[family], "-k", str(count), "-l", "1400",
               "-J", *extra).stdout
    report = json.loads(said)
    assert report["start"]["connected"][0]["remote_port"] == options.port, report["start"]["connected"]
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
    """Each client against the running server, and a line of the report for it."""
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
    """What the post of 2014 did: no Host header, for it has no good spelling."""
    said = run("curl", "-v", "-m", "60", "-H", "Host:", url, check=False)
    return said.stdout, said.stderr


def peer_errno():
    """What getpeername() says towards port 0: an errno, or the port."""
    with socket.create_connection(("127.0.0.1", 0), timeout=60) as s:
        try:
            return f"port {s.getpeername()[1]}"
        except OSError as problem:
            return f"errno {problem.errno}"


def test_experiment_of_2014_by_redirect():
    """HTTP/1.0, since without Host an HTTP/1.1 request is a bad one today."""
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
    """For servers that call a Host header with port 0 in it a bad request."""
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
    """It takes its environment apart, and binds again when its configuration says so."""
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
        with server(RUN, "socat", f"{address},fork,reuseaddr,backlog=64", "EXEC:cat", families=(family,)):
            every("socat", (python_tcp, ncat), (family,))


def test_socat_udp():
    for family, address in ((4, "UDP4-RECVFROM:0"), (6, "UDP6-RECVFROM:0,ipv6only=1")):
        with server(RUN, "socat", f"{address},fork", "EXEC:cat", kinds=("udp",), families=(family,)):
            every("socat", (python_udp,), (family,))


def test_iperf3():
    for family in (4, 6):
        serve("iperf3", (iperf3, iperf3_udp), "iperf3", "-s", f"-{family}", port=5201, families=(family,))


def test_dnsmasq():
    serve("dnsmasq", DNS_CLIENTS, "dnsmasq", "-k", "-C", "/dev/null", "--port=53", "--no-resolv",
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
  module-config: "iterator"
  local-zone: "port0.example." static
  local-data: "port0.example. A 192.0.2.7"
  local-data: "port0.example. AAAA 2001:db8::7"
remote-control:
  control-enable: no
""")
    serve("unbound", DNS_CLIENTS, "unbound", "-d", "-c", conf, port=53, kinds=("tcp", "udp"))


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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tests", nargs="*", help="names without test_ (default: all)")
    parser.add_argument("--requests", type=int, default=200, help="by each client (200)")
    parser.parse_args(namespace=options)
    os.chmod(WORK, 0o755)
    os.makedirs(WWW)
    write("www/index.html", TEXT + "\n")
    run("ip", "address", "add", f"{SECOND}/128", "dev", "lo")
    status = run_tests(globals(), options.tests, ("load_module",))
    for line in REPORT:
        print(f"# report: {line}")
    return status


if __name__ == "__main__":
    sys.exit(main())

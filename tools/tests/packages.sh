#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# packages.sh DIRECTORY - install, use, upgrade, remove and purge the Debian
# packages in DIRECTORY; KTAP on stdout. For a guest (scripts/proof packages) without
# the module; it changes the guest.
# shellcheck disable=SC2317 # called by try
set -u
if [ $# != 1 ] || [ "$1" = --help ]; then
	sed -n '3,5s/^# //p' "$0"
	[ $# = 1 ]
	exit
fi
# shellcheck source=tools/tests/try.sh
. "$(dirname "$(realpath "$0")")/try.sh"
cd "$1" || exit
dkms=$(echo "$PWD"/port0-dkms_*.deb)
tools=$(echo "$PWD"/port0-tools_*.deb)
version=$(dpkg-deb -f "$dkms" Version)
next=$version.1

installed() { [ "$(dpkg-query -W -f '${db:Status-Abbrev}' "$1")" = "ii " ]; }

# DKMS must sign the module, so that with Secure Boot only the key has to be enrolled.
signed()
{
	signer=$(modinfo -F signer port0)
	openssl x509 -inform der -in /var/lib/dkms/mok.pub -noout -subject |
		grep -F "${signer:-nobody}"
}

literal()
{
	port0-run python3 -c '
import socket
s = socket.socket(); s.bind(("127.0.0.1", 0)); s.listen()
assert s.getsockopt(socket.SOL_IP, 0x7031) == 1
c = socket.create_connection(("127.0.0.1", 0)); assert c.getpeername()[1] == 0'
}

files()
{
	for file in /usr/bin/port0-run /usr/bin/port0-probe /usr/bin/port0-ls \
		    /usr/include/port0.h /usr/share/man/man1/port0-run.1.gz \
		    /usr/share/man/man1/port0-probe.1.gz /usr/share/man/man8/port0-ls.8.gz \
		    /usr/share/man/man7/port0.7.gz /usr/lib/systemd/system/port0@.service \
		    /usr/share/doc/port0-tools/examples/asyncio_echo.py \
		    /usr/share/doc/port0-tools/examples/http_server.py; do
		[ -e "$file" ] || { echo "no $file"; return 1; }
	done
	echo '#include <port0.h>' | cc -x c -fsyntax-only -
}

# A server that takes its socket as systemd passes it.
service()
{
	mkdir -p /etc/port0
	cat > /usr/local/bin/hello <<-EOF
	#!/usr/bin/python3
	import os, socket
	listener = socket.socket(fileno=3)
	while True:
	    listener.accept()[0].sendall(b"user %d" % os.getuid())
	EOF
	chmod 755 /usr/local/bin/hello
	printf 'LISTEN=--listen 127.0.0.1\nCOMMAND=/usr/local/bin/hello\n' > /etc/port0/hello.conf
	systemctl enable port0@hello
}

# Run systemd as in a container, without the module loaded. With /sys read-only, systemd
# does not touch devices. The server must not run as root.
at_boot()
{
	rmmod port0 || return
	container=port0 unshare --fork --kill-child --pid --uts --mount --mount-proc sh -c '
		mount -o remount,bind,ro /sys
		mount -t tmpfs run /run
		mount -t tmpfs tmp /tmp
		exec /lib/systemd/systemd --log-target=console --show-status=no' &
	python3 -c '
import socket, time
until = time.monotonic() + 600
while True:
    try:
        said = socket.create_connection(("127.0.0.1", 0), 60).recv(100)
        break
    except OSError:
        assert time.monotonic() < until, "no service"
        time.sleep(1)
assert said.startswith(b"user ") and said != b"user 0", said'
	status=$?
	kill -KILL $!
	wait $!
	[ -d /sys/module/port0 ] && return "$status"
}

# Both packages again with a higher version, of the module, too
newer()
{
	old=$(echo "$version" | sed 's/\./\\./g')
	for package in "$dkms" "$tools"; do
		dir=$work/$(basename "$package" .deb)
		dpkg-deb -R "$package" "$dir" || return
		[ ! -e "$dir/usr/src" ] ||
			mv "$dir/usr/src/port0-$version" "$dir/usr/src/port0-$next" || return
		grep -rlI "$old" "$dir/DEBIAN" "$dir/usr" | xargs sed -i "s/$old/$next/g" &&
			dpkg-deb -b "$dir" "$dir.new.deb" || return
	done
}

# foreign VERSION CONFIG: create the files by which dkms takes a kernel for installed.
foreign()
{
	mkdir -p "/lib/modules/$1/build/include"
	echo "$2" | tee "/lib/modules/$1/build/.config" > "/boot/config-$1"
	touch "/lib/modules/$1/modules.order" "/lib/modules/$1/modules.builtin"
}

skipped()
{
	rm -r "/lib/modules/$1" "/boot/config-$1"
	dkms status port0 > "$work/status" && fails grep "$1" "$work/status"
}

# Run the scripts that run when a kernel is installed.
kernel_installed()
{
	foreign "$@" && /etc/kernel/postinst.d/dkms "$1" && skipped "$1"
}

# dkms builds for the newest kernel, too.
upgrade()
{
	foreign 99.0.0-1-amd64 CONFIG_NETFILTER=y
	dpkg -i "$work"/*.new.deb && installed port0-dkms && installed port0-tools &&
		skipped 99.0.0-1-amd64
}

# The root was made without manuals.
rm -f /etc/dpkg/dpkg.cfg.d/*
echo "TAP version 13"
echo "1..20"
try "install" dpkg -i "$dkms" "$tools"
try "both packages are installed" eval 'installed port0-dkms && installed port0-tools'
try "the module is built" built "$version"
try "it is signed with the key of dkms" signed
try "modprobe loads it" loads "$version"
try "port0-run binds port 0" literal
try "header, manual pages and service are there" files
try "the service is well-formed" systemd-analyze verify --man=no port0@test.service
try "a service on port 0 is enabled" service
try "at boot the service loads the module and answers" at_boot
try "a kernel that is too old is skipped" kernel_installed 4.19.0-1-amd64 CONFIG_KPROBES=y
try "a kernel without kprobes is skipped" kernel_installed 6.12.0-1-amd64 CONFIG_NETFILTER=y
try "make newer packages" newer
try "upgrade, beside a newer kernel without kprobes" upgrade
try "the new module is built, the old one gone" built "$next"
try "the new module loads" eval "rmmod port0 && loads $next"
try "remove" dpkg -r port0-dkms port0-tools
try "the module is gone" eval 'rmmod port0 && fails modprobe port0 && [ ! -e /usr/bin/port0-run ]'
try "purge" dpkg -P port0-dkms port0-tools
try "nothing is left behind" nothing_left
rm -r "$work"
exit $failed

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# rpm.sh TARBALL SPEC - build the RPM package of SPEC from TARBALL ("make dist"), check it,
# install it, load the module that DKMS builds, and remove it; KTAP on stdout. For a guest
# (scripts/proof rpm) without the module; it changes the guest.
# shellcheck disable=SC2317 # called by try
set -u
if [ $# != 2 ] || [ "$1" = --help ]; then
	sed -n '3,5s/^# //p' "$0"
	[ "${1-}" = --help ]
	exit
fi
# shellcheck source=tools/tests/try.sh
. "$(dirname "$(realpath "$0")")/try.sh"
tarball=$1
spec=$2
version=$(sed -n 's/^Version: *//p' "$spec")
rpm=$work/rpm/noarch/port0-dkms-$version-1.noarch.rpm

builds()
{
	rpmbuild -bb --define "_sourcedir $(dirname "$tarball")" --define "_topdir $work" \
		--define "_rpmdir $work/rpm" "$spec" && [ -e "$rpm" ]
}

# rpm does not know that dpkg has installed dkms, gcc and make.
install_it() { rpm -i --nodeps "$rpm"; }

files()
{
	for file in /usr/include/port0.h "/usr/src/port0-$version/dkms.conf" \
		    "/usr/src/port0-$version/module/main.c"; do
		[ -e "$file" ] || { echo "no $file"; return 1; }
	done
	echo '#include <port0.h>' | cc -x c -fsyntax-only -
}

literal()
{
	python3 -c '
import socket
s = socket.socket(); s.setsockopt(socket.SOL_IP, 0x7030, 1)
s.bind(("127.0.0.1", 0)); s.listen()
c = socket.create_connection(("127.0.0.1", 0)); assert c.getpeername()[1] == 0'
}

echo "TAP version 13"
echo "1..9"
try "rpmbuild builds the package" builds
try "rpmlint has no complaint" rpmlint --strict --config "$(dirname "$(realpath "$0")")/rpmlint.toml" \
	"$spec" "$rpm"
try "it installs" install_it
try "the files are there" files
try "the module is built" built "$version"
try "modprobe loads it" loads "$version"
try "port 0 is bound" literal
try "it is removed" eval 'rmmod port0 && rpm -e port0-dkms && fails modprobe port0'
try "nothing is left behind" nothing_left
rm -r "$work"
exit $failed

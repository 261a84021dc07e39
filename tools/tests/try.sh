# shellcheck shell=sh
# SPDX-License-Identifier: GPL-2.0
# For the proofs in shell that run in a guest: each step is a line of KTAP on stdout.

export DEBIAN_FRONTEND=noninteractive
work=$(mktemp -d)
number=0
failed=0

# try NAME COMMAND...: print one line with the result, and COMMAND's output if it fails
try()
{
	name=$1
	shift
	number=$((number + 1))
	if "$@" > "$work/said" 2>&1; then
		echo "ok $number $name"
	else
		sed 's/^/# /' "$work/said"
		echo "not ok $number $name"
		# shellcheck disable=SC2034 # the exit status of the script that reads this file
		failed=1
	fi
}

fails() { ! "$@"; }

# built VERSION: dkms has the module of that version and of no other.
built()
{
	dkms status port0 | tee /dev/stderr | grep -q "port0/$1, $(uname -r).*: installed" &&
		[ "$(dkms status port0 | wc -l)" = 1 ]
}

loads()
{
	modprobe port0 && [ "$(cat /sys/module/port0/version)" = "$1" ]
}

# Nothing of the packages but the sources that every guest has. systemd removes what it has in
# /var/tmp for services that ran when a machine ended as it boots.
nothing_left()
{
	! find /usr /lib/modules /var /boot -name '*port0*' -not -name '*support0*' \
		-not -path '/var/tmp/systemd-private-*' \
		-not -path '*/kselftest/*' -not -path /usr/src/port0 \
		-not -path '/usr/src/port0/*' | grep .
}

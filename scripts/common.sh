# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What the bash scripts share: where things are, and how to fail.

me=${0##*/}
top=$(realpath "${BASH_SOURCE[0]%/*}/..")
# shellcheck disable=SC2034 # for who sources this
build=$top/build

say() { echo "$me: $*" >&2; }

die()
{
	say "$*"
	exit 1
}

# need COMMAND|FILE PACKAGE: have it on this machine, installing PACKAGE if we may.
need()
{
	local log

	if command -v "$1" >/dev/null || [ -e "$1" ]; then
		return
	fi
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		die "missing $1: apt-get install $2"
	fi
	say "installing $2, for $1"
	log=$(mktemp)
	if ! { apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
	       apt-get -qq install --no-install-recommends -y "$2"; } \
	       >"$log" 2>&1 </dev/null; then
		tail -5 "$log" >&2
		rm -f "$log"
		die "could not install $2: install it by hand and try again"
	fi
	rm -f "$log"
}

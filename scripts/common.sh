# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# Shared by the bash scripts: paths, messages, and packages that they need.

me=${0##*/}
top=$(realpath "${BASH_SOURCE[0]%/*}/..")
# shellcheck disable=SC2034 # used by the scripts that source this
build=$top/build

# Not in the PATH of an ordinary user on Debian
PATH=$PATH:/usr/sbin:/sbin

say() { echo "$me: $*" >&2; }

die()
{
	say "$*"
	exit 1
}

# need COMMAND PACKAGE...: make sure that this machine has these commands; install the
# missing packages if this is root. The Python commands have port0.need().
need()
{
	local missing=() log

	while [ $# -gt 0 ]; do
		command -v "$1" >/dev/null || missing+=("$2")
		shift 2
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		die "this machine lacks: ${missing[*]} (on Debian and Ubuntu:" \
			"sudo apt-get install ${missing[*]})"
	fi
	say "installing ${missing[*]}"
	log=$(mktemp)
	if ! { apt-get -qq -o DPkg::Lock::Timeout=600 update &&
	       DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 \
	       install --no-install-recommends -y "${missing[@]}"; } >"$log" 2>&1 </dev/null; then
		tail -5 "$log" >&2
		rm -f "$log"
		die "could not install ${missing[*]}: install them by hand and try again"
	fi
	rm -f "$log"
}

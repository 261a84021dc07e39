# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# What the bash scripts share: where things are, and how to fail.

me=${0##*/}
top=$(realpath "${BASH_SOURCE[0]%/*}/..")
build=$top/build
# shellcheck disable=SC2034 # for who sources this
cache=$(realpath -m "${PORT0_CACHE:-$build/cache}")

SUITES="bookworm trixie trixie-backports"
MACHINES="amd64 arm64"
# Suites with a kernel of our own, and the release that the rest is from.
OWN_KERNELS="debug kcsan kprobes"
# shellcheck disable=SC2034 # for who sources this
OWN_RELEASE=trixie

say() { echo "$me: $*" >&2; }

die()
{
	say "$*"
	exit 1
}

is_own_kernel() { [[ " $OWN_KERNELS " == *" ${1%@*} "* ]]; }

# SUITE@MACHINE is the suite for that architecture, in Debian's name for it, and
# SUITE for this machine's own. SUITE+LIST is the suite with the packages of
# scripts/packages.LIST as well.
known_suite()
{
	local base=${1%%+*}

	is_own_kernel "$1" || [[ " $SUITES " == *" ${base%@*} "* ]] ||
		die "unknown suite '$1': choose one of $SUITES $OWN_KERNELS"
	[[ $base != *@* || " $MACHINES " == *" ${base#*@} "* ]] ||
		die "unknown architecture '${base#*@}': choose one of $MACHINES"
	[[ $1 != *+* || -e $top/scripts/packages.${1#*+} ]] ||
		die "no package list scripts/packages.${1#*+} for '$1'"
}

# this machine's architecture
native()
{
	case $(uname -m) in
	x86_64) echo amd64 ;;
	aarch64) echo arm64 ;;
	*) die "this machine is a $(uname -m); it takes one of $MACHINES" ;;
	esac
}

need_root()
{
	[ "$(id -u)" = 0 ] || die "$1 needs root: run it with sudo"
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

# SPDX-License-Identifier: GPL-2.0

KDIR ?= /lib/modules/$(shell uname -r)/build
PREFIX ?= /usr
SUITE ?= trixie
# MACHINE: amd64 or arm64, for guests of that architecture
AT := $(if $(MACHINE),@$(MACHINE))

all: modules

help:
	@sed -n 's/^#help //p' Makefile

#help make            the module, for the running kernel (KDIR=DIR: for another)
#help make install    installs the module and the header, as root; DESTDIR=, PREFIX=
#help make uninstall  removes both again
#help make clean      removes everything built, except the guests' roots in build/cache
#help make distclean  removes these, too
#help make -C tools   port0-run, port0-ls, port0-probe; then make -C tools install
#help make demo       shows port 0 without the module and with it, in a guest
#help make test       the selftests on kernels of Debian, in guests
#help                   TESTS="bind option"  SUITES="trixie bookworm:kprobe"
#help                   MACHINE=arm64  KERNEL=DIR LLVM=1: on the kernel of any tree
#help make test-all   the selftests on all of Debian's kernels that suites have: takes a night
#help make test-debug the selftests on kernels with sanitizers: takes hours
#help make check      checks of the sources that need no guest
#help make fuzz       random sequences of socket calls: SEED=1 SEEDS=1000 SUITE=trixie
#help make mutate     mutation tests of the module: FILES=tcp.c MUTANT=name
#help make coverage   which lines of the module the selftests run, counted by gcov: TESTS=
#help make bench      benchmarks of the module: QUICK=1, SUITES=..., ACCEL=kvm
#help make proof      tests the tools, packages and more, in guests: PROOF="tools wire"
#help make deb        Debian packages, in build/trixie+deb/deb
#help make dist       a tarball of the last commit
#help make build-matrix   compiles the module for every linux-headers package of Debian:
#help                   RELEASES="trixie sid"
#help make mirrors    which mirrored or hooked kernel functions changed: TREE=DIR
#help
#help A guest is a virtual machine; a suite is a Debian release with one of its kernels.
#help Most targets run a command in scripts/ of that name, which has --help.

modules: headers
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

# If there are no kernel headers in KDIR, say in one line what to do.
headers:
	@[ ! -e "$(KDIR)/include/config/auto.conf" ] || exit 0; \
	if [ -e "$(KDIR)/Makefile" ]; then \
		echo "port0: the kernel source in $(KDIR) is not prepared: configure it and run" \
			"'make' there, or 'make modules_prepare' (doc/install.md, WSL2)"; \
	elif [ "$(origin KDIR)" != file ]; then \
		echo "port0: no kernel headers in KDIR=$(KDIR)"; \
	else \
		. /etc/os-release; release=$$(uname -r); \
		case "$$ID $$ID_LIKE" in \
		*debian*|*ubuntu*) how="apt-get install build-essential linux-headers-$$release" ;; \
		*fedora*|*rhel*) how="dnf install gcc kernel-devel-$$release" ;; \
		*suse*) how="zypper install gcc kernel-default-devel" ;; \
		*arch*) how="pacman -S gcc linux-headers" ;; \
		*) how="install what your distribution has to build modules for $$release" ;; \
		esac; \
		echo "port0: no kernel headers in $(KDIR): $$how (or say KDIR=DIR; guests, as in" \
			"make demo and make test, need none)"; \
	fi >&2; exit 1

# modules_install would sign the module with a key that the kernel's headers do not have,
# and its depmod needs a System.map, which they do not have either.
install: modules
	$(MAKE) -C $(KDIR) M=$(CURDIR) INSTALL_MOD_PATH=$(DESTDIR) CONFIG_MODULE_SIG_ALL= modules_install
	$(if $(DESTDIR),,depmod -a "$$(cat $(KDIR)/include/config/kernel.release)")
	install -D -m 644 module/uapi/port0.h $(DESTDIR)$(PREFIX)/include/port0.h

# Kernels differ in the directory that they install it in. A module of DKMS is not removed.
uninstall: headers
	release="$$(cat $(KDIR)/include/config/kernel.release)" && \
	rm -f $(DESTDIR)/lib/modules/"$$release"/*/port0.ko* && \
	$(if $(DESTDIR),,depmod -a "$$release" &&) rm -f $(DESTDIR)$(PREFIX)/include/port0.h

clean:
	$(if $(wildcard $(KDIR)),$(MAKE) -C $(KDIR) M=$(CURDIR) clean)
	$(if $(wildcard tools/Makefile),$(MAKE) -C tools clean)
	[ ! -d build ] || find build -mindepth 1 -maxdepth 1 ! -name cache -exec rm -rf {} +

# Also removes the roots and kernels, which take minutes to make. In roots made by an
# ordinary user, files belong to that user's subordinate ids, so this needs unshare.
distclean: clean
	rm -rf build 2>/dev/null || unshare --user --map-root-user --map-auto rm -rf build

# The scripts are in Python, so they cannot install Python themselves.
python:
	@bash -c '. scripts/common.sh && need python3 python3'

# scripts/test --help has the suites and tests that run by default. SUITES=trixie:kprobe
# loads the module with hook=kprobe. KERNEL=DIR, with LLVM=1 or without: on the kernel of
# that tree.
TEST = scripts/test $(if $(TESTS),--tests "$(TESTS)") $(if $(MACHINE),--machine $(MACHINE)) \
	$(if $(KERNEL),--kernel "$(KERNEL)" $(if $(LLVM),--llvm))

# By default, also checks that the selftests build and run as part of a kernel tree. The
# last line is always the count of scripts/test.
test: python
	@failed=; \
	$(if $(strip $(TESTS)$(SUITES)$(KERNEL)$(MACHINE)),,scripts/kselftest --tests "option compat.py" || failed="--failed scripts/kselftest";) \
	exec $(TEST) $$failed $(SUITES)

# All suites with a kernel of Debian's, in each flavour and architecture: takes a night
test-all: python
	@$(TEST) --all

# On kernels with many sanitizers, on one with KCSAN, and on one without ftrace. Takes
# hours where guests are emulated.
test-debug: python
	@$(TEST) --long --timeout 36000 --debug

# SEEDS random sequences of socket calls, starting with seed SEED
fuzz: python
	@dir=$$(scripts/build --suite $(SUITE)$(AT) --what selftests) && \
	exec scripts/vm --suite $(SUITE)$(AT) --timeout 36000 --share "$$dir" -- \
		"$$dir/parity_sequences" $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--count $(SEEDS))

# Mutation tests: puts one mistake at a time into the module and runs the tests that
# should fail then. FILES=tcp.c: those of one file, MUTANT=name: one.
mutate: python
	@scripts/mutate $(FILES:%=--file %) $(MUTANT:%=--mutant %) \
		$(if $(filter-out file,$(origin SUITES)),$(SUITES:%=--suite %))

# which lines of the module the selftests run
coverage: python
	@scripts/coverage $(if $(TESTS),--tests "$(TESTS)") $(addprefix --suite ,$(SUITES))

demo: python
	@scripts/demo

# QUICK=1: a few minutes, on one suite. ACCEL=kvm: in real time too.
bench: python
	@scripts/bench $(if $(QUICK),--quick) $(if $(MACHINE),--machine $(MACHINE)) \
		$(addprefix --suite ,$(SUITES))

# Style, warnings and manual pages: needs no guest
check: python
	@scripts/check

# The packages for SUITE, in build/SUITE+deb/deb
deb: python
	@scripts/build --suite $(SUITE)$(AT) --what deb --check

# PROOF="tools wire" runs only these: see scripts/proof --help.
proof: python
	@scripts/proof $(PROOF)

# For every kernel header package of Debian's releases
build-matrix: python
	@scripts/build-matrix $(RELEASES)

# A tarball of HEAD; the same commit gives the same bytes.
VERSION = $(shell sed -n 's/.*PORT0_VERSION[[:space:]]*"\(.*\)".*/\1/p' module/main.c)
dist:
	mkdir -p build
	git -c tar.tar.gz.command="gzip -9n" archive --prefix=port0-$(VERSION)/ \
		-o build/port0-$(VERSION).tar.gz HEAD
	@echo build/port0-$(VERSION).tar.gz

# Which of the kernel functions that the module mirrors or hooks have changed in the
# kernel source TREE; with OLD=DIR, also how they differ from that source.
mirrors: python
	@scripts/mirrors $(if $(TREE),"$(TREE)",--help) $(if $(OLD),--old "$(OLD)")

.PHONY: all help modules headers check install uninstall dist clean distclean python test test-all \
	test-debug fuzz mutate coverage demo bench deb proof build-matrix mirrors

# SPDX-License-Identifier: GPL-2.0

KDIR ?= /lib/modules/$(shell uname -r)/build
PREFIX ?= /usr
SUITE ?= trixie
# MACHINE: amd64 or arm64, for guests of that architecture
AT := $(if $(MACHINE),@$(MACHINE))

all: modules

help:
	@sed -n 's/^#help //p' Makefile

#help make            the module, for the kernel that runs (KDIR=DIR: for another)
#help make install    the module and the header; clean, distclean: remove what was made
#help make demo       in a guest: what port 0 is without the module, and with it
#help make test       the selftests on the kernels of Debian, in guests
#help                   TESTS="bind option"  SUITES="trixie bookworm:kprobe"
#help                   MACHINE=arm64  KERNEL=DIR LLVM=1: on the kernel of any tree
#help make test-all   on every suite, flavour and architecture: a night
#help make test-debug on kernels full of sanitizers: hours
#help make check      what can be said of the sources without a guest
#help make fuzz       random calls: SEED=1 SEEDS=1000 SUITE=trixie
#help make mutate     mistakes put into the module: which tests notice? FILES=tcp.c MUTANT=name
#help make coverage   which lines of the module the selftests run, on the debug kernel: hours
#help make bench      what it costs: QUICK=1, SUITES=..., ACCEL=kvm
#help make proof      tools, packages, servers, wire, browsers: PROOF="tools wire"
#help make deb        Debian packages, in build/trixie+deb/deb
#help make dist       a tarball of what is committed
#help make build-matrix   for every kernel header package that Debian offers
#help Each is a command in scripts/ with its own --help.

modules: headers
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

# What is wrong with KDIR, in a line
headers:
	@[ ! -e "$(KDIR)/include/config/auto.conf" ] || exit 0; \
	if [ -e "$(KDIR)/Makefile" ]; then \
		echo "port0: the kernel in $(KDIR) was not configured: run 'make modules_prepare' there"; \
	elif [ "$(origin KDIR)" != file ]; then \
		echo "port0: no kernel headers in KDIR=$(KDIR)"; \
	else \
		. /etc/os-release; release=$$(uname -r); \
		case "$$ID $$ID_LIKE" in \
		*debian*|*ubuntu*) how="apt-get install linux-headers-$$release" ;; \
		*fedora*|*rhel*) how="dnf install kernel-devel-$$release" ;; \
		*suse*) how="zypper install kernel-default-devel" ;; \
		*arch*) how="pacman -S linux-headers" ;; \
		*) how="install what your distribution has to build modules for $$release" ;; \
		esac; \
		echo "port0: no kernel headers in $(KDIR): $$how (or say KDIR=DIR; guests, as in" \
			"make demo and make test, need none)"; \
	fi >&2; exit 1

# Nobody but the kernel's builder has its signing key, and the headers lack what
# its own depmod wants.
install: modules
	$(MAKE) -C $(KDIR) M=$(CURDIR) INSTALL_MOD_PATH=$(DESTDIR) CONFIG_MODULE_SIG_ALL= modules_install
	$(if $(DESTDIR),,depmod -a "$$(cat $(KDIR)/include/config/kernel.release)")
	install -D -m 644 module/uapi/port0.h $(DESTDIR)$(PREFIX)/include/port0.h

clean:
	$(if $(wildcard $(KDIR)),$(MAKE) -C $(KDIR) M=$(CURDIR) clean)
	[ ! -d build ] || find build -mindepth 1 -maxdepth 1 ! -name cache -exec rm -rf {} +

# The roots and kernels too, which take minutes to make. Files in a root that an
# ordinary user has made belong to others.
distclean: clean
	rm -rf build 2>/dev/null || unshare --user --map-root-user --map-auto rm -rf build

# These scripts are Python, the one thing they cannot install.
python:
	@bash -c '. scripts/common.sh && need python3 python3'

# What they run unless told otherwise: scripts/test --help. SUITES=trixie:kprobe hooks
# by kprobes there. KERNEL=DIR, alone or with LLVM=1: on the kernel of that tree.
TEST = scripts/test $(if $(TESTS),--tests "$(TESTS)") $(if $(MACHINE),--machine $(MACHINE)) \
	$(if $(KERNEL),--kernel "$(KERNEL)" $(if $(LLVM),--llvm))

test: python
	@$(TEST) $(SUITES)

# every suite, flavour and architecture: a night
test-all: python
	@$(TEST) --all

# On kernels full of sanitizers, on one that looks for data races, and on one that has
# kprobes alone. Where guests are emulated this takes hours.
test-debug: python
	@$(TEST) --long --timeout 36000 --debug

# SEEDS random sequences of socket calls, from seed SEED on
fuzz: python
	@dir=$$(scripts/build --suite $(SUITE)$(AT) --what selftests) && \
	scripts/vm --suite $(SUITE)$(AT) --timeout 36000 --share "$$dir" -- \
		"$$dir/parity_sequences" $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--count $(SEEDS))

# Mistakes put into the module, one at a time: which tests notice? FILES=tcp.c for
# those of one file, MUTANT=name for one.
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

# What can be said of the sources without a guest
check: python
	@scripts/check

# the packages of SUITE, in build/SUITE+deb/deb
deb:
	@scripts/build --suite $(SUITE)$(AT) --what deb --check

# PROOF: some of them, see scripts/proof --help
proof: python
	@scripts/proof $(PROOF)

# every kernel header package that Debian's releases offer
build-matrix:
	@scripts/build-matrix $(RELEASES)

# a tarball of what is committed; the same commit gives the same bytes
VERSION = $(shell sed -n 's/.*PORT0_VERSION[[:space:]]*"\(.*\)".*/\1/p' module/main.c)
dist:
	mkdir -p build
	git archive --prefix=port0-$(VERSION)/ HEAD | gzip -9n > build/port0-$(VERSION).tar.gz
	@echo build/port0-$(VERSION).tar.gz

# which of the kernel functions that the module mirrors or hooks have changed in the
# kernel source TREE, and with OLD=another one, how
mirrors: python
	@scripts/mirrors $(if $(TREE),"$(TREE)",--help) $(if $(OLD),--old "$(OLD)")

.PHONY: all help modules headers check install dist clean distclean python test test-all \
	test-debug fuzz mutate coverage demo bench deb proof build-matrix mirrors

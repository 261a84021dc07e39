# SPDX-License-Identifier: GPL-2.0

KDIR ?= /lib/modules/$(shell uname -r)/build
PREFIX ?= /usr
SUITE ?= trixie
# MACHINE: amd64 or arm64, for guests of that architecture
AT := $(if $(MACHINE),@$(MACHINE))

all: modules

modules:
	$(MAKE) -C $(KDIR) M=$(CURDIR) modules

# Nobody but the kernel's builder has its signing key, and the headers lack what
# its own depmod wants.
install: modules
	$(MAKE) -C $(KDIR) M=$(CURDIR) INSTALL_MOD_PATH=$(DESTDIR) CONFIG_MODULE_SIG_ALL= modules_install
	$(if $(DESTDIR),,depmod -a "$$(cat $(KDIR)/include/config/kernel.release)")
	install -D -m 644 module/uapi/port0.h $(DESTDIR)$(PREFIX)/include/port0.h

clean:
	$(if $(wildcard $(KDIR)),$(MAKE) -C $(KDIR) M=$(CURDIR) clean)
	[ ! -d build ] || find build -mindepth 1 -maxdepth 1 ! -name cache -exec rm -rf {} +

# the roots and kernels too, which take minutes to make
distclean: clean
	rm -rf build

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

demo: python
	@scripts/demo

# QUICK=1: a few minutes, on one suite. ACCEL=kvm: in real time too.
bench: python
	@scripts/bench $(if $(QUICK),--quick) $(if $(MACHINE),--machine $(MACHINE)) \
		$(addprefix --suite ,$(SUITES))

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

.PHONY: all modules install dist clean distclean python test test-all test-debug fuzz mutate demo bench deb proof build-matrix

# The loop of a developer, and the two commands of README.md. `make help` says what there is.

SHELL := /bin/bash
# --norc: Debian's bash reads its start-up files for any command run by ssh, and they fail by -u.
.SHELLFLAGS := --norc -eu -o pipefail -c
MAKEFLAGS += --no-print-directory

# The distribution's own Python where it is new enough: apt has the headers of that one.
PYTHON ?= $(shell for python in /usr/bin/python3 python3; do \
    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
# Tests of the real kernel need root.
AS_ROOT := $(shell [ "$$(id -u)" = 0 ] || echo sudo --preserve-env=CI,MINIBOX_REQUIRE,PYTEST_ADDOPTS)
JOBS ?= $(shell nproc)
PIP := .venv/bin/python -m pip --disable-pip-version-check --quiet
PYTEST := .venv/bin/python -m pytest

NATIVE := $(wildcard $(foreach folder,native native/child native/parent native/dns native/extension,$(addprefix $(folder)/,*.c *.h *.def *.py)))
C_FILES = $(shell git ls-files --cached --others --exclude-standard '*.c' '*.h')

.PHONY: help hello test check lint map pictures unit native-check bench profile bench-against behaviour third-party build-projects peers13 storm hostile long build-long labs vm vm-test vm-all vm-systemd vm-labels box vagrant-test build clean

help: ## say what there is to make
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

hello: build ## print a greeting from inside a container (installs what it needs)
	@.venv/bin/minibox run --rm base sh -c 'echo "Hello from inside a container: I am process $$$$ on host $$(hostname)."'

test: build .venv/.dev ## run all tests, as root (installs what they need)
	$(MAKE) -C native check
	@echo "== all tests, on this machine's kernel: $$(uname -r)"
	$(AS_ROOT) $(PYTEST) --numprocesses $(JOBS) tests/unit tests/integration tests/hostile tests/interop
	$(if $(IS_THAT_KERNEL),@echo "== that is Debian's kernel with cgroup v2 alone: no virtual machine is needed",$(MAKE) vm-test)
	$(MAKE) lint

# What vm-test's machine has, as in the one of `vagrant up`. CI makes both runs anyhow.
IS_THAT_KERNEL = $(shell [ -z "$${CI:-}" ] && [ -e /sys/fs/cgroup/cgroup.controllers ] && uname -v | grep Debian)

check: lint native-check unit ## what needs no privilege, in under a minute: style, types, imports, unit tests

lint: build .venv/.dev
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports
	clang-format --dry-run -Werror $(C_FILES)

map: ## write the map of the package into CONTRIBUTING.md, and the arguments of the Python API into docs/api.md
	$(or $(wildcard .venv/bin/python),python3) tools/map.py
	$(or $(wildcard .venv/bin/python),python3) tools/arguments.py

attacks: ## write the table of protections and attacks into docs/security.md, as root
	$(or $(wildcard .venv/bin/python),python3) tools/attacks.py

# The map is that of the virtual machine: an emulated start would be as slow as no other.
pictures: build ## draw the pictures of docs/ from a real start and real containers
	@tools/debian-packages vm
	@$(AS_ROOT) tools/pictures start docs/pictures/start.svg
	@tests/vm/vm.py --results docs/pictures -- 'tools/pictures map /results/map.svg'

native-check: build .venv/.dev
	$(MAKE) -C native check

unit: build .venv/.dev ## the unit tests alone
	$(PYTEST) --numprocesses $(JOBS) --quiet tests/unit

profile: build ## show where the time of one minibox run goes: interpreter, imports, system calls, steps (as root)
	@$(AS_ROOT) .venv/bin/python tools/profile_start.py

# TABLES='starts images': see tests/bench/bench.py --help. Programs are measured as pip installs them.
bench: build .venv/.bench ## compare with the kernel's floor, crun, runc, bwrap, podman, buildah and docker build, side by side
	-@$(AS_ROOT) .venv/bin/python -m tests.debian13.root
	@rm -rf build/lib* .venv/wheel .venv/installed
	@$(PIP) wheel --no-deps --no-build-isolation --wheel-dir .venv/wheel .
	@.venv/bin/python -m venv .venv/installed
	@.venv/installed/bin/python -m pip --disable-pip-version-check --quiet install .venv/wheel/*.whl
	@$(AS_ROOT) env MINIBOX_BENCH_PROGRAMS="$$PWD/.venv/installed/bin" .venv/bin/python tests/bench/bench.py \
	    --rounds $(or $(ROUNDS),20) --json docs/benchmarks/results.json $(TABLES)
	@.venv/bin/python tests/bench/report.py docs/benchmarks/results.json

# ROUNDS=50 TABLES='starts oci': see tests/bench/compare.py --help
bench-against: build .venv/.dev ## compare with another checkout of minibox, round by round: make bench-against OLD=../old
	@$(AS_ROOT) .venv/bin/python tests/bench/compare.py --rounds $(or $(ROUNDS),200) $(OLD) $(TABLES)

# PROGRAMS=../old/.venv/bin: of another checkout
behaviour: build .venv/.dev ## record what 300 command lines do, and compare it with a recording: make behaviour FILE=new.json OLD=old.json
	@$(AS_ROOT) .venv/bin/python tests/behaviour/behaviour.py record $(FILE) --programs $(or $(PROGRAMS),.venv/bin)
	$(if $(OLD),@.venv/bin/python tests/behaviour/behaviour.py compare $(OLD) $(FILE))

third-party: build .venv/.dev ## programs of PyPI with minibox in them: Celery, uvicorn, a notebook; a suite on databases
	@$(AS_ROOT) .venv/bin/python tests/third_party/programs.py
	@$(AS_ROOT) .venv/bin/python tests/third_party/run.py

# MINIBOX_DEBIAN=debian.tar: an archive of the image debian:12, where there is one already
build-projects: build .venv/.dev ## build and run projects on Debian, from the network
	@$(AS_ROOT) $(PYTEST) -q --durations 10 tests/projects tests/interop/test_build_projects.py

# Made once in a cache directory, from the network: 250 MB. TESTS='tests/debian13/test_language.py': a part of them
peers13: build .venv/.dev ## compare builds with Debian 13's engines: Docker 26.1 and buildah 1.39
	@$(AS_ROOT) $(PYTEST) -q --durations 10 $(or $(TESTS),tests/debian13)

storm: build .venv/.dev ## have random commands on containers while everything is killed: make storm STORMS=20
	@$(AS_ROOT) env MINIBOX_STORMS=$(or $(STORMS),10) $(PYTEST) -q -s tests/integration/container/test_storm.py

hostile: build .venv/.dev ## let hostile containers and neighbours attack for longer than CI does: make hostile ROUNDS=20
	@$(AS_ROOT) env MINIBOX_HOSTILE_ROUNDS=$(or $(ROUNDS),20) $(PYTEST) -q --durations 10 tests/hostile

long: build .venv/.dev ## all of what CI tries a part of: comparisons with runc, crun and podman; the labs
	@$(AS_ROOT) env MINIBOX_LONG=1 $(PYTEST) --numprocesses $(JOBS) --durations 10 $(or $(TESTS),tests/interop/test_oci_peers_*.py tests/integration/test_bench.py tests/integration/lab tests/integration/network/test_name_server.py tests/third_party/test_apt.py)

build-long: build .venv/.dev ## change a Dockerfile or its context 200 times and kill 200 builds, where CI does 20 of each
	@$(AS_ROOT) env MINIBOX_LONG=1 $(PYTEST) --numprocesses $(JOBS) --durations 10 tests/integration/build/test_mutations.py tests/integration/build/test_life.py

labs: build .venv/.dev ## check the solution and the wrong attempts of each lab, of which CI does three
	@$(AS_ROOT) env MINIBOX_LONG=1 $(PYTEST) --numprocesses $(JOBS) --durations 10 tests/integration/lab

labs-vm: build .venv/.dev ## check the solution of each lab on cgroup v2, in the virtual machine: a quarter of an hour
	@tools/debian-packages vm
	@tests/vm/vm.py --timeout 3000 -- 'MINIBOX_LONG=1 $(VM_PYTEST) -m "kernel and not not_in_vm" tests/integration/lab tests/vm/test_release_agent.py'

# STORE=tmpfs, VM_FLAGS='--user --delegate --timeout 300': see tests/vm/vm.py --help
vm: build ## run CMD on Debian's kernel with cgroup v2 alone, in an emulator: make vm CMD='minibox run --rm base true'
	@tools/debian-packages vm
	@tests/vm/vm.py --store $(or $(STORE),ext4) $(VM_FLAGS) -- $(if $(CMD),"$$CMD")
export CMD

# Where there can be no such machine (69) it is left out, but never in CI.
vm-test: build .venv/.dev ## the tests that depend on the kernel, on Debian's with cgroup v2 alone (part of `make test`)
	@tools/debian-packages vm
	@echo "== the tests that depend on the kernel, in a virtual machine with Debian's and cgroup v2 alone"
	@tests/vm/vm.py --timeout 1080 -- 'timeout --signal=INT 1020 $(VM_PYTEST) -m "kernel and not not_in_vm" $(KERNEL_TESTS)' || \
	    { status=$$?; [ $$status = 69 ] && [ -z "$${CI:-}" ] || exit $$status; }

# The files alone that have such tests: to import all of them takes that machine a minute.
KERNEL_TESTS = $(shell grep --recursive --files-with-matches --include='*.py' mark.kernel tests/integration tests/hostile) tests/vm

# TESTS='tests/integration/test_[a-d]*.py': a part of them
vm-all: build .venv/.dev ## all tests in that machine, in one to three hours
	@tools/debian-packages vm
	@tests/vm/vm.py --timeout 10800 -- '$(VM_PYTEST) -m "not not_in_vm" $(or $(TESTS),tests/unit tests/integration tests/hostile tests/interop tests/vm)'

# The host's own systemd is that machine's first process. One test at a time: each looks at all scopes.
vm-systemd: build .venv/.dev ## the tests of cgroups by systemd, with it as that machine's first process
	@tools/debian-packages vm vm-systemd
	@tests/vm/vm.py --systemd --timeout 900 -- '$(VM_PYTEST) --numprocesses 0 tests/systemd'
	@tests/vm/vm.py --systemd --user --timeout 900 -- '$(VM_PYTEST) --numprocesses 0 tests/systemd'

# First with Debian's choice, AppArmor, under dockerd too; then with SELinux.
vm-labels: build .venv/.dev ## the tests of AppArmor and SELinux, in that machine
	@tools/debian-packages vm vm-labels
	@tests/vm/vm.py --timeout 900 -- '$(VM_PYTEST) --numprocesses 0 tests/labels/test_apparmor.py'
	@tests/vm/vm.py --lsm selinux --timeout 900 -- '$(VM_PYTEST) --numprocesses 0 tests/labels/test_selinux.py'

VM_PYTEST := env MINIBOX_REQUIRE=all python -m pytest --numprocesses 2 --durations 10

BOX := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/minibox-vm/debian12.box
BOX_SOURCES := tests/vm/box/build tests/vm/box/customize $(shell find tests/vm/box/root -type f)

box: $(BOX) ## build a Vagrant box of Debian 12 for libvirt, where none can be downloaded

$(BOX): pyproject.toml tools/debian-packages $(BOX_SOURCES) | .venv/.python
	@tools/debian-packages box
	@$(AS_ROOT) env PYTHON=.venv/bin/python tests/vm/box/build $@

vagrant-test: box ## vagrant up with that box, tests in the machine, and everything gone again: ten minutes by emulation
	@tools/debian-packages vagrant
	@$(AS_ROOT) env KERNEL_TESTS='$(KERNEL_TESTS)' tests/vm/box/try $(BOX)

build: .venv/.native ## build into ./.venv, editable

clean: ## remove what was built, ./.venv too
	rm -rf .venv build dist *.egg-info native/build minibox/_native.* minibox/_seccomp.py minibox/_systemd.py minibox/minibox-init
	rm -rf tests/bench/floor .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamp files: each says that a step was done since what it depends on last changed.

.venv/.python: pyproject.toml tools/debian-packages
	@tools/debian-packages build run
	@[ -n "$(PYTHON)" ] || { echo "minibox needs Python 3.11 or newer" >&2; exit 1; }
	@[ -x .venv/bin/pip ] || $(PYTHON) -m venv --clear .venv
	$(PIP) install 'setuptools>=64' wheel 'cffi>=1.16'
	@touch $@

.venv/.native: .venv/.python setup.py $(NATIVE) $(wildcard bin/*)
	$(PIP) install --no-build-isolation --editable .
	@touch $@

.venv/.dev: .venv/.python | .venv/.native
	@tools/debian-packages test check
	$(PIP) install --no-build-isolation --editable '.[dev]'
	@touch $@

.venv/.bench: .venv/.python | .venv/.dev
	@tools/debian-packages bench
	$(PIP) install --no-build-isolation --editable '.[bench]'
	@touch $@

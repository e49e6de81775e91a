# Everything a developer does. Each target prepares what it needs (tools/setup); PYTHON=… chooses the
# interpreter. ARGS=… is passed on to pytest and to the benchmarks.

VENV := .venv
HOME_FOLDER := $(CURDIR)/.netclaw
PYTEST := -m pytest $(ARGS)

.PHONY: help setup setup-tests run test test-oldest prove guards check docs bench deb lintian piuparts test-systemd test-container

help:
	@echo 'make run          set up and start the daemon in the foreground on 127.0.0.1:5199'
	@echo 'make setup        prepare .venv, which every other target does by itself'
	@echo 'make test         run every test (without root: all but those that mount or make namespaces)'
	@echo 'make test-oldest  run all but the long ones on the oldest supported libraries'
	@echo 'make test-systemd build the package, install it under real systemds, 252 and 257, and test it (root)'
	@echo 'make test-container run the definitions for s6 and the image under real supervisors (root)'
	@echo 'make prove        run all process tests, and others that have them, at their full counts (minutes)'
	@echo 'make guards       break each guard of a restart and see its test fail (minutes)'
	@echo 'make check        lint, format, types, spelling, shell scripts, generated pages'
	@echo 'make docs         generate what is generated under docs/'
	@echo 'make bench        measure; ARGS=--quick for a short look'
	@echo 'make deb          build build/netclawd_VERSION_all.deb (VERSION=… for another version)'
	@echo 'make lintian      the same, and let lintian look at it'
	@echo 'make piuparts     install and purge it in a bare Debian; needs root (SUITE=trixie for Debian 13)'

setup:
	@tools/setup

setup-tests:
	@tools/setup --tests

run: setup
	@mkdir -p -m 700 '$(HOME_FOLDER)'
	@echo 'For a second terminal:'
	@echo '    export NETCLAW_HOME="$(HOME_FOLDER)" PATH="$(CURDIR)/$(VENV)/bin:$$PATH"'
	@NETCLAW_HOME='$(HOME_FOLDER)' exec $(VENV)/bin/netclawd

# All of them as shares beside each other (SHARES=3: a quicker run, where nothing else does), what is named in
# one run.
test: setup-tests
	@$(if $(ARGS),$(VENV)/bin/python $(PYTEST),tools/shares test)

# tools/setup ends with 3 when this machine can't have the oldest libraries; it has said why.
test-oldest:
	@tools/setup --oldest || [ $$? -eq 3 ]
	@test ! -x .venv-oldest/bin/python || $(if $(ARGS),.venv-oldest/bin/python $(PYTEST),VENV=.venv-oldest \
	    tools/shares test-oldest) -m 'not long' -W "ignore:'cgi' is deprecated:DeprecationWarning"

test-systemd: setup-tests
	@tools/test-systemd $(ARGS)

test-container: setup-tests
	@tools/test-container $(ARGS)

prove: setup-tests
	@NETCLAW_PROVE=1 $(VENV)/bin/python $(PYTEST) tests/process $$(grep -rlwE --include='test_*.py' \
	    'PROVE|NETCLAW_PROVE|full_or|mark\.prove' tests/adapters tests/cli tests/daemon tests/http | sort)

guards: setup-tests
	@[ "$$(id -u)" -ne 0 ] || tools/test-container --prepare
	@$(VENV)/bin/python -m tests.guards

check: setup-tests
	@tools/check

docs: setup
	@$(VENV)/bin/python -m netclawd.cli.docs

bench: setup
	@$(VENV)/bin/python -m benchmarks $(ARGS)

deb:
	@tools/deb

lintian:
	@tools/deb --lintian

piuparts: setup
	@tools/piuparts $(SUITE)

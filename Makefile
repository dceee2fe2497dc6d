# Two commands for a fresh machine (Debian 12 or newer, with git, make and Python 3.11 or newer):
#
#   sudo make demo      two gateways in network namespaces, a tunnel between them, real traffic
#   sudo make test      the linters and the whole suite
#
# Both set everything up first; the second time that takes a second.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON := .venv/bin/python
PEER ?= vpnd
SCENARIO ?= tunnel
PYTEST_ARGS ?=
# Tests that share gateways stay in one process; tests/conftest.py has the order, and the dice are the same each time.
# Most of it is waiting, so that two processors have work for six.
WORKERS := --dist loadgroup --no-loadscope-reorder --randomly-seed=1
PYTEST_WORKERS ?= -n 6 $(WORKERS)
# The tests that wait. All others take what these leave of the processors, and are counted.
WAITING := tests/interop tests/faults $(addprefix tests/datapath/test_,probes.py real_tuns.py)
COMPUTING := tests $(addprefix --ignore=,$(WAITING))
# Percent of the lines and branches of IKE and its neighbours: `make coverage` asks for all of them.
FLOOR ?= 100
BENCH_ARGS ?=
FAULTS ?= tests/faults $(addprefix tests/simulation/v1/test_,orders.py weather.py) \
	$(addprefix tests/simulation/test_,ikev2_orders.py ikev2_weather.py year.py dpd.py wrong_key_flood.py unproven.py) \
	$(addprefix tests/interop/test_,restarts.py one_end.py life_triggered.py nat.py failover.py leaks.py storms.py) \
	$(addprefix tests/interop/test_,looking.py probing.py peer_config.py simulate.py mistakes.py)
# Most of that time is waiting, so several wait at once; a stream in which each packet counts comes after them, alone,
# and so do the floods, and the machines under qemu, which need the processors.
FAULTS_WORKERS ?= -n 4 --dist load
ALONE := $(addprefix tests/faults/test_,floods.py kernel_peers.py service.py)

# The service runs in a container, under AppArmor in a machine whose kernel has it.
CONFINED = $(PYTHON) -m pytest tests/faults/test_service.py --machine qemu -k "from_nothing or apparmor or reboot" --full-faults -p no:randomly

# Tests that need no root, and by themselves reach every line and branch of what must be covered whole (tests/lab/counting.py);
# and as root those by which the rest of vpnd is counted, also in the daemons that they start.
COVERED_BY := $(addprefix tests/unit/,wire ike tunnel datapath) $(addprefix tests/datapath/test_,engine.py python_engine.py) tests/simulation
COUNTED_BY ?= tests/unit tests/datapath/test_engine.py tests/interop/test_operator.py
COUNTING := $(PYTHON) -m pytest -p tests.covered -p no:randomly -n 2 --dist loadgroup

export PYTHONUNBUFFERED := 1
grid native faults: export PYTEST_TIMEOUT := 3600

PACKETS ?= 10000000
# Another seed at each `make fuzz`, unless one is given.
SEEDED := $(SEED)
SEED ?= 1
COUNT ?= 300
ONLY ?=

.PHONY: help setup demo test quick coverage nightly lint format bench grid native faults mutants browser api monitoring containers engine engine-test fuzz engine-fuzz wheel deb docs install clean

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*## */\1\t/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name what; do printf '  make %-11s %s\n' "$$name" "$$what"; done

setup:  ## Debian packages and the virtual environment (idempotent)
	@bash tests/lab/setup.sh

demo: setup  ## a tunnel to watch; PEER=vpnd (the default) or PEER=strongswan; SCENARIO=failover for two
	@$(PYTHON) -m tests.lab.demo --peer $(PEER) --scenario $(SCENARIO)

# Each of two runs compiles its tests first, before several processes do it. What waits comes first wherever it has work.
# The native engine is built meanwhile, as quickly as may be; what needs it waits for it (tests/engines.py).
# The lines and branches that are reached are counted; `FLOOR=` does without, and so does PYTEST_ARGS, one run of some tests.
COMPILE = $(PYTHON) -m pytest --collect-only -q
test: setup  ## everything: linters, unit tests, simulation, interop with strongSwan; the floors of coverage
	@work=$$(mktemp -d); trap 'kill $$(jobs -p) 2>/dev/null || true; rm -rf "$$work"' EXIT; failed=0; unset PYTHONDONTWRITEBYTECODE; \
	export VPND_ENGINE_BUILDING="$$work/building"; touch "$$VPND_ENGINE_BUILDING"; \
	{ ENGINE_PROFILE=ci ENGINE_REQUIRED=$(if $(filter true,$(CI)),1,0) nice -n 5 bash engine/build.sh >"$$work/engine" 2>&1 || touch "$$work/unbuilt"; rm -f "$$VPND_ENGINE_BUILDING"; } & building=$$!; \
	nice -n 5 $(MAKE) --no-print-directory lint >"$$work/lint" 2>&1 & linters=$$!; \
	if [ -n "$(PYTEST_ARGS)" ]; then $(PYTHON) -m pytest $(PYTEST_WORKERS) $(PYTEST_ARGS) || failed=$$?; \
	else mkdir "$$work/reached"; \
	{ $(COMPILE) $(COMPUTING) >/dev/null || true; \
	$(if $(FLOOR),VPND_COVERED="$$work/reached") nice -n 5 $(PYTHON) -m pytest -p tests.covered -n 2 $(WORKERS) $(COMPUTING); } >"$$work/computed" 2>&1 & computing=$$!; \
	$(PYTHON) -m compileall -q vpnd; $(COMPILE) $(WAITING) >/dev/null 2>&1 || true; \
	$(PYTHON) -m pytest $(PYTEST_WORKERS) $(WAITING) || failed=$$?; \
	wait $$computing || failed=$$?; cat "$$work/computed"; \
	$(if $(FLOOR),$(PYTHON) -m tests.covered --floor $(FLOOR) "$$work/reached" || failed=$$?;) fi; \
	wait $$building; cat "$$work/engine"; [ ! -e "$$work/unbuilt" ] || failed=1; \
	wait $$linters || { failed=$$?; cat "$$work/lint"; }; exit $$failed

# Two processes that share nothing: each collects its own half, and no report goes from one to another. What was
# compiled is kept, or each start would compile all tests. PYTEST_ARGS may leave nothing (5) of one half.
QUICK := $(PYTHON) -m pytest -m "not root and not slow"
BESIDE := $(addprefix tests/unit/,console sdk)
quick: setup  ## what needs no root and waits for nothing
	@unset PYTHONDONTWRITEBYTECODE; failed=0; unit=$$(mktemp); \
	$(QUICK) tests/unit $(addprefix --ignore=,$(BESIDE)) $(PYTEST_ARGS) >"$$unit" 2>&1 & units=$$!; trap 'kill $$units 2>/dev/null || true; rm -f "$$unit"' EXIT; \
	$(QUICK) $(addprefix tests/,simulation properties architecture docs) $(BESIDE) $(PYTEST_ARGS) || [ $$? = 5 ] || failed=1; \
	wait $$units || [ $$? = 5 ] || failed=1; cat "$$unit"; exit $$failed

nightly: quick coverage docs grid native fuzz faults bench mutants browser api monitoring containers  ## all that takes hours: another order, every combination, every fault, the figures, the mutants

coverage: setup  ## what must be covered whole, by the tests without root alone; as root at least 90 % of the rest, with daemons
	@reached=$$(mktemp -d); trap 'rm -rf "$$reached"' EXIT; export VPND_COVERED="$$reached"; \
	$(COUNTING) -m 'not slow' $(COVERED_BY) $(PYTEST_ARGS); $(PYTHON) -m tests.covered "$$reached"; \
	if [ "$$(id -u)" != 0 ]; then echo 'the rest of vpnd is counted where `sudo make coverage` can start daemons'; exit; fi; \
	VPND_COVERED_DAEMONS=1 $(COUNTING) $(COUNTED_BY) $(PYTEST_ARGS); $(PYTHON) -m tests.covered --rest "$$reached"

lint: setup  ## ruff, mypy and the layers
	@$(PYTHON) -m ruff check --quiet .
	@$(PYTHON) -m ruff format --quiet --check .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports --no-logo

format: setup  ## let ruff format and mend what it can
	@$(PYTHON) -m ruff check --fix --quiet .
	@$(PYTHON) -m ruff format --quiet .

bench: setup  ## both engines, strongSwan and, where there is Go, wireguard-go side by side, up to 25 minutes; BENCH_ARGS=--short for a quick look
	@bash engine/build.sh
	@$(PYTHON) -m bench $(BENCH_ARGS)

grid: setup  ## every combination with strongSwan, and of SM4 and SM3: about 20 minutes
	@$(PYTHON) -m pytest $(addprefix tests/interop/test_,grid.py grid_specification.py sm.py by_name.py) --full-grid -p no:randomly $(PYTEST_ARGS)

native: engine  ## the grid, leaks and renewals with strongSwan, each vpnd on the native engine
	@$(PYTHON) -m pytest $(addprefix tests/interop/test_,grid.py leaks.py rekeys.py) --engine native --full-grid -p no:randomly $(PYTEST_ARGS)

faults: setup  ## every fault of the network, the peer and this box in its real time, as one table: two hours
	@bash tests/lab/setup.sh tshark
	@failed=0; $(PYTHON) -m pytest $(FAULTS) $(addprefix --ignore=,$(ALONE)) --full-faults -p no:randomly $(FAULTS_WORKERS) $(PYTEST_ARGS) || failed=$$?; \
	$(PYTHON) -m pytest $(ALONE) tests/interop/test_rekeys.py tests/interop/test_close_action.py --full-faults -p no:randomly $(PYTEST_ARGS) || failed=$$?; \
	$(CONFINED) $(PYTEST_ARGS) || failed=$$?; exit $$failed

mutants: setup  ## small faults in a sample of lines, each of which a test must find; SEED=1 COUNT=300 ONLY=vpnd/ike
	@$(PYTHON) -c 'import cosmic_ray' 2>/dev/null || $(PYTHON) -m pip install -q -e '.[test,mutants]'
	@$(PYTHON) -m tests.mutants --seed $(SEED) --count $(COUNT) $(addprefix --only ,$(ONLY))

docs: setup  ## the documentation site in build/docs: journeys, states, configuration, diagnoses; a broken link fails
	@bash tests/lab/setup.sh graphviz
	@$(PYTHON) -c 'import furo, myst_parser, sphinx' 2>/dev/null || $(PYTHON) -m pip install -q -e '.[test,docs]'
	@$(PYTHON) -m docs

api: setup  ## the API by a generated client (npm), and by schemathesis for ten minutes; SECONDS=60 SEED=7
	@[ -x .venv/fuzz/bin/schemathesis ] || { $(PYTHON) -m venv .venv/fuzz && .venv/fuzz/bin/pip install -q 'schemathesis>=4.32,<5'; }
	@VPND_API=1 VPND_SCHEMATHESIS=$(CURDIR)/.venv/fuzz/bin $(PYTHON) -m pytest tests/api -p no:randomly $(PYTEST_ARGS)

browser: setup  ## the console in Debian's Chromium; its pictures are in build/console
	@$(PYTHON) -c 'import axe_playwright_python, playwright' 2>/dev/null || $(PYTHON) -m pip install -q -e '.[test,browser]'
	@[ -x /usr/bin/chromium ] || apt-get -q -y --no-install-recommends install chromium fonts-wqy-microhei
	@VPND_BROWSER=1 $(PYTHON) -m pytest tests/browser -p no:randomly $(PYTEST_ARGS)

containers: setup  ## vpnd and strongSwan in containers, five scenarios with traffic; needs no Docker engine that runs
	@bash contrib/engine.sh bash contrib/containers.sh

monitoring: setup  ## Debian's Prometheus scrapes vpnd: alerts fire and resolve, the dashboard's queries have data
	@bash tests/lab/setup.sh prometheus
	@VPND_MONITORING=1 $(PYTHON) -m pytest tests/monitoring -p no:randomly $(PYTEST_ARGS)

engine: setup  ## the native engine, built into .venv where there is a Rust toolchain
	@bash engine/build.sh

engine-test: setup  ## the native engine: its tests, its linters, and both engines on the same packets
	@bash engine/check.sh

engine-fuzz:  ## hostile bytes for the native engine, under the address sanitizer; SECONDS=60 for each of four targets
	@bash engine/fuzz/run.sh $(or $(SECONDS),60)

wheel: setup  ## the wheels of vpnd and of the native engine in dist
	@bash contrib/wheel.sh

fuzz: setup  ## both engines on 10 million generated packets, until they differ; PACKETS=1000000 SEED=7
	@$(PYTHON) -m tests.native.fuzz --packets $(PACKETS) $(if $(SEEDED),--seed $(SEEDED))

deb:  ## Debian packages in build/deb, one for each release (12 and 13)
	@bash contrib/deb.sh

install:  ## this checkout into the system, without a package; DESTDIR=... below another directory
	@bash contrib/install.sh

clean:  ## remove the environment, the caches and what an interrupted run may have left
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m tests.lab.reap; fi
	@rm -rf .venv engine/target .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage .coverage.* build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

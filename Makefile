# `make demo` shows the main use; `make check` is for each commit, `make test` is what CI runs.
.PHONY: help chromium test check release demo demo-hardware demo-dashboard sim mutants torture fuzz bench fmt lint doc arrows words deny unit tools python test-python demo-python
.PHONY: openapi dashboard dashboard-tools dashboard-check test-dashboard bench-dashboard

SEEDS ?= 2000
SECONDS ?= 600
BIN = $(or $(CARGO_TARGET_DIR),target)/release

# A registry that fails now and then is tried again.
APT = apt-get -o Acquire::Retries=5
export CARGO_NET_RETRY ?= 10
export PIP_RETRIES ?= 10
export npm_config_fetch_retries ?= 5

help:
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

tools: ## install what the other targets need
	@command -v cc >/dev/null || { $(APT) update -q && $(APT) install -qy build-essential; }
	@cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
	@cargo clippy --version >/dev/null 2>&1 || rustup component add clippy

chromium: ## install a browser, for tasks and tests that need one
	@command -v chromium >/dev/null || { $(APT) update -q && $(APT) install -qy chromium; }

release: tools ## build the program, with its line tables in a separate file
	cargo build --release --locked -p outlast-cli
	scripts/symbols.sh $(BIN)/outlast

demo: release ## demonstrate two outages that lose no work, in about 90 seconds
	$(BIN)/outlast demo

demo-hardware: release chromium ## demonstrate recovery from lack of memory and from a killed browser, in half a minute
	$(BIN)/outlast demo --only hardware
	$(BIN)/outlast demo --only browser

demo-dashboard: release ## show a small fleet with faults on the dashboard, for three minutes: TIME=10m
	$(BIN)/outlast demo --dashboard $(if $(TIME),--time $(TIME))

check: tools fmt lint arrows words ## check formatting, lints, arrows, words and unit tests, before each commit
	cargo test --workspace --locked -q --lib --bins

test: tools chromium fmt lint arrows words deny doc unit test-python dashboard-check test-dashboard ## run everything that CI checks

fmt:
	cargo fmt --all --check

lint:
	cargo clippy --workspace --all-targets --locked -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked -q

arrows: ## check the dependencies between crates and files (ARCHITECTURE.md)
	python3 scripts/test_rustfiles.py
	python3 scripts/arrows.py
	python3 scripts/paths.py

words: ## check for plain technical English (CONTRIBUTING.md)
	python3 scripts/words.py

deny: ## check licences and sources of dependencies
	python3 scripts/deny.py

unit:
	@ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || { $(APT) update -q && $(APT) install -qy libfaketime; } || \
		echo 'the test of jumping clocks is skipped without libfaketime' >&2
	cargo test --workspace --locked --no-fail-fast
	cargo run --locked -q -p outlast-fuzz -- --total 60
	cargo build --release --locked -p outlast-cli -p outlast-sim -p outlast-torture
	$(BIN)/outlast-sim --seeds 1000000 --seconds 120
	$(BIN)/outlast-torture --seconds 120

sim: tools ## simulate faults: make sim SEEDS=20000
	cargo build --release --locked -p outlast-sim
	$(BIN)/outlast-sim --seeds $(SEEDS)
	$(BIN)/outlast-sim --planted

mutants: tools ## check that small mistakes in the core are noticed: make mutants ONLY=cancel-not-repeated
	python3 scripts/mutants.py $(if $(ONLY),--only $(ONLY)) $(if $(JOBS),--jobs $(JOBS))

torture: tools ## kill, stop, cut off and starve real processes: make torture SECONDS=120 SEED=7
	cargo build --release --locked -p outlast-cli -p outlast-torture
	$(BIN)/outlast-torture --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

fuzz: SECONDS = 60
fuzz: tools ## feed malformed input to every reader, and measure its memory: make fuzz SECONDS=600 SEED=7 TARGET=frame
	cargo run --locked -q -p outlast-fuzz -- --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(if $(TARGET),--target $(TARGET))

bench: tools ## run the benchmark against its targets; about three minutes
	cargo build --release --locked -p outlast-bench
	@# So that keys of this user's own coordinators are not sent to those of the benchmark.
	XDG_DATA_HOME=$$(mktemp -d) $(BIN)/outlast-bench --json bench/latest.json

dashboard-tools:
	@command -v npm >/dev/null || { $(APT) update -q && $(APT) install -qy nodejs npm; }
	cd dashboard && { test -x node_modules/.bin/vite || npm ci --ignore-scripts; }

openapi: dashboard-tools ## regenerate dashboard/openapi.json and src/types.ts after a change of the API
	UPDATE=1 cargo test --locked -q -p outlast-coordinator --test openapi the_copy_is_current
	cd dashboard && npm run types

dashboard: dashboard-tools ## rebuild the dashboard after a change below dashboard/
	cd dashboard && npm run build

dashboard-check: dashboard-tools ## check that src/types.ts and dist/ below dashboard/ are current
	cd dashboard && node types.mjs --check && npx tsc && npx vite build --outDir ../target/dashboard --emptyOutDir
	diff -r target/dashboard dashboard/dist || { echo 'run make dashboard, and commit dashboard/dist' >&2; exit 1; }

test-dashboard: dashboard-tools chromium ## test the dashboard in Chromium, with real processes and a cut link
	test -n "$$OUTLAST_BIN" || cargo build --release --locked -p outlast-cli
	cd dashboard && npm test

bench-dashboard: dashboard-tools ## measure the dashboard with ten thousand workers
	cargo build --release --locked -p outlast-bench
	cd dashboard && npm run measure

PYTHON_ENV = target/python

python: tools ## install the Python package into target/python
	@python3 -c 'import ensurepip, venv' 2>/dev/null || { $(APT) update -q && $(APT) install -qy python3-venv; }
	test -x $(PYTHON_ENV)/bin/pip || python3 -m venv $(PYTHON_ENV)
	$(PYTHON_ENV)/bin/pip install -q './python[test]'

demo-python: python ## run the guide's worker through a cut link and a SIGKILL
	$(PYTHON_ENV)/bin/python python/examples/demo.py

test-python: python ## type-check and test the Python package against real processes
	cd python && ../$(PYTHON_ENV)/bin/mypy outlast
	cd $(PYTHON_ENV) && bin/python -m mypy.stubtest outlast._outlast # away from the sources, which lack the extension
	cd python && ../$(PYTHON_ENV)/bin/pytest -q

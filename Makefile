# Everything is made in .venv and target/. A machine needs python3, cargo and a C compiler, or is told so.

CONFIG ?= examples/single.json
SOCKET ?= /tmp/turbopump
FUZZ_SECONDS ?= 3600
SIM_SEEDS ?= 10000
SIM_CLUSTERS ?= 45000
KILLS ?= 100

PY := .venv/bin/python
NATIVE := python/turbopump/_native.abi3.so
CHECKED := $(wildcard python tests loadtests/*.py examples/*.py)
# The fuzz targets and the laboratory are no part of the module.
RUST := Cargo.toml Cargo.lock .cargo/config.toml \
	$(shell find rust \( -path rust/fuzz -o -path rust/lab \) -prune \
		-o -name '*.rs' -print -o -name Cargo.toml -print)

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help serve demo build test lint test-rust test-python fuzz sim bench bench-cluster bench-sync \
	bench-transport kills load lock clean

help: ## show these lines
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

serve: build ## build, then serve one node (CONFIG=examples/single.json)
	@exec $(PY) -m turbopump serve $(CONFIG)

demo: build ## three nodes: one is killed and healed; they run until Ctrl-C
	@exec $(PY) examples/demo.py

build: .venv/complete $(NATIVE) ## make .venv and the native module (release)

.venv/complete: requirements.lock .ci/bootstrap
	@.ci/bootstrap

# maturin makes the wheel (pyproject.toml), but wants a pip in .venv even to build in place; cargo does not.
# `install` puts a new file in place of the old one, which a node that runs keeps.
$(NATIVE): $(RUST)
	@.ci/bootstrap --check
	cargo build --locked --release --package turbopump-native
	@install -m 755 target/release/lib_native.so $@

test: FUZZ_SECONDS = 60
test: lint test-rust fuzz test-python ## every check, with a minute of fuzzing

lint: build ## style and types, both languages
	$(PY) -m ruff check $(CHECKED)
	$(PY) -m ruff format --check $(CHECKED)
	$(PY) -m mypy $(CHECKED)
	$(PY) -m mypy.stubtest turbopump._native --mypy-config-file pyproject.toml
	cargo fmt --all --check
	cargo clippy --locked --quiet --all-targets -- --deny warnings

# The native crate decides nothing and links with the interpreter that loads it: Python tests it.
test-rust: ## the Rust tests
	cargo test --locked --quiet --workspace --exclude turbopump-native --exclude turbopump-fuzz

test-python: build ## the Python tests
	$(PY) -m pytest

fuzz: ## fuzz every decoder (FUZZ_SECONDS=3600 in all)
	.ci/fuzz $(FUZZ_SECONDS)

sim: ## stories of the transport (SIM_SEEDS=10000), and 1000 hours of clusters (SIM_CLUSTERS=45000)
	SIM_SEEDS=$(SIM_SEEDS) cargo test --locked --release --package turbopump-udt --test sim
	SIM_SEEDS=$(SIM_CLUSTERS) cargo test --locked --release --package turbopump-core --test cluster -- \
		--nocapture

bench: build ## measure beside redis-server and memcached; writes loadtests/results.md
	$(PY) loadtests/bench.py

bench-cluster: build ## replicated writes beside Redis and etcd; writes loadtests/cluster.md
	$(PY) loadtests/cluster.py

bench-sync: build ## how nodes heal, and what that costs; writes loadtests/sync.md
	$(PY) loadtests/sync.py

bench-transport: build ## transports over emulated links, as root; writes loadtests/transport.md
	cargo build --locked --release --package turbopump-lab
	$(PY) loadtests/transport.py

kills: build ## kill nodes under writes, KILLS=100 times, and look for writes that are lost
	$(PY) loadtests/kills.py --kills $(KILLS)

load: build ## locust against a node that serves SOCKET=/tmp/turbopump
	$(PY) -m locust -f loadtests/kv.py --headless --users 50 --spawn-rate 50 --run-time 30s --host $(SOCKET)

lock: ## remake requirements.lock from pyproject.toml (UPGRADE=1 for the newest versions)
	@command -v uv >/dev/null || { echo "turbopump: uv is missing: pip install uv" >&2; exit 1; }
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
		$(if $(UPGRADE),--upgrade) --extra dev --extra load --output-file requirements.lock pyproject.toml

clean: ## remove what was built, the environment too
	rm -rf .venv target $(NATIVE) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find python tests loadtests examples -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

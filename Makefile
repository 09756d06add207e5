# What there is to do in this checkout. `make` alone lists it.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo bench test alone build format clippy docs licences core models quick-start clients tools
.PHONY: public-api package
.PHONY: cross arm test-arm footprint
.PHONY: test-long subscribers properties leaks processes ledger models-long asan tsan tsan-server miri
.PHONY: pauses pauses-short hostile prometheus

CARGO ?= cargo
armv7 := armv7-unknown-linux-gnueabihf
aarch64 := aarch64-unknown-linux-gnu
target := $(or $(CARGO_TARGET_DIR),target)

# With ccache, what was compiled once in any folder is not compiled again.
ifneq ($(shell command -v ccache 2>/dev/null),)
export CMAKE_C_COMPILER_LAUNCHER ?= ccache
export CMAKE_CXX_COMPILER_LAUNCHER ?= ccache
endif

help:
	@echo "make demo    restarts a server under load, and counts what becomes of the calls (10 s)"
	@echo "             DEMO='--servers 10' passes options, DEMO=--help lists them"
	@echo "make test    everything that must pass: formatting, lints, docs, licences, all tests"
	@echo "make bench   measures against tonic, grpcio, gRPC C++ and grpc-go, writes docs/benchmarks.* (15 min)"
	@echo "             BENCH='--quick' passes options, BENCH=--help lists them"
	@echo "             BENCH=--instructions BASE=v0.1.0 counts instructions a call, now and at that revision (5 min)"
	@echo "make footprint    size, memory, threads and start-up time, writes docs/footprint.md (10 min after the builds)"
	@echo "make build   library and examples, in debug mode"
	@echo "make cross TARGET=armv7-unknown-linux-gnueabihf    the greeter_server for a board; docs/cross.md lists targets"
	@echo "             FEATURES=server,tls for others than server; CRATE=FOLDER builds the crate in a folder instead"
	@echo "make arm     32-bit ARM under QEMU: the lifecycle's tests, and a server for boards"
	@echo "make test-arm     all tests of both ARM targets under QEMU (20 min after the builds)"
	@echo "make pauses  stops and upgrades while the network, a server or a client pauses: no call may be lost (10 min)"
	@echo "             PAUSES='--only gap' passes options, PAUSES=--help lists them"
	@echo "make hostile attacks a server while others call it: nobody may notice (2 min after the builds)"
	@echo "             HOSTILE='--only 1' passes options, HOSTILE=--help lists them"
	@echo "make test-long    make test, and what takes longer: every part below, 1 h or more"
	@echo
	@echo "Parts of make test-long: pauses hostile subscribers properties leaks processes ledger models-long asan tsan"
	@echo "                         tsan-server miri"
	@echo "Parts of make test: format build clippy docs package licences core models quick-start clients pauses-short"

demo: tools
	@.ci/watch release $(CARGO) build --release --package touchdown-demo
	@echo
	@$(CARGO) run --quiet --release --package touchdown-demo --bin demo -- $(DEMO)

# What the rivals need, the command installs by itself; those that cannot be had are left out.
bench: tools
	$(if $(findstring --instructions,$(BENCH)),,\
		@.ci/watch release $(CARGO) build --release --locked -p touchdown-rivals)
	@command -v python3 >/dev/null || .ci/install python3
	@python3 benches/rivals/run.py $(BENCH)

# In the profile of boards. The rivals are those of `make bench`.
footprint: tools
	@command -v python3 >/dev/null || .ci/install python3
	@python3 benches/footprint/footprint.py $(FOOTPRINT)

build: tools
	@.ci/watch debug $(CARGO) build --workspace --examples --all-features

# The tests come last, so that the last lines are theirs. Tests marked `ignore` are for those who have
# the clients, or a lot of time.
test: format clients alone build clippy docs package licences core models quick-start pauses-short prometheus
	$(CARGO) test --no-default-features --features systemd --no-fail-fast
	$(CARGO) test --no-default-features --features upgrade,systemd --no-fail-fast --lib --example http_daemon \
		--test http_daemon --test acceptor
	$(CARGO) test --workspace --exclude touchdown-models --all-features --doc --no-fail-fast
	$(if $(wildcard $(target)/foreign/node_modules),\
		$(CARGO) test --all-features --test foreign_clients --test room -- --ignored --skip with_tls)
	$(if $(wildcard $(target)/foreign/node_modules),\
		$(CARGO) test -p touchdown-interop --no-fail-fast -- --ignored --skip a_thousand \
		$$(test -x $(target)/foreign/grpc-go/interop_client || echo --skip grpc_go))
	$(if $(and $(wildcard $(target)/foreign/node_modules),$(shell command -v h2load 2>/dev/null)),\
		$(CARGO) test -p touchdown-call-log -- --ignored)
	$(CARGO) test --workspace --exclude touchdown-models --all-features --lib --tests --examples --no-fail-fast

# A server without the feature `client`, which has less of C-core: its own tests, and those with clients that others
# have written.
alone: features := --no-default-features --features admin,systemd,tls
alone: clients
	@.ci/watch debug $(CARGO) build $(features) --example greeter_server --example board_server
	$(CARGO) test $(features) --lib --test server_alone --no-fail-fast
	$(if $(wildcard $(target)/foreign/node_modules),\
		$(CARGO) test $(features) --test foreign_clients -- --ignored)

format:
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path examples/board/Cargo.toml --check

clippy: build
	$(CARGO) clippy --workspace --all-targets --all-features -- -D warnings
	$(CARGO) clippy --no-default-features --all-targets -- -D warnings
	$(CARGO) clippy --no-default-features --features systemd --all-targets -- -D warnings
	$(CARGO) clippy --no-default-features --features upgrade,systemd --all-targets -- -D warnings
	$(CARGO) clippy --no-default-features --features server --all-targets -- -D warnings
	$(CARGO) clippy --lib -- -D warnings

# Without the server, the crate's first page names things that are not there.
docs: build
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --all-features --no-deps
	.ci/public-api $(target)/doc
	RUSTDOCFLAGS="-D warnings -A rustdoc::broken-intra-doc-links" \
		$(CARGO) doc --no-default-features --no-deps --target-dir $(target)/core-docs

# After a change of the public API that is meant.
public-api:
	$(CARGO) doc --workspace --all-features --no-deps
	.ci/public-api $(target)/doc --write

# What would be published, built from the packages alone.
package: build
	CARGO_TARGET_DIR=$(target) .ci/package

# Advisories are fetched from the network, so they are asked for apart: `cargo deny check advisories`.
licences:
ifneq ($(shell command -v cargo-deny 2>/dev/null),)
	$(CARGO) deny --all-features check bans licenses sources
else
	@echo "cargo-deny is not installed: licences are not checked"
endif

# The lifecycle alone needs no C++ compiler and builds in seconds.
core:
	.ci/core

# The orders in which threads may do what they do; see tests/models/src/lib.rs.
models:
	$(CARGO) test --profile models --package touchdown-models --no-fail-fast

models-long:
	MODEL_SCHEDULES=$(or $(MODEL_SCHEDULES),30000) MODEL_SEED=$(or $(MODEL_SEED),$(shell date +%s)) \
		LOOM_MAX_PREEMPTIONS=$(or $(LOOM_MAX_PREEMPTIONS),4) $(MAKE) models

# What README.md tells a newcomer to do.
quick-start: build
	.ci/quick-start

# Clients of other gRPC implementations: grpcio for Python, grpc-js and tonic, and grpc-go's interop client.
clients:
	@if command -v python3 >/dev/null && command -v npm >/dev/null; then \
		tests/foreign/setup.sh $(target)/foreign; \
	else \
		echo "python3 or npm is missing: tests with their clients are skipped"; \
	fi
	@tests/foreign/grpc-go.sh $(target)/foreign

# See tests/foreign/pauses.py. The short form takes a minute.
pauses-short: PAUSES := --short
pauses pauses-short: clients build
	@if test -d $(target)/foreign/node_modules; then \
		$(target)/foreign/venv/bin/python -B tests/foreign/pauses.py $(PAUSES) \
			--server $(target)/debug/examples/greeter_server --tls-server $(target)/debug/examples/board_server; \
	else \
		echo "python3 or npm is missing: no test of what pauses"; \
	fi

# A real Prometheus looks at a server and its stop; rules, runbooks and dashboard of deploy/ are checked. A minute.
prometheus: observed := $(target)/foreign/prometheus/usr/bin
prometheus: clients
	@tests/foreign/prometheus.sh $(target)/foreign/prometheus
	@.ci/watch debug $(CARGO) build -p touchdown-observed
	@if test -x $(observed)/prometheus && test -d $(target)/foreign/node_modules; then \
		$(target)/foreign/venv/bin/python -B tests/foreign/prometheus.py --seconds 8 \
			--server $(target)/debug/observed_server --prometheus $(observed)/prometheus --promtool $(observed)/promtool; \
	else \
		echo "prometheus or Python's clients are missing: no test with them"; deploy/check; \
	fi

# See tests/foreign/hostile.py. How fast a server is decides here, so it is the one that is released.
hostile: clients
	@.ci/watch release $(CARGO) build --release --all-features --example greeter_server --example board_server
	@if ! test -d $(target)/foreign/node_modules; then \
		echo "python3 or npm is missing: no test of a hostile network"; \
	elif ! command -v h2load >/dev/null; then \
		echo "h2load is missing (Debian's nghttp2-client): no test of a hostile network"; \
	else \
		$(target)/foreign/venv/bin/python -B tests/foreign/hostile.py $(HOSTILE) \
			--server $(target)/release/examples/greeter_server --tls-server $(target)/release/examples/board_server; \
	fi

cross:
	@.ci/cross $(TARGET) $(CRATE)

# 32-bit is where assumptions break, so the server for boards is tried there.
arm:
	.ci/test-arm $(armv7) core
	.ci/test-arm $(armv7) board

test-arm: arm
	.ci/test-arm $(aarch64) core
	.ci/test-arm $(armv7) all
	.ci/test-arm $(aarch64) all
	.ci/test-arm $(aarch64) board

tools:
	@.ci/install

# What a nightly run has time for.
test-long: test pauses hostile subscribers properties leaks processes ledger models-long asan tsan tsan-server miri

properties: tools
	PROPTEST_CASES=10000 $(CARGO) test --lib --test properties --test properties_of_calls

# 10,000 servers and 10,000 lifecycles, one after the other in one process.
leaks: tools
	$(CARGO) test --test leaks --test lifecycle_leaks --no-fail-fast -- --ignored --nocapture

# 2,000 servers in processes of their own, stopped at moments of chance; the second thousand in all ways at once.
processes: tools
	$(CARGO) test --test exit_codes --test random_stops --no-fail-fast -- --ignored --nocapture

# A service that writes to SQLite, stopped by force 100 times; see docs/stopping-well.md.
ledger: tools
	$(CARGO) build -p touchdown-ledger --example ledger_server
	$(CARGO) test --test ledger -- --ignored --nocapture

# See tests/sanitizers/README.md. With asan and tsan-server, C-core is compiled once more for each.
asan: tools
	tests/sanitizers/run address

tsan:
	tests/sanitizers/run thread --core

tsan-server: tools
	tests/sanitizers/run thread

miri:
	tests/sanitizers/miri

# 1,000 subscribers on detached streams: healthy, slow and dead ones. 40 s.
subscribers: clients
	$(CARGO) test -p touchdown-interop --test subscribers -- --ignored --nocapture a_thousand

# make run    the example, supervised; needs root where systemd is not PID 1
# make test   everything that proves the product; needs root
# make lint   format, lints, documentation, licences
# make bench  figures, each beside a peer's in the same run; needs root
# make release   the optimised programs in target/release

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: run test test-units test-python test-system lint bench release golden

# A process for each test: those of the sandbox count what it leaves behind.
TEST := nextest run --no-fail-fast
NEXTEST := cargo nextest --version >/dev/null 2>&1 || cargo install --locked cargo-nextest
SANDBOX := target/debug/supervisor-sandbox --bind $(CURDIR)
PYTHON := target/python/venv/bin/python

run:
	@scripts/run-example

test: test-units test-python test-system

test-units:
	@scripts/packages cc systemd dbus openssl
	@$(NEXTEST)
	cargo build --locked --bins --examples
	cargo $(TEST) --locked --lib --bins --examples --test architecture --test config --test demo_service --test exec_probe --test stream --test sandbox

test-python: target/python/ready
	$(PYTHON) -m unittest discover --buffer -s packaging/python/tests

# Flask, pinned, and the package as pip installs it.
target/python/ready: $(addprefix packaging/python/,requirements.txt pyproject.toml supervisor/api_routes.py)
	@scripts/packages python3 python3-venv
	python3 -m venv --clear target/python/venv
	$(PYTHON) -m pip install -q --disable-pip-version-check --require-hashes -r packaging/python/requirements.txt
	$(PYTHON) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation ./packaging/python
	touch $@

# One booted private systemd for the whole suite; real services from packages beside our own stubs.
test-system:
	@scripts/packages cc systemd dbus dbus-user-session libpam-systemd nginx redis python3 curl openssl prometheus
	@$(NEXTEST)
	cargo build --locked --bins --examples
	cargo nextest run --locked --test system --no-run
	$(SANDBOX) -- env SUPERVISOR_SANDBOX=1 cargo $(TEST) --locked --offline --test system

lint:
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items
	@cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
	cargo deny check licenses bans sources

release:
	@scripts/packages cc
	cargo build --release --locked

bench:
	@scripts/packages cc systemd dbus
	cargo build --release --locked --bins --examples
	cargo build --locked --bin supervisor-sandbox
	cargo bench --locked --bench config_load
	cargo bench --locked --bench metrics
	cargo bench --locked --no-run --bench supervision --bench probes
	$(SANDBOX) -- env SUPERVISOR_SANDBOX=1 cargo bench --locked --offline --bench supervision --bench probes

# Writes the generated schema and the expected messages of the tests anew; look at the difference before you commit.
golden:
	UPDATE_GOLDEN=1 INSTA_UPDATE=always cargo $(TEST) --locked --lib --test config

# make run    the example, supervised; needs root where systemd is not PID 1
# make test   everything that proves the product; needs root
# make lint   format, lints, documentation, licences
# make bench  figures, each beside a peer's in the same run, into BENCHMARKS.md; needs root
# make faults   faults by chance among a hundred services; needs root
# make fuzz   what comes from outside, at random: FUZZ seconds for each kind of it
# make soak   whether anything grows in MINUTES of what services do in weeks; needs root
# make coverage   which lines the tests run
# make mutants   whether the tests see each change that can be made to the core and to the configuration
# make release   the optimised programs in target/release
# make deb, make rpm   packages of them

SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: run test test-units test-python test-system test-browser screenshots lint bench release deb rpm debs-again sbom test-packages test-vm faults fuzz soak mutants coverage golden

# A process for each test: those of the sandbox count what it leaves behind.
TEST := nextest run --no-fail-fast
DENY := cargo deny --version >/dev/null 2>&1 || cargo install --locked cargo-deny
NEXTEST := cargo nextest --version >/dev/null 2>&1 || cargo install --locked cargo-nextest
# This folder, as a word of the shell, whatever is in its name.
HERE := '$(subst ','\'',$(CURDIR))'
SANDBOX := target/debug/supervisor-sandbox --bind $(HERE)
PYTHON := target/python/venv/bin/python

# A folder of Python's, with what a list of pinned packages has.
define venv
@scripts/packages python3 python3-venv
python3 -m venv --clear $(1)
$(1)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r $(2)
endef

run:
	@scripts/run-example

test: test-units test-python test-system test-browser test-packages

test-units:
	@scripts/packages cc systemd dbus openssl
	@$(NEXTEST)
	cargo build --locked --bins --examples
	cargo $(TEST) --locked --lib --bins --examples --test architecture --test config --test demo_service --test exec_probe --test stream --test sandbox

test-python: target/python/ready
	$(PYTHON) -m unittest discover --buffer -s packaging/python/tests

# Flask, pinned, and the package as pip installs it.
target/python/ready: $(addprefix packaging/python/,requirements.txt pyproject.toml supervisor/api_routes.py)
	$(call venv,target/python/venv,packaging/python/requirements.txt)
	$(PYTHON) -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation ./packaging/python
	touch $@

# Asks the API everything that its description allows, and what it does not.
target/python/schemathesis/bin/schemathesis: tests/system/requirements.txt
	$(call venv,target/python/schemathesis,$<)
	touch $@

# What the suite on a real systemd asks with, and the packages that it takes.
ASKERS := target/python/ready target/python/schemathesis/bin/schemathesis target/python/supervisord/bin/supervisord
REAL := cc systemd dbus dbus-user-session libpam-systemd nginx redis python3 curl openssl prometheus tmux

# One booted private systemd for the whole suite; real services from packages beside our own stubs.
test-system: $(ASKERS)
	@scripts/packages $(REAL)
	@$(NEXTEST)
	cargo build --locked --bins --examples
	cargo nextest run --locked --test system --no-run
	$(SANDBOX) -- env SUPERVISOR_SANDBOX=1 cargo $(TEST) --locked --offline --test system

# The dashboard in a real browser; pictures of every view in target/browser.
test-browser: tests/browser/node_modules
	@scripts/packages cc systemd dbus chromium
	cargo build --locked --bins --examples
	$(SANDBOX) -- env SUPERVISOR_SANDBOX=1 npm --prefix tests/browser test

%/node_modules: %/package.json %/package-lock.json
	@scripts/packages node npm
	npm ci --prefix $* --ignore-scripts --no-audit --no-fund
	touch $@

# The pictures of the README.
screenshots: tests/browser/node_modules
	@scripts/packages cc systemd dbus chromium
	cargo build --locked --bins --examples
	$(SANDBOX) -- env SUPERVISOR_SANDBOX=1 node tests/browser/screenshots.js

lint:
	cargo fmt --all --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items
	@$(DENY)
	cargo deny check licenses bans sources

release:
	@scripts/packages cc
	cargo build --release --locked

# A peer of the benchmarks, pinned.
target/python/supervisord/bin/supervisord: benches/requirements.txt
	$(call venv,target/python/supervisord,$<)
	touch $@

# Packages of the optimised programs, in target/packages.
PACKAGES := target/packages
DEB := cargo deb --locked --no-build --no-strip
# Of the commit, so that what is built of the same sources is the same; of 1980 where they come without their history.
TIME := $(or $(shell git log -1 --format=%ct 2>/dev/null),315532800)
# What it needs is found by the tool itself: with rpm's own scripts, it would be other bytes where those are installed.
RPM := SOURCE_DATE_EPOCH=$(TIME) cargo generate-rpm --auto-req builtin

deb: release
	@cargo deb --version >/dev/null 2>&1 || cargo install --locked cargo-deb@3.8.0
	rm -rf $(PACKAGES)/*.deb && mkdir -p $(PACKAGES)
	$(DEB) --output $(PACKAGES)/

rpm: release
	@cargo generate-rpm --version >/dev/null 2>&1 || cargo install --locked cargo-generate-rpm@0.21.1
	rm -rf $(PACKAGES)/*.rpm target/man && mkdir -p $(PACKAGES) target/man
	cp man/*.[18] target/man && gzip -9n target/man/*
	$(RPM) --output $(PACKAGES)/

# What is in the programs (CycloneDX), and under which licences.
sbom:
	@cargo cyclonedx --version >/dev/null 2>&1 || cargo install --locked cargo-cyclonedx@0.5.7
	@$(DENY)
	mkdir -p $(PACKAGES)
	SOURCE_DATE_EPOCH=$(TIME) cargo cyclonedx --quiet --format json --override-filename sbom
	mv sbom.json $(PACKAGES)/process-supervisor.cdx.json
	cargo deny --locked list --layout crate >$(PACKAGES)/licences.txt
	@echo "$$(grep -c '"bom-ref"' $(PACKAGES)/process-supervisor.cdx.json) components; licences of $$(wc -l <$(PACKAGES)/licences.txt) packages: $(PACKAGES)"

# The deb once more, and as a newer version, for the tests.
debs-again: deb
	mkdir -p $(PACKAGES)/again
	$(DEB) --output $(PACKAGES)/again/same.deb
	$(DEB) --deb-version 999-1 --output $(PACKAGES)/again/newer.deb

# The same commit gives the same bytes; then a life from installation to purge.
test-packages: debs-again rpm
	@scripts/packages cc systemd dbus curl python3 lintian rpm rpmlint
	cmp $(PACKAGES)/again/same.deb $(PACKAGES)/*.deb
	$(RPM) --output $(PACKAGES)/again/same.rpm
	cmp $(PACKAGES)/again/same.rpm $(PACKAGES)/*.rpm
	$(RPM) --set-metadata 'version = "999"' --output $(PACKAGES)/again/newer.rpm
	lintian --allow-root --fail-on error,warning $(PACKAGES)/*.deb
	rpmlint --strict --config packaging/rpm/rpmlint.toml $(PACKAGES)/*.rpm
	tests/packages/files.sh $(PACKAGES)/*.deb $(PACKAGES)/*.rpm
	cargo build --locked --bin supervisor-sandbox
	$(SANDBOX) -- tests/packages/life.sh $(HERE)/$(PACKAGES)/again/same.deb $(HERE)/$(PACKAGES)/again/newer.deb
	$(SANDBOX) -- tests/packages/life.sh $(HERE)/$(PACKAGES)/again/same.rpm $(HERE)/$(PACKAGES)/again/newer.rpm

# Whole machines in software: minutes each, so not part of `make test`. SUITES=trixie for one of them.
SUITES := bookworm trixie sid
test-vm: debs-again
	@scripts/packages qemu-system-x86 mmdebstrap e2fsprogs
	for suite in $(SUITES); do tests/vm/run $$suite $(PACKAGES)/again/same.deb $(PACKAGES)/again/newer.deb || exit 1; done

# Faults by chance among a hundred services; the same seed gives the same ones: make faults SEED=7 STEPS=1000
SEED = $(shell date +%s)
STEPS := 60
faults:
	@scripts/packages cc systemd dbus python3 faketime
	cargo build --locked --bins
	$(SANDBOX) -- python3 -u tests/faults/campaign.py --seed $(SEED) --steps $(STEPS) $(HERE)/target/debug/process-supervisor

# Each target of fuzz/ for so many seconds, from its inputs in fuzz/corpus, which are tests too. New ones are kept in
# target/fuzz, and what breaks a target in fuzz/artifacts.
FUZZ := 3600
FUZZ_TARGETS := $(basename $(notdir $(wildcard fuzz/fuzz_targets/*.rs)))
fuzz:
	@scripts/packages cc c++
	@cargo fuzz --version >/dev/null 2>&1 || cargo install --locked cargo-fuzz@0.13.2
	cargo fuzz build --sanitizer none
	mkdir -p $(addprefix target/fuzz/,$(FUZZ_TARGETS))
	for target in $(FUZZ_TARGETS); do \
		cargo fuzz run --sanitizer none $$target target/fuzz/$$target fuzz/corpus/$$target -- \
			-max_total_time=$(FUZZ) -timeout=10 -max_len=4096 -verbosity=0 -print_final_stats=1 || exit 1; \
	done

# Two hours are enough to see a leak of a few bytes in a restart; the plots are in target/soak.
MINUTES := 120
soak:
	@scripts/packages cc systemd dbus python3
	cargo build --release --locked --bins
	cargo build --locked --bin supervisor-sandbox
	$(SANDBOX) -- python3 -u tests/soak/soak.py --minutes $(MINUTES) --plots $(HERE)/target/soak $(HERE)/target/release/process-supervisor

# The core and the configuration stand alone, so that each of their mutants is built in a moment. Some of them:
# make mutants MUTANTS='-f src/core/engine/starting.rs'
ALONE := cargo mutants --jobs 2 --no-shuffle --test-tool nextest
mutants:
	@cargo mutants --version >/dev/null 2>&1 || cargo install --locked cargo-mutants@27.1.0
	scripts/core-alone target/core-alone
	scripts/config-alone target/config-alone
	mkdir -p target/mutants
	status=0; \
	$(ALONE) --dir target/core-alone --output target/mutants/core $(or $(MUTANTS),-f 'src/core/**') || status=$$?; \
	$(ALONE) --dir target/config-alone --output target/mutants/config $(or $(MUTANTS),-f 'src/config/**') -e 'src/core/**' -- \
		--lib --test config -E 'test(config) | binary(config)' || status=$$?; \
	exit $$status

# Daemons that the tests of a real systemd start count, too, where they end by themselves. The page with every line is
# target/coverage/tarpaulin-report.html.
COVERED := --lib --bins --test config --test exec_probe --test stream --test system
coverage: $(ASKERS)
	@scripts/packages $(REAL)
	@cargo tarpaulin --version >/dev/null 2>&1 || cargo install --locked cargo-tarpaulin@0.37.5
	cargo build --locked --bin supervisor-sandbox
	$(SANDBOX) -- env SUPERVISOR_SANDBOX=1 cargo tarpaulin --engine llvm --follow-exec --locked --offline --timeout 1200 \
		--target-dir target/coverage/build --skip-clean --no-fail-fast $(COVERED) --exclude-files 'benches/*' --exclude-files 'target/*' \
		--out Html --out Stdout --output-dir target/coverage

bench: target/python/supervisord/bin/supervisord benches/peers/node_modules
	@scripts/packages cc systemd dbus python3 monit
	cargo build --release --locked --bins --examples
	cargo build --locked --bin supervisor-sandbox
	cargo bench --locked --no-run
	set -o pipefail; { cargo bench --locked --bench config_load --bench metrics && $(SANDBOX) -- env SUPERVISOR_SANDBOX=1 \
		cargo bench --locked --offline --bench supervision --bench probes --bench api; } | tee target/bench.txt
	$(SANDBOX) -- python3 -u benches/peers/peers.py --own target/bench.txt $(HERE)/BENCHMARKS.md

# Writes the generated schema and the expected messages of the tests anew; look at the difference before you commit.
golden:
	UPDATE_GOLDEN=1 INSTA_UPDATE=always cargo $(TEST) --locked --lib --bins --test config

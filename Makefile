# bemi: see `make help`.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help deps build install uninstall demo test check test-pure test-server test-cluster test-clients test-assert fuzz-pure fuzz-decoder torture bench clean

PG_CONFIG ?= pg_config
PG_CONFIG_PATH = $(shell command -v $(PG_CONFIG))
PG_MAJOR = $(shell $(PG_CONFIG) --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
PG_LIB = $(shell $(PG_CONFIG) --pkglibdir)
PG_EXTENSION = $(shell $(PG_CONFIG) --sharedir)/extension
# Each version has a folder of its own for the settings of cargo-pgrx, so that your own settings stay as they are.
export PGRX_HOME = $(CURDIR)/target/pgrx-$(PG_MAJOR)
# The schema's section survives the linker's garbage collection here; kept whole, the library is four times as large.
export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND = 1
export PATH := $(CURDIR)/target/tools/bin:$(PATH)
export USER ?= $(shell id -un)
PACKAGE = target/package-$(PG_MAJOR)
LIBRARY = $(PACKAGE)$(PG_LIB)/bemi.so
SOURCES = $(shell find src sql bemi.control Cargo.toml Cargo.lock -type f)

help: ## List these targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

deps: ## Install what building takes on Debian: apt packages and cargo-pgrx (as root; about 5 minutes).
	tests/setup/install-tools.sh

build: $(LIBRARY) ## Build the extension for the server of PG_CONFIG (default: pg_config on the PATH).

$(LIBRARY): $(SOURCES) | $(PGRX_HOME)/config.toml
	cargo pgrx package --no-default-features --features pg$(PG_MAJOR) --pg-config $(PG_CONFIG_PATH) --out-dir $(PACKAGE)
	touch $@

# Instant, since it downloads nothing; the path may be another one than last time.
.PHONY: $(PGRX_HOME)/config.toml
$(PGRX_HOME)/config.toml:
	@mkdir -p $(@D)
	@grep -qsF '"$(PG_CONFIG_PATH)"' $@ || cargo pgrx init --pg$(PG_MAJOR) $(PG_CONFIG_PATH) --no-run

install: build ## Build it and install it into the server of PG_CONFIG=/path/to/pg_config, of any version from 14 to 18.
	install -d '$(DESTDIR)$(PG_LIB)' '$(DESTDIR)$(PG_EXTENSION)'
	install -m 755 '$(LIBRARY)' '$(DESTDIR)$(PG_LIB)/'
	install -m 644 '$(PACKAGE)$(PG_EXTENSION)/'bemi* '$(DESTDIR)$(PG_EXTENSION)/'
	ln -sfn bemi.so '$(DESTDIR)$(PG_LIB)/bemi_decoder.so'

uninstall: ## Remove its files from the server of PG_CONFIG.
	rm -f '$(DESTDIR)$(PG_LIB)/bemi.so' '$(DESTDIR)$(PG_LIB)/bemi_decoder.so' '$(DESTDIR)$(PG_EXTENSION)/'bemi.control '$(DESTDIR)$(PG_EXTENSION)/'bemi--*.sql

demo: ## See it work: on a fresh Debian as root, install all it takes, build, and run the main job on a throwaway server.
	tests/demo/demo.sh

test: ## Run all tests: pure, in the server, and on real servers of the versions 14 to 18 (Debian, as root).
	tests/test.sh

check: $(PGRX_HOME)/config.toml ## Check format and lints, warnings as errors.
	cargo fmt --check
	cargo clippy --no-default-features --all-targets -- -D warnings
	cargo clippy --no-default-features --features cluster,fuzz --all-targets -- -D warnings
	cargo clippy --no-default-features --features pg$(PG_MAJOR) --lib -- -D warnings

test-pure: ## Run the tests that need no server, in seconds.
	cargo test --no-default-features

test-server: $(PGRX_HOME)/config.toml ## Run the tests inside a server of PG_CONFIG's version (with sudo, as the user postgres); installs a build of its own there.
	data=$$(mktemp -d /tmp/bemi-pg-test.XXXXXX) && chown postgres "$$data" && trap 'rm -rf "'"$$data"'"' EXIT && \
	cargo pgrx test --no-default-features --features pg$(PG_MAJOR) --runas postgres --pgdata "$$data" pg$(PG_MAJOR)

test-cluster: ## Run the integration tests on a server of PG_CONFIG's version, into which `make install` has put bemi.
	PG_CONFIG=$(PG_CONFIG_PATH) cargo test --no-default-features --features cluster --test cluster -- $(ARGS)

test-clients: ## Run the tests of the clients, of real applications and drivers (Debian, as root), on a server with bemi in it.
	PG_CONFIG=$(PG_CONFIG_PATH) tests/clients/run.sh $(ARGS)

test-assert: SECONDS = 60
test-assert: ## Run the tests on PostgreSQL 15 and 18 with assertions, built first (Debian, as root; about an hour).
	tests/assert/assert.sh $(SECONDS)

SECONDS = 30

fuzz-pure: ## Run random inputs through the pure parsers and writers, SECONDS=30 for each.
	BEMI_FUZZ_SECONDS=$(SECONDS) cargo test --profile fuzz --no-default-features --features fuzz --test fuzz

fuzz-decoder: ## Compare random changes of random tables with to_jsonb for SECONDS=30, on a server of PG_CONFIG's version.
	BEMI_FUZZ_SECONDS=$(SECONDS) PG_CONFIG=$(PG_CONFIG_PATH) cargo test --no-default-features --features cluster --test cluster -- --nocapture random_changes

torture: ## Kill and starve the recorder for SECONDS=30 under load, on a server of PG_CONFIG's version, then check each change.
	BEMI_TORTURE_SECONDS=$(SECONDS) PG_CONFIG=$(PG_CONFIG_PATH) cargo run --no-default-features --features cluster --example torture

bench: ## Measure bemi against its peers (Debian, as root; about 22 minutes): decoding, recording, and what tracking costs writers.
	tests/bench/bench.sh $(ARGS)

clean: ## Remove everything that was built.
	cargo clean
	rm -rf clients/node/dist clients/node/node_modules clients/node/target

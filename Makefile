# bemi: see `make help`.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help deps build upgrade-script install uninstall demo test check test-pure test-server test-cluster installcheck test-clients test-orms test-assert fuzz-pure fuzz-decoder torture bench clean

PG_CONFIG ?= pg_config
PG_CONFIG_PATH = $(shell command -v $(PG_CONFIG))
PG_MAJOR = $(shell $(PG_CONFIG) --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
PG_LIB = $(shell $(PG_CONFIG) --pkglibdir)
PG_EXTENSION = $(shell $(PG_CONFIG) --sharedir)/extension
VERSION = $(shell sed -nE 's/^version = "(.*)"/\1/p' Cargo.toml | head -1)
# The server whose headers pgrx reads.
export PGRX_PG_CONFIG_PATH = $(PG_CONFIG_PATH)
export USER ?= $(shell id -un)
LIBRARY = target/pg$(PG_MAJOR)/bemi.so
SQL_FILES = $(shell sed -nE 's/.*extension_sql_file!."([^"]+)".*/src\/\1/p' src/lib.rs)

help: ## List these targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

deps: ## Install with apt what building takes on Debian (as root).
	tests/setup/install-tools.sh

build: $(LIBRARY) target/sql/bemi.control target/sql/bemi--$(VERSION).sql ## Build the extension for the server of PG_CONFIG (default: pg_config on the PATH).

$(LIBRARY): $(shell find src -name '*.rs') Cargo.toml Cargo.lock
	cargo build --release --lib --no-default-features --features pg$(PG_MAJOR)
	@mkdir -p $(@D)
	cp target/release/libbemi.so $@

target/sql/bemi.control: bemi.control Cargo.toml
	@mkdir -p $(@D)
	sed 's/@CARGO_VERSION@/$(VERSION)/' $< > $@

# In the order of src/lib.rs.
target/sql/bemi--$(VERSION).sql: $(SQL_FILES) src/lib.rs Cargo.toml
	@mkdir -p $(@D)
	cat $(SQL_FILES) | sed 's/@MODULE_PATHNAME@/MODULE_PATHNAME/g' > $@

upgrade-script: ## Write the checksum of the SQL and the script that upgrades to this version, after a change of SQL.
	BEMI_UPGRADE_WRITE=1 cargo test -q --no-default-features --test release -- checksum_and_upgrade_script

install: build ## Build it and install it into the server of PG_CONFIG=/path/to/pg_config, of any version from 14 to 18.
	install -d '$(DESTDIR)$(PG_LIB)' '$(DESTDIR)$(PG_EXTENSION)'
	install -m 755 '$(LIBRARY)' '$(DESTDIR)$(PG_LIB)/'
	install -m 644 target/sql/bemi.control 'target/sql/bemi--$(VERSION).sql' sql/bemi--*.sql '$(DESTDIR)$(PG_EXTENSION)/'
	ln -sfn bemi.so '$(DESTDIR)$(PG_LIB)/bemi_decoder.so'

uninstall: ## Remove its files from the server of PG_CONFIG.
	rm -f '$(DESTDIR)$(PG_LIB)/bemi.so' '$(DESTDIR)$(PG_LIB)/bemi_decoder.so' '$(DESTDIR)$(PG_EXTENSION)/'bemi.control '$(DESTDIR)$(PG_EXTENSION)/'bemi--*.sql

demo: ## See it work: on a fresh Debian as root, install all it takes, build, and run the main job on a throwaway server.
	tests/demo/demo.sh

test: ## Run all tests: pure, and on real servers of the versions 14 to 18 (Debian, as root).
	tests/test.sh

check: ## Check format, lints and documentation, warnings as errors, and that no module imports what it may not.
	cargo fmt --all --check
	cargo clippy --no-default-features --all-targets -- -D warnings
	cargo clippy --no-default-features --features cluster,fuzz --all-targets -- -D warnings
	cargo clippy --no-default-features --features pg$(PG_MAJOR) --lib -- -D warnings
	cargo test -q --no-default-features --test imports
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps --document-private-items --no-default-features

test-pure: ## Run the tests that need no server, in seconds.
	cargo test --no-default-features

test-server: ## Run the tests inside a server of PG_CONFIG's version (with sudo, as the user postgres); installs a build of its own there, and cargo-pgrx into target/tools.
	tests/setup/run-pgrx.sh test --no-default-features --features pg$(PG_MAJOR) --runas postgres pg$(PG_MAJOR)

test-cluster: ## Run the integration tests on a server of PG_CONFIG's version, into which `make install` has put bemi.
	PG_CONFIG=$(PG_CONFIG_PATH) cargo test --no-default-features --features cluster --test cluster -- $(ARGS)

PG_REGRESS = $(PG_LIB)/pgxs/src/test/regress/pg_regress

installcheck: ## Compare what a running server with bemi answers (PGHOST, PGPORT, a superuser) with what it should, by pg_regress.
	@mkdir -p target/installcheck
	'$(PG_REGRESS)' --inputdir=tests/installcheck --outputdir=target/installcheck --bindir="$$($(PG_CONFIG) --bindir)" \
	  --dbname=bemi_installcheck context tracking decoder recorder past

test-clients: ## Run the tests of the clients, of real applications and drivers (Debian, as root), on a server with bemi in it.
	PG_CONFIG=$(PG_CONFIG_PATH) tests/clients/run.sh $(ARGS)

test-orms: ## Run the schema tools of ORMs, and slices of what TypeORM and MikroORM do, with and without the package (ARGS=prisma: that one).
	PG_CONFIG=$(PG_CONFIG_PATH) BEMI_TOOLS='$(ARGS)' tests/clients/run.sh orms

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

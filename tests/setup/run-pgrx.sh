#!/bin/bash
# run-pgrx.sh test ARGUMENT...: cargo pgrx test on the server of PG_CONFIG's version, with cargo-pgrx of the version that this crate is
# made for. It is built into target/tools first, in about 4 minutes on 2 cores.
set -euo pipefail
cd "$(dirname "$0")/../.."
pg_config=$(command -v "${PGRX_PG_CONFIG_PATH:-pg_config}")
major=$("$pg_config" --version | sed -E 's/^[^0-9]*([0-9]+).*/\1/')
export PATH="$PWD/target/tools/bin:$PATH" PGRX_HOME="$PWD/target/pgrx-$major"
unset PGRX_PG_CONFIG_PATH
# The schema's section survives the linker's garbage collection here; kept whole, the library is four times as large.
export CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND=1
version=$(sed -nE 's/^pgrx = .*"=([0-9.]+)".*/\1/p' Cargo.toml)
if ! cargo pgrx --version 2>/dev/null | grep -qx "cargo-pgrx $version"; then
  tests/setup/install-packages.sh pkg-config libssl-dev
  cargo install --debug cargo-pgrx --version "$version" --locked --root target/tools
fi
mkdir -p "$PGRX_HOME"
# Instant, since it downloads nothing; the path may be another one than last time.
grep -qsF "\"$pg_config\"" "$PGRX_HOME/config.toml" || cargo pgrx init "--pg$major" "$pg_config" --no-run
data=$(mktemp -d /tmp/bemi-pg-test.XXXXXX)
trap 'rm -rf "$data"' EXIT
chown postgres "$data"
cargo pgrx "$@" --pgdata "$data"

#!/bin/bash
# Installs on Debian 12 what it takes to build and run bemi: PostgreSQL 15 with its headers, clang for pgrx, and
# cargo-pgrx of the version that this crate is made for. What is there already is left alone.
set -euo pipefail
cd "$(dirname "$0")/../.."

packages=(postgresql-15 postgresql-server-dev-15 postgresql-client-15 clang libclang-dev make gcc pkg-config libssl-dev)
tests/setup/install-packages.sh "${packages[@]}" "$@"

version=$(sed -nE 's/^pgrx = .*"=([0-9.]+)".*/\1/p' Cargo.toml)
if ! PATH="$PWD/target/tools/bin:$PATH" cargo pgrx --version 2>/dev/null | grep -qx "cargo-pgrx $version"; then
  echo "-- Building cargo-pgrx $version into target/tools, about 4 minutes on 2 cores"
  cargo install --debug cargo-pgrx --version "$version" --locked --root target/tools
fi

#!/bin/bash
# Installs on Debian 12 what it takes to build and run bemi: PostgreSQL 15 with its headers, and clang for pgrx. What is there
# already is left alone.
set -euo pipefail
cd "$(dirname "$0")/../.."

packages=(postgresql-15 postgresql-server-dev-15 postgresql-client-15 clang libclang-dev make gcc)
tests/setup/install-packages.sh "${packages[@]}" "$@"

#!/bin/bash
# run.sh WORK: the recipes for Go's pgx, by Debian's packages (GOPATH mode, since they are no modules).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
if ! [ -e /usr/share/gocode/src/github.com/jackc/pgx/v4 ] || ! command -v go >/dev/null; then
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    golang-go golang-github-jackc-pgx-v4-dev >"$1/apt.log" 2>&1 || { cat "$1/apt.log"; exit 1; }
fi
export GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$1/cache GOFLAGS=-p=1
cd "$here"
go build -o "$1/recipe" main.go
"$1/recipe"

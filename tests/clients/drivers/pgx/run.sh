#!/bin/bash
# run.sh WORK: the recipes for Go's pgx, by Debian's packages (GOPATH mode, since they are no modules).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
export GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$1/cache GOFLAGS=-p=1
cd "$here"
go build -o "$1/recipe" main.go
"$1/recipe"

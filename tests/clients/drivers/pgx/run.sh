#!/bin/bash
# run.sh WORK: the recipe for Go's pgx, by Debian's packages (GOPATH mode, since they are no modules).
set -euo pipefail
cd "$(dirname "$0")"
work=$1
export GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$work/cache GOFLAGS=-p=1
go build -o "$work/recipe" main.go
"$work/recipe"

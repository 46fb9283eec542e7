#!/bin/bash
# apps.sh [APP...]: drives the apps of tests/clients/apps (all, or those named), which use the package in BEMI_TARBALL, by
# HTTP, each with a database of its own on the server that PGHOST, PGPORT and PGUSER lead to, as within with-server.sh.
# What is installed for them is kept in BEMI_CLIENTS_WORK (default: target/clients) for the next time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/apps"
: "${BEMI_TARBALL:?is to be the path of the packed npm package}" "${PGPORT:?run this within with-server.sh}"
work=${BEMI_CLIENTS_WORK:-$(realpath ../../..)/target/clients}
mkdir -p "$work/apps"
work=$(realpath "$work")
tarball=$(realpath "$BEMI_TARBALL")
export BEMI_CLIENTS_WORK=$work npm_config_fund=false npm_config_audit=false npm_config_update_notifier=false

if [ $# = 0 ]; then
  for file in */package.json; do set -- "$@" "${file%/*}"; done
fi

# The apps that say in "engines" that they need a newer Node than the tests do run by this one.
BEMI_NODE=$(../newer-node.sh)
export BEMI_NODE

# What the lock file names is installed once, the package itself each time.
install() {
  local app=$1 folder=$work/apps/$1 lock
  mkdir -p "$folder"
  find "$folder" -mindepth 1 -maxdepth 1 ! -name node_modules -exec rm -rf {} +
  cp -r "$app/." "$folder"
  cd "$folder"
  lock=$(sha256sum package-lock.json .npmrc 2>/dev/null || true)
  if [ "$(cat node_modules/.bemi-lock 2>/dev/null)" != "$lock" ]; then
    npm ci --loglevel=error --ignore-scripts --prefer-offline
    echo "$lock" > node_modules/.bemi-lock
  fi
  # npm would keep another package of the same version.
  rm -rf node_modules/bemi node_modules/.store/bemi@* node_modules/.package-lock.json
  npm install --loglevel=error --no-save --ignore-scripts --prefer-offline "$tarball"
}
export -f install
export work tarball
printf '%s\n' "$@" | xargs -P 2 -I{} bash -euo pipefail -c 'install {}'

node --test --test-reporter=spec --test-concurrency=2 --test-timeout=600000 "${@/%/.test.mjs}"

#!/bin/bash
# run.sh [PART...]: the tests of the clients (package, pg, apps, drivers, snippets, tools; these by default; and orms, which
# are all tests of schema tools, or those that BEMI_TOOLS names) against a throwaway server of PG_CONFIG's version, into
# which `make install` has put bemi. Needs Node 20 or later and Python 3.11, and installs what else it takes by npm, pip,
# cargo and, as root, apt. What is installed is kept in target/clients for the next time.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# All parts have one server.
if [ -z "${BEMI_CLIENTS_SERVER:-}" ]; then
  BEMI_CLIENTS_SERVER=1 exec tests/clients/with-server.sh tests/clients/run.sh "$@"
fi
[ $# -gt 0 ] || set -- package pg apps drivers snippets tools
for part in "$@"; do
  case $part in
    package | pg | apps | drivers | snippets | tools | orms) ;;
    *) echo "There is no part \"$part\"; there are package, pg, apps, drivers, snippets, tools and orms." >&2; exit 2 ;;
  esac
done
node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' || { echo "Node 20 or later is needed." >&2; exit 1; }
export BEMI_CLIENTS_WORK=${BEMI_CLIENTS_WORK:-$PWD/target/clients}
export npm_config_fund=false npm_config_audit=false npm_config_update_notifier=false npm_config_loglevel=error
mkdir -p "$BEMI_CLIENTS_WORK"
step() { echo; echo "-- $(date +%T) $*"; }

# What the lock file of a folder names is installed once.
install() { (
  cd "$1"
  [ ! -e node_modules ] || ! cmp -s package-lock.json node_modules/.lock || exit 0
  npm ci
  cp package-lock.json node_modules/.lock
) }

step "The package is built"
install clients/node
(cd clients/node && npm pack --silent --pack-destination "$BEMI_CLIENTS_WORK" >/dev/null)
BEMI_TARBALL=$BEMI_CLIENTS_WORK/bemi-$(node -p 'require("./clients/node/package.json").version').tgz
export BEMI_TARBALL

package() { (cd clients/node && npx tsc -p test && node --test --test-timeout=300000 --test-reporter=spec target/test/*.test.js); }

pg() {
  local folder=$BEMI_CLIENTS_WORK/pg
  mkdir -p "$folder"
  cp tests/clients/pg/* tests/clients/bemihq.sql "$folder"
  install "$folder"
  # npm would keep another package of the same version.
  rm -rf "$folder/node_modules/bemi"
  (cd "$folder" && npm install --no-save "$BEMI_TARBALL")
  tests/setup/install-packages.sh pgbouncer
  (cd "$folder" && "$OLDPWD/tests/clients/with-pgbouncer.sh" node --test --test-timeout=300000 --test-reporter=spec named.test.mjs statements.test.mjs take-over.test.mjs)
}

apps() { tests/clients/apps.sh; }

drivers() {
  local packages=(pgbouncer libpostgresql-jdbc-java golang-go golang-github-jackc-pgx-v4-dev)
  packages+=(ruby-activerecord ruby-actionpack ruby-railties ruby-marginalia ruby-pg)
  command -v javac >/dev/null || packages+=(default-jdk-headless)
  python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
  tests/setup/install-packages.sh "${packages[@]}"
  tests/clients/drivers.sh
}

snippets() { node --test --test-reporter=spec tests/clients/snippets.test.mjs; }

# What deletes or stops the history where nothing holds it back.
tools() { BEMI_TEST=schema_update tests/clients/tools.sh mikro-orm-6 mikro-orm-7; }

orms() {
  local packages=(ruby-activerecord ruby-pg)
  python3 -c 'import ensurepip' 2>/dev/null || packages+=(python3-venv)
  tests/setup/install-packages.sh "${packages[@]}"
  # shellcheck disable=SC2086
  tests/clients/tools.sh ${BEMI_TOOLS:-}
}

for part in "$@"; do
  step "$part"
  "$part"
done

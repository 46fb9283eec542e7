#!/bin/bash
# tools.sh [NAME...]: runs the tests of the schema tools in tests/clients/tools (all, or those named), on the server that
# PGHOST, PGPORT and PGUSER lead to, as within with-server.sh, with the package in BEMI_TARBALL. What is installed for
# them is kept in BEMI_CLIENTS_WORK (default: target/clients) for the next time; packages of the system (Ruby) are
# installed by tests/clients/run.sh.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/tools"
: "${BEMI_TARBALL:?is to be the path of the packed npm package}" "${PGPORT:?run this within with-server.sh}"
BEMI_CLIENTS_WORK=${BEMI_CLIENTS_WORK:-$(realpath ../../..)/target/clients}
mkdir -p "$BEMI_CLIENTS_WORK/tools"
BEMI_CLIENTS_WORK=$(realpath "$BEMI_CLIENTS_WORK")
BEMI_TARBALL=$(realpath "$BEMI_TARBALL")
BEMI_TOOL=$PWD/tool.sh
export BEMI_CLIENTS_WORK BEMI_TOOL npm_config_fund=false npm_config_audit=false npm_config_update_notifier=false NO_COLOR=1
[ $# -gt 0 ] || for runner in */run.sh; do set -- "$@" "${runner%/*}"; done

# A copy of the tool's folder, with what it names installed in it; npm's packages once, ours each time.
install() {
  local folder=$BEMI_CLIENTS_WORK/tools/$1
  mkdir -p "$folder"
  find "$folder" -mindepth 1 -maxdepth 1 ! -name node_modules ! -name venv -exec rm -rf {} +
  cp -r "$1/." "$folder"
  [[ $1 != mikro-orm-* ]] || cp mikro-orm/* "$folder"
  cd "$folder"
  if [ -e package-lock.json ]; then
    if ! cmp -s package-lock.json node_modules/.lock; then
      npm ci --loglevel=error --ignore-scripts --prefer-offline
      cp package-lock.json node_modules/.lock
    fi
    # It has no dependencies, and npm takes long to find that out.
    rm -rf node_modules/bemi
    mkdir node_modules/bemi
    tar -xzf "$BEMI_TARBALL" -C node_modules/bemi --strip-components 1
  fi
  if [ -e requirements.txt ] && ! cmp -s requirements.txt venv/installed.txt; then
    python3 -m venv --clear venv
    venv/bin/python -m pip install -q --disable-pip-version-check -r requirements.txt
    cp requirements.txt venv/installed.txt
  fi
}

failed=0
for name in "$@"; do
  [ -x "$name/run.sh" ] || { echo "FAILED $name: there is no $PWD/$name/run.sh"; failed=1; continue; }
  started=$SECONDS
  echo "-- $name"
  status=0
  (install "$name") > "$BEMI_CLIENTS_WORK/tools/install.txt" 2>&1 || status=$?
  if [ "$status" != 0 ]; then
    echo "FAILED $name is installed:"
    sed 's/^/  /' "$BEMI_CLIENTS_WORK/tools/install.txt"
    failed=1
    continue
  fi
  path=$PATH
  if [ -e "$name/package.json" ] && grep -q '"node": ">=22' "$name/package.json"; then
    node=$(../newer-node.sh)
    path=${node:+$node:}$PATH
  fi
  (cd "$BEMI_CLIENTS_WORK/tools/$name" && PATH=$path ./run.sh </dev/null) || failed=1
  echo "-- $name: $((SECONDS - started)) s"
done
exit $failed

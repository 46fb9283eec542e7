#!/bin/bash
# newer-node.sh: prints the folder of a Node that is new enough for all clients, MikroORM 7 needs 22.17, or an empty line if
# the one on the PATH is. It is installed by npm once, into BEMI_CLIENTS_WORK.
set -euo pipefail
if node -e 'const [a, b] = process.versions.node.split("."); process.exit(a > 22 || (a == 22 && b >= 17) ? 0 : 1)'; then
  echo
  exit
fi
package=node-linux-$(node -p process.arch)
bin=$BEMI_CLIENTS_WORK/node/node_modules/$package/bin
[ -x "$bin/node" ] || npm install --loglevel=error --no-save --prefix "$BEMI_CLIENTS_WORK/node" "$package@22.23.3" >&2
echo "$bin"

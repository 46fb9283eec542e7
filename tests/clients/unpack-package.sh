#!/bin/bash
# unpack-package.sh FOLDER: puts the package of BEMI_TARBALL into FOLDER/node_modules. It has no dependencies, so npm need
# not install it, which would take longer.
set -euo pipefail
: "${BEMI_TARBALL:?is to be the path of the packed npm package}"
package=$1/node_modules/bemi
rm -rf "$package"
mkdir "$package"
tar -xzf "$BEMI_TARBALL" --strip-components=1 -C "$package"

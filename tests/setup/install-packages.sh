#!/bin/bash
# install-packages.sh PACKAGE...: installs with apt what is not there yet. Services that packages bring are not started.
set -euo pipefail
missing=()
for package in "$@"; do
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep '^install ok installed' >/dev/null || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0
echo "-- Installing with apt: ${missing[*]}"
if [ ! -e /usr/sbin/policy-rc.d ]; then
  trap 'rm -f /usr/sbin/policy-rc.d' EXIT
  printf '#!/bin/sh\nexit 101\n' > /usr/sbin/policy-rc.d
  chmod +x /usr/sbin/policy-rc.d
fi
# The package postgresql-15 would make a server of its own; here only servers in folders of their own are needed.
mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' > /etc/postgresql-common/createcluster.conf
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -yq --no-install-recommends "${missing[@]}"

#!/bin/bash
# install-assert.sh [DEST]: PostgreSQL 15 and 18 with assertions on Debian 12, from Debian's source packages (bookworm
# and sid), each in DEST/<major> (default: /opt/pg-assert), as root. 46 MB of downloads and about 8 minutes on 2 cores; a
# version that is there already stays as it is: remove its folder to build it again. BEMI_ASSERT_MAJORS="15" builds one.
#
# The server has assertions of its own that fail without bemi, with test_decoding too (docs/limits.md, "Assertions of
# the server"). They are taken out below, one by one; if the source no longer reads as it does here, the build stops.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
dest=${1:-/opt/pg-assert}
read -ra majors <<< "${BEMI_ASSERT_MAJORS:-18 15}"
missing=()
for major in "${majors[@]}"; do
  [ -e "$dest/$major/.complete" ] || missing+=("$major")
done
[ ${#missing[@]} -gt 0 ] || { echo "-- PostgreSQL ${majors[*]} with assertions are in $dest"; exit 0; }
"$here/install-packages.sh" gcc make bison flex perl bzip2 libxml2-dev zlib1g-dev libreadline-dev pkg-config

w=$(mktemp -d /tmp/bemi-assert.XXXXXX)
trap 'rm -rf "$w"' EXIT

# apt with a list of its own: what the system installs from stays as it is.
mkdir -p "$w/lists/partial" "$w/cache/archives/partial"
for suite in bookworm sid; do
  echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $suite main"
done > "$w/sources.list"
apt=(apt-get -q -o "Dir::Etc::sourcelist=$w/sources.list" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State::lists=$w/lists" -o "Dir::Cache=$w/cache" -o APT::Sandbox::User=root)
"${apt[@]}" update

# Takes an assertion out of a function, in which it has to stand once. Where the source was fixed and the assertion is
# gone for good, remove the call.
drop_assertion() { # FILE FUNCTION ASSERTION
  local file=$1 function=$2 assertion=$3
  # An empty statement takes its place, since it may be the whole branch of an `else`.
  FUNCTION=$function ASSERTION=$assertion perl -0pi -e '
    my ($function, $assertion) = @ENV{qw(FUNCTION ASSERTION)};
    my $count = 0;
    s{(^\Q$function\E\(.*?^\}$)}{ my $body = $1; $count += $body =~ s/\Q$assertion\E/{ }/g; $body }gmse;
    $count == 1 or die "$ARGV: $count times \"$assertion\" in $function, where it was found once\n";
  ' "$file"
  echo "-- Taken out of $function: $assertion"
}

for major in "${missing[@]}"; do
  echo "== PostgreSQL $major"
  prefix=$dest/$major
  mkdir -p "$w/$major" "$dest"
  (cd "$w/$major" && "${apt[@]}" source -qq --download-only "postgresql-$major")
  mkdir "$w/$major/source"
  tar xjf "$w/$major"/postgresql-"$major"_*.orig.tar.bz2 -C "$w/$major/source" --strip-components=1 --no-same-owner
  cd "$w/$major/source"
  logical=src/backend/replication/logical
  # A transaction of another database that ran when decoding began has invalidations and no snapshot.
  drop_assertion $logical/reorderbuffer.c ReorderBufferForget 'Assert(txn->ninvalidations == 0);'
  if [ "$major" = 18 ]; then
    # An aborted transaction that was spilled, not streamed, is reported by stream_abort all the same.
    drop_assertion $logical/logical.c stream_abort_cb_wrapper 'Assert(ctx->streaming);'
    # A subtransaction without changes is marked as serialized when its transaction is found aborted while it streams.
    drop_assertion $logical/reorderbuffer.c ReorderBufferRestoreCleanup 'Assert(txn->final_lsn != InvalidXLogRecPtr);'
  fi
  rm -rf "$prefix"
  ./configure --quiet --prefix="$prefix" --enable-cassert --enable-debug --without-icu --with-libxml \
    CFLAGS="-O1 -fno-omit-frame-pointer"
  nice -n 10 make -s -j2
  nice -n 10 make -s -j2 -C contrib
  make -s install
  make -s -C contrib install
  chmod -R a+rX "$dest"
  "$prefix/bin/pg_config" --version | tee "$prefix/.complete"
  cd / && rm -rf "${w:?}/$major"
done

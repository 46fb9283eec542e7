#!/bin/bash
# run.sh WORK: the recipes for JDBC, by Debian's driver.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
jar=/usr/share/java/postgresql.jar
if ! [ -e $jar ] || ! command -v javac >/dev/null; then
  DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    libpostgresql-jdbc-java default-jdk-headless >"$1/apt.log" 2>&1 || { cat "$1/apt.log"; exit 1; }
fi
cd "$1"
javac -encoding UTF-8 -Xlint:all -Werror -cp $jar -d classes "$here/Recipe.java"
JDBC_URL="jdbc:postgresql://$PGHOST:$PGPORT/$PGDATABASE?user=$PGUSER" java -cp "$jar:classes" Recipe

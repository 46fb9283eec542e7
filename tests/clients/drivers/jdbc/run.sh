#!/bin/bash
# run.sh WORK: the recipes for JDBC, by Debian's driver.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
jar=/usr/share/java/postgresql.jar
cd "$1"
javac -encoding UTF-8 -Xlint:all -Werror -cp $jar -d classes "$here/Recipe.java"
JDBC_URL="jdbc:postgresql://$PGHOST:$PGPORT/$PGDATABASE?user=$PGUSER" java -cp "$jar:classes" Recipe

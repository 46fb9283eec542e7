#!/bin/bash
# run.sh WORK: the recipe for JDBC, by Debian's driver.
set -euo pipefail
cd "$(dirname "$0")"
work=$1
jar=/usr/share/java/postgresql.jar
javac -encoding UTF-8 -Xlint:all -cp $jar -d "$work/classes" Recipe.java
JDBC_URL="jdbc:postgresql://$PGHOST:$PGPORT/$PGDATABASE?user=$PGUSER" java -cp "$jar:$work/classes" Recipe

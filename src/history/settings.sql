-- Settings under which the past is read and undone, whatever the caller has set: how the log writes values (as the recorder does,
-- src/decoder), and what would make of the same text another value, or of the same condition another set of rows.

DO $do$
DECLARE
  pinned record;
  reader regprocedure;
BEGIN
  FOR pinned IN
    SELECT p.name, p.value FROM (VALUES
      ('timezone', 'UTC'),
      ('datestyle', 'ISO, YMD'),
      ('intervalstyle', 'postgres'),
      ('extra_float_digits', '1'),
      ('bytea_output', 'hex'),
      ('lc_monetary', 'C'),
      ('array_nulls', 'on'),
      ('xmloption', 'content'),
      ('xmlbinary', 'base64'),
      ('standard_conforming_strings', 'on'),
      ('backslash_quote', 'safe_encoding'),
      ('quote_all_identifiers', 'off'),
      ('transform_null_equals', 'off'),
      -- Others would be errors where a policy hides rows, or would leave changes out that an index finds.
      ('row_security', 'on'),
      ('gin_fuzzy_search_limit', '0'),
      -- Run-time checks of PL/pgSQL are for those who write functions.
      ('plpgsql.extra_errors', 'none'),
      ('plpgsql.extra_warnings', 'none'),
      -- Compiling these many small queries, each run once, takes far longer than running them.
      ('jit', 'off')
    ) AS p (name, value)
  LOOP
    FOREACH reader IN ARRAY ARRAY[
      'bemi.revert_selection(bigint, jsonb, regclass, text, timestamptz, timestamptz, text, jsonb)',
      'bemi.revert_sql(bigint, jsonb, regclass, text, timestamptz, timestamptz)',
      'bemi.history(anyelement, text)',
      'bemi.recorded_history(oid, text, text)'
    ]::regprocedure[] LOOP
      EXECUTE format('ALTER FUNCTION %s SET %s = %s', reader, pinned.name,
        CASE pinned.name WHEN 'datestyle' THEN pinned.value ELSE quote_literal(pinned.value) END);
    END LOOP;
  END LOOP;
END
$do$;

-- Each of these asks the catalogs, and what is known of a table, many small questions, whose plans do not depend on what is asked:
-- they are made once in a session. They are among what is asked while a query of the past is planned and begun, under whatever the
-- caller has set.
DO $do$
DECLARE
  reader regprocedure;
BEGIN
  FOREACH reader IN ARRAY ARRAY[
    'bemi.key_of(regclass)', 'bemi.former_partitions(regclass)', 'bemi.recorded_tree(regclass)', 'bemi.farewells(regclass)',
    'bemi.present_versions(oid[])', 'bemi.columns_of_past(oid, text)', 'bemi.unknown_past(regclass, timestamptz)',
    'bemi.require_past(regclass, timestamptz, int)'
  ]::regprocedure[] LOOP
    EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', reader);
  END LOOP;
  FOREACH reader IN ARRAY ARRAY[
    'bemi.as_of_ready(oid)', 'bemi.as_of_query(oid, text, text)', 'bemi.read_latest_changes(oid, timestamptz, pg_snapshot, int, pg_lsn)'
  ]::regprocedure[] LOOP
    EXECUTE format('ALTER FUNCTION %s SET jit = off', reader);
  END LOOP;
END
$do$;

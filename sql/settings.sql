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
      '@extschema@.revert_selection(bigint, jsonb, regclass, text, timestamptz, timestamptz, text, jsonb)',
      '@extschema@.revert_sql(bigint, jsonb, regclass, text, timestamptz, timestamptz)',
      '@extschema@.history(anyelement, text)',
      '@extschema@.recorded_history(oid, text, text)'
    ]::regprocedure[] LOOP
      EXECUTE format('ALTER FUNCTION %s SET %s = %s', reader, pinned.name,
        CASE pinned.name WHEN 'datestyle' THEN pinned.value ELSE quote_literal(pinned.value) END);
    END LOOP;
  END LOOP;
END
$do$;

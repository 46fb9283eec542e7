-- The settings under which the past is read and reverted, whatever the caller has set: how the recorder writes values,
-- and what would read the same text as another value, or the same condition as another set of rows.

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
      -- Other values would raise errors where a policy hides rows, or would leave out changes that an index finds.
      ('row_security', 'on'),
      ('gin_fuzzy_search_limit', '0'),
      -- Checks of PL/pgSQL at run time are for those who write functions.
      ('plpgsql.extra_errors', 'none'),
      ('plpgsql.extra_warnings', 'none'),
      -- To compile these many small queries, each run once, takes far longer than to run them.
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

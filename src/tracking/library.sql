-- Whether the library fits the SQL: both have the version and the checksum of the SQL files that they were built from.

CREATE FUNCTION bemi.library_version() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_library_version';

COMMENT ON FUNCTION bemi.library_version() IS
'returns the version of the library that this session has loaded';

CREATE FUNCTION bemi.library_checksum() RETURNS text
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_library_checksum';

COMMENT ON FUNCTION bemi.library_checksum() IS
'returns the checksum of the SQL that the library was built with';

-- `make upgrade-script` writes the checksum of all SQL files here, and the library takes it from here.
CREATE FUNCTION bemi.sql_checksum() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
  SELECT '718fb73643a001df'::text
$$;

COMMENT ON FUNCTION bemi.sql_checksum() IS
'returns the checksum of the SQL that this database has';

CREATE FUNCTION bemi.doctor_of_library() RETURNS TABLE ("check" text, ok boolean, detail text, fix text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  library text := bemi.library_version();
  extension text := (SELECT e.extversion FROM pg_extension e WHERE e.extname = 'bemi'::name);
  -- A version without numbers is no array of them.
  is_newer boolean := CASE WHEN library ~ '^[0-9.]+$'::text AND extension ~ '^[0-9.]+$'::text
    THEN string_to_array(library, '.'::text)::int[] > string_to_array(extension, '.'::text)::int[] END;
BEGIN
  "check" := 'library';
  ok := library = extension AND bemi.library_checksum() = bemi.sql_checksum();
  detail := format('the library has version %s, the extension %s', library, extension);
  IF library <> extension THEN
    detail := concat(detail, CASE is_newer WHEN true THEN ': the library is newer'
      WHEN false THEN ': the extension is newer' END);
    fix := CASE WHEN is_newer IS NOT FALSE THEN 'ALTER EXTENSION bemi UPDATE;'
      ELSE format('-- install the library of version %s, and restart the server', extension) END;
  ELSIF NOT ok THEN
    detail := format('%s, but the library was built with other SQL (%s, not %s)',
      detail, bemi.library_checksum(), bemi.sql_checksum());
    fix := '-- install the library and the SQL of the same build, and restart the server';
  END IF;
  RETURN NEXT;
END
$$;

COMMENT ON FUNCTION bemi.doctor_of_library() IS
'returns the row of bemi.doctor() about the library: whether it fits the SQL of this database';

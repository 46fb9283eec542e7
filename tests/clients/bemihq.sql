-- What the migrations of @bemi-db/typeorm and @bemi-db/mikro-orm leave in a database: a trigger for each row of each table
-- of public, an event trigger that adds it to later tables, and their functions, under the names that theirs have.
CREATE FUNCTION _bemi_row_trigger_func() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  context text := split_part(split_part(current_query(), '/*Bemi ', 2), ' Bemi*/', 1);
BEGIN
  IF context <> '' THEN
    PERFORM pg_logical_emit_message(true, '_bemi', context);
  END IF;
  RETURN coalesce(NEW, OLD);
END
$$;

CREATE PROCEDURE _bemi_create_triggers() LANGUAGE plpgsql AS $$
DECLARE
  name text;
BEGIN
  FOR name IN
    SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND NOT EXISTS (
      SELECT FROM pg_trigger
      WHERE tgrelid = format('%I.%I', schemaname, tablename)::regclass AND tgname LIKE '\_bemi\_row\_trigger\_%')
  LOOP
    EXECUTE format('CREATE TRIGGER %I BEFORE INSERT OR UPDATE OR DELETE ON %I FOR EACH ROW
      EXECUTE FUNCTION _bemi_row_trigger_func()', '_bemi_row_trigger_' || name, name);
  END LOOP;
END
$$;

CALL _bemi_create_triggers();

CREATE FUNCTION _bemi_create_table_trigger_func() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
  CALL _bemi_create_triggers();
END
$$;

CREATE EVENT TRIGGER _bemi_create_table_trigger ON ddl_command_end WHEN TAG IN ('CREATE TABLE')
  EXECUTE FUNCTION _bemi_create_table_trigger_func();

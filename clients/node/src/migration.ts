/** What a migration runs to have bemi track the tables of the schema public, those made later too. */
export const bemiUpSQL = (): string => "CREATE EXTENSION IF NOT EXISTS bemi;\nSELECT bemi.track_all();\n";

/**
 * Its inverse, which does nothing where the extension is gone. What is recorded in bemi.changes stays; the recorder has to be
 * stopped before.
 */
export const bemiDownSQL = (): string => `DO $bemi$
BEGIN
  IF EXISTS (SELECT FROM pg_catalog.pg_extension WHERE extname = 'bemi') THEN
    PERFORM bemi.untrack_all();
  END IF;
END
$bemi$;
DROP EXTENSION IF EXISTS bemi;
`;

/**
 * What a migration runs where a migration of BemiHQ's packages has run: takes away what that made (the event trigger
 * _bemi_create_table_trigger, the triggers _bemi_row_trigger_… of all tables, and their functions), then does what bemiUpSQL
 * does. bemiDownSQL takes that back, and puts nothing of theirs in place.
 */
export const bemiTakeOverSQL = (): string => `DO $bemi$
DECLARE
  command text;
BEGIN
  -- Theirs fails CREATE TABLE under another search_path than its own, so CREATE EXTENSION bemi too.
  FOR command IN
    SELECT pg_catalog.format('DROP EVENT TRIGGER %I', e.evtname)
    FROM pg_catalog.pg_event_trigger e JOIN pg_catalog.pg_proc p ON p.oid = e.evtfoid
    WHERE p.proname = '_bemi_create_table_trigger_func'
  LOOP
    EXECUTE command;
  END LOOP;
  -- Partitions lose the trigger with their table.
  FOR command IN
    SELECT pg_catalog.format('DROP TRIGGER %I ON %I.%I', t.tgname, n.nspname, c.relname)
    FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
      JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE p.proname = '_bemi_row_trigger_func' AND NOT t.tgisinternal AND t.tgparentid = 0
    ORDER BY n.nspname, c.relname
  LOOP
    EXECUTE command;
  END LOOP;
  -- What else depends on them is not theirs, and fails this.
  FOR command IN
    SELECT pg_catalog.format('DROP ROUTINE %I.%I()', n.nspname, p.proname)
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
    WHERE p.pronargs = 0
      AND p.proname IN ('_bemi_create_table_trigger_func', '_bemi_create_triggers', '_bemi_row_trigger_func')
  LOOP
    EXECUTE command;
  END LOOP;
END
$bemi$;
${bemiUpSQL()}`;

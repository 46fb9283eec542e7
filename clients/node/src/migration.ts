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
 * What a migration runs where a migration of BemiHQ's packages has run: what bemiUpSQL does, and takes away what theirs made
 * (the event trigger _bemi_create_table_trigger, the triggers _bemi_row_trigger_… of all tables, and their functions).
 * bemiDownSQL takes bemi away, and puts nothing of theirs in place.
 */
export const bemiTakeOverSQL = (): string => `${bemiUpSQL()}SELECT bemi.replace_bemihq();\n`;

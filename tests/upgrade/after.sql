-- Version 0.1.0 recorded one source and no types: those of the last version of a table are the present ones.
INSERT INTO bemi.table_versions (relation, source, recorded, position, noted_at, is_tracked, is_empty, has_images,
  schema, "table", root, key_columns, columns, types, ignored, masked, is_late)
SELECT v.relation, CASE WHEN to_regclass('bemi.former_recorder') IS NULL THEN 0 ELSE 1 END, v.relation, v.position,
  v.noted_at, v.is_tracked, v.is_empty, v.has_images, v.schema, v."table", v.root, v.key_columns, v.columns,
  CASE WHEN row_number() OVER (PARTITION BY v.relation ORDER BY v.position DESC) = 1
    AND EXISTS (SELECT FROM pg_class c WHERE c.oid = v.relation) THEN bemi.types_of(v.relation) END,
  v.ignored, v.masked, v.is_late
FROM bemi.former_table_versions v;

DROP TABLE bemi.former_table_versions;

DO $do$
BEGIN
  IF to_regclass('bemi.changes') IS NOT NULL THEN
    ALTER TABLE bemi.changes ADD COLUMN relation oid, ADD COLUMN source int NOT NULL DEFAULT 1;
    DROP INDEX IF EXISTS bemi.changes_by_position;
    CREATE INDEX changes_by_position ON bemi.changes (source, commit_position, sequence);
    DROP VIEW IF EXISTS bemi.changes_diff;
    PERFORM bemi.make_changes_diff();
  END IF;
  IF to_regclass('bemi.former_recorder') IS NULL THEN
    RETURN;
  END IF;
  PERFORM bemi.make_changes();
  INSERT INTO bemi.sources (source, name, system_identifier, database, first_position, since, database_oid, tables)
  SELECT 1, COALESCE(NULLIF(current_setting('cluster_name'), ''), current_database()), p.system_identifier,
    current_database(), COALESCE((
        SELECT c.commit_position FROM bemi.changes c ORDER BY c.source, c.commit_position, c.sequence LIMIT 1),
      f.read_position, pg_current_wal_insert_lsn()),
    COALESCE(f.since, f.state_since), p.database_oid, p.tables
  FROM bemi.present_source() p, bemi.former_recorder f;
  UPDATE bemi.recorder r SET slot = f.slot, is_wanted = f.is_wanted, state = f.state, state_since = f.state_since,
    last_error = f.last_error, last_error_at = f.last_error_at, failures = f.failures,
    commit_position = f.commit_position, sequence = f.sequence, committed_at = f.committed_at,
    transactions = f.transactions, changes = f.changes,
    spilled_bytes = f.spilled_bytes, since = f.since, source = 1,
    -- A recorder that was not stopped confirmed more than it wrote there.
    read_position = CASE WHEN f.state <> 'stopped' THEN greatest(f.read_position, (
      SELECT s.confirmed_flush_lsn FROM bemi.recorder_slots() s WHERE s.slot_name = f.slot)) ELSE f.read_position END
  FROM bemi.former_recorder f;
  -- A gap that was not recorded yet was kept as its document; of several, from the first one to the last.
  UPDATE bemi.recorder r SET gap_reason = g.first -> 'context' ->> 'reason', gap_source = 1,
    gap_from = (g.first -> 'context' ->> 'from')::pg_lsn, gap_to = (g.last -> 'context' ->> 'to')::pg_lsn,
    gap_at = (g.last ->> 'committed_at')::timestamptz, gap_transaction = (g.last ->> 'transaction_id')::bigint,
    gap_accepted_by = g.last -> 'context' ->> 'accepted_by'
  FROM (
    SELECT split_part(f.gap, chr(10), 1)::jsonb AS first, substring(f.gap FROM '[^\n]*$')::jsonb AS last
    FROM bemi.former_recorder f WHERE f.gap IS NOT NULL
  ) g;
  PERFORM bemi.keep_versions();
  DROP TABLE bemi.former_recorder;
END
$do$;

-- What is recorded outlives the extension, so it is no part of it.
DO $do$
DECLARE
  made record;
BEGIN
  FOR made IN
    SELECT CASE c.relkind WHEN 'v'::"char" THEN 'VIEW' ELSE 'TABLE' END AS kind, c.relname
    FROM pg_extension e JOIN pg_depend d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
      AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'::"char"
    JOIN pg_class c ON c.oid = d.objid
    WHERE e.extname = 'bemi'::name
      AND c.relname ~ '^(changes|changes_default|changes_diff|recorder|recorded_versions|sources)$'
  LOOP
    EXECUTE format('ALTER EXTENSION bemi DROP %s bemi.%I', made.kind, made.relname);
  END LOOP;
END
$do$;

-- Masks hold by number too, and below tables that others inherit from.
DO $do$
DECLARE
  masking regclass;
BEGIN
  FOR masking IN
    SELECT DISTINCT t.relation::regclass FROM bemi.context_triggers t
    WHERE bemi.table_rules(t.relation::regclass, 'mask') <> '{}'
  LOOP
    PERFORM bemi.renew_masks(masking), bemi.mask_heirs(masking);
  END LOOP;
END
$do$;

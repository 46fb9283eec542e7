-- The changes that a snapshot sees in a table but not yet in bemi.changes.

CREATE FUNCTION bemi.current_command() RETURNS integer
LANGUAGE c STABLE AS 'MODULE_PATHNAME', 'bemi_current_command';

COMMENT ON FUNCTION bemi.current_command() IS
'returns how many commands of its own transaction that changed something the running statement sees';

CREATE FUNCTION bemi.latest_changes(base oid, moment timestamptz, snapshot pg_snapshot, command int, recorded pg_lsn)
RETURNS jsonb
LANGUAGE c VOLATILE STRICT AS 'MODULE_PATHNAME', 'bemi_latest_changes';

COMMENT ON FUNCTION bemi.latest_changes(oid, timestamptz, pg_snapshot, int, pg_lsn) IS
'calls bemi.read_latest_changes() under a snapshot that sees all that was committed';

CREATE FUNCTION bemi.read_latest_changes(
  base oid, moment timestamptz, snapshot pg_snapshot, command int, recorded pg_lsn
) RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp SET jit = off AS $$
DECLARE
  -- Transaction IDs have 64 bits here, and 32 in WAL.
  next numeric := pg_snapshot_xmax(snapshot)::text::numeric;
  epoch numeric := next - next % 4294967296;
  place bigint := (recorded - '0/0'::pg_lsn)::bigint;
  recorded_source int := bemi.place_source(place);
  recorded_here pg_lsn := '0/0'::pg_lsn + bemi.place_position(place)::numeric;
  last record;
BEGIN
  PERFORM bemi.require_past(base::regclass, moment, command);
  -- Mostly there is none, and this plan is made once in a session.
  SELECT c.source, c.commit_position
  INTO last
  FROM bemi.changes c
  ORDER BY c.source DESC, c.commit_position DESC, c.sequence DESC
  LIMIT 1;
  IF (last.source, last.commit_position) > (recorded_source, recorded_here) IS NOT TRUE THEN
    RETURN '[]'::jsonb;
  END IF;
  RETURN (
    SELECT COALESCE(jsonb_agg(to_jsonb(c) || jsonb_build_object('leaf', n.relation)), '[]')
    FROM bemi.recorded_past(base::regclass) n
    -- OFFSET 0: they are few, whatever the planner expects.
    JOIN (
      SELECT * FROM bemi.changes c WHERE (c.source, c.commit_position) > (recorded_source, recorded_here) OFFSET 0
    ) c ON c.schema = n.schema
      AND c."table" = n."table"
      AND bemi.place(c.source, c.position) >= n.since
      AND bemi.place(c.source, c.position) < n.until
    WHERE pg_visible_in_snapshot((
      CASE WHEN epoch + c.transaction_id >= next AND epoch > 0 THEN epoch - 4294967296 ELSE epoch END + c.transaction_id
    )::text::xid8, snapshot)
  );
END
$$;

COMMENT ON FUNCTION bemi.read_latest_changes(oid, timestamptz, pg_snapshot, int, pg_lsn) IS
'returns the changes of a table that a snapshot sees, recorded after it was taken; an error if its past is not known';

CREATE FUNCTION bemi.late_changes(base oid, moment timestamptz, snapshot pg_snapshot, command int, recorded pg_lsn)
RETURNS TABLE (
  leaf oid,
  operation text,
  primary_key text,
  old_primary_key text,
  before jsonb,
  after jsonb,
  omitted jsonb,
  committed_at timestamptz,
  "position" bigint,
  commit_position pg_lsn,
  sequence int,
  source int
)
LANGUAGE plpgsql VOLATILE ROWS 10 SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  found jsonb;
BEGIN
  IF moment IS NULL THEN
    RAISE EXCEPTION 'bemi.as_of() needs a time' USING ERRCODE = 'null_value_not_allowed';
  END IF;
  PERFORM bemi.sync();
  found := bemi.latest_changes(base, moment, snapshot, command, recorded);
  RETURN QUERY
    SELECT c.*
    FROM jsonb_to_recordset(found) AS c (
      leaf oid,
      operation text,
      primary_key text,
      old_primary_key text,
      before jsonb,
      after jsonb,
      omitted jsonb,
      committed_at timestamptz,
      "position" bigint,
      commit_position pg_lsn,
      sequence int,
      source int
    );
END
$$;

COMMENT ON FUNCTION bemi.late_changes(oid, timestamptz, pg_snapshot, int, pg_lsn) IS
'returns the changes of a table that a snapshot sees in the table, but not yet in bemi.changes';

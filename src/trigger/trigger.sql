-- Stage 2: the context is written to WAL.

CREATE FUNCTION bemi.emit_context() RETURNS trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_emit_context';

COMMENT ON FUNCTION bemi.emit_context() IS
'writes the context of a statement to WAL, as a BEFORE trigger FOR EACH STATEMENT';

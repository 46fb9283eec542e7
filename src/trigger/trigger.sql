-- Stage 2: the context goes into the write-ahead log.

CREATE FUNCTION bemi.emit_context() RETURNS trigger
LANGUAGE c VOLATILE AS 'MODULE_PATHNAME', 'bemi_emit_context';

COMMENT ON FUNCTION bemi.emit_context() IS
'for triggers BEFORE each STATEMENT: writes the context of the statement into the write-ahead log';

-- Stage 1: the context. It is the setting bemi.context; these functions set it as set_config() does.
-- Each exists for jsonb and for text, so that a plain string parameter of any driver works.

CREATE FUNCTION bemi.set_context(context jsonb, is_local boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bemi_set_context_jsonb';

CREATE FUNCTION bemi.set_context(context text, is_local boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bemi_set_context_text';

COMMENT ON FUNCTION bemi.set_context(jsonb, boolean) IS
'sets the context of later changes in this session or, with is_local, in this transaction; NULL clears it';
COMMENT ON FUNCTION bemi.set_context(text, boolean) IS
'sets the context of later changes in this session or, with is_local, in this transaction; NULL clears it';

CREATE FUNCTION bemi.merge_context(context jsonb, is_local boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bemi_merge_context_jsonb';

CREATE FUNCTION bemi.merge_context(context text, is_local boolean DEFAULT false) RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bemi_merge_context_text';

COMMENT ON FUNCTION bemi.merge_context(jsonb, boolean) IS
'adds keys to the context of later changes';
COMMENT ON FUNCTION bemi.merge_context(text, boolean) IS
'adds keys to the context of later changes';

CREATE FUNCTION bemi.clear_context() RETURNS void
LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'bemi_clear_context';

COMMENT ON FUNCTION bemi.clear_context() IS
'removes the context: later changes carry none';

CREATE FUNCTION bemi.context() RETURNS jsonb
LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'bemi_context';

COMMENT ON FUNCTION bemi.context() IS
'returns the context that changes of the next statement will carry, unless it contains one in a comment';

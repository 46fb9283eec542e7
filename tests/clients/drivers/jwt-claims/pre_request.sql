CREATE FUNCTION pre_request() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  claims jsonb := nullif(current_setting('request.jwt.claims', true), '');
BEGIN
  PERFORM bemi.set_context(
    jsonb_build_object('user_id', claims->'sub', 'role', claims->'role',
                       'endpoint', current_setting('request.path', true)), true);
END $$;

CREATE FUNCTION hasura_context() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  hasura jsonb := nullif(current_setting('hasura.user', true), '');
BEGIN
  IF hasura IS NOT NULL THEN
    PERFORM bemi.set_context(
      jsonb_build_object('user_id', hasura->'x-hasura-user-id', 'role', hasura->'x-hasura-role'), true);
  END IF;
  RETURN NULL;
END $$;

CREATE TRIGGER a_hasura_context BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON todo
  FOR EACH STATEMENT EXECUTE FUNCTION hasura_context();

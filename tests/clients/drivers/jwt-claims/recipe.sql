-- Requests as PostgREST sends them: one transaction each, whose settings say who asks.
\set ON_ERROR_STOP on
DROP ROLE IF EXISTS driver_authenticator, driver_anon, driver_user;
CREATE ROLE driver_authenticator LOGIN NOINHERIT;
CREATE ROLE driver_anon;
CREATE ROLE driver_user;
GRANT driver_anon, driver_user TO driver_authenticator;
GRANT SELECT, INSERT, UPDATE, DELETE ON todo TO driver_anon, driver_user;
\i pre_request.sql

SET SESSION AUTHORIZATION driver_authenticator;
\set begin 'BEGIN ISOLATION LEVEL READ COMMITTED'
\set settings 'SELECT set_config(''search_path'', ''"public"'', true), set_config(''role'', :''role'', true), set_config(''request.jwt.claims'', :''claims'', true), set_config(''request.method'', ''POST'', true), set_config(''request.path'', ''/todo'', true), set_config(''request.headers'', ''{}'', true), set_config(''request.cookies'', ''{}'', true)'

\set role driver_user
\set claims '{"sub":"7b1c0a2e","role":"driver_user","name":"Zoë''s */ Bemi*/"}'
:begin READ WRITE;
:settings;
SELECT public.pre_request();
WITH pgrst_source AS (INSERT INTO public.todo (task) VALUES ('Sleep'), ('Eat') RETURNING task)
SELECT count(*) FROM pgrst_source;
COMMIT;

-- Somebody else, on the same connection.
\set claims '{"sub":"0d9e55aa","role":"driver_user"}'
:begin READ WRITE;
:settings;
SELECT public.pre_request();
WITH pgrst_source AS (UPDATE public.todo SET is_completed = true WHERE task = 'Sleep' RETURNING task)
SELECT count(*) FROM pgrst_source;
COMMIT;

-- Without a token there are no claims but the role.
\set role driver_anon
\set claims '{"role":"driver_anon"}'
:begin READ WRITE;
:settings;
SELECT public.pre_request();
INSERT INTO public.todo (task) VALUES ('Walk');
COMMIT;

-- A request that reads.
:begin READ ONLY;
:settings;
SELECT public.pre_request();
SELECT count(*) FROM public.todo;
COMMIT;

-- Nothing stays behind: the settings are empty texts now.
SELECT current_setting('request.jwt.claims') = '' AS empty;
RESET SESSION AUTHORIZATION;
INSERT INTO public.todo (task) VALUES ('Nobody');
SELECT public.pre_request();
DROP OWNED BY driver_anon, driver_user;
DROP ROLE driver_authenticator, driver_anon, driver_user;

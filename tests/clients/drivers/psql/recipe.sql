\set ON_ERROR_STOP on
\set user 1
\set why 'It''s Bob''s */ "wish"'

BEGIN;
SELECT bemi.set_context(jsonb_build_object('user_id', :user, 'why', :'why'), true);
INSERT INTO todo (task) VALUES ('Sleep');
COMMIT;

-- It was of that transaction alone.
INSERT INTO todo (task) VALUES ('Nobody');

-- For the session, COPY included.
SELECT bemi.set_context('{"user_id":2}');
INSERT INTO todo (task) VALUES ('Eat');
COPY todo (task) FROM STDIN;
Walk
Write
\.
SELECT bemi.merge_context('{"step":"clean up"}');
DELETE FROM todo WHERE task = 'Walk';

-- Only for one statement, on top of the session's.
UPDATE todo SET is_completed = true WHERE task = 'Write' /*Bemi {"user_id":3} Bemi*/;

RESET bemi.context;
INSERT INTO todo (task) VALUES ('Nobody again');

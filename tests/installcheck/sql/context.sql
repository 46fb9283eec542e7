-- The context of a session, of a transaction and of a statement.
CREATE EXTENSION bemi;
SELECT bemi.context();
SELECT bemi.set_context('{"user_id":187234,"endpoint":"/todo"}');
SELECT bemi.merge_context('{"endpoint":"/todo/complete"}');
SELECT bemi.context();

-- It is a setting, and follows transactions and savepoints as settings do.
SHOW bemi.context;
BEGIN;
SELECT bemi.set_context('{"job":"nightly"}', is_local => true);
SAVEPOINT s;
SET LOCAL bemi.context = '{"job":"other"}';
SELECT bemi.context();
ROLLBACK TO SAVEPOINT s;
SELECT bemi.context();
COMMIT;
SELECT bemi.context();
SELECT bemi.clear_context();
SELECT bemi.context();

-- What is no JSON object is refused, and changes nothing.
SET bemi.context = '{"user_id":1}';
SELECT bemi.set_context('[1]');
SET bemi.context = '{"user_id":';
SELECT bemi.context();
SET bemi.max_context_size = 20;
SELECT bemi.set_context('{"text":"longer than that"}');
RESET bemi.max_context_size;
RESET bemi.context;
SELECT bemi.context();

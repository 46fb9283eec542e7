-- Changes are recorded, each once.
CREATE TABLE todo (id int PRIMARY KEY, task text, is_completed boolean DEFAULT false);
SELECT bemi.track('todo');
SELECT bemi.start();
SELECT bemi.sync();
SELECT last_error FROM bemi.status;
SELECT bemi.set_context('{"user_id":187234,"endpoint":"/todo"}');
INSERT INTO todo VALUES (25, 'Eat'), (26, 'Sleep');
SELECT bemi.merge_context('{"endpoint":"/todo/complete"}');
UPDATE todo SET is_completed = true WHERE id = 26;
DELETE FROM todo WHERE id = 25;
SELECT bemi.sync();
SELECT "table", operation, primary_key, before, after, context FROM bemi.changes
ORDER BY source, commit_position, sequence;

-- It goes on where it was after a stop.
SELECT bemi.stop();
UPDATE todo SET task = 'Sleep longer' WHERE id = 26;
SELECT bemi.start();
SELECT bemi.sync();
SELECT operation, bemi.diff(before, after) FROM bemi.changes WHERE primary_key = '26'
ORDER BY source, commit_position, sequence;
SELECT count(*), count(DISTINCT id), count(DISTINCT (commit_position, sequence)) FROM bemi.changes;

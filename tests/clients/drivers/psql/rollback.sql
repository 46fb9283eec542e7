\set ON_ERROR_STOP on
SELECT bemi.set_context('{"user_id":1}');
BEGIN;
SELECT bemi.set_context('{"user_id":2}');
SAVEPOINT before_three;
SELECT bemi.set_context('{"user_id":3}');
INSERT INTO todo (task) VALUES ('Three, taken back');
ROLLBACK TO SAVEPOINT before_three;
INSERT INTO todo (task) VALUES ('Two');
COMMIT;
INSERT INTO todo (task) VALUES ('Two, as the session form was committed');

BEGIN;
SELECT bemi.set_context('{"user_id":4}');
ROLLBACK;
INSERT INTO todo (task) VALUES ('Still two');

DISCARD ALL;
BEGIN;
SELECT bemi.set_context('{"user_id":5}');
ROLLBACK;
INSERT INTO todo (task) VALUES ('After a rollback');

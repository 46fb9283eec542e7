import java.io.StringReader;
import java.sql.Connection;
import java.sql.SQLException;
import javax.sql.PooledConnection;
import org.postgresql.PGConnection;
import org.postgresql.ds.PGConnectionPoolDataSource;

public class Recipe {
    interface Work {
        void run(Connection connection) throws Exception;
    }

    static void withContext(Connection connection, String context, Work work) throws Exception {
        connection.setAutoCommit(false);
        try (var set = connection.prepareStatement("SELECT bemi.set_context(?::jsonb, true)")) {
            set.setString(1, context);
            set.execute();
            work.run(connection);
            connection.commit();
            connection.setAutoCommit(true);
        } catch (Throwable error) {
            try {
                connection.rollback();
                connection.setAutoCommit(true);
            } catch (SQLException lost) {
                error.addSuppressed(lost);
            }
            throw error;
        }
    }

    static void withSessionContext(Connection connection, String context, Work work) throws Exception {
        try (var set = connection.prepareStatement("SELECT bemi.set_context(?)")) {
            set.setString(1, context);
            set.execute();
            work.run(connection);
        } finally {
            execute(connection, "RESET bemi.context");
        }
    }

    static String comment(String context) {
        return "/*Bemi " + context.replace("*", "\\u002a") + " Bemi*/";
    }

    static void execute(Connection connection, String sql) throws SQLException {
        try (var statement = connection.createStatement()) {
            statement.execute(sql);
        }
    }

    static void insert(Connection connection, String... tasks) throws SQLException {
        try (var insert = connection.prepareStatement("INSERT INTO todo (task) VALUES (?)")) {
            for (String task : tasks) {
                insert.setString(1, task);
                insert.addBatch();
            }
            insert.executeBatch();
        }
    }

    static int backend(Connection connection) throws SQLException {
        return connection.unwrap(PGConnection.class).getBackendPID();
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    public static void main(String[] arguments) throws Exception {
        var source = new PGConnectionPoolDataSource();
        source.setURL(System.getenv("JDBC_URL"));
        PooledConnection pool = source.getPooledConnection();
        int first;

        // Two users, one after the other, on the same connection of the pool.
        try (var connection = pool.getConnection()) {
            first = backend(connection);
            withContext(connection, "{\"user_id\":1}", c -> insert(c, "Sleep", "Eat"));
        }
        try (var connection = pool.getConnection()) {
            check(first == backend(connection), "another connection");
            withContext(connection, "{\"user_id\":2,\"name\":\"Zoë's \\\"2nd\\\" */\"}", c ->
                execute(c, "UPDATE todo SET is_completed = true WHERE task = 'Sleep'"));
        }

        // What follows a rollback has no context. An Error rolls back too.
        try (var connection = pool.getConnection()) {
            boolean failed = false;
            try {
                withContext(connection, "{\"user_id\":3}", c -> {
                    insert(c, "Lost");
                    throw new StackOverflowError("rolled back");
                });
            } catch (StackOverflowError expected) {
                failed = true;
            }
            check(failed, "not rolled back");
            insert(connection, "After a rollback");
        }

        // A savepoint that is rolled back puts back the context from before it.
        try (var connection = pool.getConnection()) {
            withContext(connection, "{\"user_id\":4}", c -> {
                var savepoint = c.setSavepoint();
                execute(c, "SELECT bemi.merge_context('{\"step\":1}', true)");
                insert(c, "Lost");
                c.rollback(savepoint);
                insert(c, "After a savepoint");
            });
        }

        // COPY.
        try (var connection = pool.getConnection()) {
            withContext(connection, "{\"user_id\":5}", c -> {
                var rows = new StringReader("Copied 1\nCopied 2\n");
                c.unwrap(PGConnection.class).getCopyAPI().copyIn("COPY todo (task) FROM STDIN", rows);
            });
        }

        // A context of the session.
        try (var connection = pool.getConnection()) {
            withSessionContext(connection, "{\"worker\":\"nightly\"}", c -> {
                insert(c, "Nightly 1");
                insert(c, "Nightly 2");
            });
        }
        try (var connection = pool.getConnection()) {
            check(first == backend(connection), "another connection");
            insert(connection, "After the pool");

            // A comment carries the context of one statement that is not kept prepared.
            var context = "{\"user_id\":6,\"name\":\"/* Bemi*/ */ ? {fn now()} ; '\"}";
            try (var delete = connection.prepareStatement("DELETE FROM todo WHERE task = ? " + comment(context))) {
                delete.setString(1, "Eat");
                delete.execute();
            }
        }

        // The connection is lost in the middle of the work: what the work threw is not hidden.
        try (var connection = pool.getConnection()) {
            withContext(connection, "{\"user_id\":7}", c -> {
                insert(c, "Lost");
                try {
                    execute(c, "SELECT pg_terminate_backend(pg_backend_pid())");
                } catch (SQLException lost) {
                    throw new IllegalStateException("what the work threw");
                }
            });
            check(false, "no error");
        } catch (IllegalStateException expected) {
            check(expected.getSuppressed().length > 0, "ROLLBACK did not fail");
        }
        pool.close();
    }
}

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
        } catch (Exception error) {
            connection.rollback();
            throw error;
        } finally {
            connection.setAutoCommit(true);
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

        // What follows a rollback has no context.
        try (var connection = pool.getConnection()) {
            boolean failed = false;
            try {
                withContext(connection, "{\"user_id\":3}", c -> {
                    insert(c, "Lost");
                    throw new IllegalStateException("rolled back");
                });
            } catch (IllegalStateException expected) {
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
            execute(connection, "DELETE FROM todo WHERE task = 'Eat' /*Bemi {\"user_id\":6} Bemi*/");
        }
        pool.close();
    }
}

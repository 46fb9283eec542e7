//! What the server's environment asks of Rust is nothing that clients see.
use crate::Test;
use crate::server::Server;

pub const TESTS: &[Test] = &[("stack_traces_never_reach_clients", stack_traces)];

fn stack_traces(_server: &Server) {
    for settings in ["", "shared_preload_libraries = 'bemi'\n"] {
        let server =
            Server::start_with_environment(settings, &[("RUST_BACKTRACE", "full"), ("RUST_LIB_BACKTRACE", "1")]);
        server.database("traces");
        let (mut client, notices) = server.connect_listening("traces", "postgres");
        client
            .batch_execute(
                "CREATE TABLE t (id int PRIMARY KEY); SELECT bemi.track('t'); CREATE VIEW v AS SELECT 1;
                 CREATE ROLE other LOGIN; GRANT ALL ON SCHEMA public TO other",
            )
            .unwrap();
        client.batch_execute("SELECT pg_create_logical_replication_slot('traces', 'bemi_decoder')").unwrap();
        let mut other = server.connect_with("traces", "other", "");
        let statements = [
            "SELECT bemi.set_context('x')",
            "SELECT bemi.set_context('[1]')",
            "SET bemi.context = '{'",
            "SELECT bemi.merge_context('1')",
            "CREATE TRIGGER x AFTER INSERT ON t EXECUTE FUNCTION bemi.emit_context(); INSERT INTO t VALUES (1)",
            "SELECT bemi.rules('', 'none')",
            "SELECT bemi.lock('t', true)",
            "SELECT bemi.track('v')",
            "SELECT bemi.track('t', 'odd')",
            "SELECT * FROM pg_logical_slot_get_changes('traces', NULL, NULL, 'odd', '1')",
            "SELECT * FROM bemi.as_of(NULL::t, now())",
            "SELECT * FROM bemi.history(NULL::t, '1')",
            "SELECT * FROM bemi.revert()",
            "SELECT bemi.sync()",
            "SELECT bemi.start()",
            "BEGIN; INSERT INTO t VALUES (2); SELECT bemi.start()",
            "SELECT bemi.set_context(repeat('x', 2000000))",
            "INSERT INTO t SELECT 1 / 0",
            "INSERT INTO t VALUES (3) /*Bemi {\"a\" Bemi*/",
            "SELECT * FROM bemi.revert_sql()",
            "SELECT bemi.lock(0, true)",
            "SELECT bemi.untrack_all(); SELECT bemi.untrack('pg_class'); SELECT bemi.rules(NULL, 'ignore=id')",
            "CREATE FUNCTION plain() RETURNS void LANGUAGE c AS '$libdir/bemi', 'bemi_emit_context'; SELECT plain()",
            "SELECT bemi.emit_context()",
            "SET bemi.max_context_size = 1",
            "SELECT bemi.set_context('{\"a\":1e999999}'::text)",
        ];
        let check = |statement: &str, text: &str| {
            for sign in ["backtrace", ".rs:", "core::", "pgrx", " 0: ", "rust_"] {
                assert!(!text.contains(sign), "{statement}: {text}");
            }
        };
        let mut failed = 0;
        for statement in statements {
            for session in [&mut client, &mut other] {
                let Err(error) = session.batch_execute(statement) else { continue };
                let _ = session.batch_execute("ROLLBACK");
                let error = error.as_db_error().expect("an error of the server");
                let text = format!("{} {:?} {:?} {:?}", error.message(), error.detail(), error.hint(), error.where_());
                check(statement, &text);
                failed += 1;
            }
            check(statement, &notices.take().join("\n"));
        }
        assert!(failed > statements.len(), "{failed} statements failed");
        // A process that sends changes loads the library by itself.
        let mut sender = server.program("pg_recvlogical", "traces");
        sender.args(["-d", "traces", "-S", "traces", "--start", "--no-loop", "-o", "odd=1", "-f", "-"]);
        let output = sender.output().expect("pg_recvlogical runs");
        assert!(!output.status.success());
        check("pg_recvlogical", &String::from_utf8_lossy(&output.stderr));
        assert!(!server.log().contains("stack backtrace"), "{}", server.log());
    }
}

//! Tests that run inside a server, where a value can be read without the log around it.
use pgrx::prelude::*;

#[pg_schema]
mod tests {
    use pgrx::pg_sys::errcodes::PgSqlErrorCode;
    use pgrx::{PgTryBuilder, pg_sys, prelude::*};

    use crate::decoder::pg::builder::{Builder, Composites};
    use crate::decoder::pg::{catch, settings};
    use crate::document::json::{Charset, Json};

    /// What a reader makes of the value of an expression, and what `to_jsonb` makes of it.
    fn both(expression: &str) -> (String, String) {
        Spi::connect(|client| {
            let table = client
                .select(&format!("SELECT v, to_jsonb(v)::text FROM (SELECT {expression}) row (v)"), Some(1), &[])
                .expect("the expression is right")
                .first();
            let type_oid = table.column_type_oid(1).expect("a type").value();
            let expected = table.get::<String>(2).expect("text").expect("not null");
            let mut json = Json::new(Charset::Utf8);
            // SAFETY: the memory context outlives the reader; the row has one column, of the reader's type.
            unsafe {
                let memory = pg_sys::CurrentMemoryContext;
                let mut composites = Composites::new(memory);
                let composites = &mut composites;
                let charset = Charset::Utf8;
                let mut reader = Builder { charset, memory, composites, numbers_as_strings: false }.reader(type_oid);
                let rows = pg_sys::SPI_tuptable;
                let mut is_null = false;
                let value = pg_sys::SPI_getbinval(*(*rows).vals, (*rows).tupdesc, 1, &mut is_null);
                assert!(!is_null);
                reader.write(value, &mut json).expect("a value that can be written");
            }
            (String::from_utf8(json.as_bytes().to_vec()).expect("UTF-8"), expected)
        })
    }

    fn is_same(ours: &str, theirs: &str) -> bool {
        let statement = "SELECT $1::jsonb = $2::jsonb";
        Spi::get_one_with_args(statement, &[ours.into(), theirs.into()]).expect("both are jsonb").expect("not null")
    }

    #[pg_test]
    fn random_values_are_as_to_jsonb_gives_them() {
        settings::pin();
        let types = [
            ("float8", "(random() * 2 - 1) * 10 ^ (random() * 600 - 300)"),
            ("float4", "((random() * 2 - 1) * 10 ^ (random() * 70 - 35))::float4"),
            ("numeric", "(random()::numeric * 10 ^ (random() * 60 - 30)::int)::numeric"),
            ("timestamptz", "'4713-01-02 00:00+00 BC'::timestamptz + random() * interval '290000 years'"),
            ("timestamp", "'4713-01-02 BC'::timestamp + random() * interval '290000 years'"),
            ("date", "'4713-01-02 BC'::date + (random() * 2000000000)::int"),
            ("interval", "random() * interval '100 years' - random() * interval '100 years'"),
            ("text", "(SELECT string_agg(chr(1 + (random() * 1000)::int), '') FROM generate_series(1, 20))"),
            ("int8", "((random() - 0.5) * 1.8e19)::int8"),
            ("uuid", "gen_random_uuid()"),
            ("array", "ARRAY[random(), NULL, random()]"),
            ("range", "numrange(random()::numeric, 1 + random()::numeric)"),
        ];
        for (name, expression) in types {
            for _ in 0..300 {
                let (ours, theirs) = both(expression);
                assert!(is_same(&ours, &theirs), "{name}: {ours} is not {theirs}");
            }
        }
    }

    #[pg_test]
    fn errors_of_data_are_caught_and_named() {
        let result = catch::data_errors(|| {
            ereport!(ERROR, PgSqlErrorCode::ERRCODE_DIVISION_BY_ZERO, "of data");
        });
        assert_eq!(result, Err("of data".to_owned()));
        let result = catch::data_errors(|| Spi::run("SELECT 1/0").expect("an error is raised, not returned"));
        assert_eq!(result, Err("division by zero".to_owned()));
    }

    #[pg_test]
    fn errors_of_the_server_are_passed_on() {
        for code in [
            PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
            PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY,
            PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
            PgSqlErrorCode::ERRCODE_IO_ERROR,
            PgSqlErrorCode::ERRCODE_INDEX_CORRUPTED,
        ] {
            let was_passed_on = PgTryBuilder::new(|| {
                let _ = catch::data_errors(|| {
                    ereport!(ERROR, code, "of the server");
                });
                false
            })
            .catch_others(|_| true)
            .execute();
            assert!(was_passed_on, "{code:?}");
        }
    }
}

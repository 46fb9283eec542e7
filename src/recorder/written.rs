//! Whatever the decoder can write, the recorder can read.
#![forbid(unsafe_code)]

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::portion::Reduction;
use super::row::{self, Encoding, Stamp};
use crate::decoder::scope::no_file;
use crate::decoder::txn::Transaction;
use crate::document::change::{Committed, Draft, column_key, relation_keys};
use crate::document::json::{Charset, Json, quoted};
use crate::document::moment::Moment;
use crate::document::omission::Omission;
use crate::document::operation::Operation;

const OPERATIONS: [Operation; 4] = [Operation::Create, Operation::Update, Operation::Delete, Operation::Truncate];

/// Any time that the server can have, those at its ends more often.
fn time() -> impl Strategy<Value = i64> {
    prop_oneof![
        any::<i64>(),
        -300_000_000_000_000_000i64..9_000_000_000_000_000_000,
        prop::sample::select(vec![i64::MIN, i64::MIN + 1, i64::MAX - 1, i64::MAX, 0, -946_684_800_000_001]),
    ]
}

/// A value as a column has it, and what the decoder leaves of it.
fn value() -> impl Strategy<Value = Value> {
    let leaf =
        prop_oneof![Just(Value::Null), any::<i64>().prop_map(Value::from), any::<String>().prop_map(Value::from)];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_the_decoder_writes_is_read(
        is_utf8: bool, names in prop::array::uniform3(any::<String>()), columns in prop::collection::vec((any::<String>(), value(), value()), 0..6),
        (committed_at, position, commit_position, xid) in (time(), any::<u64>(), any::<u64>(), any::<u32>()), number in 1u32..,
        context in prop_oneof![Just(None), "\\PC*".prop_map(Some), value().prop_map(|value| Some(json!({"who": value}).to_string()))],
        (key, old_key) in (any::<Option<String>>(), any::<Option<String>>()), operation in 0usize..4, reasons in prop::collection::vec(any::<Option<String>>(), 6),
        unchanged in prop::collection::vec(any::<String>(), 0..3)
    ) {
        let charset = if is_utf8 { Charset::Utf8 } else { Charset::Ascii };
        let [database, schema, table] = &names;
        let commit = Moment { position: commit_position, time: committed_at };
        let mut txn = Transaction::new(xid, Some(commit), &quoted(database.as_bytes(), charset), charset, no_file);
        if let Some(context) = &context {
            txn.set_context(context.as_bytes(), None).unwrap();
        }
        let mut json = Json::new(charset);
        let keys = relation_keys(schema.as_bytes(), table.as_bytes(), charset);
        let mut document = Draft::open(&mut json, &txn.head, position, None, &keys, OPERATIONS[operation], charset);
        let write_key = |json: &mut Json, key: &Option<String>| match key {
            Some(key) => json.string(key.as_bytes()).unwrap(),
            None => json.raw(b"null"),
        };
        write_key(document.json, &key);
        for pick in 0..2 {
            if pick == 0 { document.before() } else { document.after() }
            document.json.raw(b"{");
            for (i, (column, before, after)) in columns.iter().enumerate() {
                document.json.raw(if i > 0 { b"," } else { b"" });
                document.json.raw(&column_key(column.as_bytes(), charset));
                document.json.raw_utf8([before, after][pick].to_string().as_bytes()).unwrap();
            }
            document.json.raw(b"}");
        }
        document.context();
        if old_key.is_some() {
            document.old_primary_key();
            write_key(document.json, &old_key);
        }
        document.relation(xid);
        for name in &unchanged {
            document.unchanged(name.as_bytes());
        }
        for ((column, ..), reason) in columns.iter().zip(&reasons) {
            if let Some(reason) = reason {
                document.omitted(column.as_bytes(), &Omission::Output(reason.clone()));
            }
        }
        let finished = document.close().unwrap();
        let text = finished.pieces(json.as_bytes(), number.to_string().as_bytes(), txn.context()).concat();
        let committed = Committed::read(&text).map_err(|reason| TestCaseError::fail(format!("{reason}: {}", String::from_utf8_lossy(&text))))?;
        let read = &committed.change;
        prop_assert_eq!((committed.committed_at, read.head.position, committed.transaction_id), (committed_at, position, xid));
        prop_assert_eq!((committed.identity.commit_position, committed.identity.sequence), (commit_position, number));
        prop_assert_eq!((&read.head.database, &read.schema, &read.table), (&database.as_str().into(), &schema.as_str().into(), &table.as_str().into()));
        prop_assert_eq!(read.relation, Some(xid));
        prop_assert_eq!(read.omitted.is_some(), columns.iter().zip(&reasons).any(|(_, reason)| reason.is_some()));
        prop_assert_eq!((read.primary_key.as_deref(), read.old_primary_key.as_deref()), (key.as_deref(), old_key.as_deref()));
        let image = |pick: usize| -> Map<String, Value> {
            columns.iter().map(|(name, before, after)| (name.clone(), [before, after][pick].clone())).collect()
        };
        let parsed = |text: &str| -> Map<String, Value> { serde_json::from_str(text).unwrap() };
        prop_assert_eq!((parsed(read.before), parsed(read.after)), (image(0), image(1)));
        prop_assert_eq!(parsed(read.context), parsed(std::str::from_utf8(txn.context()).unwrap()));
        // And a row is made of it, whatever is left out.
        for reduction in [Reduction::None, Reduction::Key, Reduction::MembersOver1K, Reduction::Images, Reduction::Context] {
            for encoding in [Encoding::Utf8, Encoding::Other, Encoding::Unknown] {
                let stamp = Stamp { source: i32::MAX, queued_at: i64::MAX, created_at: i64::MIN };
                row::write(&mut Vec::new(), &committed, read.context, stamp, reduction, encoding).unwrap();
            }
        }
    }
}

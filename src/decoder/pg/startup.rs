//! The beginning of decoding: the reader's options, and what the server needs to know of them.
use core::ffi::CStr;

use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use pgrx::{PgMemoryContexts, pg_sys};

use super::decoder::Decoder;
use super::origin;
use crate::decoder::options::{OptionError, Options};
use crate::document::json::{Charset, quoted};
use crate::sys::{encoding, node, output, transaction};

/// Longest name or value of an option, in bytes.
const MAX_OPTION: usize = 1 << 20;

/// Makes the decoder of a context.
///
/// # Safety
/// Both are what the server passes to the startup callback that is running.
pub unsafe fn run(
    ctx: *mut pg_sys::LogicalDecodingContext,
    settings: *mut pg_sys::OutputPluginOptions,
    is_new_slot: bool,
) {
    // SAFETY: the server keeps both until the callback returns, and does not look at them while it runs what this calls.
    let (context, settings) = unsafe { (&mut *ctx, &mut *settings) };
    settings.output_type = pg_sys::OutputPluginOutputType::OUTPUT_PLUGIN_TEXTUAL_OUTPUT;
    // SAFETY: the server passes the options of the reader as a list of `DefElem`, or null.
    let pairs = unsafe { option_pairs(context.output_plugin_options) };
    let options = Options::parse(pairs.iter().map(|(name, value)| (name.as_str(), value.as_deref())))
        .unwrap_or_else(|error| refuse(&error));
    context.streaming &= options.stream_changes && !is_new_slot;
    match options.two_phase {
        // While a slot is made nobody reads, so nothing can be sent at a PREPARE or for a transaction in progress. The slot
        // itself keeps what was asked for, and the server passes it at the next start.
        _ if is_new_slot => context.twophase = false,
        Some(false) => context.twophase = false,
        // SAFETY: this is the context of the startup callback, and the slot is not new.
        Some(true) if !unsafe { output::decode_at_prepare(context) } => refuse_two_phase(),
        _ => {}
    }
    let charset = encoding::charset();
    // A new slot has nothing to decode yet.
    let (database, origins) = if is_new_slot {
        (Vec::new(), origin::Filter::default())
    } else {
        transaction::in_transaction(|| {
            (database_name(charset), origin::Filter::new(options.only_local, &options.filter_origins))
        })
    };
    if !origins.is_needed() {
        // The server would call it for each record of WAL.
        context.callbacks.filter_by_origin_cb = None;
    }
    let decoder = Decoder::new(context.context, charset, options, database, origins);
    // The decoder is dropped with the memory context, which also takes its children with it, on an error too.
    context.output_plugin_private = PgMemoryContexts::For(context.context).leak_and_drop_on_delete(decoder).cast();
}

/// Reads the options as the reader gave them.
///
/// # Safety
/// `list` is null or a list of `DefElem`.
unsafe fn option_pairs(list: *mut pg_sys::List) -> Vec<(String, Option<String>)> {
    let text = |text: &CStr| {
        if text.count_bytes() > MAX_OPTION {
            refuse_long_option();
        }
        let utf8 = transaction::in_transaction(|| encoding::to_utf8_lossy(text.to_bytes()).into_owned());
        String::from_utf8_lossy(&utf8).into_owned()
    };
    // SAFETY: nothing changes the list while it is read; names and values are C strings.
    unsafe {
        node::members::<pg_sys::DefElem>(list)
            .map(|element| {
                let value = (!(*element).arg.is_null()).then(|| text(CStr::from_ptr(pg_sys::defGetString(element))));
                (text(CStr::from_ptr((*element).defname)), value)
            })
            .collect()
    }
}

fn refuse_long_option() {
    let code = PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED;
    ErrorReport::new(code, "option of bemi_decoder is too long", "startup")
        .set_detail(format!("The name and the value of an option have at most {MAX_OPTION} bytes each."))
        .report(PgLogLevel::ERROR);
}

fn refuse(error: &OptionError) -> ! {
    let code = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
    let mut report =
        ErrorReport::new(code, encoding::message_text(&error.to_string()), "startup").set_hint(error.hint());
    if let Some(detail) = error.detail() {
        report = report.set_detail(encoding::message_text(&detail));
    }
    report.report(PgLogLevel::ERROR);
    unreachable!("a report at level ERROR does not return")
}

fn refuse_two_phase() {
    let code = PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
    let message = "option \"two-phase\" of bemi_decoder takes a slot that was made for it";
    ErrorReport::new(code, message, "startup")
        .set_hint(
            "On PostgreSQL 14, make it with pg_create_logical_replication_slot(name, 'bemi_decoder', false, true).",
        )
        .report(PgLogLevel::ERROR);
}

/// Returns the name of this database as a JSON string. It does not change while somebody is connected.
fn database_name(charset: Charset) -> Vec<u8> {
    // SAFETY: reads the catalogs, in a transaction; a name is a C string.
    let name = unsafe {
        let name = pg_sys::get_database_name(pg_sys::MyDatabaseId);
        if name.is_null() { Vec::new() } else { CStr::from_ptr(name).to_bytes().to_vec() }
    };
    quoted(&encoding::to_utf8_lossy(&name), charset)
}

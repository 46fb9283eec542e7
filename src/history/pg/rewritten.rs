//! How ALTER TABLE makes the new values of a column whose type it changes.
use pgrx::pg_sys;
use pgrx::prelude::*;

use crate::sys::call::Call;
use crate::sys::{arguments, function, node};

/// `bemi.rewritten_columns(pg_ddl_command)`: the columns that ALTER TABLE gave a type, each with the casts that USING was.
///
/// # Safety
/// Called by the server, with an argument that is not null.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_rewritten_columns(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let mut columns = Vec::new();
    // SAFETY: the server calls this with the argument above.
    let call = unsafe { Call::new(&fcinfo) };
    if let Some(command) = call.value(0) {
        let command: *const pg_sys::CollectedCommand = command.cast_mut_ptr();
        // SAFETY: a value of the type points to a command for which the event trigger is called, and which the server keeps until
        // then; an ALTER TABLE has the statement, whose commands are nodes that ran.
        unsafe {
            if (*command).type_ == pg_sys::CollectedCommandType::SCT_AlterTable {
                let statement: *const pg_sys::AlterTableStmt = (*command).parsetree.cast();
                if !statement.is_null() && (*statement).type_ == pg_sys::NodeTag::T_AlterTableStmt {
                    for subcommand in node::members::<pg_sys::AlterTableCmd>((*statement).cmds) {
                        columns.extend(rewritten(&*subcommand));
                    }
                }
            }
        }
    }
    arguments::jsonb(&document(&columns))
}

/// A column, and the casts; None if the expression was anything else.
type Rewritten = (Vec<u8>, Option<Vec<(u32, i32)>>);

/// Returns the column whose values a command made anew.
///
/// # Safety
/// The command is of a statement that ran.
unsafe fn rewritten(command: &pg_sys::AlterTableCmd) -> Option<Rewritten> {
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    let is_expression = command.subtype == pg_sys::AlterTableType::AT_SetExpression;
    #[cfg(not(any(feature = "pg17", feature = "pg18")))]
    let is_expression = false;
    let is_type = command.subtype == pg_sys::AlterTableType::AT_AlterColumnType;
    if !is_type && !is_expression || command.name.is_null() {
        return None;
    }
    // SAFETY: the name is a C string, and the definition in such a command is that of a column.
    unsafe {
        let name = core::ffi::CStr::from_ptr(command.name).to_bytes();
        let column: *const pg_sys::ColumnDef = command.def.cast();
        let casts = if is_expression { None } else { casts((*column).raw_default, name, (*column).typeName) };
        Some((name.to_vec(), casts))
    }
}

/// Returns the casts of a column that an expression is: types and modifiers, the first one first. That to the column's new type has
/// no OID. The names of other types are looked up in today's `search_path`: None if that finds none.
///
/// # Safety
/// `expression` is null or was parsed, and its types were there.
unsafe fn casts(
    mut expression: *const pg_sys::Node,
    column: &[u8],
    target: *const pg_sys::TypeName,
) -> Option<Vec<(u32, i32)>> {
    let mut casts = Vec::new();
    if expression.is_null() {
        return Some(casts);
    }
    // SAFETY: the expression is a parsed one, whose nodes are what their tags say. Types are looked up by their names.
    unsafe {
        while (*expression).type_ == pg_sys::NodeTag::T_TypeCast {
            let cast: *const pg_sys::TypeCast = expression.cast();
            let (mut oid, mut modifier) = (pg_sys::InvalidOid, -1);
            let name = (*cast).typeName;
            expression = (*cast).arg;
            if pg_sys::equal(name.cast(), target.cast()) {
                casts.push((0, -1));
                continue;
            }
            let found = pg_sys::LookupTypeName(core::ptr::null_mut(), name, &mut modifier, true);
            if found.is_null() {
                return None;
            }
            pg_sys::ReleaseSysCache(found);
            pg_sys::typenameTypeIdAndMod(core::ptr::null_mut(), name, &mut oid, &mut modifier);
            casts.push((oid.to_u32(), modifier));
        }
        if (*expression).type_ != pg_sys::NodeTag::T_ColumnRef {
            return None;
        }
        let reference: *const pg_sys::ColumnRef = expression.cast();
        // The last part of a name that may be qualified.
        let last = node::members::<pg_sys::Node>((*reference).fields).last()?;
        if (*last).type_ != pg_sys::NodeTag::T_String || node::string(last).to_bytes() != column {
            return None;
        }
    }
    casts.reverse();
    Some(casts)
}

fn document(columns: &[Rewritten]) -> Vec<u8> {
    let mut text = b"{".to_vec();
    for (index, (name, casts)) in columns.iter().enumerate() {
        if index > 0 {
            text.push(b',');
        }
        text.push(b'"');
        for byte in name {
            match byte {
                b'"' | b'\\' => text.extend([b'\\', *byte]),
                0..0x20 => text.extend(format!("\\u{byte:04x}").bytes()),
                _ => text.push(*byte),
            }
        }
        text.extend(b"\":");
        match casts {
            None => text.extend(b"null"),
            Some(casts) => {
                let casts: Vec<String> = casts.iter().map(|(oid, modifier)| format!("[{oid},{modifier}]")).collect();
                text.extend(format!("[{}]", casts.join(",")).bytes());
            }
        }
    }
    text.push(b'}');
    text
}

function::sql_callable!(pg_finfo_bemi_rewritten_columns);

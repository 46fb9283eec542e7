//! Functions that SQL calls by the name of a C function, as plain functions of Rust: each argument and the result go by
//! their types. (`#[pg_extern]` of pgrx would name the C functions differently than the SQL does that is installed
//! already.)
use core::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

use super::arguments;
use super::call::Call;

/// Makes C functions that SQL can call, each of a function of Rust whose arguments are [`Argument`]s and whose result
/// is [`Returned`]. The SQL that declares a function has to give it the same types.
macro_rules! sql_functions {
    ($($name:ident => $function:path),+ $(,)?) => {$(
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        #[::pgrx::pg_guard]
        pub unsafe extern "C-unwind" fn $name(fcinfo: ::pgrx::pg_sys::FunctionCallInfo) -> ::pgrx::pg_sys::Datum {
            // SAFETY: only the server's function manager calls this, with a call that lasts until this returns.
            let call = unsafe { $crate::sys::call::Call::new(&fcinfo) };
            $crate::sys::function::Function::run($function, call)
        }

        const _: () = {
            #[unsafe(export_name = concat!("pg_finfo_", stringify!($name)))]
            extern "C" fn finfo() -> &'static ::pgrx::pg_sys::Pg_finfo_record {
                &$crate::sys::function::VERSION_1
            }
        };
    )+};
}
pub(crate) use sql_functions;

/// Makes a C function callable from SQL (fmgr.h, PG_FUNCTION_INFO_V1) that reads its arguments itself.
macro_rules! sql_callable {
    ($($finfo:ident),*) => {$(
        #[doc(hidden)]
        #[unsafe(no_mangle)]
        pub extern "C" fn $finfo() -> &'static ::pgrx::pg_sys::Pg_finfo_record {
            &$crate::sys::function::VERSION_1
        }
    )*};
}
pub(crate) use sql_callable;

/// Says that a C function is called by version 1 of the conventions, which is the only one.
pub const VERSION_1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };

/// What a function of Rust can take from a call.
pub trait Argument<'a>: Sized {
    /// Takes it, beginning with the argument `next`, and moves that behind it.
    fn take(call: &Call<'a>, next: &mut usize) -> Self;
}

/// A type of Rust for a type of SQL.
pub trait Value: Sized {
    /// Reads a value.
    ///
    /// # Safety
    /// The value is of the type of SQL.
    unsafe fn read(value: pg_sys::Datum) -> Self;
}

impl<'a> Argument<'a> for Call<'a> {
    fn take(call: &Call<'a>, _next: &mut usize) -> Self {
        call.again()
    }
}

impl<'a, T: Value> Argument<'a> for Option<T> {
    fn take(call: &Call<'a>, next: &mut usize) -> Self {
        let value = call.value(*next);
        *next += 1;
        // SAFETY: the SQL that declares the function gives it arguments of the types that it takes.
        value.map(|value| unsafe { T::read(value) })
    }
}

impl<'a, T: Value> Argument<'a> for T {
    fn take(call: &Call<'a>, next: &mut usize) -> Self {
        let value: Option<Self> = Argument::take(call, next);
        value.unwrap_or_else(|| {
            let message = format!("argument {next} of the function must not be null");
            let code = PgSqlErrorCode::ERRCODE_NULL_VALUE_NOT_ALLOWED;
            ErrorReport::new(code, message, "take").report(PgLogLevel::ERROR);
            unreachable!("a report at level ERROR does not return")
        })
    }
}

/// What a function of Rust can return.
pub trait Returned {
    /// Returns the value as the server takes it.
    fn into_value(self) -> pg_sys::Datum;
}

impl Returned for () {
    fn into_value(self) -> pg_sys::Datum {
        pg_sys::Datum::from(0)
    }
}

impl Returned for pg_sys::Datum {
    fn into_value(self) -> pg_sys::Datum {
        self
    }
}

macro_rules! by_value {
    ($($rust:ty),*) => {$(
        impl Value for $rust {
            unsafe fn read(value: pg_sys::Datum) -> Self {
                value.value() as Self
            }
        }

        impl Returned for $rust {
            fn into_value(self) -> pg_sys::Datum {
                pg_sys::Datum::from(self)
            }
        }
    )*};
}
// integer; bigint and timestamptz; pg_lsn.
by_value!(i32, i64, u64);

impl Value for bool {
    unsafe fn read(value: pg_sys::Datum) -> Self {
        value.value() != 0
    }
}

impl Returned for bool {
    fn into_value(self) -> pg_sys::Datum {
        pg_sys::Datum::from(self)
    }
}

impl Value for pg_sys::Oid {
    unsafe fn read(value: pg_sys::Datum) -> Self {
        (value.value() as u32).into()
    }
}

impl Value for pg_sys::NameData {
    unsafe fn read(value: pg_sys::Datum) -> Self {
        // SAFETY: a value of the type `name` points to one.
        unsafe { *value.cast_mut_ptr::<Self>() }
    }
}

/// The bytes of a `text` in the database's encoding, or of a `bytea`.
#[derive(Debug)]
pub struct Text(pub Vec<u8>);

impl Value for Text {
    unsafe fn read(value: pg_sys::Datum) -> Self {
        // SAFETY: `text` and `bytea` are the types that the function reads.
        Self(unsafe { arguments::bytes(value) })
    }
}

impl Returned for Text {
    fn into_value(self) -> pg_sys::Datum {
        arguments::text(&self.0)
    }
}

/// The text of a `jsonb`, in the database's encoding.
#[derive(Debug)]
pub struct Jsonb(pub Vec<u8>);

impl Value for Jsonb {
    unsafe fn read(value: pg_sys::Datum) -> Self {
        // SAFETY: detoasted, the value is a Jsonb, whose root begins a container of the size that its header states;
        // its text is a C string.
        unsafe {
            let jsonb: *mut pg_sys::Jsonb = pg_sys::pg_detoast_datum(value.cast_mut_ptr()).cast();
            let size = pgrx::varlena::varsize(jsonb.cast());
            let text = pg_sys::JsonbToCString(core::ptr::null_mut(), &raw mut (*jsonb).root, size as i32);
            Self(CStr::from_ptr(text).to_bytes().to_vec())
        }
    }
}

impl Returned for Jsonb {
    fn into_value(self) -> pg_sys::Datum {
        arguments::jsonb(&self.0)
    }
}

/// A `uuid`.
#[derive(Clone, Copy, Debug)]
pub struct Uuid(pub [u8; 16]);

impl Returned for Uuid {
    fn into_value(self) -> pg_sys::Datum {
        // SAFETY: the new memory has the size of the array, and belongs to the caller's memory context.
        unsafe {
            let uuid: *mut [u8; 16] = pg_sys::palloc(self.0.len()).cast();
            uuid.write(self.0);
            pg_sys::Datum::from(uuid)
        }
    }
}

/// A function of Rust that SQL can call.
pub trait Function<'a, Arguments> {
    /// Runs it with the arguments of a call.
    fn run(self, call: Call<'a>) -> pg_sys::Datum;
}

macro_rules! function_of {
    ($($argument:ident),*) => {
        impl<'a, F, R, $($argument),*> Function<'a, ($($argument,)*)> for F
        where
            F: FnOnce($($argument),*) -> R,
            R: Returned,
            $($argument: Argument<'a>,)*
        {
            fn run(self, _call: Call<'a>) -> pg_sys::Datum {
                let mut _next = 0;
                self($($argument::take(&_call, &mut _next)),*).into_value()
            }
        }
    };
}
function_of!();
function_of!(A);
function_of!(A, B);
function_of!(A, B, C);
function_of!(A, B, C, D);

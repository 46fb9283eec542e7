//! A call of one of the extension's functions from SQL.
use core::any::TypeId;
use core::ffi::CStr;
use core::marker::PhantomData;

use pgrx::memcxt::PgMemoryContexts;
use pgrx::pg_sys;
use pgrx::prelude::*;

/// A call of a function from SQL, while the function runs. So a transaction is active, and a snapshot. It is made once, at the top
/// of the function, by a reference to the function's own argument, so that nothing of it is used after the function has returned.
pub struct Call<'call> {
    fcinfo: pg_sys::FunctionCallInfo,
    running: PhantomData<&'call ()>,
}

impl<'call> Call<'call> {
    /// Stands for the call that the server made with this argument.
    ///
    /// # Safety
    /// `fcinfo` is the argument of a function that the server called, and belongs to its frame. The function asks for its
    /// arguments as what its SQL declares.
    pub unsafe fn new(fcinfo: &'call pg_sys::FunctionCallInfo) -> Self {
        Self { fcinfo: *fcinfo, running: PhantomData }
    }

    /// Returns the same call once more, for a function that takes it beside its arguments.
    pub(super) fn again(&self) -> Self {
        Self { fcinfo: self.fcinfo, running: PhantomData }
    }

    /// Returns the statement for which the function is called as an event trigger; None if it is called for another event.
    /// Raises an error if it is not called as an event trigger.
    pub fn statement(&self, event: &CStr) -> Option<*mut pg_sys::Node> {
        // SAFETY: the context is null or a node, and what a node is stands in its tag. The event of such a trigger is a C
        // string.
        unsafe {
            let context = (*self.fcinfo).context;
            if context.is_null() || (*context).type_ != pg_sys::NodeTag::T_EventTriggerData {
                error!("this function can only be called by an event trigger");
            }
            let data: *const pg_sys::EventTriggerData = context.cast();
            let is_wanted = CStr::from_ptr((*data).event) == event && !(*data).parsetree.is_null();
            is_wanted.then_some((*data).parsetree)
        }
    }

    /// Returns an argument; None for NULL and for one that is not there.
    pub fn value(&self, index: usize) -> Option<pg_sys::Datum> {
        // SAFETY: the server keeps the call until the function returns, and it has as many arguments as it says.
        let arguments = unsafe { (*self.fcinfo).args.as_slice((*self.fcinfo).nargs as usize) };
        arguments.get(index).filter(|argument| !argument.isnull).map(|argument| argument.value)
    }

    /// Returns an argument of the type `oid`, or of a type whose values are OIDs.
    pub fn oid(&self, index: usize) -> Option<pg_sys::Oid> {
        self.value(index).map(|value| pg_sys::Oid::from(value.value() as u32))
    }

    /// Returns an argument of the type `bigint`.
    pub fn bigint(&self, index: usize) -> Option<i64> {
        self.value(index).map(|value| value.value() as i64)
    }

    /// Returns an argument of the type `jsonb`, without the header of its varlena.
    pub fn jsonb(&self, index: usize) -> Option<&'call [u8]> {
        let value = self.value(index)?;
        // SAFETY: the argument is declared as a jsonb, so it points to a varlena; detoasted, that is in memory which stays at
        // least until the function returns.
        unsafe {
            let jsonb = pg_sys::pg_detoast_datum(value.cast_mut_ptr());
            Some(pgrx::varlena::varlena_to_byte_slice(jsonb))
        }
    }

    /// Returns an argument of the type `text` as a C string.
    pub fn text(&self, index: usize) -> Option<&'call CStr> {
        // SAFETY: the argument is declared as a text; the copy is in memory which stays until the function returns.
        self.value(index).map(|value| unsafe { CStr::from_ptr(pg_sys::text_to_cstring(value.cast_mut_ptr())) })
    }

    /// Returns the type that an argument has in the statement that calls the function.
    pub fn type_of(&self, index: i32) -> pg_sys::Oid {
        // SAFETY: reads the expression that calls the function, which is kept as long; an argument that is not there has no type.
        unsafe { pg_sys::get_fn_expr_argtype((*self.fcinfo).flinfo, index) }
    }

    /// Returns the function that is called.
    pub fn function(&self) -> pg_sys::Oid {
        // SAFETY: the server keeps the call, and what it knows of the function, until the function returns.
        unsafe { (*(*self.fcinfo).flinfo).fn_oid }
    }

    /// Returns the memory context that lives as long as the expression which calls the function.
    pub fn memory(&self) -> pg_sys::MemoryContext {
        // SAFETY: the server keeps the call, and what it knows of the function, until the function returns.
        unsafe { (*(*self.fcinfo).flinfo).fn_mcxt }
    }

    /// Returns what the function keeps from one call of an expression to the next, which `make` makes at the first one.
    pub fn kept<T: 'static>(&mut self, make: impl FnOnce() -> T) -> &mut T {
        // SAFETY: `fn_extra` is the function's own, and only this puts something there, which lives as long as `fn_mcxt`. It
        // begins with its type, so that it is taken for nothing else. The call is borrowed as long as the result is used.
        unsafe {
            let function = (*self.fcinfo).flinfo;
            if (*function).fn_extra.is_null() {
                let kept = Kept { kind: TypeId::of::<T>(), value: make() };
                (*function).fn_extra = PgMemoryContexts::For((*function).fn_mcxt).leak_and_drop_on_delete(kept).cast();
            }
            if *(*function).fn_extra.cast::<TypeId>() != TypeId::of::<T>() {
                error!("a function of the extension bemi keeps something else");
            }
            &mut (*(*function).fn_extra.cast::<Kept<T>>()).value
        }
    }

    /// Has the function return NULL.
    pub fn null(&mut self) -> pg_sys::Datum {
        // SAFETY: the server keeps the call until the function returns.
        unsafe { (*self.fcinfo).isnull = true };
        pg_sys::Datum::from(0)
    }
}

/// What a function keeps, behind its type.
#[repr(C)]
struct Kept<T> {
    kind: TypeId,
    value: T,
}

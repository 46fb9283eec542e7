//! `bemi.as_of()` in FROM is planned as the query that it stands for, so that conditions, joins and indexes work as on the
//! table itself. The function in the range table is replaced by that query, as the planner does with SQL functions.
use core::ffi::{CStr, c_int};
use std::ffi::CString;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::snapshot;
use crate::sys::guc::{self, Scope};
use crate::sys::{arguments, catalog, function, node, query};

/// Operators of which one side's equality to the other means that both have the same text: of `smallint`, `integer` and
/// `bigint` among each other, of `text` and of `uuid` (pg_operator.dat).
const EQUALITIES: [u32; 11] = [94, 96, 410, 532, 533, 15, 416, 1862, 1868, 98, 2972];

/// Settings under which expressions are written as text, and the query is read.
const PINNED: [(&CStr, &CStr); 4] = [
    (c"search_path", c"pg_catalog, pg_temp"),
    (c"DateStyle", c"ISO, YMD"),
    (c"IntervalStyle", c"postgres"),
    (c"extra_float_digits", c"1"),
];

/// `bemi.as_of_support(internal)`: the planner asks whether a call of `bemi.as_of` can be simplified. The call itself cannot;
/// what it stands for takes its place in the range table.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_as_of_support(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server's call; the argument is a node, which is what its tag says.
    unsafe {
        if let Some(request) = arguments::argument(fcinfo, 0) {
            let request: *const pg_sys::SupportRequestSimplify = request.cast_mut_ptr();
            if (*request).type_ == pg_sys::NodeTag::T_SupportRequestSimplify && !(*request).root.is_null() {
                inline(&*(*request).root, &*(*request).fcall);
            }
        }
    }
    pg_sys::Datum::from(0)
}

/// Replaces the call in the range table of the query that is being planned.
///
/// # Safety
/// The planner asks for it.
unsafe fn inline(root: &pg_sys::PlannerInfo, call: &pg_sys::FuncExpr) {
    // SAFETY: the caller's promise; the planner may be given another list of relations until it makes an array of them.
    unsafe {
        if !root.simple_rel_array.is_null() {
            return;
        }
        let table = (*root.parse).rtable;
        let length = table.as_ref().map_or(0, |table| table.length as usize);
        let entry = |index: usize| pg_sys::list_nth(table, index as c_int).cast::<pg_sys::RangeTblEntry>();
        let Some((index, found)) = (0..length).find_map(|index| Some((index, call_in(root, entry(index), call)?)))
        else {
            return;
        };
        // Without a time there is nothing to plan: the function says so.
        let simplified: *const pg_sys::Const = pg_sys::list_nth(call.args, 1).cast();
        let is_null = (*simplified).xpr.type_ == pg_sys::NodeTag::T_Const && (*simplified).constisnull;
        // Simplified, an expression may have no text in SQL.
        let [base, moment] = [0, 1].map(|index| pg_sys::list_nth((*found).args, index).cast::<pg_sys::Node>());
        let mut parameters = Parameters::default();
        if is_null || !parameters.collect(moment) || pg_sys::contain_volatile_functions(moment) {
            return;
        }
        let relation = pg_sys::get_typ_typrelid(pg_sys::exprType(base));
        if relation == pg_sys::InvalidOid {
            return;
        }
        // So that the text of an expression, and the query, mean the same whatever the session has set.
        let level = pg_sys::NewGUCNestLevel();
        for (name, value) in PINNED {
            guc::set(name, value, Scope::NestLevel);
        }
        let known = known_columns((*(*root.parse).jointree).quals, index + 1, &mut parameters);
        if let Some(text) = query(call.funcid, relation, moment, &known) {
            let query = query::analyze(&text, &mut parameters.types());
            if has_columns_of(query, root.parse, index + 1) {
                (*root.glob).dependsOnRole |= (*query).hasRowSecurity;
                // With its function still, which tells the type of a whole row.
                let planned: *mut pg_sys::RangeTblEntry = pg_sys::copyObjectImpl(entry(index).cast()).cast();
                (*planned).rtekind = pg_sys::RTEKind::RTE_SUBQUERY;
                (*planned).subquery = query;
                // The old entry stays as it is: the planner may be looking at it.
                (*(*table).elements.add(index)).ptr_value = planned.cast();
            }
        }
        pg_sys::AtEOXact_GUC(true, level);
    }
}

/// Whether the columns of a query are those that another one takes from a relation. They are not if a column got another
/// type after that one was parsed: then the function is called, and tells so.
///
/// # Safety
/// Both are queries, of which the second is being planned.
unsafe fn has_columns_of(query: *const pg_sys::Query, outer: *mut pg_sys::Query, relation: usize) -> bool {
    // SAFETY: the caller's promise; the list has variables, and placeholders of whole expressions, which are not made yet.
    unsafe {
        let columns: Vec<*mut pg_sys::TargetEntry> = node::members((*query).targetList).collect();
        node::members::<pg_sys::Var>(pg_sys::pull_vars_of_level(outer.cast(), 0))
            .filter(|variable| {
                (**variable).xpr.type_ == pg_sys::NodeTag::T_Var && (**variable).varno as usize == relation
            })
            .all(|variable| match usize::try_from((*variable).varattno) {
                Ok(0) => true,
                Ok(number) => columns.get(number - 1).is_some_and(|column| {
                    let expression = (**column).expr.cast();
                    pg_sys::exprType(expression) == (*variable).vartype
                        && pg_sys::exprCollation(expression) == (*variable).varcollid
                }),
                Err(_) => false,
            })
    }
}

/// The call in an entry of the range table that is nothing else, if it is the one that the planner asks about.
///
/// # Safety
/// The planner asks for it.
unsafe fn call_in(
    root: &pg_sys::PlannerInfo,
    entry: *const pg_sys::RangeTblEntry,
    asked: &pg_sys::FuncExpr,
) -> Option<*const pg_sys::FuncExpr> {
    // SAFETY: the caller's promise; a node is what its tag says.
    unsafe {
        if (*entry).rtekind != pg_sys::RTEKind::RTE_FUNCTION || (*entry).funcordinality {
            return None;
        }
        let mut functions = node::members::<pg_sys::RangeTblFunction>((*entry).functions);
        let (Some(function), None) = (functions.next(), functions.next()) else { return None };
        let found: *const pg_sys::FuncExpr = (*function).funcexpr.cast();
        if (*found).xpr.type_ != pg_sys::NodeTag::T_FuncExpr || (*found).funcid != asked.funcid {
            return None;
        }
        // The arguments that the planner asks about are simplified, those of the entry not yet.
        let root: *const pg_sys::PlannerInfo = root;
        let simplified = pg_sys::eval_const_expressions(root.cast_mut(), (*found).args.cast());
        pg_sys::equal(simplified.cast(), asked.args.cast()).then_some(found)
    }
}

/// The query that a call stands for. None if the function has to be called itself.
///
/// # Safety
/// The expression is of a query that is being planned.
unsafe fn query(
    function: pg_sys::Oid,
    relation: pg_sys::Oid,
    moment: *mut pg_sys::Node,
    known: &[Known],
) -> Option<CString> {
    let ready = catalog::function_beside(function, c"as_of_ready", &[pg_sys::OIDOID])?;
    let texts = pg_sys::TEXTARRAYOID;
    let plan =
        catalog::function_beside(function, c"as_of_plan", &[pg_sys::OIDOID, pg_sys::TEXTOID, texts, texts, texts])?;
    let none = pg_sys::InvalidOid;
    let relation = pg_sys::Datum::from(relation);
    // SAFETY: the caller's promise; the functions take these types, and give a boolean and a text.
    let text = unsafe {
        if pg_sys::OidFunctionCall1Coll(ready, none, relation).value() as u8 == 0 {
            return None;
        }
        let moment = arguments::text(&text_of(moment));
        let numbers: Vec<&[u8]> = known.iter().map(|known| known.number.as_bytes()).collect();
        let kinds: Vec<&[u8]> = known.iter().map(|known| known.kind.as_bytes()).collect();
        let expressions: Vec<&[u8]> = known.iter().map(|known| &known.expression[..]).collect();
        let [numbers, kinds, expressions] = [numbers, kinds, expressions].map(|texts| arguments::text_array(&texts));
        let plan = snapshot::latest(|| {
            pg_sys::OidFunctionCall5Coll(plan, none, relation, moment, numbers, kinds, expressions)
        });
        arguments::bytes(plan)
    };
    CString::new(text).ok()
}

/// What a column has to be, by a condition of the query.
struct Known {
    /// The number of the column.
    number: String,
    /// `one`, or `any` of an array.
    kind: &'static str,
    /// In SQL.
    expression: Vec<u8>,
}

/// What columns of a relation have to be, by the conditions of a query.
///
/// # Safety
/// `condition` is null or an expression, or a list of them, of a query that is being planned.
unsafe fn known_columns(condition: *mut pg_sys::Node, relation: usize, parameters: &mut Parameters) -> Vec<Known> {
    let mut known: Vec<Known> = Vec::new();
    let mut left = vec![condition];
    while let Some(condition) = left.pop() {
        if condition.is_null() {
            continue;
        }
        // SAFETY: the caller's promise; a node is what its tag says.
        let (operator, collation, arguments, kind) = unsafe {
            match (*condition).type_ {
                pg_sys::NodeTag::T_List => {
                    left.extend(node::members::<pg_sys::Node>(condition.cast()));
                    continue;
                }
                pg_sys::NodeTag::T_BoolExpr => {
                    let all: *const pg_sys::BoolExpr = condition.cast();
                    if (*all).boolop == pg_sys::BoolExprType::AND_EXPR {
                        left.extend(node::members::<pg_sys::Node>((*all).args));
                    }
                    continue;
                }
                pg_sys::NodeTag::T_OpExpr => {
                    let one: *const pg_sys::OpExpr = condition.cast();
                    ((*one).opno, (*one).inputcollid, (*one).args, "one")
                }
                pg_sys::NodeTag::T_ScalarArrayOpExpr if (*condition.cast::<pg_sys::ScalarArrayOpExpr>()).useOr => {
                    let any: *const pg_sys::ScalarArrayOpExpr = condition.cast();
                    ((*any).opno, (*any).inputcollid, (*any).args, "any")
                }
                _ => continue,
            }
        };
        if !EQUALITIES.contains(&operator.to_u32()) {
            continue;
        }
        // SAFETY: as above; what compares has two arguments.
        unsafe {
            let is_exact = collation == pg_sys::InvalidOid || pg_sys::get_collation_isdeterministic(collation);
            let [left, right] = [0, 1].map(|index| pg_sys::list_nth(arguments, index).cast::<pg_sys::Node>());
            let sides = [(left, right), (right, left)];
            for (column, value) in sides.into_iter().take(if kind == "one" { 2 } else { 1 }) {
                if let Some(number) = column_of(column, relation).filter(|_| is_exact)
                    && parameters.collect(value)
                    && !pg_sys::contain_volatile_functions(value)
                {
                    known.push(Known { number: number.to_string(), kind, expression: text_of(value) });
                }
            }
        }
    }
    known
}

/// The number of the column of a relation that an expression is.
///
/// # Safety
/// It is an expression.
unsafe fn column_of(mut expression: *mut pg_sys::Node, relation: usize) -> Option<i16> {
    // SAFETY: the caller's promise; a node is what its tag says.
    unsafe {
        while (*expression).type_ == pg_sys::NodeTag::T_RelabelType {
            expression = (*expression.cast::<pg_sys::RelabelType>()).arg.cast();
        }
        let column: *const pg_sys::Var = expression.cast();
        let is_one = (*expression).type_ == pg_sys::NodeTag::T_Var
            && (*column).varno as usize == relation
            && (*column).varlevelsup == 0;
        is_one.then(|| (*column).varattno)
    }
}

/// An expression in SQL, in the encoding of the database.
///
/// # Safety
/// The expression refers to no relation.
unsafe fn text_of(expression: *mut pg_sys::Node) -> Vec<u8> {
    // SAFETY: the caller's promise; the result is a C string.
    unsafe {
        let text = pg_sys::deparse_expression(expression, core::ptr::null_mut(), false, false);
        CStr::from_ptr(text).to_bytes().to_vec()
    }
}

/// The parameters of expressions, by their numbers from 1 on, and their types.
#[derive(Default)]
struct Parameters(Vec<(usize, pg_sys::Oid)>);

impl Parameters {
    /// Adds those of an expression. False if the expression has anything that its text would not say.
    ///
    /// # Safety
    /// It is an expression, or a list of them.
    unsafe fn collect(&mut self, expression: *mut pg_sys::Node) -> bool {
        use pg_sys::NodeTag::*;
        // SAFETY: the caller's promise; a node is what its tag says.
        unsafe {
            match (*expression).type_ {
                T_Const | T_SQLValueFunction => true,
                T_Param => {
                    let parameter: *const pg_sys::Param = expression.cast();
                    let is_from_outside = (*parameter).paramkind == pg_sys::ParamKind::PARAM_EXTERN;
                    self.0.extend(is_from_outside.then(|| ((*parameter).paramid as usize, (*parameter).paramtype)));
                    is_from_outside
                }
                T_RelabelType => self.collect((*expression.cast::<pg_sys::RelabelType>()).arg.cast()),
                T_CoerceViaIO => self.collect((*expression.cast::<pg_sys::CoerceViaIO>()).arg.cast()),
                T_FuncExpr => {
                    let call: *const pg_sys::FuncExpr = expression.cast();
                    !(*call).funcretset && self.collect_all((*call).args)
                }
                T_OpExpr => self.collect_all((*expression.cast::<pg_sys::OpExpr>()).args),
                T_ArrayExpr => self.collect_all((*expression.cast::<pg_sys::ArrayExpr>()).elements),
                _ => false,
            }
        }
    }

    /// # Safety
    /// It is a list of expressions.
    unsafe fn collect_all(&mut self, expressions: *const pg_sys::List) -> bool {
        // SAFETY: the caller's promise.
        unsafe { node::members::<pg_sys::Node>(expressions).all(|expression| self.collect(expression)) }
    }

    /// By their numbers; nothing for one that is not used.
    fn types(&self) -> Vec<pg_sys::Oid> {
        let mut types = vec![pg_sys::InvalidOid; self.0.iter().map(|(number, _)| *number).max().unwrap_or(0)];
        for (number, found) in &self.0 {
            if let Some(place) = number.checked_sub(1).and_then(|index| types.get_mut(index)) {
                *place = *found;
            }
        }
        types
    }
}

function::sql_callable!(pg_finfo_bemi_as_of_support);

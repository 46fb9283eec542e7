//! `bemi.as_of()` in FROM is planned as the query that it stands for, so that conditions, joins and indexes work as on the
//! table itself. This replaces the function in the range table by that query, as the planner does with SQL functions.
use core::ffi::{CStr, c_int};
use std::ffi::CString;

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::expression::{Expression, Node, Nodes};
use super::guard;
use super::home::Home;
use crate::pinned::{self, Need};
use crate::sys::call::Call;
use crate::sys::{arguments, function, node, query};

/// Operators of which one side's equality to the other means that both have the same text: of `smallint`, `integer` and
/// `bigint` among each other, of `text` and of `uuid` (pg_operator.dat).
const EQUALITIES: [u32; 11] = [94, 96, 410, 532, 533, 15, 416, 1862, 1868, 98, 2972];

/// `bemi.as_of_support(internal)`: the planner asks whether a call of `bemi.as_of` can be simplified. The call itself cannot;
/// what it stands for takes its place in the range table.
///
/// # Safety
/// Called by the server.
#[unsafe(no_mangle)]
#[pg_guard]
pub unsafe extern "C-unwind" fn bemi_as_of_support(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    // SAFETY: the server calls this with the argument above.
    let call = unsafe { Call::new(&fcinfo) };
    if let Some(request) = call.value(0) {
        let request: *const pg_sys::SupportRequestSimplify = request.cast_mut_ptr();
        // SAFETY: what a support function is asked is a node, which is what its tag says. The planner keeps it, with the query and
        // the call, until this returns.
        unsafe {
            if (*request).type_ == pg_sys::NodeTag::T_SupportRequestSimplify && !(*request).root.is_null() {
                inline(Home::of_this_call(&call), &*(*request).root, &*(*request).fcall);
            }
        }
    }
    pg_sys::Datum::from(0)
}

/// Replaces the call in the range table of the query that is being planned.
///
/// # Safety
/// The planner asks about this call in this query.
unsafe fn inline(home: Home, root: &pg_sys::PlannerInfo, call: &pg_sys::FuncExpr) {
    // SAFETY: the planner keeps the query and its lists while it asks. It may be given another list of relations until it makes an
    // array of them.
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
        // Without a time there is nothing to plan: the function raises the error.
        let simplified = Nodes::new(call.args).get(1).map(Node::expression);
        // Simplified, an expression may have no text in SQL, so these are the arguments as they were parsed.
        let arguments = Nodes::new((*found).args);
        let (Some(base), Some(moment)) = (arguments.get(0), arguments.get(1)) else { return };
        let mut parameters = Parameters::default();
        let is_null = matches!(simplified, Some(Expression::Constant(true)));
        if is_null || !parameters.collect(moment) || moment.is_volatile() {
            return;
        }
        let relation = pg_sys::get_typ_typrelid(base.kind().0);
        if relation == pg_sys::InvalidOid {
            return;
        }
        // So that the text of an expression, and the query, mean the same whatever the session has set.
        guard::with_settings(pinned::of(Need::Query), || {
            let known = known_columns(Node::new((*(*root.parse).jointree).quals), index + 1, &mut parameters);
            let Some(text) = query(home, relation, moment, &known) else { return };
            let query = query::analyze(&text, &mut parameters.types());
            if has_columns_of(query, root.parse, index + 1) {
                (*root.glob).dependsOnRole |= (*query).hasRowSecurity;
                // With its function still, which gives the type of a whole row.
                let planned: *mut pg_sys::RangeTblEntry = pg_sys::copyObjectImpl(entry(index).cast()).cast();
                (*planned).rtekind = pg_sys::RTEKind::RTE_SUBQUERY;
                (*planned).subquery = query;
                // The old entry stays as it is: the planner may be looking at it.
                (*(*table).elements.add(index)).ptr_value = planned.cast();
            }
        });
    }
}

/// Whether the columns of a query are those that another one takes from a relation. They are not if a column got another type after
/// that one was parsed: then the function is called, and raises the error.
///
/// # Safety
/// Both are queries, of which the second is being planned.
unsafe fn has_columns_of(query: *const pg_sys::Query, outer: *mut pg_sys::Query, relation: usize) -> bool {
    // SAFETY: the target list of a query has target entries, whose expressions are nodes. The list of variables has placeholders of
    // whole expressions too, which are passed over.
    unsafe {
        let columns: Vec<*mut pg_sys::TargetEntry> = node::members((*query).targetList).collect();
        Nodes::new(pg_sys::pull_vars_of_level(outer.cast(), 0))
            .iter()
            .filter_map(|node| match node.expression() {
                Expression::Column(variable) if variable.varno as usize == relation => Some(variable),
                _ => None,
            })
            .all(|variable| match usize::try_from(variable.varattno) {
                Ok(0) => true,
                Ok(number) => columns
                    .get(number - 1)
                    .and_then(|column| Node::new((**column).expr))
                    .is_some_and(|expression| expression.kind() == (variable.vartype, variable.varcollid)),
                Err(_) => false,
            })
    }
}

/// Returns the call in an entry of the range table that is nothing else, if it is the one that the planner asks about.
///
/// # Safety
/// The planner asks about the call in this query, and the entry is one of its range table.
unsafe fn call_in(
    root: &pg_sys::PlannerInfo,
    entry: *const pg_sys::RangeTblEntry,
    asked: &pg_sys::FuncExpr,
) -> Option<*const pg_sys::FuncExpr> {
    // SAFETY: the planner keeps the query while it asks; an entry for functions has a list of them, whose expressions are nodes, and
    // a node is what its tag says.
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

/// Returns the query that a call stands for. None if the function has to be called itself.
fn query(home: Home, relation: pg_sys::Oid, moment: Node, known: &[Known]) -> Option<CString> {
    let texts = pg_sys::TEXTARRAYOID;
    let ready = home.find(c"as_of_ready", &[pg_sys::OIDOID])?;
    home.find(c"as_of_plan", &[pg_sys::OIDOID, pg_sys::TEXTOID, texts, texts, texts])?;
    let relation = pg_sys::Datum::from(relation);
    // SAFETY: the function takes an OID, and returns a boolean.
    if unsafe { pg_sys::OidFunctionCall1Coll(ready, pg_sys::InvalidOid, relation) }.value() as u8 == 0 {
        return None;
    }
    let moment = arguments::text(&text_of(moment));
    let numbers: Vec<&[u8]> = known.iter().map(|known| known.number.as_bytes()).collect();
    let kinds: Vec<&[u8]> = known.iter().map(|known| known.kind.as_bytes()).collect();
    let expressions: Vec<&[u8]> = known.iter().map(|known| &known.expression[..]).collect();
    let [numbers, kinds, expressions] = [numbers, kinds, expressions].map(|texts| arguments::text_array(&texts));
    let values =
        [(pg_sys::OIDOID, relation), (pg_sys::TEXTOID, moment), (texts, numbers), (texts, kinds), (texts, expressions)];
    // SAFETY: the values are of these types, and the function returns a text.
    let text = unsafe { arguments::bytes(home.call_latest(c"as_of_plan", &values)) };
    CString::new(text).ok()
}

/// A value that a column must be equal to, by a condition of the query.
struct Known {
    /// The number of the column.
    number: String,
    /// `one`, or `any` of an array.
    kind: &'static str,
    /// In SQL.
    expression: Vec<u8>,
}

/// Returns the values that columns of a relation must be equal to, by the conditions of a query.
fn known_columns(condition: Option<Node>, relation: usize, parameters: &mut Parameters) -> Vec<Known> {
    let mut known: Vec<Known> = Vec::new();
    let mut left = Vec::from_iter(condition);
    while let Some(condition) = left.pop() {
        let (operator, collation, operands, kind) = match condition.expression() {
            Expression::List(conditions) | Expression::And(conditions) => {
                left.extend(conditions.iter());
                continue;
            }
            Expression::Operator(operator, collation, operands) => (operator, collation, operands, "one"),
            Expression::AnyOf(operator, collation, operands) => (operator, collation, operands, "any"),
            _ => continue,
        };
        // SAFETY: looks a collation up in the catalogs.
        let is_exact = collation == pg_sys::InvalidOid || unsafe { pg_sys::get_collation_isdeterministic(collation) };
        if !EQUALITIES.contains(&operator.to_u32()) || !is_exact {
            continue;
        }
        let (Some(first), Some(second)) = (operands.get(0), operands.get(1)) else { continue };
        let sides = [(first, second), (second, first)];
        for (column, value) in sides.into_iter().take(if kind == "one" { 2 } else { 1 }) {
            if let Some(number) = column_of(column, relation)
                && parameters.collect(value)
                && !value.is_volatile()
            {
                known.push(Known { number: number.to_string(), kind, expression: text_of(value) });
            }
        }
    }
    known
}

/// Returns the number of the column of a relation that an expression is.
fn column_of(expression: Node, relation: usize) -> Option<i16> {
    match expression.expression() {
        Expression::Relabel(inner) => column_of(inner?, relation),
        Expression::Column(column) => {
            (column.varno as usize == relation && column.varlevelsup == 0).then_some(column.varattno)
        }
        _ => None,
    }
}

/// Returns an expression that refers to no relation, in SQL and in the encoding of the database.
fn text_of(expression: Node) -> Vec<u8> {
    // SAFETY: the server reads the node; its text is a C string.
    unsafe {
        let text = pg_sys::deparse_expression(expression.as_ptr(), core::ptr::null_mut(), false, false);
        CStr::from_ptr(text).to_bytes().to_vec()
    }
}

/// The parameters of expressions, by their numbers from 1 on, and their types.
#[derive(Default)]
struct Parameters(Vec<(usize, pg_sys::Oid)>);

impl Parameters {
    /// Adds those of an expression. Returns false if the expression has anything that its text would not say.
    fn collect(&mut self, expression: Node) -> bool {
        match expression.expression() {
            Expression::Constant(_) | Expression::SessionValue => true,
            Expression::Parameter(parameter) => {
                let is_from_outside = parameter.paramkind == pg_sys::ParamKind::PARAM_EXTERN;
                self.0.extend(is_from_outside.then_some((parameter.paramid as usize, parameter.paramtype)));
                is_from_outside
            }
            Expression::Relabel(inner) | Expression::ThroughText(inner) => {
                inner.is_some_and(|inner| self.collect(inner))
            }
            Expression::Function(call, operands) => !call.funcretset && self.collect_all(operands),
            Expression::Operator(_, _, operands) | Expression::Array(operands) => self.collect_all(operands),
            _ => false,
        }
    }

    fn collect_all(&mut self, expressions: Nodes) -> bool {
        expressions.iter().all(|expression| self.collect(expression))
    }

    /// Returns their types, by their numbers; none for one that is not used.
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

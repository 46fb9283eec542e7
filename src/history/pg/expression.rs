//! Expressions of a query that is being planned. A node is what its tag says (nodes/nodes.h).
use core::marker::PhantomData;
use core::ptr::NonNull;

use pgrx::pg_sys;

use crate::sys::node;

/// A node of a query, which the planner keeps as it is while it asks a support function.
#[derive(Clone, Copy)]
pub struct Node<'query> {
    node: NonNull<pg_sys::Node>,
    query: PhantomData<&'query ()>,
}

/// What an expression is, as far as it matters here.
pub enum Expression<'query> {
    /// A list of expressions, as the conditions of a query may be.
    List(Nodes<'query>),
    /// A constant, and whether it is null.
    Constant(bool),
    /// A value of the session, as CURRENT_USER.
    SessionValue,
    /// A parameter.
    Parameter(&'query pg_sys::Param),
    /// A column.
    Column(&'query pg_sys::Var),
    /// A value taken as another type of the same form.
    Relabel(Option<Node<'query>>),
    /// A value converted by its text.
    ThroughText(Option<Node<'query>>),
    /// A call of a function.
    Function(&'query pg_sys::FuncExpr, Nodes<'query>),
    /// An operator with its operands: its OID, and its collation.
    Operator(pg_sys::Oid, pg_sys::Oid, Nodes<'query>),
    /// An operator that holds for any member of an array, the right operand.
    AnyOf(pg_sys::Oid, pg_sys::Oid, Nodes<'query>),
    /// Conditions joined by AND.
    And(Nodes<'query>),
    /// The members of an array.
    Array(Nodes<'query>),
    /// Anything else.
    Other,
}

impl<'query> Node<'query> {
    /// Takes a node; None for null.
    ///
    /// # Safety
    /// The pointer is null or to a node of a query that stays as it is for the lifetime.
    pub unsafe fn new<T>(node: *const T) -> Option<Self> {
        NonNull::new(node.cast_mut().cast()).map(|node| Self { node, query: PhantomData })
    }

    /// A pointer for functions of the server, which do not change the node.
    pub fn as_ptr(self) -> *mut pg_sys::Node {
        self.node.as_ptr()
    }

    /// Returns what the expression is.
    pub fn expression(self) -> Expression<'query> {
        use pg_sys::NodeTag::*;
        let node = self.as_ptr();
        // SAFETY: the node stays as it is for the lifetime, and so do the nodes and lists of nodes below it. It is of the type that
        // its tag says, to which the pointer is cast.
        unsafe {
            match (*node).type_ {
                T_List => Expression::List(Nodes::new(node.cast())),
                T_Const => Expression::Constant((*node.cast::<pg_sys::Const>()).constisnull),
                T_SQLValueFunction => Expression::SessionValue,
                T_Param => Expression::Parameter(&*node.cast()),
                T_Var => Expression::Column(&*node.cast()),
                T_RelabelType => Expression::Relabel(Self::new((*node.cast::<pg_sys::RelabelType>()).arg)),
                T_CoerceViaIO => Expression::ThroughText(Self::new((*node.cast::<pg_sys::CoerceViaIO>()).arg)),
                T_FuncExpr => {
                    let call: &pg_sys::FuncExpr = &*node.cast();
                    Expression::Function(call, Nodes::new(call.args))
                }
                T_OpExpr => {
                    let one: &pg_sys::OpExpr = &*node.cast();
                    Expression::Operator(one.opno, one.inputcollid, Nodes::new(one.args))
                }
                T_ScalarArrayOpExpr if (*node.cast::<pg_sys::ScalarArrayOpExpr>()).useOr => {
                    let any: &pg_sys::ScalarArrayOpExpr = &*node.cast();
                    Expression::AnyOf(any.opno, any.inputcollid, Nodes::new(any.args))
                }
                T_BoolExpr if (*node.cast::<pg_sys::BoolExpr>()).boolop == pg_sys::BoolExprType::AND_EXPR => {
                    Expression::And(Nodes::new((*node.cast::<pg_sys::BoolExpr>()).args))
                }
                T_ArrayExpr => Expression::Array(Nodes::new((*node.cast::<pg_sys::ArrayExpr>()).elements)),
                _ => Expression::Other,
            }
        }
    }

    /// Whether it is, or contains, a call of a function that is volatile.
    pub fn is_volatile(self) -> bool {
        // SAFETY: the node is one of a query, which the function reads.
        unsafe { pg_sys::contain_volatile_functions(self.as_ptr()) }
    }

    /// Returns its type and its collation.
    pub fn kind(self) -> (pg_sys::Oid, pg_sys::Oid) {
        // SAFETY: the node is an expression of a query, which both functions read.
        unsafe { (pg_sys::exprType(self.as_ptr()), pg_sys::exprCollation(self.as_ptr())) }
    }
}

/// A list of nodes.
#[derive(Clone, Copy)]
pub struct Nodes<'query> {
    list: *const pg_sys::List,
    query: PhantomData<&'query ()>,
}

impl<'query> Nodes<'query> {
    /// Takes a list of nodes; null is the empty list.
    ///
    /// # Safety
    /// The pointer is null or to a list of nodes of a query that stays as it is for the lifetime.
    pub unsafe fn new(list: *const pg_sys::List) -> Self {
        Self { list, query: PhantomData }
    }

    /// Returns the nodes, one after another.
    pub fn iter(self) -> impl Iterator<Item = Node<'query>> {
        // SAFETY: the list stays as it is for the lifetime, and its members are nodes.
        unsafe { node::members::<pg_sys::Node>(self.list).filter_map(|node| Node::new(node)) }
    }

    /// Returns the node at an index.
    pub fn get(self, index: usize) -> Option<Node<'query>> {
        self.iter().nth(index)
    }
}

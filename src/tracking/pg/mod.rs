//! What this stage knows that SQL cannot see.
mod ddl;
mod functions;
mod plain;

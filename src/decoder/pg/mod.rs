//! The server's side of stage 3: the callbacks of the output plugin, and how they read relations, rows and values.
mod array_layout;
mod attribute;
mod builder;
mod callback;
mod catalogs;
mod catch;
mod decoder;
mod open_relation;
mod origin;
pub mod plugin;
mod relation;
mod relation_rules;
mod scratch;
mod settings;
pub mod shown;
mod sink;
mod startup;
#[cfg(feature = "pg_test")]
mod tests;
mod tuple;
mod value;
mod varlena;

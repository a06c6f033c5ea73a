//! Configuration: YAML → tree with positions → raw structs → settings of the modules that obey them.
//!
//! Every mistake of a file is reported at once, each with its line, column and path. The schema that editors read
//! and the checks made here come from the same structs in [`raw`].

mod auth;
mod budgets;
mod check;
mod connections;
mod cross;
mod defaults;
mod diagnostic;
mod diff;
mod enforce;
pub mod env;
mod fleet;
mod journal;
mod load;
mod modes;
mod node;
mod pool;
pub mod raw;
mod raw_limits;
mod recent;
mod reload;
mod resolve;
pub mod scalar;
mod sources;
mod tls;
mod tree;

pub use diagnostic::{Diagnostic, Report};
pub use diff::diff;
pub use load::{DEFAULT_FILE, Loaded, load_file, load_text};
pub use node::{Checked, RawNode, check_file, load_node_file, load_node_text, node_changes, resolve_node};
pub use raw::schema;
pub use reload::Reloader;
pub use resolve::resolve;

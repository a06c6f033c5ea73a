//! *Top*: who cost most in the last minutes, hours and the day.

use std::fmt::{self, Write as _};

use super::html::none;

/// The view.
pub(super) fn write(out: &mut String) -> fmt::Result {
    out.write_str("<section><h2>The heaviest</h2>")?;
    none(out, "not available: no record of queries is kept here")?;
    out.write_str("</section>")
}

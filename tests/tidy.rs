//! House rules that clippy cannot say.

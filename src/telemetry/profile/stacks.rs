//! A profile as addresses, and the names that belong to them.

use std::{collections::HashMap, ffi::c_void, time::Duration};

/// Most return addresses of a stack that are kept, from the innermost.
pub(super) const DEPTH_MAX: usize = 64;

/// A type and its unit, as `pprof` names them.
pub(super) type Kind = (&'static str, &'static str);

/// The samples, stack by stack.
#[derive(Debug)]
pub(super) struct Profile {
    /// The types of the values of each stack; the last one is drawn.
    pub(super) kinds: &'static [Kind],
    pub(super) stacks: Vec<Stack>,
    /// The sampling period.
    pub(super) period: (Kind, i64),
    pub(super) duration: Duration,
    /// The innermost function that belongs to the profiler and not to the program.
    pub(super) own: &'static str,
    /// Functions that called it on the profiler's behalf: the frame of the signal.
    pub(super) own_callers: usize,
}

/// One stack.
#[derive(Debug)]
pub(super) struct Stack {
    /// Return addresses, the innermost first.
    pub(super) addresses: Vec<usize>,
    /// One for each kind.
    pub(super) values: Vec<i64>,
}

/// A place in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) file: String,
    pub(super) line: u32,
}

/// The names of addresses.
#[derive(Debug, Default)]
pub(super) struct Symbols(HashMap<usize, Vec<Function>>);

impl Symbols {
    /// Looks every address up once. Reads debug information: slow, and it takes memory.
    pub(super) fn of(profile: &Profile) -> Self {
        let mut symbols = Self::default();
        for address in profile.stacks.iter().flat_map(|stack| &stack.addresses) {
            symbols.0.entry(*address).or_insert_with(|| resolve(*address));
        }
        symbols
    }

    /// The functions at an address, the innermost of those inlined there first; never none.
    pub(super) fn at(&self, address: usize) -> &[Function] {
        self.0.get(&address).map_or(&[], Vec::as_slice)
    }

    /// The addresses of a stack without those of the profiler.
    pub(super) fn outside<'a>(&self, profile: &Profile, stack: &'a Stack) -> &'a [usize] {
        let own = |address: &usize| self.at(*address).iter().any(|f| f.name.contains(profile.own));
        let first = stack.addresses.iter().rposition(own).map_or(0, |last| last + 1 + profile.own_callers);
        stack.addresses.get(first..).unwrap_or_default()
    }
}

/// A return address is the one behind its call, which may belong to the next line; one byte before it does not.
fn resolve(address: usize) -> Vec<Function> {
    let mut found = Vec::new();
    backtrace::resolve(address.saturating_sub(1) as *mut c_void, |symbol| {
        found.push(Function {
            // The alternate form leaves out the hash.
            name: symbol.name().map_or_else(|| format!("{address:#x}"), |name| format!("{name:#}")),
            file: symbol.filename().map(|path| path.display().to_string()).unwrap_or_default(),
            line: symbol.lineno().unwrap_or(0),
        });
    });
    if found.is_empty() {
        found.push(Function { name: format!("{address:#x}"), file: String::new(), line: 0 });
    }
    found
}

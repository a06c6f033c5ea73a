//! `profile.proto` of google/pprof, written by hand: a dozen fields do not pay for a code generator.

use std::{
    collections::HashMap,
    io::{self, Write as _},
};

use flate2::{Compression, write::GzEncoder};

use super::stacks::{Function, Kind, Profile, Symbols};

/// The profile as gzipped protobuf.
pub(super) fn encode(profile: &Profile, symbols: &Symbols) -> Vec<u8> {
    let message = Writer::default().profile(profile, symbols);
    gzip(&message).unwrap_or_default()
}

/// Writing to memory does not fail.
fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes)?;
    out.finish()
}

/// Strings, functions and places by their numbers.
#[derive(Default)]
struct Writer {
    strings: HashMap<String, u64>,
    string_table: Message,
    functions: HashMap<(String, String), u64>,
    locations: HashMap<usize, u64>,
    out: Message,
}

impl Writer {
    fn profile(mut self, profile: &Profile, symbols: &Symbols) -> Vec<u8> {
        // The first string must be the empty one.
        self.string("");
        for kind in profile.kinds {
            let kind = self.kind(*kind);
            self.out.message(1, &kind);
        }
        for stack in &profile.stacks {
            let addresses = symbols.outside(profile, stack);
            let mut sample = Message::default();
            let places: Vec<u64> = addresses.iter().map(|a| self.location(*a, symbols.at(*a))).collect();
            sample.packed(1, places);
            sample.packed(2, stack.values.iter().map(|value| *value as u64));
            self.out.message(2, &sample);
        }
        self.out.number(10, profile.duration.as_nanos() as u64);
        let period = self.kind(profile.period.0);
        self.out.message(11, &period);
        self.out.number(12, profile.period.1 as u64);
        self.out.0.extend(self.string_table.0);
        self.out.0
    }

    fn kind(&mut self, (name, unit): Kind) -> Message {
        let mut kind = Message::default();
        kind.number(1, self.string(name));
        kind.number(2, self.string(unit));
        kind
    }

    fn string(&mut self, text: &str) -> u64 {
        if let Some(number) = self.strings.get(text) {
            return *number;
        }
        let number = self.strings.len() as u64;
        self.strings.insert(text.to_owned(), number);
        self.string_table.bytes(6, text.as_bytes());
        number
    }

    fn location(&mut self, address: usize, functions: &[Function]) -> u64 {
        if let Some(number) = self.locations.get(&address) {
            return *number;
        }
        let number = self.locations.len() as u64 + 1;
        self.locations.insert(address, number);
        let mut location = Message::default();
        location.number(1, number);
        location.number(3, address as u64);
        for function in functions {
            let mut line = Message::default();
            line.number(1, self.function(function));
            line.number(2, u64::from(function.line));
            location.message(4, &line);
        }
        self.out.message(4, &location);
        number
    }

    fn function(&mut self, function: &Function) -> u64 {
        let key = (function.name.clone(), function.file.clone());
        if let Some(number) = self.functions.get(&key) {
            return *number;
        }
        let number = self.functions.len() as u64 + 1;
        self.functions.insert(key, number);
        let mut message = Message::default();
        let (name, file) = (self.string(&function.name), self.string(&function.file));
        for (field, value) in [(1, number), (2, name), (3, name), (4, file)] {
            message.number(field, value);
        }
        self.out.message(5, &message);
        number
    }
}

/// The bytes of one message.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.varint(field << 3);
        self.varint(value);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    fn packed(&mut self, field: u64, values: impl IntoIterator<Item = u64>) {
        let mut inner = Self::default();
        for value in values {
            inner.varint(value);
        }
        self.message(field, &inner);
    }
}

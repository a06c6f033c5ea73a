//! Protobuf's wire format, read strictly and written by hand: a handful of small messages do not pay for a schema
//! compiler. The format: <https://protobuf.dev/programming-guides/encoding/>.
//!
//! Decoders differ in their reading of damaged input: Go's generated code truncates a field number to 32 bits, so that
//! number 2^32 + 1 is field 1 to it. Input that two decoders could read differently is an error here.

use std::fmt;

/// The largest field number that the format allows (2^29 - 1).
const FIELD_MAX: u64 = (1 << 29) - 1;
/// Bytes of the longest number: 64 bits, seven to a byte.
const VARINT_BYTES_MAX: usize = 10;

/// Why bytes are no message, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtobufError {
    /// Bytes from the beginning of the outermost message.
    pub offset: usize,
    /// The problem.
    pub reason: &'static str,
}

impl fmt::Display for ProtobufError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "offset {}: {}", self.offset, self.reason)
    }
}

impl std::error::Error for ProtobufError {}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Field<'a> {
    /// Its number: 1 to 2^29 - 1.
    pub number: u32,
    /// Its value, by wire type.
    pub value: Value<'a>,
    /// Where the value ends, in bytes from the beginning of the outermost message.
    end: usize,
}

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2: text, bytes or a message.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

impl<'a> Field<'a> {
    /// The number of a varint field.
    pub fn varint(&self) -> Result<u64, ProtobufError> {
        match self.value {
            Value::Varint(number) => Ok(number),
            _ => Err(self.error("a field has the wrong wire type")),
        }
    }

    /// The number of a `double` field.
    pub fn double(&self) -> Result<f64, ProtobufError> {
        match self.value {
            Value::Fixed64(bits) => Ok(f64::from_bits(bits)),
            _ => Err(self.error("a field has the wrong wire type")),
        }
    }

    /// The content of a field of bytes.
    pub fn bytes(&self) -> Result<&'a [u8], ProtobufError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.error("a field has the wrong wire type")),
        }
    }

    /// The content of a `string` field.
    pub fn text(&self) -> Result<&'a str, ProtobufError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| self.error("a string is not valid UTF-8"))
    }

    /// The fields of a message inside this one.
    pub fn message(&self) -> Result<Fields<'a>, ProtobufError> {
        let bytes = self.bytes()?;
        Ok(Fields { rest: bytes, offset: self.end - bytes.len() })
    }

    /// The numbers of a repeated varint field, which comes one by one or packed.
    pub fn repeated_varint(&self) -> Result<Vec<u64>, ProtobufError> {
        if let Value::Varint(number) = self.value {
            return Ok(vec![number]);
        }
        let (mut packed, mut numbers) = (self.message()?, Vec::new());
        while !packed.rest.is_empty() {
            numbers.push(packed.varint()?);
        }
        Ok(numbers)
    }

    /// An error at the end of this field.
    pub const fn error(&self, reason: &'static str) -> ProtobufError {
        ProtobufError { offset: self.end, reason }
    }
}

/// The fields of a message, in the order of the wire. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    rest: &'a [u8],
    /// Of `rest` in the outermost message.
    offset: usize,
}

impl<'a> Fields<'a> {
    /// The fields of an outermost message.
    pub const fn new(message: &'a [u8]) -> Self {
        Self { rest: message, offset: 0 }
    }

    fn field(&mut self) -> Result<Field<'a>, ProtobufError> {
        let before = self.rest;
        let key = self.varint()?;
        let (number, wire_type) = (key >> 3, key & 7);
        let length = before.len() - self.rest.len();
        if !(1..=FIELD_MAX).contains(&number) {
            return Err(self.error("a field number is out of range"));
        }
        if length != varint_length(key) {
            return Err(self.error("a field number is written with more bytes than it needs"));
        }
        let value = match wire_type {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(self.take(8)?.try_into().map_or(0, u64::from_le_bytes)),
            2 => {
                let length = usize::try_from(self.varint()?).unwrap_or(usize::MAX);
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(self.take(4)?.try_into().map_or(0, u32::from_le_bytes)),
            _ => return Err(self.error("a wire type is unknown")),
        };
        Ok(Field { number: number as u32, value, end: self.offset })
    }

    fn varint(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0;
        for (i, byte) in self.rest.iter().take(VARINT_BYTES_MAX).enumerate() {
            // The last byte has room for one bit.
            if i + 1 == VARINT_BYTES_MAX && *byte > 1 {
                return Err(self.error("a number has more than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte & 0x80 == 0 {
                self.take(i + 1)?;
                return Ok(value);
            }
        }
        Err(self.error("a number is cut off"))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ProtobufError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(count)
            .ok_or_else(|| self.error("a value is longer than its message"))?;
        (self.rest, self.offset) = (rest, self.offset + count);
        Ok(taken)
    }

    const fn error(&self, reason: &'static str) -> ProtobufError {
        ProtobufError { offset: self.offset, reason }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, ProtobufError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// A message that is being written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message(Vec<u8>);

impl Message {
    /// A varint field; `int64` and `bool` are written as `u64`.
    pub fn varint(&mut self, field: u32, value: u64) {
        put_varint(u64::from(field) << 3, &mut self.0);
        put_varint(value, &mut self.0);
    }

    /// A field of bytes or of text.
    pub fn bytes(&mut self, field: u32, bytes: &[u8]) {
        put_varint(u64::from(field) << 3 | 2, &mut self.0);
        put_varint(bytes.len() as u64, &mut self.0);
        self.0.extend_from_slice(bytes);
    }

    /// A `double` field.
    pub fn double(&mut self, field: u32, value: f64) {
        put_varint(u64::from(field) << 3 | 1, &mut self.0);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    /// A message inside this one.
    pub fn message(&mut self, field: u32, message: &Self) {
        self.bytes(field, &message.0);
    }

    /// Repeated numbers in the packed form.
    pub fn packed(&mut self, field: u32, values: impl IntoIterator<Item = u64>) {
        let mut inner = Vec::new();
        for value in values {
            put_varint(value, &mut inner);
        }
        self.bytes(field, &inner);
    }

    /// The wire form.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that a number needs.
const fn varint_length(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Vec<(u32, Value<'_>)>, &'static str> {
        Fields::new(bytes).map(|field| field.map(|f| (f.number, f.value)).map_err(|e| e.reason)).collect()
    }

    #[test]
    fn written_messages_are_read_back() {
        let mut inner = Message::default();
        inner.varint(1, u64::MAX);
        inner.double(2, 1.5);
        let mut outer = Message::default();
        outer.message(3, &inner);
        outer.bytes(16, b"text");
        outer.packed(2, [1, 300]);
        let bytes = outer.into_bytes();
        let fields: Vec<Field<'_>> = Fields::new(&bytes).collect::<Result<_, _>>().unwrap();
        let inner: Vec<_> = fields[0].message().unwrap().collect::<Result<_, _>>().unwrap();
        assert_eq!((inner[0].varint(), inner[1].double()), (Ok(u64::MAX), Ok(1.5)));
        assert_eq!((fields[1].number, fields[1].text()), (16, Ok("text")));
        assert_eq!(fields[2].repeated_varint(), Ok(vec![1, 300]));
        assert!(fields[1].varint().is_err() && inner[0].bytes().is_err());
    }

    #[test]
    fn what_decoders_read_differently_is_an_error() {
        // Field 2^32 + 1, wire type 2: Go truncates the number to 1.
        let mut truncated = Vec::new();
        put_varint(((1 << 32) + 1) << 3 | 2, &mut truncated);
        truncated.push(0);
        for (bytes, reason) in [
            (&truncated[..], "a field number is out of range"),
            (&[0x00, 0x01], "a field number is out of range"),
            (&[0x8a, 0x00, 0x00], "a field number is written with more bytes than it needs"),
            (&[0x0b], "a wire type is unknown"),
            (&[0x0c], "a wire type is unknown"),
            (&[0x0f], "a wire type is unknown"),
            (
                &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
                "a number has more than 64 bits",
            ),
            (&[0x08, 0x80], "a number is cut off"),
            (&[0x0a, 0x02, 0x00], "a value is longer than its message"),
            (&[0x09, 0, 0, 0], "a value is longer than its message"),
        ] {
            assert_eq!(read(bytes), Err(reason), "{bytes:x?}");
        }
        // Writers that reserve room for a length pad it; every decoder reads the same.
        assert_eq!(read(&[0x0a, 0x81, 0x00, 0x07]), Ok(vec![(1, Value::Bytes(&[7]))]));
    }

    #[test]
    fn damage_is_an_error_and_never_a_panic() {
        let mut random = fastrand::Rng::with_seed(11);
        for _ in 0..20_000 {
            let bytes: Vec<u8> = (0..random.usize(0..24)).map(|_| random.u8(..)).collect();
            let _ = read(&bytes);
        }
    }
}

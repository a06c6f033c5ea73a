//! Reads journals, also while they are written.

use std::{
    fmt,
    fs::{self, File},
    io::{self, BufReader},
    path::{Path, PathBuf},
    vec,
};

use super::{
    FOLDER, FormatError,
    block::{self, Block},
    codec::Decoder,
    record::Record,
};

/// Files of one journal that are read.
const FILES_MAX: usize = 100_000;

/// The parts that could not be read. Everything else was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Blocks with a wrong checksum, or without records that can be read.
    pub blocks: u64,
    /// Files whose rest could not be read for that.
    pub rests: u64,
}

impl Damage {
    /// Nothing was lost.
    pub const fn is_none(self) -> bool {
        self.blocks == 0 && self.rests == 0
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} damaged blocks, and the rest of {} files", self.blocks, self.rests)
    }
}

/// The records of a journal, in the order of their ends. Holds one block at a time.
#[derive(Debug)]
pub struct Reader {
    files: vec::IntoIter<PathBuf>,
    file: Option<BufReader<File>>,
    records: vec::IntoIter<Record>,
    damage: Damage,
}

impl Reader {
    /// Opens a file, a folder of files, or a data folder with a journal in it.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut files = if path.is_dir() { files(path)? } else { vec![path.to_owned()] };
        if files.is_empty() && path.is_dir() {
            files = self::files(&path.join(FOLDER)).unwrap_or_default();
        }
        if files.is_empty() {
            let none = format!("{}: no journal is there", path.display());
            return Err(io::Error::new(io::ErrorKind::NotFound, none));
        }
        // Readable now, or said now.
        File::open(&files[0])?;
        Ok(Self {
            files: files.into_iter(),
            file: None,
            records: Vec::new().into_iter(),
            damage: Damage::default(),
        })
    }

    /// The parts that could not be read so far.
    pub const fn damage(&self) -> Damage {
        self.damage
    }

    /// The records of the next block; `None` at the end.
    fn next_block(&mut self) -> Result<Option<Vec<Record>>, FormatError> {
        loop {
            let Some(file) = &mut self.file else {
                let Some(path) = self.files.next() else { return Ok(None) };
                self.file = open(&path)?;
                continue;
            };
            match block::read(file)? {
                Block::Good(raw, records) => match decode(&raw, records) {
                    Some(records) => return Ok(Some(records)),
                    None => self.damage.blocks += 1,
                },
                Block::Damaged => self.damage.blocks += 1,
                Block::Lost => {
                    self.damage.rests += 1;
                    self.file = None;
                }
                Block::Torn | Block::End => self.file = None,
            }
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Record, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.records.next() {
                return Some(Ok(record));
            }
            match self.next_block() {
                Ok(Some(records)) => self.records = records.into_iter(),
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

fn open(path: &Path) -> Result<Option<BufReader<File>>, FormatError> {
    let file = match File::open(path) {
        Ok(file) => file,
        // The writer deleted the oldest meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut file = BufReader::with_capacity(256 << 10, file);
    Ok(block::read_file_head(&mut file)?.then_some(file))
}

fn decode(raw: &[u8], records: u32) -> Option<Vec<Record>> {
    let mut decoder = Decoder::new(raw);
    let mut all = Vec::with_capacity((records as usize).min(raw.len() / 16 + 1));
    for _ in 0..records {
        all.push(decoder.next().ok()?);
    }
    decoder.is_at_end().then_some(all)
}

/// The files of a journal, the oldest first.
pub(super) fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)?.take(FILES_MAX) {
        let path = entry?.path();
        if sequence(&path).is_some() {
            files.push(path);
        }
    }
    files.sort_by_key(|path| sequence(path));
    Ok(files)
}

/// The number in a file's name.
pub(super) fn sequence(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".journal")?;
    name.bytes().all(|b| b.is_ascii_digit()).then(|| name.parse().ok())?
}

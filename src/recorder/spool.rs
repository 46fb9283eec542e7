//! The documents that wait to be recorded: in memory up to a limit, the rest in a file.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom, Write};

use crate::decoder::scope::MakeFile;

/// Memory that only a giant needed is given back, down to this, in bytes.
pub const KEPT: usize = 1 << 20;

/// Documents, each on a line of its own, in the order in which they came.
#[derive(Debug)]
pub struct Spool {
    memory: Vec<u8>,
    limit: usize,
    file: Option<File>,
    /// What the file holds, in bytes.
    in_file: u64,
    make_file: MakeFile,
    /// How large the file may grow, in bytes.
    pub file_limit: u64,
    /// Where the documents of the last transaction begin.
    mark: u64,
    /// The transaction that does not fit, of which no document is kept.
    excess: Option<Excess>,
}

/// A transaction whose documents do not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Excess {
    /// Its number.
    pub transaction: u32,
    /// How long its documents are, in bytes.
    pub bytes: u64,
}

impl Excess {
    /// The error that says so, and the value of temp_file_limit that would do.
    pub fn advice(&self) -> (String, String) {
        const MB: u64 = 1 << 20;
        const GB: u64 = 1 << 30;
        let size = match self.bytes {
            0..MB => format!("{} kB", self.bytes.div_ceil(1 << 10)),
            MB..GB => format!("{:.1} MB", self.bytes as f64 / MB as f64),
            GB.. => format!("{:.1} GB", self.bytes as f64 / GB as f64),
        };
        // Beside it, there is what the memory of the recorder does not hold of others.
        let limit = self.bytes.saturating_add(self.bytes / 10 + MB);
        let limit = if limit < GB { format!("{}MB", limit.div_ceil(MB)) } else { format!("{}GB", limit.div_ceil(GB)) };
        let number = self.transaction;
        let message = format!("transaction {number} needs {size} of temporary files, more than temp_file_limit allows");
        (message, limit)
    }
}

impl Spool {
    /// An empty one that keeps at most `limit` bytes in memory.
    pub fn new(limit: usize, make_file: MakeFile) -> Self {
        let (memory, file) = (Vec::new(), None);
        Self { memory, limit, file, in_file: 0, make_file, file_limit: u64::MAX, mark: 0, excess: None }
    }

    /// Says that what comes from here on belongs to another transaction.
    pub fn begin(&mut self) {
        self.mark = self.len();
    }

    /// Adds one document of a transaction, or several with newlines between them. Where the transaction would need a
    /// larger file than allowed, its documents are only counted from then on. Fails if the file or memory does.
    pub fn push(&mut self, transaction: u32, documents: &[u8]) -> io::Result<()> {
        let more = documents.len() as u64 + 1;
        if let Some(excess) = &mut self.excess {
            excess.bytes = excess.bytes.saturating_add(more);
            return Ok(());
        }
        let of_transaction = self.len() - self.mark + more;
        if self.memory.len() as u64 + more <= self.limit as u64 {
            return self.remember(documents);
        }
        if self.len() + more > self.file_limit {
            // Small transactions do not fail for those before them.
            if of_transaction <= self.limit as u64 {
                return self.remember(documents);
            }
            self.forget_transaction();
            self.excess = Some(Excess { transaction, bytes: of_transaction });
            return Ok(());
        }
        self.spill()?;
        if more > self.limit as u64 {
            // A giant is not copied.
            self.write(documents)?;
            self.write(b"\n")?;
            self.in_file += more;
            return Ok(());
        }
        self.remember(documents)
    }

    fn remember(&mut self, documents: &[u8]) -> io::Result<()> {
        self.memory.try_reserve(documents.len() + 1).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
        self.memory.extend_from_slice(documents);
        self.memory.push(b'\n');
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert((self.make_file)()?),
        };
        file.write_all(bytes)
    }

    fn spill(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            // What a failure may have left behind is written over.
            file.seek(SeekFrom::Start(self.in_file))?;
        }
        let memory = std::mem::take(&mut self.memory);
        let written = self.write(&memory);
        self.memory = memory;
        written?;
        self.in_file += self.memory.len() as u64;
        self.memory.clear();
        self.memory.shrink_to(self.limit);
        Ok(())
    }

    fn forget_transaction(&mut self) {
        match self.mark.checked_sub(self.in_file) {
            Some(in_memory) => self.memory.truncate(in_memory as usize),
            None => {
                self.memory.clear();
                self.in_file = self.mark;
            }
        }
    }

    /// The transaction that did not fit, if one did not. What came before it is there.
    pub fn excess(&self) -> Option<Excess> {
        self.excess
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.in_file == 0 && self.memory.is_empty()
    }

    /// How long they are, in bytes.
    pub fn len(&self) -> u64 {
        self.in_file + self.memory.len() as u64
    }

    /// How much of them is in the file, in bytes.
    pub fn spilled(&self) -> u64 {
        self.in_file
    }

    /// Reads them, from the first one. Fails if the file does.
    pub fn lines(&mut self) -> io::Result<Lines<'_>> {
        let from_file: Box<dyn Read> = match &mut self.file {
            Some(file) if self.in_file > 0 => {
                file.seek(SeekFrom::Start(0))?;
                Box::new((&*file).take(self.in_file))
            }
            _ => Box::new(io::empty()),
        };
        let reader = BufReader::with_capacity(1 << 16, from_file.chain(Cursor::new(&self.memory[..])));
        Ok(Lines { reader: Box::new(reader) })
    }

    /// Forgets them, and gives back the file's room.
    pub fn clear(&mut self) {
        self.memory.clear();
        self.memory.shrink_to(self.limit);
        self.file = None;
        self.in_file = 0;
        self.mark = 0;
    }
}

/// The documents of a spool, one after the other.
pub struct Lines<'a> {
    reader: Box<dyn BufRead + 'a>,
}

impl Lines<'_> {
    /// Sets `line` to the next document; false if there is none. Fails if the file or memory does.
    pub fn next(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        line.clear();
        line.shrink_to(KEPT);
        let mut is_there = false;
        loop {
            let found = match self.reader.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                found => found?,
            };
            if found.is_empty() {
                return Ok(is_there);
            }
            is_there = true;
            let end = memchr::memchr(b'\n', found);
            let part = &found[..end.unwrap_or(found.len())];
            line.try_reserve(part.len()).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
            line.extend_from_slice(part);
            let used = part.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if end.is_some() {
                return Ok(true);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn temporary_file() -> io::Result<File> {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("bemi-spool-{}-{number}", std::process::id()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(path)?;
        Ok(file)
    }

    fn all(spool: &mut Spool) -> Vec<Vec<u8>> {
        let (mut lines, mut line, mut found) = (spool.lines().unwrap(), Vec::new(), Vec::new());
        while lines.next(&mut line).unwrap() {
            found.push(line.clone());
        }
        found
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_as_often_as_it_is_asked_for(
            documents in prop::collection::vec(prop::collection::vec(b'a'..=b'z', 0..40), 0..60), limit in 0usize..200, clear_at in 0usize..60
        ) {
            let mut spool = Spool::new(limit, temporary_file);
            let mut expected = Vec::new();
            for (i, document) in documents.iter().enumerate() {
                if i == clear_at {
                    spool.clear();
                    expected.clear();
                    prop_assert!(spool.is_empty());
                }
                spool.push(1, document).unwrap();
                expected.push(document.clone());
                if i % 7 == 0 {
                    prop_assert_eq!(all(&mut spool), expected.clone());
                }
            }
            prop_assert_eq!(all(&mut spool), expected.clone());
            prop_assert_eq!(all(&mut spool), expected.clone());
            prop_assert_eq!(spool.len(), expected.iter().map(|document| document.len() as u64 + 1).sum::<u64>());
            prop_assert!(spool.len() - spool.spilled() <= limit as u64);
        }
    }

    proptest! {
        #[test]
        fn a_transaction_that_does_not_fit_is_counted_and_those_before_it_stay(
            sizes in prop::collection::vec(prop::collection::vec(0usize..60, 1..6), 1..12), limit in 0usize..120, room in 0u64..400
        ) {
            let mut spool = Spool::new(limit, temporary_file);
            spool.file_limit = room;
            let mut kept: Vec<Vec<u8>> = Vec::new();
            for (i, documents) in sizes.iter().enumerate() {
                spool.begin();
                let before = kept.len();
                for size in documents {
                    spool.push(i as u32, &vec![b'x'; *size]).unwrap();
                    kept.push(vec![b'x'; *size]);
                }
                let bytes: u64 = documents.iter().map(|size| *size as u64 + 1).sum();
                if let Some(excess) = spool.excess() {
                    kept.truncate(before);
                    prop_assert_eq!(excess, Excess { transaction: i as u32, bytes });
                    // Alone it would not fit into memory.
                    prop_assert!(bytes > limit as u64);
                    break;
                }
            }
            prop_assert_eq!(all(&mut spool), kept);
            prop_assert!(spool.spilled() <= room);
        }
    }

    #[test]
    fn the_limit_that_is_advised_is_enough() {
        let advice = |bytes| Excess { transaction: 745, bytes }.advice();
        let message = "transaction 745 needs 3.1 GB of temporary files, more than temp_file_limit allows";
        assert_eq!(advice(3_328_599_655), (message.to_owned(), "4GB".to_owned()));
        assert!(advice(9 << 20).0.contains("9.0 MB"));
        assert_eq!(advice(9 << 20).1, "11MB");
        assert!(advice(1000).0.contains("1 kB"));
    }

    #[test]
    fn a_file_that_fails_loses_nothing() {
        let mut spool = Spool::new(10, || Err(io::Error::other("no room")));
        spool.push(1, b"short").unwrap();
        assert!(spool.push(1, b"longer than that").is_err());
        assert_eq!(all(&mut spool), [&b"short"[..]]);
        spool.make_file = temporary_file;
        spool.push(1, b"longer than that").unwrap();
        spool.push(1, b"").unwrap();
        assert_eq!(all(&mut spool), [&b"short"[..], b"longer than that", b""]);
        assert_eq!((spool.spilled(), spool.len()), (23, 24));
    }
}

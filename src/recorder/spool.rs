//! The documents that wait to be recorded: in memory up to a limit, the rest in a file.
#![forbid(unsafe_code)]

use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom, Write};

/// Makes an empty file that goes when it is closed.
pub type MakeFile = fn() -> io::Result<File>;

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
}

impl Spool {
    /// An empty one that keeps so many bytes in memory.
    pub fn new(limit: usize, make_file: MakeFile) -> Self {
        Self { memory: Vec::new(), limit, file: None, in_file: 0, make_file, file_limit: u64::MAX }
    }

    /// Adds one document, or several with newlines between them. Fails if the file does.
    pub fn push(&mut self, documents: &[u8]) -> io::Result<()> {
        self.memory.reserve(documents.len() + 1);
        self.memory.extend_from_slice(documents);
        self.memory.push(b'\n');
        if self.memory.len() > self.limit {
            self.spill()?;
        }
        Ok(())
    }

    fn spill(&mut self) -> io::Result<()> {
        if self.in_file + self.memory.len() as u64 > self.file_limit {
            let message = format!("it would grow beyond temp_file_limit, which is {} kB", self.file_limit / 1024);
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, message));
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert((self.make_file)()?),
        };
        // What a failure may have left behind is written over.
        file.seek(SeekFrom::Start(self.in_file))?;
        file.write_all(&self.memory)?;
        self.in_file += self.memory.len() as u64;
        self.memory.clear();
        self.memory.shrink_to(self.limit);
        Ok(())
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
    }
}

/// The documents of a spool, one after the other.
pub struct Lines<'a> {
    reader: Box<dyn BufRead + 'a>,
}

impl Lines<'_> {
    /// Sets `line` to the next document; false if there is none. Fails if the file does.
    pub fn next(&mut self, line: &mut Vec<u8>) -> io::Result<bool> {
        line.clear();
        if self.reader.read_until(b'\n', line)? == 0 {
            return Ok(false);
        }
        line.pop();
        Ok(true)
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
                spool.push(document).unwrap();
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

    #[test]
    fn a_file_that_fails_loses_nothing() {
        let mut spool = Spool::new(10, || Err(io::Error::other("no room")));
        spool.push(b"short").unwrap();
        assert!(spool.push(b"longer than that").is_err());
        assert!(spool.push(b"more").is_err());
        assert_eq!(all(&mut spool), [&b"short"[..], b"longer than that", b"more"]);
        spool.make_file = temporary_file;
        spool.push(b"").unwrap();
        assert_eq!(all(&mut spool).len(), 4);
        assert_eq!(spool.spilled(), spool.len());
        spool.file_limit = spool.spilled() + 10;
        spool.push(b"1234567890").unwrap_err();
        spool.file_limit += 1;
        spool.push(b"").unwrap_err();
        spool.file_limit += 1;
        spool.push(b"").unwrap_err();
        spool.file_limit += 1;
        spool.spill().unwrap();
        assert_eq!(all(&mut spool).len(), 7);
    }
}

//! Cuts a stream where its content says, so that an insertion moves no cut but its own.
//! Owns the buffers that the stream passes through; hashes and stores nothing.

use crate::scan::Scanner;
use crate::{BlobError, MAX_CHUNK};
use std::io::{self, Read};

// Changing these (or the algorithm) costs deduplication against what is stored, nothing else.
const MIN: usize = 16 << 10;
const AVG: usize = 64 << 10;
const MAX: usize = MAX_CHUNK as usize;

/// Bytes that are handled at a time; of the order of a core's cache.
pub(crate) const BLOCK: usize = 1 << 20;

/// Whole chunks that lie one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Block {
    buf: Vec<u8>,
    /// Place where each chunk ends in `buf`.
    ends: Vec<usize>,
}

impl Block {
    pub fn chunks(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        self.ends.iter().map(move |end| {
            let chunk = &self.buf[from..*end];
            from = *end;
            chunk
        })
    }
}

/// Reads blocks off a stream.
pub(crate) struct Chunker<R> {
    source: R,
    scanner: Scanner,
    /// The beginning of the next chunk, whose end is not read yet.
    rest: Vec<u8>,
    ended: bool,
}

impl<R: Read> Chunker<R> {
    pub fn new(source: R) -> Self {
        let scanner = Scanner::new(MIN, AVG, MAX);
        Self { source, scanner, rest: Vec::with_capacity(MAX), ended: false }
    }

    /// Returns whether the stream has been read to its end.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// The next block, in the memory of one that is done with; without chunks only when the
    /// stream is empty.
    pub fn next(&mut self, mut block: Block) -> Result<Block, BlobError> {
        block.ends.clear();
        block.buf.resize(BLOCK, 0);
        let mut filled = self.rest.len();
        block.buf[..filled].copy_from_slice(&self.rest);
        while filled < BLOCK && !self.ended {
            match self.source.read(&mut block.buf[filled..]) {
                Ok(0) => self.ended = true,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(BlobError::Source(e)),
            }
        }
        let mut at = 0;
        // A cut found with less than the longest chunk to look at could be wrong.
        while filled - at >= MAX || (self.ended && at < filled) {
            at += self.scanner.cut(&block.buf[at..filled]);
            block.ends.push(at);
        }
        self.rest.clear();
        self.rest.extend_from_slice(&block.buf[at..filled]);
        Ok(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives few bytes at a time.
    struct Dribble<'a>(&'a [u8], usize);

    impl Read for Dribble<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            let n = self.1.min(buf.len());
            self.0.read(&mut buf[..n])
        }
    }

    fn lengths(source: impl Read) -> (Vec<usize>, Vec<u8>) {
        let mut chunker = Chunker::new(source);
        let (mut lengths, mut all, mut block) = (vec![], vec![], Block::default());
        while !chunker.ended() {
            block = chunker.next(block).unwrap();
            for chunk in block.chunks() {
                lengths.push(chunk.len());
                all.extend_from_slice(chunk);
            }
        }
        (lengths, all)
    }

    #[test]
    fn cuts_do_not_depend_on_how_the_stream_arrives() {
        let mut data = vec![0; 5 * BLOCK + 12345];
        blake3::Hasher::new().finalize_xof().fill(&mut data);
        data[BLOCK..2 * BLOCK].fill(0);
        let whole: Vec<usize> =
            fastcdc::v2020::FastCDC::new(&data, MIN, AVG, MAX).map(|c| c.length).collect();
        for step in [1000, 65536, usize::MAX] {
            let (lengths, all) = lengths(Dribble(&data, step));
            assert_eq!(lengths, whole);
            assert!(all == data);
        }
        assert!(whole.iter().all(|len| *len <= MAX));
        assert!(whole[..whole.len() - 1].iter().all(|len| *len >= MIN));
    }

    #[test]
    fn short_streams() {
        for len in [0, 1, MIN - 1, MIN, MIN + 1] {
            let data = vec![9; len];
            let (lengths, all) = lengths(&data[..]);
            assert_eq!(all, data);
            assert_eq!(lengths.len(), usize::from(len > 0));
        }
    }
}

//! Replies on their way to a client: bytes, with large values in between by reference.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use crate::blob::{BLOB_BYTES_MIN, Blob, Value};

/// Bytes of memory that are kept for the next replies.
const KEPT: usize = 256 * 1024;

/// A queue of bytes. Append at the back; send `front` and `advance` by what was sent.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    /// What of `bytes` is sent.
    sent: usize,
    /// Large values and where in `bytes` they go.
    blobs: VecDeque<(usize, Arc<Blob>)>,
    /// What of the first blob is sent.
    blob_sent: usize,
    /// Bytes of all blobs together.
    blob_bytes: usize,
}

impl Output {
    /// How many bytes are waiting.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent + self.blob_bytes - self.blob_sent
    }

    /// Whether nothing is waiting.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Appends a decimal number.
    pub fn push_int(&mut self, value: i64) {
        let mut digits = [0u8; 20];
        let mut at = digits.len();
        let mut rest = value.unsigned_abs();
        loop {
            at -= 1;
            digits[at] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        if value < 0 {
            self.bytes.push(b'-');
        }
        self.bytes.extend_from_slice(&digits[at..]);
    }

    /// Appends a value: a copy of a small one, a reference to a large one.
    pub fn push_value(&mut self, value: Value<'_>) {
        match value {
            Value::Inline(bytes) => self.push(bytes),
            Value::Blob(blob) => self.push_blob(blob.share()),
        }
    }

    /// Appends a large value.
    pub fn push_blob(&mut self, blob: Arc<Blob>) {
        if blob.len() < BLOB_BYTES_MIN {
            blob.chunks().for_each(|chunk| self.bytes.extend_from_slice(chunk));
        } else {
            self.blob_bytes += blob.len();
            self.blobs.push_back((self.bytes.len(), blob));
        }
    }

    /// A mark to which `rewind` can return, while nothing has been sent since.
    pub fn mark(&self) -> (usize, usize) {
        (self.bytes.len(), self.blobs.len())
    }

    /// Takes back what was appended since `mark`.
    pub fn rewind(&mut self, mark: (usize, usize)) {
        self.bytes.truncate(mark.0);
        while self.blobs.len() > mark.1 {
            self.blob_bytes -= self.blobs.pop_back().map_or(0, |(_, blob)| blob.len());
        }
    }

    /// Takes back what was appended since `mark`, to be appended later.
    pub fn split_off(&mut self, mark: (usize, usize)) -> Output {
        let bytes = self.bytes.split_off(mark.0);
        let blobs: VecDeque<_> =
            self.blobs.split_off(mark.1).into_iter().map(|(at, blob)| (at - mark.0, blob)).collect();
        let blob_bytes = blobs.iter().map(|(_, blob)| blob.len()).sum();
        self.blob_bytes -= blob_bytes;
        Output { bytes, sent: 0, blobs, blob_sent: 0, blob_bytes }
    }

    /// Appends all of `other`, of which nothing has been sent.
    pub fn append(&mut self, other: &mut Output) {
        let at = self.bytes.len();
        self.bytes.append(&mut other.bytes);
        self.blobs.extend(other.blobs.drain(..).map(|(place, blob)| (at + place, blob)));
        self.blob_bytes += std::mem::take(&mut other.blob_bytes);
    }

    /// Takes everything, of which nothing has been sent, as pieces; `chunks` makes them of a large value.
    pub fn take_pieces<I: Iterator<Item = Bytes>>(
        &mut self,
        chunks: impl Fn(&Arc<Blob>) -> I,
    ) -> VecDeque<Bytes> {
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        let (mut pieces, mut from) = (VecDeque::new(), 0);
        for (at, blob) in self.blobs.drain(..) {
            pieces.push_back(bytes.slice(from..at));
            pieces.extend(chunks(&blob));
            from = at;
        }
        pieces.push_back(bytes.slice(from..));
        self.clear();
        pieces.retain(|piece| !piece.is_empty());
        pieces
    }

    /// The next bytes to send, in one piece; empty when nothing is waiting.
    pub fn front(&self) -> &[u8] {
        match self.blobs.front() {
            Some((at, blob)) if *at == self.sent => blob.piece(self.blob_sent),
            Some((at, _)) => &self.bytes[self.sent..*at],
            None => &self.bytes[self.sent..],
        }
    }

    /// Forgets the first `count` bytes of `front`: they are sent.
    pub fn advance(&mut self, count: usize) {
        match self.blobs.front() {
            Some((at, blob)) if *at == self.sent => {
                self.blob_sent += count;
                if self.blob_sent == blob.len() {
                    self.blob_bytes -= blob.len();
                    self.blob_sent = 0;
                    self.blobs.pop_front();
                }
            }
            _ => self.sent += count,
        }
        if self.is_empty() {
            self.clear();
        } else if self.sent >= KEPT && self.sent >= self.bytes.len() / 2 {
            // Where more is appended before all is sent, what is sent must not stay for ever.
            self.bytes.drain(..self.sent);
            self.blobs.iter_mut().for_each(|(at, _)| *at -= self.sent);
            self.sent = 0;
        }
    }

    /// Forgets everything, and gives memory back that few replies need.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.blobs.clear();
        (self.sent, self.blob_sent, self.blob_bytes) = (0, 0, 0);
    }
}

impl std::io::Write for Output {
    /// Never fails: appends.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.push(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::NoSpace;

    fn drain(output: &mut Output, step: usize) -> Vec<u8> {
        let mut sent = Vec::new();
        while !output.is_empty() {
            let count = output.front().len().min(step);
            sent.extend_from_slice(&output.front()[..count]);
            output.advance(count);
        }
        sent
    }

    #[test]
    fn what_is_sent_takes_no_memory_although_something_is_always_unsent() -> Result<(), NoSpace> {
        let blob = Arc::new(Blob::new(&[7; BLOB_BYTES_MIN], &Arc::default())?);
        let (mut output, mut pushed, mut sent) = (Output::default(), Vec::new(), Vec::new());
        for step in 0..400u32 {
            let piece = [step as u8; 65_536];
            output.push(&piece);
            pushed.extend_from_slice(&piece);
            if step % 50 == 0 {
                output.push_blob(Arc::clone(&blob));
                blob.chunks().for_each(|chunk| pushed.extend_from_slice(chunk));
            }
            while output.len() > 200_000 {
                let count = output.front().len().min(70_000);
                sent.extend_from_slice(&output.front()[..count]);
                output.advance(count);
            }
            assert!(output.bytes.capacity() < 4 * KEPT, "{}", output.bytes.capacity());
        }
        sent.extend(drain(&mut output, usize::MAX));
        assert_eq!(sent, pushed);
        Ok(())
    }

    #[test]
    fn bytes_and_blobs_come_out_in_order() -> Result<(), NoSpace> {
        let large: Vec<u8> = (0..2_500_000u32).map(|i| (i % 253) as u8).collect();
        let blob = Arc::new(Blob::new(&large, &Arc::default())?);
        for step in [1_000, 65_536, usize::MAX] {
            let mut output = Output::default();
            output.push_blob(Arc::clone(&blob));
            output.push(b"middle");
            output.push_blob(Arc::clone(&blob));
            output.push_blob(Arc::clone(&blob));
            let mark = output.mark();
            output.push(b"taken back");
            output.push_blob(Arc::clone(&blob));
            output.rewind(mark);
            output.push_int(i64::MIN);
            assert_eq!(output.len(), 3 * large.len() + 26);
            assert_eq!(
                drain(&mut output, step),
                [&large, &b"middle"[..], &large, &large, b"-9223372036854775808"].concat()
            );
        }
        assert_eq!(Arc::strong_count(&blob), 1);
        Ok(())
    }
}

//! Unguessable numbers from one seed: the driver brings the seed, so that a simulation can be replayed.

use zeroize::Zeroizing;

use crate::sodium;

/// BLAKE2b in counter mode. As strong as its seed is secret.
pub struct Rng {
    seed: Zeroizing<[u8; 32]>,
    counter: u64,
}

impl Rng {
    /// Numbers that follow from `seed`: 32 bytes from the system's source, or a test's.
    pub fn new(seed: [u8; 32]) -> Self {
        Rng { seed: Zeroizing::new(seed), counter: 0 }
    }

    /// Fills `out`.
    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(64) {
            let mut block = Zeroizing::new([0; 64]);
            sodium::hash(&self.seed[..], &[&self.counter.to_le_bytes()], &mut block[..]);
            chunk.copy_from_slice(&block[..chunk.len()]);
            self.counter += 1;
        }
    }

    /// An array of unguessable bytes.
    pub fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.fill(&mut out);
        out
    }

    /// Any 64-bit number.
    pub fn number(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Another source, of which this one tells nothing.
    pub fn fork(&mut self) -> Rng {
        Rng::new(self.array())
    }
}

impl std::fmt::Debug for Rng {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Rng(..)")
    }
}

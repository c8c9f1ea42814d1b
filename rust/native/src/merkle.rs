//! The merkle tree as a Python class.

use parking_lot::Mutex;
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use turbopump_core::merkle::{self, Digest, DigestKey};
use turbopump_core::version::Version;

use crate::values::Key;

/// A digest tree.
#[pyclass(frozen, module = "turbopump._native")]
pub struct MerkleTree {
    secret: DigestKey,
    tree: Mutex<merkle::MerkleTree>,
}

impl MerkleTree {
    /// A tree that was made elsewhere. Entries can be compared with it, and changed only under its secret.
    pub fn of(secret: DigestKey, tree: merkle::MerkleTree) -> Self {
        MerkleTree { secret, tree: Mutex::new(tree) }
    }

    fn toggle(&self, key: &Key, version: &str) -> PyResult<()> {
        let version: Version = version.parse().map_err(|error| PyValueError::new_err(format!("{error}")))?;
        self.tree.lock().toggle(&self.secret, &key.0, version, false);
        Ok(())
    }
}

fn bytes(py: Python<'_>, digest: Digest) -> Bound<'_, PyBytes> {
    PyBytes::new(py, &digest.to_be_bytes())
}

#[pymethods]
impl MerkleTree {
    #[new]
    #[pyo3(signature = (secret = [0; 16]))]
    fn new(secret: [u8; 16]) -> Self {
        MerkleTree::of(DigestKey::new(&secret), merkle::MerkleTree::new())
    }

    fn insert(&self, key: Key, version: &str) -> PyResult<()> {
        self.toggle(&key, version)
    }

    fn remove(&self, key: Key, version: &str) -> PyResult<()> {
        self.toggle(&key, version)
    }

    fn root<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        bytes(py, self.tree.lock().root())
    }

    fn branch<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyBytes>> {
        let digest = self.tree.lock().branch(index);
        Ok(bytes(py, digest.ok_or_else(|| PyIndexError::new_err("branches are 0 to 127"))?))
    }

    fn slot<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyBytes>> {
        let digest = self.tree.lock().slot(index);
        Ok(bytes(py, digest.ok_or_else(|| PyIndexError::new_err("slots are 0 to 16383"))?))
    }

    fn diff(&self, other: &Self) -> Vec<u16> {
        // One lock at a time: two threads may compare the same trees the other way round.
        let other = other.tree.lock().clone();
        self.tree.lock().diff(&other)
    }

    fn copy(&self) -> Self {
        MerkleTree::of(self.secret.clone(), self.tree.lock().clone())
    }

    fn __eq__(&self, other: &Self) -> bool {
        let other = other.tree.lock().clone();
        *self.tree.lock() == other
    }
}

//! The merkle tree as a Python class.

use parking_lot::Mutex;
use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt};
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

/// An index; a number that can be none, negative or too large, is beyond every range.
fn index_of(number: &Bound<'_, PyAny>) -> PyResult<usize> {
    Ok(number.cast::<PyInt>()?.extract().unwrap_or(usize::MAX))
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

    fn branch<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let digest = self.tree.lock().branch(index_of(index)?);
        Ok(bytes(py, digest.ok_or_else(|| PyIndexError::new_err("branches are 0 to 127"))?))
    }

    fn slot<'py>(&self, py: Python<'py>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
        let digest = self.tree.lock().slot(index_of(index)?);
        Ok(bytes(py, digest.ok_or_else(|| PyIndexError::new_err("slots are 0 to 16383"))?))
    }

    fn diff(&self, other: &Self) -> PyResult<Vec<u16>> {
        if !self.secret.is(&other.secret) {
            return Err(PyValueError::new_err("the trees have different secrets: they cannot be compared"));
        }
        // One lock at a time: two threads may compare the same trees the other way round.
        let other = other.tree.lock().clone();
        Ok(self.tree.lock().diff(&other))
    }

    fn copy(&self) -> Self {
        MerkleTree::of(self.secret.clone(), self.tree.lock().clone())
    }

    fn __eq__(&self, other: &Self) -> bool {
        let tree = other.tree.lock().clone();
        self.secret.is(&other.secret) && *self.tree.lock() == tree
    }
}

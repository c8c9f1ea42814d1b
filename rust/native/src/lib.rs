//! The Python module `turbopump._native`: each function extracts, detaches, calls and maps the error. Not a
//! place for decisions, and nothing of Python's is kept here.

mod codec;
mod engine;
mod error;
mod events;
mod load;
mod merkle;
mod options;
mod ring;
mod transfer;
mod values;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Has the allocator keep what is freed until `release_memory`: by itself it would give memory back within
/// some client's command, and a gibibyte takes tens of milliseconds.
fn keep_memory() {
    // SAFETY: the function may be called at any time, from any thread.
    #[cfg(feature = "mimalloc")]
    unsafe {
        const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15; // mi_option_purge_delay, in milliseconds
        libmimalloc_sys::mi_option_set(PURGE_DELAY, i32::MAX.into());
    }
}

/// Has the allocator give unused memory back to the system.
fn release_memory() {
    // SAFETY: the function may be called at any time, from any thread.
    #[cfg(feature = "mimalloc")]
    unsafe {
        libmimalloc_sys::mi_collect(true);
    }
}

/// The module itself. Its documentation is in `_native.pyi`.
#[pyo3::pymodule]
mod _native {
    use pyo3::prelude::*;
    use pyo3::types::PyDict;

    #[pymodule_export]
    use super::codec::{Answer, ClientCodec};
    #[pymodule_export]
    use super::engine::{Engine, Entry, Watch};
    #[pymodule_export]
    use super::error::{
        ConflictError, DeniedError, NoSpaceError, NodeFailedError, NotFoundError, ProtocolError,
        RequestError, TurbopumpError, UnavailableError,
    };
    #[pymodule_export]
    use super::events::{Appeared, Asked, Changed, Drained, Failed, Logged, Replied, Stirred};
    #[pymodule_export]
    use super::merkle::MerkleTree;
    #[pymodule_export]
    use super::ring::Ring;
    use super::values::Key;
    #[pymodule_export]
    use super::values::Refusal;

    #[pymodule_init]
    fn init(_module: &Bound<'_, PyModule>) -> PyResult<()> {
        super::keep_memory();
        Ok(())
    }

    #[pyfunction]
    fn key_slot(key: Key) -> u16 {
        turbopump_core::slot::key_slot(&key.0)
    }

    #[pyfunction]
    fn load<'py>(py: Python<'py>, options: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyDict>> {
        super::load::load(py, options)
    }

    #[pyfunction]
    fn transfer_send<'py>(
        py: Python<'py>,
        options: &Bound<'py, PyDict>,
        watch: Py<PyAny>,
    ) -> PyResult<Bound<'py, PyDict>> {
        super::transfer::transfer_send(py, options, &watch)
    }

    #[pyfunction]
    fn transfer_serve(
        py: Python<'_>,
        options: &Bound<'_, PyDict>,
        bound: Py<PyAny>,
        watch: Py<PyAny>,
    ) -> PyResult<()> {
        super::transfer::transfer_serve(py, options, &bound, &watch)
    }

    #[pyfunction]
    fn build_info(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
        let info = PyDict::new(py);
        info.set_item("version", env!("CARGO_PKG_VERSION"))?;
        info.set_item("profile", if cfg!(debug_assertions) { "debug" } else { "release" })?;
        info.set_item("git", env!("TURBOPUMP_COMMIT"))?;
        Ok(info)
    }
}

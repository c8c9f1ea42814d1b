//! Libraries that are looked for while running: nothing is linked, and a missing one costs one transport.

use libloading::Library;

use crate::error::LabError;

/// A library that stays loaded: its threads run until the process ends.
#[derive(Clone, Copy)]
pub struct Loaded {
    library: &'static Library,
    name: &'static str,
    package: &'static str,
}

/// Loads a library of Debian's.
pub fn load(name: &'static str, package: &'static str) -> Result<Loaded, LabError> {
    // SAFETY: libudt and libsrt set up only their own variables when they are loaded.
    let library = unsafe { Library::new(name) };
    let library = library.map_err(|source| LabError::Library { library: name, package, source })?;
    Ok(Loaded { library: Box::leak(Box::new(library)), name, package })
}

impl Loaded {
    /// A function of the library.
    ///
    /// # Safety
    ///
    /// `F` must be the type of the C function of that name: `unsafe extern "C" fn(...) -> ...`.
    pub unsafe fn function<F: Copy>(self, name: &'static str) -> Result<F, LabError> {
        // SAFETY: the caller knows the type; the library is never unloaded, so the function stays.
        let found = unsafe { self.library.get::<F>(name) };
        let missing = |source| LabError::Library { library: self.name, package: self.package, source };
        found.map(|function| *function).map_err(missing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_a_readable_line() {
        let error = load("libnone.so.9", "libnone9").err().unwrap().to_string();
        assert!(error.starts_with("libnone.so.9 is missing: apt-get install libnone9 ("), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

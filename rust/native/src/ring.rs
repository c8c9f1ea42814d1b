//! The ring of slots as a Python class.

use std::collections::BTreeMap;

use pyo3::exceptions::{PyIndexError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyMapping};
use turbopump_core::layout::{Layout, Member};
use turbopump_core::slot::{SLOTS, key_slot};

use crate::values::Key;

/// Which members keep which slots.
#[pyclass(frozen, module = "turbopump._native")]
pub struct Ring {
    layout: Layout,
}

impl Ring {
    fn names(&self, slot: u16) -> Vec<&str> {
        self.layout.replicas(slot).iter().map(|&member| self.name(member)).collect()
    }

    fn name(&self, member: u16) -> &str {
        &self.layout.members()[usize::from(member)].name
    }
}

/// Names with their weights, or names alone, which weigh the same.
fn weights(members: &Bound<'_, PyAny>) -> PyResult<BTreeMap<String, u32>> {
    if let Ok(mapping) = members.cast::<PyMapping>() {
        return mapping.items()?.iter().map(|item| item.extract::<(String, u32)>()).collect();
    }
    let mut weights = BTreeMap::new();
    for name in members.try_iter()? {
        let name: String = name?.extract()?;
        if weights.insert(name.clone(), 1).is_some() {
            return Err(PyValueError::new_err(format!(
                "two members are called {name}: give one another name"
            )));
        }
    }
    Ok(weights)
}

#[pymethods]
impl Ring {
    #[new]
    #[pyo3(signature = (members, *, copies = 3, zones = None, before = None))]
    fn new(
        py: Python<'_>,
        members: &Bound<'_, PyAny>,
        copies: usize,
        zones: Option<BTreeMap<String, String>>,
        before: Option<PyRef<'_, Ring>>,
    ) -> PyResult<Self> {
        let (weights, zones) = (weights(members)?, zones.unwrap_or_default());
        if let Some(name) = zones.keys().find(|name| !weights.contains_key(*name)) {
            return Err(PyValueError::new_err(format!("zones names {name}, which is no member")));
        }
        let member = |(name, weight): (String, u32)| {
            let zone = zones.get(&name).cloned().unwrap_or_default();
            Member { name, zone, weight }
        };
        let members = weights.into_iter().map(member).collect();
        let before = before.as_ref().map(|before| &before.layout);
        let layout = py.detach(|| Layout::new(members, copies, before));
        layout.map(|layout| Ring { layout }).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    #[getter]
    fn members<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let members = PyDict::new(py);
        for member in self.layout.members() {
            members.set_item(&member.name, member.weight)?;
        }
        Ok(members)
    }

    #[getter]
    fn copies(&self) -> usize {
        self.layout.copies()
    }

    fn owners(&self, key: Key) -> Vec<&str> {
        self.names(key_slot(&key.0))
    }

    fn owners_of_slot(&self, slot: &Bound<'_, PyAny>) -> PyResult<Vec<&str>> {
        match slot.extract::<u16>() {
            Ok(slot) if usize::from(slot) < SLOTS => Ok(self.names(slot)),
            _ => Err(PyIndexError::new_err(format!("slots are 0 to {}", SLOTS - 1))),
        }
    }

    fn loads<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let loads = PyDict::new(py);
        for (member, load) in self.layout.members().iter().zip(self.layout.loads()) {
            loads.set_item(&member.name, load)?;
        }
        Ok(loads)
    }

    fn plan<'py>(&self, py: Python<'py>, before: PyRef<'py, Ring>) -> PyResult<Bound<'py, PyDict>> {
        let old = &before.layout;
        let plan = py.detach(|| self.layout.plan(old));
        let (dict, members) = (PyDict::new(py), PyDict::new(py));
        for (name, gains, losses) in plan.members {
            members.set_item(name, (gains, losses))?;
        }
        dict.set_item("moves", plan.moves)?;
        dict.set_item("bound", plan.bound)?;
        dict.set_item("members", members)?;
        Ok(dict)
    }

    fn __eq__(&self, other: &Bound<'_, PyAny>) -> bool {
        other.cast::<Ring>().is_ok_and(|other| other.get().layout == self.layout)
    }

    fn __repr__(&self) -> String {
        format!("Ring({} members, copies={})", self.layout.members().len(), self.layout.copies())
    }
}

//! Numbers that Python sees without a copy.

use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Rows of f32, read-only.
#[pyclass(frozen, module = "ternary_lm")]
pub(crate) struct Matrix {
    values: Vec<f32>,
    columns: usize,
}

impl Matrix {
    /// `values` in rows of `columns`.
    pub(crate) fn new(values: Vec<f32>, columns: usize) -> Self {
        Self { values, columns }
    }

    /// The rows of equal length one after the other; `columns` if there are none.
    pub(crate) fn of_rows(rows: &[Vec<f32>], columns: usize) -> Self {
        Self { columns: rows.first().map_or(columns, Vec::len), values: rows.concat() }
    }

    fn rows(&self) -> usize {
        self.values.len() / self.columns.max(1)
    }

    fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.columns..][..self.columns]
    }
}

#[pymethods]
impl Matrix {
    #[getter]
    fn shape(&self) -> (usize, usize) {
        (self.rows(), self.columns)
    }

    /// NumPy's description of memory: `numpy.asarray` makes an array over it, which keeps this object alive.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let about = PyDict::new(py);
        about.set_item("version", 3)?;
        about.set_item("typestr", if cfg!(target_endian = "little") { "<f4" } else { ">f4" })?;
        about.set_item("shape", self.shape())?;
        // Read-only: nothing here changes, and other threads may read it.
        about.set_item("data", (self.values.as_ptr().expose_provenance(), true))?;
        Ok(about)
    }

    /// `numpy.asarray` of it.
    fn numpy<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("numpy")?.call_method1("asarray", (slf,))
    }

    fn tolist(&self) -> Vec<Vec<f32>> {
        (0..self.rows()).map(|row| self.row(row).to_vec()).collect()
    }

    fn __len__(&self) -> usize {
        self.rows()
    }

    fn __getitem__(&self, row: isize) -> PyResult<Vec<f32>> {
        let rows = self.rows();
        let from_end = || row.checked_add_unsigned(rows).and_then(|row| usize::try_from(row).ok());
        match usize::try_from(row).ok().or_else(from_end).filter(|row| *row < rows) {
            Some(row) => Ok(self.row(row).to_vec()),
            None => Err(PyIndexError::new_err(format!("row {row} of a matrix of {rows} rows"))),
        }
    }

    fn __repr__(&self) -> String {
        format!("Matrix({} rows of {} float32)", self.rows(), self.columns)
    }
}

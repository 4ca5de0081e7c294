//! The figures that are measured, each beside its target.

use serde::Serialize;

/// The figures of a run.
pub(crate) type Figures = Vec<Figure>;

/// A figure beside its target.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    pub what: &'static str,
    pub value: f64,
    pub unit: &'static str,
    pub target: &'static str,
}

/// Adds a figure.
pub(crate) fn put(
    figures: &mut Figures,
    what: &'static str,
    value: f64,
    unit: &'static str,
    target: &'static str,
) {
    figures.push(Figure { what, value, unit, target });
}

"""Flatness of the loss surface (ANALYSIS-6).

The caller provides a loss that is a pure function of the parameters: evaluation mode (no dropout), a fixed slice of
training rows, float32 or more, TF32 off. Compare values only within one family, one loss, one scaling of targets and
one slice.
"""

from analysis.measures.flatness.average import Average
from analysis.measures.flatness.hessian import (
    Curvature,
    GatedProduct,
    finite_difference_product,
    gated_product,
    hessian_product,
    relative_flatness,
    top_eigenvalue,
    trace,
)
from analysis.measures.flatness.perturbation import low_pass, random_sharpness, sam_sharpness
from analysis.measures.flatness.weights import curve_flatness, weight_spectral

__all__ = [
    "Average",
    "Curvature",
    "GatedProduct",
    "curve_flatness",
    "finite_difference_product",
    "gated_product",
    "hessian_product",
    "low_pass",
    "random_sharpness",
    "relative_flatness",
    "sam_sharpness",
    "top_eigenvalue",
    "trace",
    "weight_spectral",
]

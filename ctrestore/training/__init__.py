"""Training beyond MONAI: state, weights, precision, inferers, handlers."""

"""What a training needs beside MONAI: state, weights, precision, inferers, handlers."""

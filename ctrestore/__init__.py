"""ctrestore: what MONAI lacks for giving back what a scan lost (PET partial volume, CT dose and resolution)."""

__version__ = "0.1.0"

__all__ = ["__version__"]

"""MONAI transforms, one file a subject."""

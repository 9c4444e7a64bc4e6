"""All file formats, and atomic writing."""

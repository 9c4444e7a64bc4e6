"""Every file format, and writing whole or not at all."""

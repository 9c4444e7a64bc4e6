"""Scores, tables, panels and inserted discs of restored CT slices, for the CT tasks."""

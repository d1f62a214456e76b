"""Stands in for the `cml` package that exists only inside a workbench."""

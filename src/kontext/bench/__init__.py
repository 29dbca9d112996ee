"""Measure editing exactly: metrics, suites and reports over anything that has an Editor's ``edit``."""

"""Configuration: pydantic specs, loading with file and line, cross-reference checks.

Imports nothing else of the package.
"""

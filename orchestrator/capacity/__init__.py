"""Capacity: burst triggers and the replica planner.

Pure: observations and state in, targets out, the clock passed in. Imports `policy` and `config`.
"""

"""Placement: facts about a request and a snapshot in, a decision with reasons out.

Pure: no I/O, no clock, no globals. Only a `Grant` made here lets the gateway open an upstream.
Imports `orchestrator.config` alone.
"""

"""Measured inputs of decisions: latency windows, engine metrics, price quotes, gateway reports.

Every signal carries its age. Imports `orchestrator.config` alone.
"""

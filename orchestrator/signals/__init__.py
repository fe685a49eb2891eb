"""Measured inputs of decisions: latency windows, engine metrics, price quotes, gateway reports;
and how a metric of our own is described.

Every signal carries its age. Imports `orchestrator.config` alone.
"""

"""Pools: observe and set replicas. Nothing else talks to Ray.

Imports `policy`, `signals` and `config`.
"""

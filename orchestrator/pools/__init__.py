"""Pools: observe and set replicas. Nothing else talks to Ray or Kubernetes.

Imports `policy`, `signals` and `config`.
"""

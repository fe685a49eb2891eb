"""The control plane: observe, plan, execute, publish. One process leads.

Imports `capacity`, `pools`, `ledger`, `policy`, `signals` and `config`.
"""

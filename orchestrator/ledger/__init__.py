"""Money and proof: what was used, by whom, where, and what the capacity cost.

Append-only. No request waits for it. Imports `config` alone.
"""

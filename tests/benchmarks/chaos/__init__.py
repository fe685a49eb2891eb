"""The local stack under faults, and what must hold all the same."""

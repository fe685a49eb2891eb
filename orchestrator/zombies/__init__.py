"""What is paid for and does nothing: found, priced, and given back by policy. Pure: a sweep, what
the one before it noted, and the clock are arguments. What is not known is never a zombie.

Imports `policy`, `signals` and `config`.
"""

"""How fast a running engine is: measured from outside, and fitted to what `performance` says.

Imports `replay`, `signals`, `config`.
"""

"""The local stack: Ray clusters, gateway and controller on this machine.

Imports `config`, `policy` and `pools`; everything else it starts as processes of their own.
"""

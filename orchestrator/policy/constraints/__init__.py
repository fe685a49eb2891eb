"""Hard constraints, one a module, with its code and its sentence.

`lasting` ones depend on the configuration alone, `momentary` ones on the request and the state of
the fleet. The reason shown is the most lasting one.
"""

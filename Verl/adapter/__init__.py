"""Everything that touches verl's private parts, in one place.

Written against verl 0.9.1. Each module says which private name it relies on and why; `interface.py` lists them all,
and tests/adapter/test_interface.py fails loudly when a new verl moves one.
"""

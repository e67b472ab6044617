"""What verl needs from us on every device. What a CPU needs besides is in Verl/cpu.

Written against verl 0.9.1. `interface.py` has every private name that is built on and the one table of what is replaced;
tests/adapter/test_interface.py fails loudly when a new verl moves one.
"""

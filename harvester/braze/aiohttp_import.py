"""Imports aiohttp without the certificates that it loads for two contexts of its own, which are not used here.

``connections`` loads them once, and only for https. This saves 0.1 s of a start where they are in one file, as on most
systems; OpenSSL reads a folder of them later. Import aiohttp from here.
"""

import ssl

ssl.SSLContext.set_default_verify_paths = lambda _: None  # type: ignore[assignment]
try:
    import aiohttp
finally:
    del ssl.SSLContext.set_default_verify_paths  # the method of its base class is visible again

__all__ = ["aiohttp"]

"""Imports aiohttp without loading the machine's certificates. Modules of this package import aiohttp from here.

When it is imported, aiohttp creates two TLS contexts with these certificates, which harvester does not use. Not loading
them saves 0.1 s of each start on systems with all certificates in one file, which are most. ``connections`` loads them
once, and only for https.
"""

import ssl

ssl.SSLContext.set_default_verify_paths = lambda _: None  # type: ignore[assignment] # only for the import below
try:
    import aiohttp
finally:
    del ssl.SSLContext.set_default_verify_paths  # the method of its base class is visible again

__all__ = ["aiohttp"]

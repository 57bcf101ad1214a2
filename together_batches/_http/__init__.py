"""HTTP: one request out, one response or one typed error back. The only package that knows aiohttp."""

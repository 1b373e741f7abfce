"""How bytes are kept: the S3 adapter, the virus scanner, and the removal of objects that nobody needs."""

"""Upload and download; bytes in S3."""

"""The migrations of file-api's database."""

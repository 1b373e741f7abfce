"""What a file looks like to people: its media type, its name, its thumbnail."""

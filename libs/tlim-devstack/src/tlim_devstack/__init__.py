"""Real servers for development and tests, from wheels and Debian packages."""

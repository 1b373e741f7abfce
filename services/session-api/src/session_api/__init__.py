"""Sessions, subscribers and the users directory."""

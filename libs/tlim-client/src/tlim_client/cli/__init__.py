"""The `tlim` command: a conversation in two terminals."""

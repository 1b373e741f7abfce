"""The one exception of the development stack: a sentence for the person who typed the command."""


class StackError(Exception):
    """A failure that one clear line explains: a taken port, a missing tool, a full disk, a server that cannot start."""

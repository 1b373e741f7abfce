"""The reading side: what a person may see of the log, as history, sync, list of conversations, and read lists."""

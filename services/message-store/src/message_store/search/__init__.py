"""Search: what a message can be found by, the index behind the log, and the questions it answers."""

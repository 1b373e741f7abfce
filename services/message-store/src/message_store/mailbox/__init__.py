"""Mailboxes: how far each person has taken over what the log has for them, and what they have missed."""

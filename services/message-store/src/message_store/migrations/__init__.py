"""The history of message-store's tables."""

"""The history of session-api's tables."""

"""The command `doctor`: looks at everything that a deployment needs, and says what to change."""

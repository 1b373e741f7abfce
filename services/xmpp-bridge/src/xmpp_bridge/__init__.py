"""The XMPP side: component, translation, tokens."""

"""What a component and a client of an XMPP server have in common."""

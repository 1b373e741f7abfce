"""Code that components and clients of an XMPP server share."""

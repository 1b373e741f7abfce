"""The tlim command and its library: XMPP and HTTP, as a client sees them."""

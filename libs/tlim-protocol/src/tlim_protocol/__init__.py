"""What goes over the wire: envelope, message types, error codes, subjects and streams; pure, without I/O."""

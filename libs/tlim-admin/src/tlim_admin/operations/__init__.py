"""Commands that ask message-store's page of operations, through the gateway, with a token of scope `admin`."""

"""Both servers share this: limits of connections, the check of a request's sender, and an orderly end."""

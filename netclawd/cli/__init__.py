"""The two commands: ``netclawd`` (the daemon) and ``netclaw`` (the client)."""

"""The subcommands of `inmail`, one module each."""

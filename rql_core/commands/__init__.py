"""One file a sub-command of `rql`; what is heavy is imported when a command runs."""

"""The command line. Built on `zkside.client` alone, but for `serve`, `dev` and `config`, which need the daemon."""


def main() -> None:
    """The entry point of the command `zkside`. Imports late: `--help` and completion load no gRPC."""
    from zkside.cli.root import zkside

    zkside(prog_name="zkside")

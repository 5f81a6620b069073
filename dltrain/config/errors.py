"""What is wrong with a command line; nothing is imported, so that help and TAB can say it too."""


class UsageError(Exception):
    """The command line cannot be read."""

    exit_code = 2


class ConfigError(Exception):
    """The command line was read, and is refused."""

    exit_code = 78


class UnknownName(ConfigError):  # noqa: N818
    """It names a group, an option or a key that there is not."""

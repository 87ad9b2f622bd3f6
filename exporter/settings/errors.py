"""The one error of this folder."""


class ConfigurationError(ValueError):
    """The configuration cannot be used; the text has one line per problem."""

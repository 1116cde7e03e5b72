"""What cachepoint raises, as a tree.

CachepointError
├── ConfigurationError      a setting of the user's is wrong; raised before anything is sent
│   └── RulesError          a row of a model table is wrong
├── MissingDependencyError  a package of an extra is not installed; names the pip command
├── InvalidToolCall         a model's tool call is no whole one; raised in place of running it
├── BudgetExceeded          a budget the user set is spent; raised before the next call
├── EmulatorError           the embedded emulator could not start or was asked the impossible
└── IllegalStep             a mistake of ours: a step that the call's state does not allow (core/exchange.py)

Caching itself never raises: when cachepoint cannot plan, the request goes out as the user wrote it.
Messages name the offending value and the remedy, and never carry prompt text.
"""


class CachepointError(Exception):
    """The root of everything cachepoint raises itself."""


class ConfigurationError(CachepointError, ValueError):
    """A setting is wrong; the message names the value and what to write instead."""


class RulesError(ConfigurationError):
    """A row of a model table is wrong; the message names the row and the field."""


class MissingDependencyError(CachepointError, ImportError):
    """A package that an extra brings is not installed; the message names the pip command."""


class InvalidToolCall(CachepointError, ValueError):
    """A tool call was cut off, by `max_tokens` for one, or has no JSON object for arguments; it was not run."""


class BudgetExceeded(CachepointError):
    """The budget the user set is spent; raised before the next call is sent."""


class EmulatorError(CachepointError):
    """The embedded emulator could not start or was asked for what it cannot do."""


class IllegalStep(CachepointError, RuntimeError):
    """A step of a call that its state does not allow: a mistake of whoever drives it, never of the user's."""


class CachepointWarning(UserWarning):
    """Caching does less than it could, and the message says what to change; the call itself is unharmed."""

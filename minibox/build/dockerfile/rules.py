"""The rules of ``--check``: their names, descriptions and messages are Docker's.

Source: https://docs.docker.com/reference/build-checks/
"""

from __future__ import annotations

from minibox.record import record

_DOCUMENTATION = "https://docs.docker.com/go/dockerfile/rule/"


@record
class Rule:
    """A rule; ``message`` is filled in by `str.format`. An ``experimental`` one is off unless asked for."""

    name: str
    page: str
    description: str
    message: str
    experimental: bool = False

    @property
    def url(self) -> str:
        """Where Docker explains it."""
        return f"{_DOCUMENTATION}{self.page}/"


@record
class Finding:
    """What a rule found. ``line`` and ``column`` count from 1; ``last_line`` is the instruction's last."""

    rule: Rule
    message: str
    line: int
    column: int
    last_line: int


STAGE_NAME_CASING = Rule(
    "StageNameCasing",
    "stage-name-casing",
    "Stage names should be lowercase",
    "Stage name '{name}' should be lowercase",
)
FROM_AS_CASING = Rule(
    "FromAsCasing",
    "from-as-casing",
    "The 'as' keyword should match the case of the 'from' keyword",
    "'{word}' and '{keyword}' keywords' casing do not match",
)
NO_EMPTY_CONTINUATION = Rule(
    "NoEmptyContinuation",
    "no-empty-continuation",
    "Empty continuation lines will become errors in a future release",
    "Empty continuation line",
)
CONSISTENT_INSTRUCTION_CASING = Rule(
    "ConsistentInstructionCasing",
    "consistent-instruction-casing",
    "All commands within the Dockerfile should use the same casing (either upper or lower)",
    "Command '{keyword}' should match the case of the command majority ({casing})",
)
DUPLICATE_STAGE_NAME = Rule(
    "DuplicateStageName",
    "duplicate-stage-name",
    "Stage names should be unique",
    'Duplicate stage name "{name}", stage names should be unique',
)
RESERVED_STAGE_NAME = Rule(
    "ReservedStageName",
    "reserved-stage-name",
    "Reserved words should not be used as stage names",
    'Stage name should not use the same name as reserved stage "{name}"',
)
JSON_ARGS_RECOMMENDED = Rule(
    "JSONArgsRecommended",
    "json-args-recommended",
    "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    "JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals",
)
MAINTAINER_DEPRECATED = Rule(
    "MaintainerDeprecated",
    "maintainer-deprecated",
    "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    "Maintainer instruction is deprecated in favor of using label",
)
UNDEFINED_ARG_IN_FROM = Rule(
    "UndefinedArgInFrom",
    "undefined-arg-in-from",
    "FROM command must use declared ARGs",
    "FROM argument '{name}' is not declared{meant}",
)
WORKDIR_RELATIVE_PATH = Rule(
    "WorkdirRelativePath",
    "workdir-relative-path",
    "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base "
    "image changes",
    'Relative workdir "{path}" can have unexpected results if the base image changes',
)
UNDEFINED_VAR = Rule(
    "UndefinedVar",
    "undefined-var",
    "Variables should be defined before their use",
    "Usage of undefined variable '${name}'{meant}",
)
MULTIPLE_INSTRUCTIONS_DISALLOWED = Rule(
    "MultipleInstructionsDisallowed",
    "multiple-instructions-disallowed",
    "Multiple instructions of the same type should not be used in the same stage",
    "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used",
)
LEGACY_KEY_VALUE_FORMAT = Rule(
    "LegacyKeyValueFormat",
    "legacy-key-value-format",
    "Legacy key/value format with whitespace separator should not be used",
    '"{keyword} key=value" should be used instead of legacy "{keyword} key value" format',
)
REDUNDANT_TARGET_PLATFORM = Rule(
    "RedundantTargetPlatform",
    "redundant-target-platform",
    "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    "Setting platform to predefined {platform} in FROM is redundant as this is the default behavior",
)
SECRETS_USED_IN_ARG_OR_ENV = Rule(
    "SecretsUsedInArgOrEnv",
    "secrets-used-in-arg-or-env",
    "Sensitive data should not be used in the ARG or ENV commands",
    'Do not use ARG or ENV instructions for sensitive data ({keyword} "{name}")',
)
INVALID_DEFAULT_ARG_IN_FROM = Rule(
    "InvalidDefaultArgInFrom",
    "invalid-default-arg-in-from",
    "Default value for global ARG results in an empty or invalid base image name",
    "Default value for ARG {image} results in empty or invalid base image name",
)
FROM_PLATFORM_FLAG_CONST_DISALLOWED = Rule(
    "FromPlatformFlagConstDisallowed",
    "from-platform-flag-const-disallowed",
    "FROM --platform flag should not use a constant value",
    'FROM --platform flag should not use constant value "{platform}"',
)
COPY_IGNORED_FILE = Rule(
    "CopyIgnoredFile",
    "copy-ignored-file",
    "Attempting to Copy file that is excluded by .dockerignore",
    'Attempting to {verb} file "{path}" that is excluded by .dockerignore',
    experimental=True,
)
INVALID_DEFINITION_DESCRIPTION = Rule(
    "InvalidDefinitionDescription",
    "invalid-definition-description",
    "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not "
    "intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    "Comment for {what} should follow the format: `# {name} <description>`",
    experimental=True,
)
EXPOSE_PROTO_CASING = Rule(
    "ExposeProtoCasing",
    "expose-proto-casing",
    "Protocol in EXPOSE instruction should be lowercase",
    "Defined protocol '{port}' in EXPOSE instruction should be lowercase",
)
EXPOSE_INVALID_FORMAT = Rule(
    "ExposeInvalidFormat",
    "expose-invalid-format",
    "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future "
    "release",
    "EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'",
)
RULES = {rule.name: rule for rule in list(globals().values()) if isinstance(rule, Rule)}

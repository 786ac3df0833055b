"""Which rules ``--check`` applies: ``# check=skip=RULE,RULE;error=true;experimental=RULE``.

It stands at the top of a Dockerfile, in a comment right before an instruction and only for that, or in the build argument
BUILDKIT_DOCKERFILE_CHECK, which replaces the one at the top.
"""

from __future__ import annotations

from minibox.base.values import truth
from minibox.build.dockerfile.lines import Problem
from minibox.build.dockerfile.rules import Rule
from minibox.record import record

BUILD_ARG = "BUILDKIT_DOCKERFILE_CHECK"
_ALL = "all"


@record
class CheckOptions:
    """``skip`` and ``experimental`` are rules' names, or "all"; ``error``: a finding makes the build fail."""

    skip: frozenset[str] = frozenset()
    experimental: frozenset[str] = frozenset()
    error: bool = False

    def applies(self, rule: Rule) -> bool:
        """Tell whether a rule is to be applied."""
        if _ALL in self.skip or rule.name in self.skip:
            return False
        return not rule.experimental or _ALL in self.experimental or rule.name in self.experimental

    def with_comment(self, comments: tuple[str, ...]) -> CheckOptions:
        """Add what the comments before an instruction say."""
        for comment in comments:
            name, equals, text = comment.partition("=")
            if equals and name.strip().lower() == "check":
                more = parse_check_options(text)
                self = CheckOptions(
                    self.skip | more.skip, self.experimental | more.experimental, self.error or more.error
                )
        return self


def parse_check_options(text: str) -> CheckOptions:
    """Parse the value of ``check``, which ends at a space. A rule that isn't known may be one of a newer Docker.

    Raises:
        Problem: an unknown option.
    """
    found: dict[str, str] = {}
    for part in text.strip().split(" ")[0].split(";"):
        name, equals, value = (word.strip() for word in part.partition("="))
        if name not in ("skip", "error", "experimental") or not equals:
            if not part.strip():
                continue
            hint = "write # check=skip=RULE,RULE;error=true;experimental=RULE"
            raise Problem(f"invalid check option {part.strip()!r}", hint, at=part.strip())
        found[name] = value
    try:
        error = truth(found.get("error", "false"))
    except ValueError:
        raise Problem(f"invalid check option error={found['error']!r}", "write error=true", at=found["error"]) from None
    return CheckOptions(_rules(found.get("skip", "")), _rules(found.get("experimental", "")), error)


def _rules(text: str) -> frozenset[str]:
    return frozenset(name for name in text.split(",") if name)

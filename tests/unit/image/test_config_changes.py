"""What --change makes of a config: the same as a Dockerfile would."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minibox.errors import UsageError
from minibox.image.layout.config_changes import INSTRUCTIONS, apply_changes

BASE = {"Cmd": ["sh"], "Env": ["PATH=/bin", "A=1"], "WorkingDir": "/srv"}


@pytest.mark.parametrize(
    ("instruction", "changed"),
    [
        ('CMD ["a", "b c"]', {"Cmd": ["a", "b c"]}),
        ("CMD echo $HOME", {"Cmd": ["/bin/sh", "-c", "echo $HOME"]}),
        ("CMD=/bin/true", {"Cmd": ["/bin/sh", "-c", "/bin/true"]}),
        ("cmd [not json", {"Cmd": ["/bin/sh", "-c", "[not json"]}),
        ("ENV B=2", {"Env": ["PATH=/bin", "A=1", "B=2"]}),
        ("ENV A=2 B='x $A' C=\"y $A\"", {"Env": ["PATH=/bin", "A=2", "B=x $A", "C=y 1"]}),
        ("ENV B some words", {"Env": ["PATH=/bin", "A=1", "B=some words"]}),
        ("ENV PATH=/x:$PATH", {"Env": ["PATH=/x:/bin", "A=1"]}),
        ("ENV B=${N:-none}${A:+some}", {"Env": ["PATH=/bin", "A=1", "B=nonesome"]}),
        (r"ENV B=a\ b\$A", {"Env": ["PATH=/bin", "A=1", "B=a b$A"]}),
        ("ENV B=", {"Env": ["PATH=/bin", "A=1", "B="]}),
        ('LABEL "a b"=c d=e=f', {"Labels": {"a b": "c", "d": "e=f"}}),
        ("EXPOSE 80 53/udp 1000-1001", {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "1000/tcp": {}, "1001/tcp": {}}}),
        ("USER 1000:users", {"User": "1000:users"}),
        ("VOLUME /a /b", {"Volumes": {"/a": {}, "/b": {}}}),
        ('VOLUME ["/a b"]', {"Volumes": {"/a b": {}}}),
        ("WORKDIR sub/../other", {"WorkingDir": "/srv/other"}),
        ("WORKDIR /new", {"WorkingDir": "/new"}),
        ("WORKDIR //new", {"WorkingDir": "/new"}),
        ("STOPSIGNAL SIGQUIT", {"StopSignal": "SIGQUIT"}),
        ("STOPSIGNAL 9", {"StopSignal": "9"}),
        ("STOPSIGNAL SIGRTMIN+3", {"StopSignal": "SIGRTMIN+3"}),
        ("ONBUILD RUN make", {"OnBuild": ["RUN make"]}),
        ("HEALTHCHECK NONE", {"Healthcheck": {"Test": ["NONE"]}}),
        (
            "HEALTHCHECK --interval=1m30s --timeout=1.5s --retries=2 CMD curl -f localhost",
            {
                "Healthcheck": {
                    "Test": ["CMD-SHELL", "curl -f localhost"],
                    "Interval": 90_000_000_000,
                    "Timeout": 1_500_000_000,
                    "Retries": 2,
                }
            },
        ),
        ('HEALTHCHECK CMD ["a"]', {"Healthcheck": {"Test": ["CMD", "a"]}}),
    ],
)
def test_instruction(instruction, changed):
    assert apply_changes(BASE, [instruction]) == {**BASE, **changed}
    assert BASE["Env"] == ["PATH=/bin", "A=1"], "the config that was given stays as it was"


def test_entrypoint_forgets_an_inherited_cmd_only():
    assert "Cmd" not in apply_changes(BASE, ['ENTRYPOINT ["e"]'])
    both = apply_changes(BASE, ['CMD ["c"]', 'ENTRYPOINT ["e"]'])
    assert (both["Entrypoint"], both["Cmd"]) == (["e"], ["c"])
    assert "Entrypoint" not in apply_changes({"Entrypoint": ["e"]}, ["ENTRYPOINT []"])


@pytest.mark.parametrize(
    ("instruction", "said"),
    [
        ("", "no such instruction"),
        ("RUN make", "no such instruction"),
        ("ENV", "ENV needs a value"),
        ("ENV A", "write A=VALUE"),
        ("ENV A=1 B", "write B=VALUE"),
        ("ENV A='x", "a quote isn't closed"),
        ("ENV =x", "a name is empty"),
        ("EXPOSE web", "web is not a port"),
        ("EXPOSE 70000", "70000 is not a port"),
        ("EXPOSE 80/icmp", "unknown protocol"),
        ("USER a b", "exactly one word"),
        ("STOPSIGNAL SIGNOTHING", "no such signal: SIGNOTHING"),
        ("ONBUILD FROM x", "FROM isn't allowed"),
        ("HEALTHCHECK --interval=soon CMD x", "soon is not a time"),
        ("HEALTHCHECK --colour=red CMD x", "unknown option --colour"),
        ("HEALTHCHECK curl", "HEALTHCHECK NONE"),
        ("LABEL a=${b c}", "not a valid variable"),
    ],
)
def test_malformed_instruction_is_named(instruction, said):
    with pytest.raises(UsageError, match=said) as caught:
        apply_changes(BASE, [instruction])
    assert repr(instruction) in str(caught.value)


@given(st.sampled_from(sorted(INSTRUCTIONS)), st.text(alphabet="ab=$ {}'\"\\[],:-/10 \u00e9", max_size=12))
def test_any_text_is_applied_or_refused(name, text):
    try:
        changed = apply_changes(BASE, [f"{name} {text}"])
    except UsageError:
        return
    assert isinstance(changed, dict)

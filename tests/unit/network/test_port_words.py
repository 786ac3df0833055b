"""Published ports as they are written and shown."""

from __future__ import annotations

from typing import Any

import pytest

from minibox.cli.commands.ps import format_ports
from minibox.docker_words.ports import bindings, parse_expose, parse_publish, publish
from minibox.engine.report.listing import parse_container_filters
from minibox.engine.spec.options import RunOptions
from minibox.engine.spec.ports import exposed_ports, wanted_ports, with_publish_address
from minibox.errors import ConfigError, UsageError

IMAGE: dict[str, Any] = {"ExposedPorts": {"80/tcp": {}, "53/udp": {}, "443": {}}}


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("80", ["0.0.0.0:*->80/tcp"]),
        ("8080:80", ["0.0.0.0:8080->80/tcp"]),
        ("8080:80/UDP", ["0.0.0.0:8080->80/udp"]),
        ("127.0.0.1:8080:80", ["127.0.0.1:8080->80/tcp"]),
        ("127.0.0.1::80", ["127.0.0.1:*->80/tcp"]),
        (":80", ["0.0.0.0:*->80/tcp"]),
        ("0:80", ["0.0.0.0:*->80/tcp"]),
        ("8000-8001:9000-9001", ["0.0.0.0:8000->9000/tcp", "0.0.0.0:8001->9001/tcp"]),
        ("8000-8005:80", ["0.0.0.0:8000-8005->80/tcp"]),
        ("7000-7001", ["0.0.0.0:*->7000/tcp", "0.0.0.0:*->7001/tcp"]),
        ("published=8080,target=80,protocol=udp", ["0.0.0.0:8080->80/udp"]),
        ("target=80", ["0.0.0.0:*->80/tcp"]),
    ],
)
def test_publish_is_dockers(word, meant):
    assert list(map(str, wanted_ports(RunOptions("web", publish=(parse_publish(word),)), {}))) == meant


def test_a_port_of_each_side_is_the_same_as_a_word():
    for inside, outside, word in ((80, 8080, "8080:80"), ("53/udp", "127.0.0.1:5353", "127.0.0.1:5353:53/udp")):
        assert publish(inside, outside).ports == parse_publish(word).ports


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("", "no port specified: <empty>"),
        ("8080:", "no port specified: 8080:<empty>"),
        ("http", "invalid containerPort: http"),
        ("70000", "invalid containerPort: 70000"),
        ("0", "invalid containerPort: 0"),
        ("x:80", "invalid hostPort: x"),
        ("90-80:80", "invalid hostPort: 90-80"),
        ("80-82:80-81", "invalid ranges specified for container and host Ports: 80-81 and 80-82"),
        ("localhost:80:80", "invalid IP address: localhost"),
        ("1.2.3.400:80:80", "invalid IP address: 1.2.3.400"),
        ("[::1]:80:80", "containers have IPv4 addresses only"),
        ("80/sctp", "invalid proto: sctp"),
        ("target=80,host=1", "invalid publish opts format"),
        ("٣:80", "invalid hostPort"),
    ],
)
def test_what_cant_be_published_is_told_in_dockers_words(word, said):
    with pytest.raises(UsageError, match=said.replace("[", r"\[")):
        parse_publish(word)


def test_expose():
    assert [*parse_expose("80").ports(), *parse_expose("8000-8001/udp").ports()] == [
        (80, "tcp"),
        (8000, "udp"),
        (8001, "udp"),
    ]
    for word in ("80:80", "x", "", "80/icmp"):
        with pytest.raises(UsageError):
            parse_expose(word)
    options = RunOptions("web", expose=(parse_expose("9000"),))
    assert exposed_ports(options, IMAGE) == {(80, "tcp"), (53, "udp"), (443, "tcp"), (9000, "tcp")}


def test_publish_all_is_what_is_exposed_and_not_published_otherwise():
    options = RunOptions(
        "web",
        publish=(parse_publish("8080:80"),),
        publish_all=True,
        expose=(parse_expose("9000"),),
        publish_address="127.0.0.1",
    )
    assert list(map(str, wanted_ports(options, IMAGE))) == [
        "127.0.0.1:8080->80/tcp", "127.0.0.1:*->53/udp", "127.0.0.1:*->443/tcp", "127.0.0.1:*->9000/tcp",
    ]  # fmt: skip
    assert wanted_ports(RunOptions("web"), IMAGE) == ()


def test_the_address_is_the_configurations_where_none_is_given(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('[network]\npublish_address = "127.0.0.1"\n')
    options = RunOptions("web", publish=(parse_publish("80"),))
    environ = {"MINIBOX_CONFIG": str(config)}
    assert with_publish_address(options, environ).publish_address == "127.0.0.1"
    assert (
        with_publish_address(options, {**environ, "MINIBOX_PUBLISH_ADDRESS": "10.0.0.1"}).publish_address == "10.0.0.1"
    )
    config.write_text('[network]\npublish_address = "localhost"\n')
    with pytest.raises(UsageError, match="'localhost' is not an IPv4 address"):
        with_publish_address(options, environ)
    config.write_text("[network]\naddress = 1\n")
    with pytest.raises(ConfigError, match="network.address is unknown"):
        with_publish_address(options, environ)


def test_bindings_are_dockers():
    assert bindings(["8080:80", "127.0.0.1::80", "8000-8010:90/udp"]) == {
        "80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": ""}],
        "90/udp": [{"HostIp": "", "HostPort": "8000-8010"}],
    }


@pytest.mark.parametrize(
    ("ports", "shown"),
    [
        ([], ""),
        ([(80, "tcp", "0.0.0.0", 8080)], "0.0.0.0:8080->80/tcp"),
        ([(80, "tcp", "0.0.0.0", 80), (81, "tcp", "0.0.0.0", 81)], "0.0.0.0:80-81->80-81/tcp"),
        ([(80, "tcp", "0.0.0.0", 80), (81, "tcp", "127.0.0.1", 81)], "0.0.0.0:80->80/tcp, 127.0.0.1:81->81/tcp"),
        (
            [(53, "udp", "", 0), (80, "tcp", "0.0.0.0", 8080), (80, "tcp", "127.0.0.1", 80), (443, "tcp", "", 0)],
            "53/udp, 127.0.0.1:80->80/tcp, 443/tcp, 0.0.0.0:8080->80/tcp",
        ),
        ([(80, "tcp", "", 0), (82, "tcp", "", 0)], "80/tcp, 82/tcp"),
    ],
)
def test_ps_shows_ports_as_docker_does(ports, shown):
    assert format_ports(ports) == shown


def test_filters_with_a_port_that_is_none_are_refused():
    parse_container_filters(["publish=80", "expose=8000-8010/udp", "is-task=false"])
    for word in ("publish=http", "expose=80/icmp", "is-task=maybe"):
        with pytest.raises(UsageError):
            parse_container_filters([word])

"""The distributed set-up fits itself and the product, as far as that can be seen without running it."""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml
from prometheus_client import Counter, Gauge, Histogram

from infra.settings import Settings
from infra.telemetry import metrics
from schemas.agents import Lane

Node = dict[str, Any]

PROCESSES = {"gateway", "orchestrator", "agents", "upkeep", "dead-letters", "deliveries"}
PROFILES = {
    "gpu": {"tgi"},
    "vllm": {"vllm"},
    "simulators": {"simulator-tgi", "simulator-openai"},
    "observe": {"prometheus", "grafana"},
}
CONDITIONS = {"service_healthy", "service_completed_successfully"}
FOREIGN_VARIABLES = {"OPENAI_API_KEY"}

COMMAND = re.compile(
    r"migrate|topics --partitions \d+"
    rf"|serve (?P<process>{'|'.join(sorted(PROCESSES - {'agents'}))})"
    rf"|serve agents --lane (?P<lane>{'|'.join(re.escape(lane) for lane in Lane)})"
    r"|simulate (?:tgi|openai) --host \S+ --port \d+"
)
"""What the command line understands, of what a container would ask it."""


@pytest.fixture(scope="module")
def compose(root: Path) -> Node:
    """The compose file, parsed."""
    return yaml.safe_load((root / "compose.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def services(compose: Node) -> dict[str, Node]:
    """Its services."""
    return compose["services"]


@pytest.fixture(scope="module")
def deploy(root: Path) -> Path:
    """The folder of deployment files."""
    return root / "infra" / "deploy"


def _ours(services: dict[str, Node]) -> dict[str, Node]:
    return {name: service for name, service in services.items() if service["image"].startswith("fairlead")}


def _variables() -> set[str]:
    names: set[str] = set()
    for name, field in Settings.model_fields.items():
        names.add(f"FAIRLEAD_{name.upper()}")
        alias = field.validation_alias
        names |= {choice for choice in getattr(alias, "choices", ()) if isinstance(choice, str)}
    return names


def test_each_dependency_can_be_waited_for(services: dict[str, Node]) -> None:
    """A service waits only for services that exist, that are healthy by a check of their own or end by themselves."""
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            assert needed in services, f"{name} waits for {needed}"
            assert how["condition"] in CONDITIONS
            if how["condition"] == "service_healthy":
                assert services[needed]["healthcheck"]["test"], f"{name} waits for the health of {needed}"
            else:
                assert services[needed]["restart"] == "no"
            assert not services[needed].get("profiles") or services[needed]["profiles"] == service["profiles"]


def test_every_lasting_service_has_a_health_check(services: dict[str, Node]) -> None:
    """Only the one-shot migration has none."""
    assert {name for name, service in services.items() if "healthcheck" not in service} == {"migrate", "topics"}


def test_every_command_is_one_of_ours(services: dict[str, Node]) -> None:
    """Containers of our image ask the command line for things it knows."""
    for name, service in _ours(services).items():
        assert COMMAND.fullmatch(" ".join(service["command"])), name


def test_each_lane_has_workers(services: dict[str, Node]) -> None:
    """Every lane is worked by one service, and the processes that are alone are there once."""
    asked = [COMMAND.fullmatch(" ".join(service["command"])) for service in _ours(services).values()]
    lanes = [match["lane"] for match in asked if match is not None and match["lane"]]
    assert sorted(lanes) == sorted(lane.value for lane in Lane)
    alone = [match["process"] for match in asked if match is not None and match["process"]]
    assert {"gateway", "orchestrator", "upkeep"} <= set(alone)
    assert len(alone) == len(set(alone))


def test_every_variable_is_a_setting(services: dict[str, Node], deploy: Path) -> None:
    """Each FAIRLEAD_ variable, in the compose file and the env files, is read by the settings."""
    known = _variables()
    for name, service in _ours(services).items():
        given = set(cast("Node", service.get("environment", {})))
        assert {variable for variable in given - FOREIGN_VARIABLES if variable not in known} == set(), name
    for path in sorted((deploy / "env").glob("*.env")):
        given = set(re.findall(r"^(FAIRLEAD_\w+)=", path.read_text(encoding="utf-8"), re.MULTILINE))
        assert given - known == set(), path.name


def test_profiles_hold_what_is_optional(services: dict[str, Node]) -> None:
    """Model servers, simulators and observation are each behind their profile; everything else always runs."""
    found = {
        profile: {name for name in services if profile in services[name].get("profiles", [])} for profile in PROFILES
    }
    assert found == PROFILES
    assert {profile for service in services.values() for profile in service.get("profiles", [])} == PROFILES.keys()


def test_model_servers_load_the_adapter_of_the_policy(services: dict[str, Node], root: Path) -> None:
    """TGI and vLLM serve the model and the adapter that the shipped policy names."""
    policy = yaml.safe_load((root / "infra" / "policy.yaml").read_text(encoding="utf-8"))
    slm = policy["models"]["discovery-slm"]
    tgi, vllm = " ".join(services["tgi"]["command"]), " ".join(services["vllm"]["command"])
    assert services["tgi"]["image"].endswith("text-generation-inference:3.3.7")
    assert f"--model-id={slm['model']}" in tgi
    assert f"--lora-adapters={slm['adapter']}=/adapters/{slm['adapter']}" in tgi
    assert f"--model={slm['model']} --enable-lora --lora-modules {slm['adapter']}=/adapters/{slm['adapter']}" in vllm


def test_each_env_file_names_a_server_that_its_profile_starts(services: dict[str, Node], deploy: Path) -> None:
    """The addresses in an env file belong to services of the profile it selects."""
    files = sorted((deploy / "env").glob("*.env"))
    assert {path.stem for path in files} == {"simulators", "gpu", "vllm"}
    for path in files:
        text = path.read_text(encoding="utf-8")
        (profile,) = re.findall(r"^COMPOSE_PROFILES=(\w+)$", text, re.MULTILINE)
        hosts = re.findall(r"^\w+=https?://([\w-]+):(\d+)", text, re.MULTILINE)
        assert hosts
        for host, port in hosts:
            assert profile in services[host]["profiles"]
            assert port in " ".join(services[host]["command"]) + str(services[host]["healthcheck"])


def test_required_values_are_given_for_trying_it_out(root: Path, deploy: Path) -> None:
    """The simulators' env file sets every variable that the compose file refuses to start without."""
    needed = set(re.findall(r"\$\{(\w+):\?", (root / "compose.yaml").read_text(encoding="utf-8")))
    given = set(re.findall(r"^(\w+)=\S", (deploy / "env" / "simulators.env").read_text(encoding="utf-8"), re.MULTILINE))
    assert needed
    assert needed <= given


def test_images_are_pinned_and_volumes_are_declared(compose: Node, services: dict[str, Node], root: Path) -> None:
    """No image floats on `latest`, named volumes are declared, mounted folders of the repository exist."""
    for name, service in services.items():
        assert re.search(r":(?!latest)[\w.-]+$", service["image"]), name
        for volume in cast("list[str]", service.get("volumes", [])):
            source = volume.split(":", 1)[0]
            if source.startswith("./"):
                assert (root / source).exists(), source
            elif not source.startswith("$"):
                assert source in compose["volumes"], source


def test_workers_may_finish_what_they_carry(services: dict[str, Node]) -> None:
    """A stopped process is given longer than it takes to drain."""
    drain = Settings().drain_seconds
    for name, service in _ours(services).items():
        if service["command"][0] == "serve":
            assert int(service["stop_grace_period"].removesuffix("s")) > drain, name


def _instructions(dockerfile: str) -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n", " ", dockerfile)
    lines = [line.strip() for line in joined.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def test_the_dockerfile_reads_as_one(root: Path, deploy: Path) -> None:
    """Known instructions only, stages that exist, sources that are in the build's context, and no root at the end."""
    instructions = _instructions((deploy / "Dockerfile").read_text(encoding="utf-8"))
    words = [word for word, _ in instructions]
    assert set(words) <= {
        *("FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "STOPSIGNAL", "EXPOSE", "ENTRYPOINT", "CMD")
    }
    assert words[0] == "FROM"
    stages = {rest.split(" AS ")[1] for word, rest in instructions if word == "FROM" and " AS " in rest}
    allowed = re.findall(r"^!(\S+)$", (root / ".dockerignore").read_text(encoding="utf-8"), re.MULTILINE)
    for word, rest in instructions:
        for stage in re.findall(r"(?:--from=|from=)(\w+)", rest):
            assert stage in stages
        if word == "COPY" and "--from" not in rest:
            assert set(rest.split()[:-1]) <= set(allowed), rest
    assert words.index("USER") > max(index for index, word in enumerate(words) if word == "RUN")
    assert json.loads(dict(instructions)["ENTRYPOINT"]) == ["fairlead"]


def test_the_image_holds_every_package(root: Path, deploy: Path) -> None:
    """Each package that the build distributes is copied into the image."""
    declared = re.search(r"^include = \[(.+)\]$", (root / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert declared is not None
    packages = set(re.findall(r'"(\w+)\*"', declared[1]))
    copied = {rest.split()[0] for word, rest in _instructions((deploy / "Dockerfile").read_text()) if word == "COPY"}
    assert packages <= copied


def _served() -> set[str]:
    """Return the names of the catalogue as Prometheus sees them."""
    names: set[str] = set()
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            (family,) = metric.describe()
            names.add(f"{family.name}_total" if isinstance(metric, Counter) else family.name)
    return names


def _expressions(deploy: Path) -> Iterator[str]:
    rules = yaml.safe_load((deploy / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]
    board = json.loads((deploy / "grafana" / "dashboards" / "fairlead.json").read_text(encoding="utf-8"))
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]


def test_alerts_and_panels_ask_for_numbers_that_exist(deploy: Path) -> None:
    """Every metric named in an alert or on the dashboard is in the catalogue, and brackets are balanced."""
    served = _served()
    expressions = list(_expressions(deploy))
    assert len(expressions) > 30
    for expression in expressions:
        for name in re.findall(r"fairlead_\w+", expression):
            assert name in served or re.sub(r"_(bucket|sum|count)$", "", name) in served, expression
        for opening, closing in ("()", "[]", "{}"):
            assert expression.count(opening) == expression.count(closing), expression


def test_alerts_and_panels_ask_by_labels_that_exist(deploy: Path) -> None:
    """Every label by which an expression chooses among the series of a number is one that the number has."""
    labels: dict[str, set[str]] = {}
    for metric in vars(metrics).values():
        if isinstance(metric, Counter | Gauge | Histogram):
            (family,) = metric.describe()
            names = {*cast("tuple[str, ...]", vars(metric)["_labelnames"]), "job", "service", "instance"}
            labels |= {family.name + end: names for end in ("", "_total", "_bucket", "_sum", "_count")}
    chosen = [found for one in _expressions(deploy) for found in re.findall(r"(fairlead_\w+){([^}]*)}", one)]
    assert len(chosen) > 3
    for name, selector in chosen:
        assert set(re.findall(r"(\w+)\s*(?:!=|=~|!~|=)", selector)) <= labels[name], f"{name}{{{selector}}}"


def test_every_number_is_on_the_dashboard(deploy: Path) -> None:
    """An operator finds each number of the catalogue on the dashboard."""
    asked = " ".join(_expressions(deploy))
    assert {name for name in _served() if name not in asked} == set()


def test_alerts_tell_what_to_do(deploy: Path) -> None:
    """Each alert has a name of its own, a known severity, a sentence that says what is and one that says what to do."""
    groups = yaml.safe_load((deploy / "prometheus" / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    rules = list(itertools.chain.from_iterable(group["rules"] for group in groups))
    assert len({rule["alert"] for rule in rules}) == len(rules)
    for rule in rules:
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"]["summary"].endswith(".")
        assert rule["annotations"]["action"].endswith(".")
        assert re.fullmatch(r"\d+m", rule["for"])


def test_prometheus_finds_every_process(services: dict[str, Node], deploy: Path) -> None:
    """Each service of ours that serves metrics is scraped at the port its environment names."""
    config = yaml.safe_load((deploy / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    job = next(job for job in config["scrape_configs"] if job["job_name"] == "fairlead")
    scraped = {name: entry["port"] for entry in job["dns_sd_configs"] for name in entry["names"]}
    serving = {name: service for name, service in _ours(services).items() if service["command"][0] == "serve"}
    assert scraped.keys() == serving.keys()
    for name, service in serving.items():
        variable = "FAIRLEAD_GATEWAY_PORT" if name == "gateway" else "FAIRLEAD_METRICS_PORT"
        assert str(scraped[name]) == service["environment"][variable]
    assert all((deploy / "prometheus" / name).is_file() for name in config["rule_files"])

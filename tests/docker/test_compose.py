"""docker/compose.yaml without an engine: valid by the specification's schema, and its parts fit each other."""

import json
import re
from pathlib import Path

import jsonschema
import pytest

from tests.docker.compose import DOCKER, VARIABLE, example_environment, load

TEXT = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
FILLED = {**example_environment(), "RAY_AUTH_TOKEN": "token", "POSTGRES_PASSWORD": "password"}
COMPOSE = load(FILLED)
SERVICES = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"].startswith("vocabsem:")]
SECRETS = ("RAY_AUTH_TOKEN", "POSTGRES_PASSWORD")
SCHEMA = json.loads((Path(__file__).parent / "compose_schema" / "compose-spec.json").read_text(encoding="utf-8"))


def option(service: str, name: str) -> str:
    (found,) = [word.partition("=")[2] for word in SERVICES[service]["command"] if word.startswith(f"{name}=")]
    return found


def size(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([mg])b?", text).groups()
    return int(number) << {"m": 20, "g": 30}[unit]


def test_it_is_valid_by_the_specifications_schema():
    jsonschema.Draft7Validator(SCHEMA).validate(COMPOSE)


def test_the_schema_refuses_what_is_no_compose_file():
    broken = {**COMPOSE, "services": {**SERVICES, "mlflow": {**SERVICES["mlflow"], "helthcheck": {}}}}
    with pytest.raises(jsonschema.ValidationError, match="helthcheck"):
        jsonschema.Draft7Validator(SCHEMA).validate(broken)


def test_every_variable_stands_in_the_example_and_the_other_way_round():
    assert {found[1] for found in VARIABLE.finditer(TEXT)} == set(example_environment())


def test_the_examples_values_are_the_files_defaults():
    defaults = {found[1]: found[3] for found in VARIABLE.finditer(TEXT) if found[2] == ":-"}
    assert defaults == {name: value for name, value in example_environment().items() if name not in SECRETS}


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_has_no_default_and_its_absence_is_told(secret):
    assert not example_environment()[secret]
    assert {found[2] for found in VARIABLE.finditer(TEXT) if found[1] == secret} == {":?"}
    with pytest.raises(KeyError, match=rf"{secret}: set it in docker/\.env"):
        load({**FILLED, secret: ""})


def test_the_services_are_there():
    assert set(SERVICES) == {"postgres", "mlflow", "ray-head", "worker", "worker-gpu"}
    assert [name for name in SERVICES if "profiles" in SERVICES[name]] == ["worker-gpu"]
    assert "container_name" not in TEXT  # a service with a fixed name cannot be scaled


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_has_a_health_check_a_command_and_a_restart_policy(name):
    service = SERVICES[name]
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["restart"] == "unless-stopped"
    assert service["command"][0] in ("postgres", "mlflow", "ray")


@pytest.mark.parametrize("name", SERVICES)
def test_each_service_waits_for_the_health_of_what_it_needs(name):
    needs = {"mlflow": "postgres", "ray-head": "mlflow", "worker": "ray-head", "worker-gpu": "ray-head"}
    wanted = {needs[name]: {"condition": "service_healthy"}} if name in needs else {}
    assert SERVICES[name].get("depends_on", {}) == wanted


@pytest.mark.parametrize("name", OURS)
def test_our_images_are_built_from_the_dockerfile_and_run_without_privileges(name):
    service = SERVICES[name]
    assert (DOCKER / service["build"]["context"] / service["build"]["dockerfile"]).samefile(DOCKER / "Dockerfile")
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert not {"privileged", "user", "cap_add", "network_mode", "pid"} & set(service)


def test_one_name_is_one_build():
    builds = {}
    for name in OURS:
        builds.setdefault(SERVICES[name]["image"], []).append(SERVICES[name]["build"])
    assert {image: len({json.dumps(build) for build in found}) for image, found in builds.items()} == {
        "vocabsem:cpu": 1,
        "vocabsem:cuda": 1,
    }
    assert SERVICES["worker-gpu"]["build"]["args"]["TORCH_INDEX"] == "https://pypi.org/simple"


def test_ports_are_those_the_commands_open_and_on_this_machine_only():
    assert SERVICES["mlflow"]["ports"] == [f"127.0.0.1:{option('mlflow', '--port')}:{option('mlflow', '--port')}"]
    dashboard = option("ray-head", "--dashboard-port")
    assert SERVICES["ray-head"]["ports"] == [f"127.0.0.1:{dashboard}:{dashboard}"]
    assert [name for name in SERVICES if "ports" in SERVICES[name]] == ["mlflow", "ray-head"]


@pytest.mark.parametrize(
    ("name", "port", "path"),
    [
        ("mlflow", "--port", "/health"),
        ("ray-head", "--dashboard-port", "/api/gcs_healthz"),
        ("worker", "--dashboard-agent-listen-port", "/api/local_raylet_healthz"),
        ("worker-gpu", "--dashboard-agent-listen-port", "/api/local_raylet_healthz"),
    ],
)
def test_health_is_asked_of_the_port_the_command_opens(name, port, path):
    assert f"'http://127.0.0.1:{option(name, port)}{path}'" in SERVICES[name]["healthcheck"]["test"][-1]


def test_addresses_name_services_and_their_ports():
    assert option("worker", "--address") == f"ray-head:{option('ray-head', '--port')}"
    uri = f"http://mlflow:{option('mlflow', '--port')}"
    assert {SERVICES[name]["environment"]["MLFLOW_TRACKING_URI"] for name in ("ray-head", "worker")} == {uri}
    assert "mlflow:*" in option("mlflow", "--allowed-hosts").split(",")
    database = SERVICES["postgres"]["environment"]
    assert SERVICES["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"] == (
        f"postgresql+psycopg2://{database['POSTGRES_USER']}@postgres:5432/{database['POSTGRES_DB']}"
    )
    health = SERVICES["postgres"]["healthcheck"]["test"]
    assert f"--username={database['POSTGRES_USER']}" in health
    assert f"--dbname={database['POSTGRES_DB']}" in health


def test_every_ray_service_asks_for_the_token():
    for name in ("ray-head", "worker", "worker-gpu"):
        environment = SERVICES[name]["environment"]
        assert (environment["RAY_AUTH_MODE"], environment["RAY_AUTH_TOKEN"]) == ("token", "token")


def test_no_secret_stands_in_a_command():
    for service in SERVICES.values():
        assert not {"token", "password"} & set(re.split(r"[^a-z]+", " ".join(service["command"])))


def test_rays_object_store_fits_the_shared_memory():
    for name in ("ray-head", "worker", "worker-gpu"):
        assert int(option(name, "--object-store-memory")) < size(SERVICES[name]["shm_size"])


def test_the_gpu_worker_has_all_cores_and_memory_of_the_machine():
    assert not {"cpus", "mem_limit"} & SERVICES["worker-gpu"].keys()
    offered = [part for part in SERVICES["worker"]["command"] if not part.startswith("--num-cpus")]
    assert SERVICES["worker-gpu"]["command"] == offered


def test_a_worker_offers_the_cores_it_has():
    assert option("worker", "--num-cpus") == SERVICES["worker"]["cpus"] == "2"
    assert option("ray-head", "--num-cpus") == "0"


def test_mlflow_answers_to_the_name_that_is_given_for_it():
    command = load({**FILLED, "MLFLOW_HOST": "server.example"})["services"]["mlflow"]["command"]
    assert "--allowed-hosts=mlflow:*,localhost:*,127.0.0.1:*,server.example:*" in command
    assert "--cors-allowed-origins=http://server.example:5000" in command


def test_the_head_where_drivers_run_has_a_memory_limit():
    assert size(SERVICES["ray-head"]["mem_limit"]) == 8 << 30


def test_volumes_are_declared_and_the_store_is_shared():
    used = [entry.split(":") for service in SERVICES.values() for entry in service.get("volumes", [])]
    assert {name for name, _ in used} == set(COMPOSE["volumes"])
    for name in ("ray-head", "worker", "worker-gpu"):
        assert {"store:/store", "models:/models"} <= set(SERVICES[name]["volumes"])
    assert option("mlflow", "--artifacts-destination") == "/artifacts"
    assert "artifacts:/artifacts" in SERVICES["mlflow"]["volumes"]


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType")  # mlflow's own, as it is imported
def test_ray_and_mlflow_know_every_option():
    import mlflow.cli
    from ray.scripts.scripts import cli as ray_cli

    for name in OURS:
        program, verb, *arguments = SERVICES[name]["command"]
        command = {"ray": ray_cli, "mlflow": mlflow.cli.cli}[program].commands[verb]
        command.make_context(verb, list(arguments)).close()  # raises for an option or value it does not know

"""docker/Dockerfile and docker/kuberay.yaml without an engine: pinned, without secrets, and of one mind."""

import re

import yaml

from tests.docker.compose import DOCKER, example_environment, load

REPOSITORY = DOCKER.parent
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
LINES = [
    line for line in re.sub(r"\\\n", " ", DOCKERFILE).splitlines() if line.strip() and not line.lstrip().startswith("#")
]
PINNED = dict(
    line.split("==") for line in (REPOSITORY / "constraints.txt").read_text().splitlines() if not line.startswith("#")
)


def instructions(name: str) -> list[str]:
    return [line.removeprefix(f"{name} ") for line in LINES if line.startswith(f"{name} ")]


def test_arguments_have_the_defaults_compose_gives():
    defaults = dict(argument.split("=", 1) for argument in instructions("ARG"))
    assert defaults == {name: example_environment()[name] for name in ("BASE", "TORCH_INDEX")}
    assert instructions("FROM") == ["${BASE} AS build", "${BASE}"]


def test_every_install_is_pinned():
    installs = [part for line in instructions("RUN") for part in line.split("&&") if "pip install" in part]
    assert len(installs) == 4
    for install in installs:
        assert "--constraint constraints.txt" in install or re.search(r"--no-deps (\.|\S+==\S+) *$", install)


def test_the_user_is_not_root_and_owns_the_volumes():
    assert DOCKERFILE.index("USER vocabsem") > DOCKERFILE.index("COPY --from=build")
    assert instructions("USER") == ["vocabsem"]
    owned = re.search(r"mkdir (.*?) && chown vocabsem: (.*?) &&", re.sub(r"\s*\\\n\s*", " ", DOCKERFILE))
    services = load({"RAY_AUTH_TOKEN": "x", "POSTGRES_PASSWORD": "x"})["services"].values()
    mounted = {
        entry.split(":")[1]
        for service in services
        if service["image"].startswith("vocabsem:")
        for entry in service["volumes"]
    }
    assert set(owned[1].split()) == set(owned[2].split()) == mounted


def test_no_secret_and_nothing_but_the_package_enters():
    assert not re.search(r"(?i)password|token|secret", DOCKERFILE)
    allowed = {line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for line in instructions("COPY") if not line.startswith("--from") for source in line.split()[:-1]}
    assert copied == allowed
    assert all((REPOSITORY / source).exists() for source in copied)


def kuberay() -> tuple[dict, dict]:
    claim, cluster = yaml.safe_load_all((DOCKER / "kuberay.yaml").read_text(encoding="utf-8"))
    return claim, cluster


def groups() -> list[dict]:
    spec = kuberay()[1]["spec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


def test_kuberay_runs_the_ray_of_the_constraints_with_a_token():
    _, cluster = kuberay()
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    assert cluster["spec"]["rayVersion"] == PINNED["ray"]
    auth = cluster["spec"]["authOptions"]
    assert auth == {"mode": "token", "secretName": "vocabsem-ray-token"}
    assert f"create secret generic {auth['secretName']} --from-literal=auth_token=" in (
        DOCKER / "kuberay.yaml"
    ).read_text(encoding="utf-8")


def test_kuberays_pods_are_alike_where_they_must_be():
    claim, _ = kuberay()
    images = set()
    for group in groups():
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        images.add(container["image"])
        assert f"--uid {pod['securityContext']['runAsUser']} " in DOCKERFILE
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["volumes"] == [{"name": "store", "persistentVolumeClaim": {"claimName": claim["metadata"]["name"]}}]
        assert container["volumeMounts"] == [{"name": "store", "mountPath": "/store"}]
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert environment["VOCABSEM_STORE"].startswith("/store/")
        assert set(environment) == {"VOCABSEM_STORE", "HF_HOME", "MLFLOW_TRACKING_URI"}  # no secret as text
    assert len(images) == 1
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_kuberay_asks_health_as_compose_does():
    services = load({"RAY_AUTH_TOKEN": "x", "POSTGRES_PASSWORD": "x"})["services"]
    for group, service in zip(groups(), ("ray-head", "worker"), strict=True):
        (container,) = group["template"]["spec"]["containers"]
        for probe in ("readinessProbe", "livenessProbe"):
            assert container[probe]["exec"]["command"] == services[service]["healthcheck"]["test"][1:]


def test_kuberays_start_parameters_are_text_and_known_to_ray():
    from ray.scripts.scripts import cli

    for group in groups():
        parameters = group["rayStartParams"]
        assert all(isinstance(value, str) for value in parameters.values())
        role = "--head" if group is not groups()[1] and "groupName" not in group else "--address=head:6379"
        cli.commands["start"].make_context("start", [role, *(f"--{k}={v}" for k, v in parameters.items())]).close()


def test_kuberays_worker_has_a_gpu_and_no_less_than_it_asks_for():
    worker = groups()[1]
    (container,) = worker["template"]["spec"]["containers"]
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]

"""A Ray of our own starts beside others, and says why it cannot."""

import os
from unittest.mock import MagicMock

import pytest

from orchestration.errors import ClusterError
from orchestration.ray_backend import private_ray
from orchestration.ray_backend.pools import ray


@pytest.fixture
def asked(monkeypatch):
    """What Ray is started with, instead of starting it; an `error` in it is raised."""
    found = {}

    def init(**given):
        import ray._private.parameter as parameter

        if "error" in found:
            raise found["error"]
        os.environ["RAY_AUTH_MODE"] = "token"  # as Ray does
        names = ("RAY_AUTH_TOKEN", "DASHBOARD_METRIC_PORT", "AUTOSCALER_METRIC_PORT")
        port = parameter.RayParams().dashboard_agent_listen_port
        found.update(given, port=port, folder=os.getcwd(), **{name: os.environ.get(name) for name in names})

    monkeypatch.setattr(ray, "init", init)
    # The tests' own Ray goes on, with its token.
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr("ray._raylet.AuthenticationTokenLoader", MagicMock())
    return found


def test_it_takes_free_ports_a_token_of_its_own_and_no_folder_of_the_users(asked, monkeypatch, tmp_path):
    """52365, the agent's port by default, is the one by which a cluster of this machine takes jobs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    with private_ray.private_ray():
        assert "RAY_AUTH_MODE" not in os.environ
    assert (asked["address"], asked["port"]) == ("local", 0)
    assert (asked["DASHBOARD_METRIC_PORT"], asked["AUTOSCALER_METRIC_PORT"]) == ("0", "0")
    assert len(asked["RAY_AUTH_TOKEN"]) == 64
    assert (os.getcwd(), asked["folder"]) == (str(tmp_path), str(private_ray._ROOT))
    from ray._private.parameter import RayParams

    assert RayParams().dashboard_agent_listen_port == 52365
    assert "DASHBOARD_METRIC_PORT" not in os.environ


@pytest.mark.parametrize("name", ["RAY_TMPDIR", "TMPDIR"])
def test_a_temporary_folder_that_is_too_long_is_told(asked, monkeypatch, name):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv(name, f"/tmp/{'l' * 60}")
    with (
        pytest.raises(ClusterError, match="too long a path for its sockets; set RAY_TMPDIR to a folder of at most"),
        private_ray.private_ray(),
    ):
        pass
    assert asked == {}


def test_its_workers_are_forked_by_a_socket_in_rays_folder_whatever_other_programs_use(asked, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    monkeypatch.setattr("tempfile.tempdir", f"/tmp/{'l' * 120}")
    with private_ray.private_ray(("colorsys",)):
        assert asked["address"] == "local"
    monkeypatch.setenv("RAY_TMPDIR", "/nowhere")
    with (
        pytest.raises(ClusterError, match=r"it cannot write /nowhere/.*Set RAY_TMPDIR"),
        private_ray.private_ray(("colorsys",)),
    ):
        pass


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (PermissionError(13, "Permission denied", "/root/ray"), "it cannot write /root/ray .*Set RAY_TMPDIR"),
        (
            Exception("The node did not come up\nand more"),
            "The node did not come up.* short of memory.*--executor inline",
        ),
    ],
)
def test_why_it_does_not_start_is_told(asked, error, told):
    asked["error"] = error
    with pytest.raises(ClusterError, match=told), private_ray.private_ray():
        pass

"""The YAML of examples/kuberay: fields that KubeRay and Kubernetes have, and names that fit together."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
import yaml

from faasmoe.api.http import entrance
from faasmoe.cli.main import app
from faasmoe.platforms import registry

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples/kuberay"
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?$"


class Known(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """An object of Kubernetes' API, with those of its fields that the examples use."""


class SecretKey(Known):
    name: str
    key: str


class Source(Known):
    secretKeyRef: SecretKey


class Variable(Known):
    name: str
    value: str | None = None
    valueFrom: Source | None = None


class Port(Known):
    name: str
    containerPort: int


class Get(Known):
    path: str
    port: str


class Probe(Known):
    httpGet: Get
    periodSeconds: int = 10
    failureThreshold: int = 3


class Mount(Known):
    name: str
    mountPath: str
    readOnly: bool = False


class Resources(Known):
    requests: dict[str, str]
    limits: dict[str, str]


class Container(Known):
    name: str
    image: str
    env: list[Variable]
    resources: Resources
    command: list[str] = []
    ports: list[Port] = []
    startupProbe: Probe | None = None
    readinessProbe: Probe | None = None
    volumeMounts: list[Mount] = []


class Claim(Known):
    claimName: str
    readOnly: bool = False


class Empty(Known):
    sizeLimit: str
    medium: str = ""


class Volume(Known):
    name: str
    persistentVolumeClaim: Claim | None = None
    emptyDir: Empty | None = None


class PodSpec(Known):
    containers: list[Container]
    volumes: list[Volume] = []
    terminationGracePeriodSeconds: int = 30


class Metadata(Known):
    name: str = ""
    labels: dict[str, str] = {}


class PodTemplate(Known):
    spec: PodSpec
    metadata: Metadata | None = None


class HeadGroup(Known):
    """ray-operator/apis/ray/v1/raycluster_types.go of KubeRay has this and the next ones."""

    rayStartParams: dict[str, str]
    template: PodTemplate


class WorkerGroup(Known):
    groupName: str
    replicas: int
    minReplicas: int
    maxReplicas: int
    rayStartParams: dict[str, str]
    template: PodTemplate


class AutoscalerOptions(Known):
    idleTimeoutSeconds: int


class RayClusterSpec(Known):
    rayVersion: str
    enableInTreeAutoscaling: bool
    autoscalerOptions: AutoscalerOptions
    headGroupSpec: HeadGroup
    workerGroupSpecs: list[WorkerGroup]


class Object(Known, tag_field="kind"):
    apiVersion: str
    metadata: Metadata


class RayCluster(Object, tag="RayCluster"):
    spec: RayClusterSpec


class Selector(Known):
    matchLabels: dict[str, str]


class Strategy(Known):
    type: str


class DeploymentSpec(Known):
    replicas: int
    strategy: Strategy
    selector: Selector
    template: PodTemplate


class Deployment(Object, tag="Deployment"):
    spec: DeploymentSpec


class ServicePort(Known):
    name: str
    port: int
    targetPort: str


class ServiceSpec(Known):
    selector: dict[str, str]
    ports: list[ServicePort]


class Service(Object, tag="Service"):
    spec: ServiceSpec


@pytest.fixture(scope="module")
def objects() -> list[Any]:
    documents = [each for file in sorted(FOLDER.glob("*.yaml")) for each in yaml.safe_load_all(file.read_text())]
    return [msgspec.convert(each, RayCluster | Deployment | Service) for each in documents]


@pytest.fixture(scope="module")
def cluster(objects: list[Any]) -> RayCluster:
    (found,) = (each for each in objects if isinstance(each, RayCluster))
    return found


@pytest.fixture(scope="module")
def server(objects: list[Any]) -> Deployment:
    (found,) = (each for each in objects if isinstance(each, Deployment))
    return found


@pytest.fixture(scope="module")
def pods(cluster: RayCluster, server: Deployment) -> list[PodSpec]:
    groups = [cluster.spec.headGroupSpec, *cluster.spec.workerGroupSpecs]
    return [*(group.template.spec for group in groups), server.spec.template.spec]


def test_versions_are_those_that_there_are(objects: list[Any], cluster: RayCluster) -> None:
    versions = {type(each).__name__: each.apiVersion for each in objects}
    assert versions == {"RayCluster": "ray.io/v1", "Deployment": "apps/v1", "Service": "v1"}
    assert f"ray=={cluster.spec.rayVersion}\n" in (ROOT / "constraints.txt").read_text()


def test_pods_have_one_image_and_one_secret_and_their_volumes(pods: list[PodSpec]) -> None:
    containers = [container for pod in pods for container in pod.containers]
    assert len({container.image for container in containers}) == 1
    for container in containers:
        by_name = {each.name: each for each in container.env}
        assert by_name["RAY_AUTH_MODE"].value == "token"
        source = by_name["RAY_AUTH_TOKEN"].valueFrom
        assert source is not None
        assert source.secretKeyRef == SecretKey(name="faasmoe-ray", key="token")
        resources = container.resources
        amounts = [*resources.requests.values(), *resources.limits.values()]
        assert all(re.match(QUANTITY, amount) for amount in amounts)
        assert resources.requests["memory"] == resources.limits["memory"]
    for pod in pods:
        volumes = {each.name for each in pod.volumes}
        assert {each.name for container in pod.containers for each in container.volumeMounts} == volumes


def test_workers_run_functions_and_the_head_does_not(cluster: RayCluster) -> None:
    assert cluster.spec.headGroupSpec.rayStartParams["num-cpus"] == "0"
    (workers,) = cluster.spec.workerGroupSpecs
    assert workers.minReplicas <= workers.replicas <= workers.maxReplicas
    assert "num-cpus" not in workers.rayStartParams


def test_the_server_joins_the_cluster_by_options_that_there_are(cluster: RayCluster, server: Deployment) -> None:
    (container,) = server.spec.template.spec.containers
    *shell, script = container.command
    assert shell == ["sh", "-c"]
    assert f"ray start --address={cluster.metadata.name}-head-svc:6379 --num-cpus=0" in script
    words = shlex.split(script.partition("exec faasmoe ")[2].replace("\\\n", " "))
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    with serve.make_context("serve", words[1:], resilient_parsing=True) as context:
        given = context.params
    assert (words[0], given["platform"], given["host"]) == ("serve", "ray", "0.0.0.0")
    entry = registry.find("ray")
    folder = entry.parse(entry.read(given["platform_option"])).cluster_folder
    assert folder in {each.mountPath for each in container.volumeMounts}


def test_the_service_and_the_probes_find_the_server(objects: list[Any], server: Deployment) -> None:
    (service,) = (each for each in objects if isinstance(each, Service))
    template = server.spec.template
    assert template.metadata is not None
    assert service.spec.selector == server.spec.selector.matchLabels == template.metadata.labels
    (container,) = template.spec.containers
    ports = {each.name: each.containerPort for each in container.ports}
    assert {each.targetPort for each in service.spec.ports} == set(ports) == {"http"}
    assert container.startupProbe is not None
    assert container.readinessProbe is not None
    probed = [container.startupProbe.httpGet, container.readinessProbe.httpGet]
    assert [(each.path, each.port) for each in probed] == [(entrance.HEALTH, "http"), (entrance.READY, "http")]

"""The Helm chart in ``config/helm``, rendered by Helm itself.

Helm and the schemas are in ``.kube``, where ``.ci/run`` installs them. No test needs a cluster.
"""

import asyncio
import functools
import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import aiohttp
import pytest
import yaml

import harvester
from harvester.settings import Settings, load
from harvester.settings.changes import RELOADED
from harvester.simulator import Simulator, SimulatorConfig
from tests.conftest import RecordedWarmProcess
from tests.support.processes import free_port, require_program
from tests.support.secret_canary import KEY

TOP = Path(__file__).parent.parent.parent
CHART = TOP / "config" / "helm" / "harvester"
HELM = TOP / ".kube" / "helm" / "helm"
VERSIONS = ("1.27", "1.30", "1.33", "1.37")
"""Versions of Kubernetes: the oldest that the chart supports, to the newest with a schema."""

BASE = {
    "image": {"repository": "registry.example.com/harvester"},
    "config": """
out = "s3://lake/braze"
[workspace_defaults]
endpoint = "https://rest.fra-01.braze.eu"
[triggers.sends]
kind = "rabbitmq"
url_file = "/run/secrets/files/rabbitmq_url"
queue = "sends"
""",
    "secrets": {"files": "harvester-files"},
}
PROMETHEUS = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}]
AUDIT = {"enabled": True, "arguments": ["s3://lake/currents", "--enqueue"]}
EVERYTHING = {
    "image": BASE["image"] | {"tag": "2", "pullSecrets": ["registry"]},
    "env": {"AWS_REGION": "eu-central-1", "AWS_SHARED_CREDENTIALS_FILE": "/run/secrets/files/aws"},
    "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/harvester"}},
    "storage": {"className": "fast"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "batch", "operator": "Exists"}],
    "networkPolicy": {"egressPorts": [443, 5672], "ingressFrom": PROMETHEUS},
    "monitoring": {"enabled": True, "labels": {"release": "prometheus"}},
    "audit": AUDIT,
}
DATABASE = {"ledger": "harvester-ledger"}
REPLICAS = EVERYTHING | {
    "mode": "replicas",
    "secrets": BASE["secrets"] | DATABASE,
    "replicas": {"autoscaling": {"enabled": True}},
}
HOURLY = {
    "type": "cron",
    "metadata": {"timezone": "UTC", "start": "0 * * * *", "end": "1 * * * *", "desiredReplicas": "1"},
}
DOCUMENTED, DOCUMENTED_REPLICAS = map(
    yaml.safe_load, re.findall(r"```yaml\n(.*?)```", (TOP / "docs" / "kubernetes.md").read_text(), re.DOTALL)
)
MATRIX = {
    "service": {},
    "documented": DOCUMENTED,
    "documented replicas": {
        name: {**each, **DOCUMENTED_REPLICAS.get(name, {})} if isinstance(each, dict) else each
        for name, each in (DOCUMENTED_REPLICAS | DOCUMENTED).items()
    },
    "everything": EVERYTHING,
    "schedule": {"mode": "schedule", "audit": AUDIT},
    "queue": {"mode": "queue", "queue": {"triggers": [HOURLY]}, "networkPolicy": {"enabled": False}},
    "queue, PostgreSQL": {
        "mode": "queue",
        "queue": {"triggers": [HOURLY], "maximum": 4},
        "secrets": BASE["secrets"] | DATABASE,
    },
    "replicas": {"mode": "replicas", "secrets": BASE["secrets"] | DATABASE},
    "replicas, everything": REPLICAS,
}

pytestmark = pytest.mark.xdist_group("helm")


SECRETS = {"/run/secrets/braze": "harvester-api-keys", "/run/secrets/files": "harvester-files"}
"""The secrets of ``BASE`` by the path where they are mounted."""


def run_helm(*arguments, values=None):
    """Run Helm. If it is missing, CI fails and a developer's shell skips."""
    if not HELM.exists():
        missing = "Helm is not installed in .kube, see .ci/run"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    given = None if values is None else json.dumps(BASE | values)
    return subprocess.run([HELM, *arguments], input=given, cwd=TOP, capture_output=True, text=True, check=False)


@functools.cache
def render(values_json):
    """Render the chart as ``helm install`` does."""
    helm = run_helm("template", "test", str(CHART), "--namespace", "data", "-f", "-", values=json.loads(values_json))
    assert helm.returncode == 0, helm.stderr
    return [each for each in yaml.load_all(helm.stdout, yaml.CSafeLoader) if each]


@pytest.fixture(params=MATRIX)
def rendered(request):
    """Give the objects of the chart in each mode."""
    return render(json.dumps(MATRIX[request.param]))


def find(objects, kind):
    """Return the only object of a kind."""
    [found] = [each for each in objects if each["kind"] == kind]
    return found


def list_pods(objects):
    """Return the pod templates of all objects."""
    specs = [(each["kind"], each["spec"]) for each in objects if "spec" in each]
    return [
        {
            "StatefulSet": lambda spec: spec["template"],
            "Deployment": lambda spec: spec["template"],
            "Job": lambda spec: spec["template"],
            "CronJob": lambda spec: spec["jobTemplate"]["spec"]["template"],
            "ScaledJob": lambda spec: spec["jobTargetRef"]["template"],
        }[kind](spec)
        for kind, spec in specs
        if kind in {"StatefulSet", "Deployment", "Job", "CronJob", "ScaledJob"}
    ]


def get_serving_pod(objects):
    """Return the template of the pod that runs ``harvester serve``."""
    [pod] = [each for each in list_pods(objects) if each["spec"]["containers"][0]["args"][0] == "serve"]
    return pod


def select(pods, labels):
    """Return the commands of the pods that have these labels."""
    return [
        each["spec"]["containers"][0]["args"][0]
        for each in pods
        if labels.items() <= each["metadata"]["labels"].items()
    ]


def list_mounts(pod):
    """Return the volume and whether it is read-only, for each mounted path of a pod."""
    volumes = {each["name"]: each for each in pod["spec"]["volumes"]}
    [container] = pod["spec"]["containers"]
    assert all("subPath" not in each for each in container["volumeMounts"])
    return {
        each["mountPath"]: (volumes[each["name"]], each.get("readOnly", False)) for each in container["volumeMounts"]
    }


def localize(text, folder):
    """Replace the paths of a container by paths in a folder."""
    for path in ("/etc/harvester", "/run/secrets", "/data", "/tmp"):
        text = text.replace(path, f"{folder}{path}")
    return text


def create_container_files(objects, folder):
    """Create the files that a serving pod has: its ConfigMap, and secrets with an API key and a broker's URL."""
    for path in list_mounts(get_serving_pod(objects)):
        (folder / path.removeprefix("/")).mkdir(parents=True)
    toml = find(objects, "ConfigMap")["data"]["harvester.toml"]
    (folder / "etc/harvester/harvester.toml").write_text(localize(toml, folder))
    (folder / "run/secrets/braze/eu").write_text(KEY)
    (folder / "run/secrets/files/rabbitmq_url").write_text("amqp://localhost")
    if (folder / "run/secrets/ledger").exists():
        (folder / "run/secrets/ledger/url").write_text("postgresql://harvester@db/harvester")


def test_the_chart_is_made_for_this_version_and_these_alerts():
    """The chart installs this version by default, and its alerts are those of ``config/alerts.yml``, not a copy."""
    assert yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"] == harvester.__version__
    assert (CHART / "files" / "alerts.yml").resolve() == TOP / "config" / "alerts.yml"


def test_the_schema_describes_every_value():
    """A misspelt value is refused, and each default is described."""

    def compare(values, schema, path):
        for name, value in values.items():
            assert name in schema["properties"], f"{path}.{name}"
            if "properties" in schema["properties"][name]:
                compare(value, schema["properties"][name], f"{path}.{name}")
        assert schema["additionalProperties"] is False, path
        assert set(schema["properties"]) - {"global"} == set(values), path

    schema = json.loads((CHART / "values.schema.json").read_text())
    compare(yaml.safe_load((CHART / "values.yaml").read_text()), schema, "values")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"image": {}}, "image.repository is required"),
        ({"config": ""}, "config is required"),
        ({"config": "out ="}, "config is not valid"),
        ({"config": 'state = "/other.db"'}, "'state' has already been defined"),
        ({"config": '[workspaces.eu]\napi_key = "1"'}, "use secrets.apiKeys"),
        ({"mode": "unknown"}, "/mode"),
        ({"replicas": 2}, "/replicas"),
        ({"mode": "replicas"}, "needs secrets.ledger"),
        ({"mode": "replicas", "secrets": DATABASE, "config": "raw = true"}, "out must be a bucket"),
        (
            {"secrets": DATABASE, "config": 'out = "s3://lake"\n[workspaces.eu]\nout = "/data/eu"'},
            "out must be a bucket, because no volume outlives the pods: /data/eu",
        ),
        (REPLICAS | {"monitoring": {}}, "needs monitoring.enabled"),
        ({"env": {"BRAZE_API_KEY": {"valueFrom": {}}}}, "/env/BRAZE_API_KEY"),
        ({"env": {"BRAZE_API_KEY": "1"}}, "env.BRAZE_API_KEY: use secrets.apiKeys"),
        ({"env": {"harvester_workspaces__eu__api_key": "1"}}, "use secrets.apiKeys"),
        ({"env": {"HARVESTER_STATE": "/tmp/ledger.db"}}, "use secrets.ledger"),
        ({"env": {"PGPASSWORD": "1"}}, "use secrets.ledger"),
        ({"env": {"HARVESTER_WEB_PORT": "80"}}, "env.HARVESTER_WEB_PORT: variables override harvester.toml"),
        ({"env": {"BRAZE_ENDPOINT": "https://rest.fra-01.braze.eu"}}, "set it in config"),
        ({"env": {"TMPDIR": "/data"}}, "the chart sets it"),
        ({"env": {"AWS_SECRET_ACCESS_KEY": "1"}}, "env.AWS_SECRET_ACCESS_KEY: it is a secret"),
        ({"mode": "queue"}, "needs queue.triggers"),
        ({"mode": "queue", "queue": {"triggers": [HOURLY], "maximum": 2}}, "needs secrets.ledger"),
        ({"audit": {"enabled": True}}, "needs audit.arguments"),
        ({"monitoring": {"enabled": True}}, "needs networkPolicy.ingressFrom"),
        ({"mode": "schedule", "monitoring": {"enabled": True}}, "monitoring needs the mode service or replicas"),
    ],
)
def test_values_that_cannot_work_are_refused(values, message):
    """Helm reports a mistake before anything is installed."""
    helm = run_helm("template", "test", str(CHART), "-f", "-", values=values)
    assert (helm.returncode, message in helm.stderr) == (1, True), helm.stderr


def test_secrets_are_mounted_as_files_only(rendered):
    """No secret is in an environment variable, a ConfigMap or the release, and no secret can be changed by a pod."""
    assert not [each for each in rendered if each["kind"] == "Secret"]
    for pod in list_pods(rendered):
        [container] = pod["spec"]["containers"]
        assert "envFrom" not in container
        assert all(set(each) == {"name", "value"} for each in container["env"])
        mounted = {
            path: volume["secret"]["secretName"] for path, (volume, _) in list_mounts(pod).items() if "secret" in volume
        }
        assert mounted in (SECRETS, SECRETS | {"/run/secrets/ledger": "harvester-ledger"})


def test_pods_have_no_privileges(rendered):
    """The pods satisfy the Pod Security Standard "restricted", and write only to the ledger's volume and to TMPDIR."""
    for pod in list_pods(rendered):
        context, [container] = pod["spec"]["securityContext"], pod["spec"]["containers"]
        assert (context["runAsNonRoot"], context["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
        assert container["securityContext"] == {
            "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert pod["spec"]["automountServiceAccountToken"] is False
        writable = {
            path: next(iter(set(volume) - {"name"})) for path, (volume, fixed) in list_mounts(pod).items() if not fixed
        }
        in_database = "/run/secrets/ledger" in list_mounts(pod)
        assert writable == {"/data": "emptyDir" if in_database else "persistentVolumeClaim", "/tmp": "emptyDir"}
        assert {"name": "TMPDIR", "value": "/tmp"} in container["env"]
        assert (container["resources"]["limits"].keys(), pod["spec"]["terminationGracePeriodSeconds"]) == (
            {"memory"},
            30,
        )


def test_names_refer_to_objects_of_the_chart(rendered):
    """Every pod finds its ConfigMap, its volume claim and its service account."""
    names = {(each["kind"], each["metadata"]["name"]) for each in rendered}
    assert {each["metadata"]["namespace"] for each in rendered} == {"data"}
    for pod in list_pods(rendered):
        volumes = {path: volume for path, (volume, _) in list_mounts(pod).items()}
        assert ("ConfigMap", volumes["/etc/harvester"]["configMap"]["name"]) in names
        claim = volumes["/data"].get("persistentVolumeClaim")
        assert claim is None or ("PersistentVolumeClaim", claim["claimName"]) in names
        assert (claim is None) == ("/run/secrets/ledger" in volumes) == ("PersistentVolumeClaim" not in dict(names))
        assert ("ServiceAccount", pod["spec"]["serviceAccountName"]) in names


def test_selectors_match_the_pods_that_they_are_for():
    """The service and the audit find the serving pod, and the network policy applies to both."""
    objects = render(json.dumps(EVERYTHING))
    pods = list_pods(objects)
    stateful, service, monitor = (find(objects, kind) for kind in ("StatefulSet", "Service", "ServiceMonitor"))
    assert select(pods, stateful["spec"]["selector"]["matchLabels"]) == ["serve"]
    assert select(pods, service["spec"]["selector"]) == ["serve"]
    assert stateful["spec"]["serviceName"] == service["metadata"]["name"]
    assert sorted(select(pods, find(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"])) == [
        "audit",
        "serve",
    ]
    audit = find(objects, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    [term] = audit["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert select(pods, term["labelSelector"]["matchLabels"]) == ["serve"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "harvester", "the alerts expect this job"
    [endpoint], [port] = monitor["spec"]["endpoints"], service["spec"]["ports"]
    [container] = get_serving_pod(objects)["spec"]["containers"]
    assert [endpoint["port"], port["targetPort"]] == [port["name"], container["ports"][0]["name"]]


def test_replicas_are_spread_protected_and_scaled():
    """Pods of different nodes and zones are preferred, a drain stops one at a time, and KEDA scales the Deployment."""
    objects = render(json.dumps(REPLICAS))
    pods, deployment = list_pods(objects), find(objects, "Deployment")
    spreads = get_serving_pod(objects)["spec"]["topologySpreadConstraints"]
    assert [each["topologyKey"] for each in spreads] == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    for selector in (
        deployment["spec"]["selector"],
        find(objects, "PodDisruptionBudget")["spec"]["selector"],
        *(each["labelSelector"] for each in spreads),
    ):
        assert select(pods, selector["matchLabels"]) == ["serve"]
    assert select(pods, find(objects, "Service")["spec"]["selector"]) == ["serve"]
    assert find(objects, "ScaledObject")["spec"]["scaleTargetRef"] == {"name": deployment["metadata"]["name"]}
    assert "replicas" not in deployment["spec"], "Helm would undo what KEDA does"
    fixed = find(render(json.dumps(MATRIX["replicas"])), "Deployment")
    assert fixed["spec"]["replicas"] == 2


def test_a_ledger_in_a_database_is_migrated_before_the_pods_are_replaced(rendered):
    """The job runs only before an upgrade, without the configuration, and no other object counts its pod as its own."""
    jobs = [each for each in rendered if each["kind"] == "Job"]
    assert len(jobs) == ("/run/secrets/ledger" in list_mounts(get_serving_pod(rendered)))
    owners = [each for each in rendered if each["kind"] in {"Deployment", "PodDisruptionBudget", "Service"}]
    for job in jobs:
        pod = job["spec"]["template"]
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"
        assert pod["spec"]["containers"][0]["args"] == ["ledger", "migrate", "--state-file", "/run/secrets/ledger/url"]
        for each in owners:
            assert select([pod], each["spec"]["selector"].get("matchLabels", each["spec"]["selector"])) == []


def test_the_migration_reaches_a_database_that_the_previous_release_did_not_use():
    """The hook allows the new ports to its own pod, because the policy of the release is replaced after it."""
    objects = render(json.dumps(MATRIX["documented replicas"]))
    release, hook = [each for each in objects if each["kind"] == "NetworkPolicy"]
    assert select(list_pods(objects), hook["spec"]["podSelector"]["matchLabels"]) == ["ledger"]
    assert hook["metadata"]["annotations"]["helm.sh/hook"] == "pre-upgrade"
    assert int(hook["metadata"]["annotations"]["helm.sh/hook-weight"]) < 0, "the job has the weight 0"
    assert hook["spec"]["egress"] == release["spec"]["egress"]
    assert {"port": 5432} in hook["spec"]["egress"][1]["ports"]


def test_several_jobs_run_at_once_only_with_a_database():
    """A ledger on a volume is used by one job at a time."""
    found = [find(render(json.dumps(MATRIX[name])), "ScaledJob")["spec"] for name in ("queue", "queue, PostgreSQL")]
    assert [each["maxReplicaCount"] for each in found] == [1, 4]


def test_pods_are_added_for_readings_that_wait_for_a_process_only(tmp_path):
    """The due readings of a workspace, which every replica exports, count once; those that wait for quota do not."""
    promtool = require_program("promtool")
    objects = render(json.dumps(REPLICAS))
    [trigger] = find(objects, "ScaledObject")["spec"]["triggers"]
    target = f'namespace="data", service="{find(objects, "Service")["metadata"]["name"]}"'
    series = {
        f'harvester_readings{{state="due", workspace="eu", pod="a", {target}}}': 40_000,
        f'harvester_readings{{state="due", workspace="eu", pod="b", {target}}}': 40_000,
        f'harvester_readings{{state="waiting", workspace="eu", pod="a", {target}}}': 7,
        f'harvester_readings{{state="due", workspace="us", pod="a", {target}}}': 500,
        f'harvester_hold{{cause="rate_limited", workspace="us", pod="b", {target}}}': 1,
        'harvester_readings{state="due", workspace="eu", namespace="test", service="other"}': 9,
    }
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": str(value)} for name, value in series.items()],
        "promql_expr_test": [
            {"expr": trigger["metadata"]["query"], "eval_time": "0m", "exp_samples": [{"value": 40_000}]}
        ],
    }
    (tmp_path / "test.yml").write_text(
        json.dumps(
            {
                "tests": [
                    test,
                    test
                    | {
                        "input_series": [],
                        "promql_expr_test": [test["promql_expr_test"][0] | {"exp_samples": [{"value": 0}]}],
                    },
                ]
            }
        )
    )
    done = subprocess.run(
        [promtool, "test", "rules", tmp_path / "test.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_the_alerts():
    """The Prometheus operator gets the alerts of ``config/alerts.yml``, unchanged."""
    spec = find(render(json.dumps(EVERYTHING)), "PrometheusRule")["spec"]
    assert spec == yaml.safe_load((TOP / "config" / "alerts.yml").read_text())


def test_harvester_loads_the_configuration_of_each_mode(rendered, tmp_path, monkeypatch):
    """``harvester`` reads the rendered file, and every path in it is in the volume or secret for it."""
    create_container_files(rendered, tmp_path)
    for each in list_pods(rendered):
        arguments = each["spec"]["containers"][0]["args"]
        if "--config" not in arguments:
            continue
        config = Path(localize(arguments[arguments.index("--config") + 1], tmp_path))
        settings = load(config, {}, {})
        mounts = {localize(path, tmp_path): volume["name"] for path, (volume, _) in list_mounts(each).items()}
        assert mounts[str(settings.api_key_dir)] == "api-keys"
        in_database = any("ledger" in path for path in mounts)
        assert mounts[str((settings.state_file if in_database else settings.state).parent)] == (
            "ledger" if in_database else "data"
        )
        assert str(settings.load_state()) == (
            "postgresql://harvester@db/harvester" if in_database else f"{tmp_path}/data/ledger.db"
        )
        assert mounts[str(settings.triggers["sends"].url_file.parent)] == "files"
        assert list(settings.workspaces) == ["eu"]


def test_only_settings_that_need_a_restart_restart_the_pod():
    """An upgrade that adds a workspace changes only the ConfigMap, which the pod reloads."""

    def get_pod(settings):
        values = {
            "config": f'{settings}\nout = "s3://lake/braze"\n[workspaces.eu]\nendpoint = "https://{settings[:3]}"\n'
        }
        return get_serving_pod(render(json.dumps(values)))

    assert get_pod("concurrency = 2") == get_pod('proxy = "none"')
    assert get_pod("concurrency = 2") != get_pod("raw = true")
    omitted = re.search(r"omit \$settings ([^|]*)", (CHART / "templates" / "_helpers.tpl").read_text())[1]
    assert set(json.loads(f"[{omitted.strip().replace(' ', ',')}]")) == RELOADED < set(Settings.model_fields)


async def test_a_pod_becomes_ready_and_ends_in_time(tmp_path):
    """``harvester`` with the arguments, variables and files of the pod answers its probes, and a SIGTERM ends it."""
    async with Simulator(SimulatorConfig(api_key=KEY)) as stand_in:
        port = free_port()
        config = f'web_port = {port}\nout = "/data/lake"\n[workspace_defaults]\nendpoint = "{stand_in.url}"\n'
        objects = render(json.dumps({"config": config}))
        create_container_files(objects, tmp_path)
        [container] = get_serving_pod(objects)["spec"]["containers"]
        assert container["ports"] == [{"name": "web", "containerPort": port}]
        env = {"PATH": "/usr/bin:/bin"} | {each["name"]: localize(each["value"], tmp_path) for each in container["env"]}
        arguments = [localize(each, tmp_path) for each in container["args"]]
        process = RecordedWarmProcess(tmp_path / "data", env, *arguments)
        try:
            async with aiohttp.ClientSession() as http:
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    assert await wait_for_probe(http, port, container[probe]["httpGet"]["path"]) == 200
        finally:
            process.terminate()
            _, log = await asyncio.to_thread(process.communicate)
    assert process.returncode == 0, log
    assert (tmp_path / "data" / "ledger.db").exists()


async def wait_for_probe(http, port, path):
    """Return the status of a probe once the web server responds with another than 503."""
    async with asyncio.timeout(60):
        while True:
            try:
                async with http.get(f"http://127.0.0.1:{port}{path}") as response:
                    if response.status != 503:
                        return response.status
            except aiohttp.ClientConnectionError:
                pass
            await asyncio.sleep(0.05)


def test_the_job_that_copies_a_ledger_finds_it():
    """The job mounts the volume and the secret of the documented release where its command needs them."""
    job, _ = load_copy_ledger()
    [pod], mounts = list_pods([job]), list_mounts(job["spec"]["template"])
    volume, secret = (
        list_mounts(get_serving_pod(render(json.dumps(MATRIX[name])))) for name in ("documented", "documented replicas")
    )
    assert mounts["/run/secrets/ledger"] == secret["/run/secrets/ledger"]
    claim = volume["/data"][0]["persistentVolumeClaim"]["claimName"]
    assert f"test-{mounts['/data'][0]['persistentVolumeClaim']['claimName']}" == claim
    serving = get_serving_pod(render("{}"))["spec"]
    assert pod["spec"]["securityContext"] == serving["securityContext"]
    assert pod["spec"]["containers"][0]["securityContext"] == serving["containers"][0]["securityContext"]


def test_the_job_that_copies_a_ledger_reaches_the_database():
    """Its own policy allows DNS and PostgreSQL. Neither the release's policy nor its service selects its pod."""
    job, policy = load_copy_ledger()
    labels = job["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    assert [port for rule in policy["spec"]["egress"] for port in rule["ports"]] == [
        {"port": 53, "protocol": "UDP"},
        {"port": 53, "protocol": "TCP"},
        {"port": 5432},
    ]
    objects = render(json.dumps(MATRIX["documented"]))
    selectors = [
        find(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
        find(objects, "Service")["spec"]["selector"],
    ]
    assert all(not each.items() <= labels.items() for each in selectors)


def load_copy_ledger():
    """Return the job that copies a ledger, and its network policy."""
    return list(yaml.safe_load_all((CHART.parent / "copy_ledger.yaml").read_text()))


@pytest.mark.long
def test_every_object_is_valid():
    """The schemas of each version of Kubernetes, of KEDA and of the Prometheus operator accept every object."""
    assert (
        validate([*load_copy_ledger(), *(each for values in MATRIX.values() for each in render(json.dumps(values)))])
        == []
    )


@pytest.mark.long
def test_invalid_objects_are_found():
    """A misspelt field is a problem in each kind of object, so that the test above can fail."""
    objects = [*render(json.dumps(EVERYTHING)), *render(json.dumps(MATRIX["queue"]))]
    kinds = {each["kind"]: each | {"spec": {**each["spec"], "misspelt": 1}} for each in objects if "spec" in each}
    problems = validate(list(kinds.values()))
    assert {each.partition(" ")[0] for each in problems} == set(kinds)
    assert all("misspelt" in each for each in problems)


def validate(objects):
    """Return what is wrong with these objects."""
    validator = TOP / "tests" / "support" / "kubernetes_schemas.py"
    command = [TOP / ".kube" / "venv" / "bin" / "python", validator, *VERSIONS]
    done = subprocess.run(command, input=json.dumps(objects), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.long
def test_the_packaged_chart_is_complete(tmp_path):
    """``helm lint`` finds no mistake, and a package contains the alerts and not a link to them."""
    values = tmp_path / "values.json"
    values.write_text(json.dumps(BASE | EVERYTHING))
    lint = run_helm("lint", "--strict", str(CHART), "-f", str(values))
    assert lint.returncode == 0, lint.stdout
    package = run_helm("package", str(CHART), "--destination", str(tmp_path))
    assert package.returncode == 0, package.stderr
    [file] = tmp_path.glob("*.tgz")
    with tarfile.open(file) as archive:
        alerts = archive.extractfile("harvester/files/alerts.yml").read()
    assert alerts == (TOP / "config" / "alerts.yml").read_bytes()

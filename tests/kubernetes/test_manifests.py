"""What must be so of the rendered manifests, for every overlay and every component on it."""
import base64
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from render import KUBERNETES, ROOT, render

OVERLAYS = ["dev", "prod"]
COMPONENTS = ["monitoring", "hpa", "gateway", "keda", "auth", "model-keys"]
VERSIONS = ["1.31", "1.34", "1.37"]
BUILDS = [(overlay,) for overlay in OVERLAYS] + [(overlay, one) for overlay in OVERLAYS for one in COMPONENTS]
# What a deployment has instead of the file of nginx/.
OF_EACH_DEPLOYMENT = {"upstreams.conf", "upstreams-auth.conf", "trusted-proxies.conf"}
# How long after a probe's answer the last proxy of the cluster has heard of it.
PROPAGATION_SECONDS = 5
# No published package has its schema; its fields are looked at below.
WITHOUT_SCHEMA = {"BackendTLSPolicy"}


@pytest.fixture(scope="module", params=BUILDS, ids="-".join)
def objects(request):
    return render(*request.param)


def of_kind(objects, *kinds):
    return [one for one in objects if one["kind"] in kinds]


def named(objects, kind, name):
    found = [one for one in of_kind(objects, kind) if one["metadata"]["name"] == name]
    assert len(found) == 1, f"{kind} {name}: {len(found)}"
    return found[0]


def workloads(objects):
    return of_kind(objects, "StatefulSet", "Deployment")


def pod(workload):
    return workload["spec"]["template"]["spec"]


def is_custom(one):
    return "." in one["apiVersion"].split("/")[0] and not one["apiVersion"].split("/")[0].endswith(".k8s.io") or (
        one["apiVersion"].startswith("gateway.networking.k8s.io/")
    )


def environment(objects, container):
    found = {}
    for source in container.get("envFrom", []):
        # A Secret's are made apart, and are of models only.
        if "secretRef" not in source:
            found |= named(objects, "ConfigMap", source["configMapRef"]["name"])["data"]
    return found | {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}


def seconds(text):
    units = {"ms": 0.001, "s": 1, "m": 60, "h": 3600}
    assert re.fullmatch(r"(\d+(ms|s|m|h))+", text), text
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)(ms|s|m|h)", text))


def bytes_of(quantity):
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) << {"Mi": 20, "Gi": 30}[unit]


def edge_file(objects, name):
    volumes = pod(named(objects, "Deployment", "klatch-edge"))["volumes"]
    config = next(volume["configMap"]["name"] for volume in volumes if volume["name"] == "config")
    return named(objects, "ConfigMap", config)["data"][name]


def toml_of(objects):
    volumes = pod(named(objects, "StatefulSet", "klatch"))["volumes"]
    config = next(volume["configMap"]["name"] for volume in volumes if volume["name"] == "config")
    return tomllib.loads(named(objects, "ConfigMap", config)["data"]["klatch.toml"])


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_this_kubernetes_takes(objects, version):
    for one in objects:
        if not is_custom(one):
            kubernetes_validate.validate(one, version, strict=True)


def test_every_custom_object_fits_its_schema(objects):
    custom = [one for one in objects if is_custom(one) and one["kind"] not in WITHOUT_SCHEMA]
    checked = subprocess.run(
        ["node", Path(__file__).with_name("custom.mjs")], input=json.dumps(custom), capture_output=True, text=True
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_a_wrong_object_is_found():
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "spec": {"replica": 1}}
    for version in VERSIONS:
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(deployment, version, strict=True)
    route = {"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "spec": {"rules": "all"}}
    checked = subprocess.run(
        ["node", Path(__file__).with_name("custom.mjs")], input=json.dumps([route]), capture_output=True, text=True
    )
    assert "rules" in checked.stdout


def test_every_object_has_the_namespace_and_a_name_of_its_own(objects):
    keys = [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert len(set(keys)) == len(keys)
    assert {one["metadata"].get("namespace") for one in objects if one["kind"] != "Namespace"} == {"klatch"}


def test_pods_keep_the_restricted_standard(objects):
    labels = of_kind(objects, "Namespace")[0]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    for workload in workloads(objects):
        spec = pod(workload)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        for container in spec["containers"] + spec.get("initContainers", []):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}


def test_memory_is_limited_and_cpu_is_not(objects):
    for workload in workloads(objects):
        for container in pod(workload)["containers"]:
            assert list(container["resources"]["limits"]) == ["memory"], container["name"]
            assert container["resources"]["requests"].keys() == {"cpu", "memory"}


def test_conversations_in_memory_fit_into_a_nodes_memory(objects):
    limit = pod(named(objects, "StatefulSet", "klatch"))["containers"][0]["resources"]["limits"]["memory"]
    assert bytes_of(limit) >= 2 * toml_of(objects)["limits"]["active_bytes"] + (256 << 20)


def test_secrets_are_files_and_are_there(objects):
    made = {one["metadata"]["name"]: one["data"].keys() for one in of_kind(objects, "Secret")}
    for workload in workloads(objects):
        for volume in pod(workload).get("volumes", []):
            if "secret" in volume and made:
                assert volume["secret"]["secretName"] in made
        names = [one["name"] for one in pod(workload)["containers"] if "secretKeyRef" in json.dumps(one)]
        assert names == [] or workload["metadata"]["name"] == "redis-exporter", names
    config = json.dumps(of_kind(objects, "ConfigMap"))
    for secret in of_kind(objects, "Secret"):
        for value in secret["data"].values():
            assert base64.b64decode(value).decode() not in config
    files = json.dumps(toml_of(objects))
    for mount in ["cluster-secret", "signing.pem", "redis-password"]:
        assert f"/run/secrets/klatch/{mount}" in files
        assert not made or mount in made["klatch"]


def test_keys_of_models_are_the_nodes_alone(request, objects):
    given = [one["metadata"]["name"] for one in workloads(objects) if "klatch-models" in json.dumps(one)]
    assert given == (["klatch"] if "model-keys" in request.node.callspec.params["objects"] else [])


def test_nodes_start_at_once_and_find_one_another_before_they_are_ready(objects):
    nodes = named(objects, "StatefulSet", "klatch")
    assert nodes["spec"]["podManagementPolicy"] == "Parallel"
    peers = named(objects, "Service", nodes["spec"]["serviceName"])["spec"]
    assert peers["clusterIP"] == "None" and peers["publishNotReadyAddresses"] is True
    ready = named(objects, "Service", "klatch")["spec"]
    assert "publishNotReadyAddresses" not in ready
    labels = nodes["spec"]["template"]["metadata"]["labels"]
    for service in [peers, ready]:
        assert service["selector"].items() <= labels.items()
    advertised = environment(objects, pod(nodes)["containers"][0])["KLATCH_ADVERTISE"]
    assert advertised == f"$(KLATCH_NODE_NAME).{nodes['spec']['serviceName']}.$(POD_NAMESPACE).svc:7946"


def test_probes_ask_what_they_should(objects):
    node = pod(named(objects, "StatefulSet", "klatch"))["containers"][0]
    assert node["startupProbe"]["httpGet"]["path"] == "/livez"
    assert node["livenessProbe"]["httpGet"]["path"] == "/livez"
    ready = node["readinessProbe"]
    assert (ready["httpGet"]["path"], ready["periodSeconds"], ready["failureThreshold"]) == ("/readyz", 2, 1)
    for workload in workloads(objects):
        assert all("readinessProbe" in one or one["name"] == "exporter" for one in pod(workload)["containers"])


def test_a_node_that_stops_outlasts_what_the_edge_believes_of_it(objects):
    node = pod(named(objects, "StatefulSet", "klatch"))["containers"][0]
    lag = seconds(environment(objects, node)["KLATCH_DRAIN_LAG"])
    kept = re.search(r"keepalive \d+;.*?keepalive_timeout (\w+);", edge_file(objects, "proxy.conf"), re.S)
    assert lag > seconds(kept[1])
    ready = node["readinessProbe"]
    noticed = ready["periodSeconds"] * ready["failureThreshold"] + ready["timeoutSeconds"]
    assert lag > noticed + PROPAGATION_SECONDS


def test_signing_in_has_pods_of_its_own_where_that_is_wanted(objects):
    server = re.search(r"^server ([\w-]+):8080;", edge_file(objects, "upstreams-auth.conf"), re.M)[1]
    pods = [one for one in of_kind(objects, "Deployment") if one["metadata"]["name"] == "klatch-auth"]
    assert server == ("klatch-auth" if pods else "klatch")
    selector = named(objects, "Service", server)["spec"]["selector"].items()
    workload = pods[0] if pods else named(objects, "StatefulSet", "klatch")
    assert selector <= workload["spec"]["template"]["metadata"]["labels"].items()
    role = environment(objects, pod(workload)["containers"][0]).get("KLATCH_ROLE", "all")
    assert role == ("auth" if pods else "all")


def test_an_edge_that_stops_has_time_for_its_streams(objects):
    spec = pod(named(objects, "Deployment", "klatch-edge"))
    wait = int(spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    shutdown = re.search(r"worker_shutdown_timeout (\w+);", edge_file(objects, "nginx.conf"))
    assert spec["terminationGracePeriodSeconds"] >= wait + seconds(shutdown[1])
    assert wait >= PROPAGATION_SECONDS


def test_the_edge_knows_every_ordinal_and_outlasts_those_that_are_spare(objects):
    ordinals = {
        one["spec"]["selector"]["statefulset.kubernetes.io/pod-name"]
        for one in of_kind(objects, "Service")
        if "statefulset.kubernetes.io/pod-name" in one["spec"]["selector"]
    }
    servers = re.findall(r"^server ([\w-]+):(\d+) ", edge_file(objects, "upstreams.conf"), re.M)
    assert {name for name, _ in servers} == ordinals == {f"klatch-{n}" for n in range(len(ordinals))}
    for name, port in servers:
        service = named(objects, "Service", name)["spec"]
        assert service["selector"] == {"statefulset.kubernetes.io/pod-name": name}
        assert [one["port"] for one in service["ports"]] == [int(port)]
    replicas = named(objects, "StatefulSet", "klatch")["spec"].get("replicas", 3)
    tries = int(re.search(r"proxy_next_upstream_tries (\d+);", edge_file(objects, "proxy.conf"))[1])
    assert tries >= len(ordinals) - replicas + 2, "a request may meet every spare one, and one that just died"
    for scaler in of_kind(objects, "HorizontalPodAutoscaler", "ScaledObject"):
        most = scaler["spec"].get("maxReplicas", scaler["spec"].get("maxReplicaCount"))
        assert most <= len(ordinals)
        assert scaler["spec"]["scaleTargetRef"] == {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "klatch"}
        assert "replicas" not in named(objects, "StatefulSet", "klatch")["spec"]


def test_the_edge_has_every_file_of_nginx(objects):
    volumes = pod(named(objects, "Deployment", "klatch-edge"))["volumes"]
    items = next(volume["configMap"]["items"] for volume in volumes if volume["name"] == "config")
    there = {str(path.relative_to(ROOT / "nginx")) for path in (ROOT / "nginx").rglob("*.conf")}
    assert {item["path"] for item in items} == there
    for item in items:
        if item["path"] not in OF_EACH_DEPLOYMENT:
            assert edge_file(objects, item["key"]) == (ROOT / "nginx" / item["path"]).read_text()


def test_only_a_gateway_is_believed_what_it_says_of_clients(objects):
    trusted = re.findall(r"^(\w+) (.*);", edge_file(objects, "trusted-proxies.conf"), re.M)
    if of_kind(objects, "HTTPRoute"):
        assert [name for name, _ in trusted] == ["set_real_ip_from", "real_ip_header", "real_ip_recursive"]
        assert "0.0.0.0/0" not in dict(trusted).values()
    else:
        assert trusted == []


def test_disruptions_are_one_at_a_time_and_never_stuck(objects):
    budgets = {json.dumps(one["spec"]["selector"]["matchLabels"], sort_keys=True): one["spec"] for one in of_kind(objects, "PodDisruptionBudget")}
    for workload in workloads(objects):
        if workload["spec"].get("replicas") == 1:
            continue
        budget = budgets[json.dumps(workload["spec"]["selector"]["matchLabels"], sort_keys=True)]
        assert budget["maxUnavailable"] == 1 and budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow"
        spread = {one["topologyKey"]: one["labelSelector"] for one in pod(workload)["topologySpreadConstraints"]}
        assert spread.keys() == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        for selector in spread.values():
            assert selector == workload["spec"]["selector"]


def test_every_port_that_a_policy_names_is_one_of_its_pods(objects):
    policies = of_kind(objects, "NetworkPolicy")
    deny = named(objects, "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}

    def matches(selector, labels):
        for rule in selector.get("matchExpressions", []):
            assert rule["operator"] == "In"
            if labels.get(rule["key"]) not in rule["values"]:
                return False
        return selector.get("matchLabels", {}).items() <= labels.items()

    def ports(selector):
        pods = [one for one in workloads(objects) if matches(selector, one["spec"]["template"]["metadata"]["labels"])]
        return {port["name"] for one in pods for container in pod(one)["containers"] for port in container["ports"]}

    for policy in policies:
        spec = policy["spec"]
        for rule in spec.get("ingress", []):
            for port in rule["ports"]:
                assert port["port"] in ports(spec["podSelector"]), policy["metadata"]["name"]
        for rule in spec.get("egress", []):
            for port in rule["ports"]:
                if isinstance(port["port"], str):
                    assert all(port["port"] in ports(to["podSelector"]) for to in rule["to"]), policy["metadata"]["name"]


def test_every_service_leads_to_a_port_of_a_pod(objects):
    for service in of_kind(objects, "Service"):
        selector = service["spec"]["selector"]
        if "statefulset.kubernetes.io/pod-name" in selector:
            found = [named(objects, "StatefulSet", "klatch")]
        else:
            found = [one for one in workloads(objects) if selector.items() <= one["spec"]["template"]["metadata"]["labels"].items()]
        assert len(found) == 1, service["metadata"]["name"]
        ports = {port["name"] for container in pod(found[0])["containers"] for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def test_each_monitor_selects_one_service_that_has_its_port(objects):
    for monitor in of_kind(objects, "ServiceMonitor"):
        wanted = monitor["spec"]["selector"]["matchLabels"].items()
        services = [one for one in of_kind(objects, "Service") if wanted <= one["metadata"].get("labels", {}).items()]
        assert len(services) == 1, monitor["metadata"]["name"]
        ports = {port["name"] for port in services[0]["spec"]["ports"]}
        assert {one["port"] for one in monitor["spec"]["endpoints"]} <= ports


def test_a_prometheus_without_an_operator_finds_the_same_services(objects):
    if not of_kind(objects, "ServiceMonitor"):
        return
    config = yaml.safe_load((ROOT / "deploy/monitoring/prometheus/kubernetes.yml").read_text())
    asked = [name for job in config["scrape_configs"] for found in job["dns_sd_configs"] for name in found["names"]]
    assert {job["job_name"] for job in config["scrape_configs"]} == {
        rule["replacement"]
        for monitor in of_kind(objects, "ServiceMonitor")
        for rule in monitor["spec"]["endpoints"][0]["relabelings"]
        if rule["targetLabel"] == "job"
    }
    for name in asked:
        port, service = re.fullmatch(r"_([\w-]+)\._tcp\.([\w-]+)\.klatch\.svc\.cluster\.local", name).groups()
        spec = named(objects, "Service", service)["spec"]
        assert port in [one["name"] for one in spec["ports"]] and spec["clusterIP"] == "None"


def test_a_gateways_policy_is_for_the_service_that_its_route_leads_to(objects):
    for policy in of_kind(objects, "BackendTLSPolicy"):
        assert policy["apiVersion"] == "gateway.networking.k8s.io/v1"
        assert policy["spec"].keys() == {"targetRefs", "validation"}
        route = of_kind(objects, "HTTPRoute")[0]["spec"]
        backend = route["rules"][0]["backendRefs"][0]
        assert policy["spec"]["targetRefs"] == [{"group": "", "kind": "Service", "name": backend["name"]}]
        assert [policy["spec"]["validation"]["hostname"]] == route["hostnames"]
        service = named(objects, "Service", backend["name"])["spec"]
        assert backend["port"] in [port["port"] for port in service["ports"]] and service["type"] == "ClusterIP"


def test_the_alerts_are_those_of_every_prometheus():
    folder = KUBERNETES / "components" / "monitoring"
    made = subprocess.run([sys.executable, folder / "prometheusrule.py", "--print"], capture_output=True, text=True, check=True)
    assert (folder / "prometheusrule.yaml").read_text() == made.stdout, "run prometheusrule.py"

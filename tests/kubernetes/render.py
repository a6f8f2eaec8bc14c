#!/usr/bin/env python3
"""Renders an overlay, with or without a component, as `kubectl kustomize` does: `render.py OVERLAY [COMPONENT]` prints JSON.

Takes the kubectl beside this Python, which requirements.txt brings, or that of KUBECTL. The overlay `dev` has its
secrets made first.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
BUILDS = ROOT / "target" / "kubernetes"
KUBECTL = os.environ.get("KUBECTL", str(Path(sys.executable).parent / "kubectl"))


def secrets() -> None:
    subprocess.run([KUBERNETES / "secrets.sh", KUBERNETES / "overlays" / "dev" / "secrets"], check=True)


def render(overlay: str, *components: str) -> list[dict]:
    secrets()
    folder = KUBERNETES / "overlays" / overlay
    if components:
        folder = BUILDS / "-".join([overlay, *components])
        folder.mkdir(parents=True, exist_ok=True)
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"../../../deploy/kubernetes/overlays/{overlay}"],
            "components": [f"../../../deploy/kubernetes/components/{component}" for component in components],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    command = [KUBECTL, "kustomize", "--load-restrictor", "LoadRestrictionsNone", str(folder)]
    rendered = subprocess.run(command, capture_output=True, text=True)
    if rendered.returncode != 0:
        raise RuntimeError(rendered.stderr)
    return [document for document in yaml.safe_load_all(rendered.stdout) if document]


if __name__ == "__main__":
    print(json.dumps(render(*sys.argv[1:])))

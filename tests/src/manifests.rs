//! What a pod of a rendered StatefulSet is to be: its program's arguments, environment and files, as Kubernetes would give
//! them. Reads the JSON that tests/kubernetes/render.py prints, and refuses what it does not know.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

pub struct Manifests(Vec<Value>);

/// A pod's file, by its path within the volume.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What is at a place of the file system.
pub struct Mounted {
    pub path: String,
    pub read_only: bool,
    /// None: an empty folder.
    pub files: Option<Files>,
}

impl Manifests {
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
        Ok(Self(serde_json::from_str(&text)?))
    }

    fn object(&self, kind: &str, name: &str) -> anyhow::Result<&Value> {
        let is = |it: &&Value| it["kind"] == kind && it["metadata"]["name"] == name;
        self.0.iter().find(is).with_context(|| format!("there is no {kind} {name}"))
    }

    pub fn set(&self, name: &str) -> anyhow::Result<Set<'_>> {
        self.workload("StatefulSet", name)
    }

    pub fn has(&self, kind: &str, name: &str) -> bool {
        self.object(kind, name).is_ok()
    }

    pub fn workload(&self, kind: &str, name: &str) -> anyhow::Result<Set<'_>> {
        let object = self.object(kind, name)?;
        let pod = &object["spec"]["template"]["spec"];
        let containers = pod["containers"].as_array().context("a pod has containers")?;
        let [container] = &containers[..] else { bail!("{name} has {} containers and not one", containers.len()) };
        Ok(Set { manifests: self, object, pod, container })
    }
}

pub struct Set<'a> {
    manifests: &'a Manifests,
    object: &'a Value,
    pub pod: &'a Value,
    pub container: &'a Value,
}

impl Set<'_> {
    pub fn namespace(&self) -> anyhow::Result<&str> {
        text(&self.object["metadata"]["namespace"])
    }

    pub fn service(&self) -> anyhow::Result<&str> {
        text(&self.object["spec"]["serviceName"])
    }

    pub fn replicas(&self) -> usize {
        self.object["spec"]["replicas"].as_u64().and_then(|it| usize::try_from(it).ok()).unwrap_or(1)
    }

    pub fn port(&self, name: &str) -> anyhow::Result<u64> {
        let ports = self.container["ports"].as_array().into_iter().flatten();
        let port = ports.filter(|port| port["name"] == name).find_map(|port| port["containerPort"].as_u64());
        port.with_context(|| format!("there is no port {name}"))
    }

    pub fn arguments(&self) -> anyhow::Result<Vec<String>> {
        ensure!(self.container["command"].is_null(), "the image's own command is known, and no other");
        self.container["args"].as_array().into_iter().flatten().map(|it| text(it).map(str::to_owned)).collect()
    }

    /// With references to what stands before them taken in.
    pub fn environment(&self, pod_name: &str) -> anyhow::Result<BTreeMap<String, String>> {
        let mut environment = BTreeMap::new();
        for source in self.container["envFrom"].as_array().into_iter().flatten() {
            let map = self.manifests.object("ConfigMap", text(&source["configMapRef"]["name"])?)?;
            for (name, value) in map["data"].as_object().into_iter().flatten() {
                environment.insert(name.clone(), text(value)?.to_owned());
            }
        }
        for variable in self.container["env"].as_array().into_iter().flatten() {
            let mut value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                None => text(&variable["value"])?.to_owned(),
                Some("metadata.name") => pod_name.to_owned(),
                Some("metadata.namespace") => self.namespace()?.to_owned(),
                Some(other) => bail!("what is {other} of a pod?"),
            };
            for (name, known) in &environment {
                value = value.replace(&format!("$({name})"), known);
            }
            ensure!(!value.contains("$("), "{value} refers to nothing before it");
            environment.insert(text(&variable["name"])?.to_owned(), value);
        }
        Ok(environment)
    }

    pub fn mounted(&self) -> anyhow::Result<Vec<Mounted>> {
        let mounts = self.container["volumeMounts"].as_array().into_iter().flatten();
        mounts
            .map(|mount| {
                let files = self.volume(text(&mount["name"])?)?;
                let read_only = mount["readOnly"] == true;
                Ok(Mounted { path: text(&mount["mountPath"])?.to_owned(), read_only, files })
            })
            .collect()
    }

    /// What the file at this path of the container says.
    pub fn file(&self, path: &str) -> anyhow::Result<String> {
        for mount in self.container["volumeMounts"].as_array().into_iter().flatten() {
            let Some(inner) = path.strip_prefix(&format!("{}/", text(&mount["mountPath"])?)) else { continue };
            let file = self.volume(text(&mount["name"])?)?.and_then(|mut files| files.remove(inner));
            return Ok(String::from_utf8(file.with_context(|| format!("there is no {path}"))?)?);
        }
        bail!("nothing is mounted at {path}")
    }

    fn volume(&self, name: &str) -> anyhow::Result<Option<Files>> {
        let volumes = self.pod["volumes"].as_array().into_iter().flatten();
        let volume = volumes.into_iter().find(|it| it["name"] == name).with_context(|| format!("no volume {name}"))?;
        if volume["emptyDir"].is_object() {
            return Ok(None);
        }
        let (object, encoded) = if let Some(name) = volume["configMap"]["name"].as_str() {
            (self.manifests.object("ConfigMap", name)?, false)
        } else {
            (self.manifests.object("Secret", text(&volume["secret"]["secretName"])?)?, true)
        };
        let data = object["data"].as_object().with_context(|| format!("{name} is empty"))?;
        let file = |(key, value): (&String, &Value)| {
            let value = text(value)?;
            // Kustomize breaks it into lines.
            let one_line = || value.split_whitespace().collect::<String>();
            let bytes = if encoded { BASE64_STANDARD.decode(one_line())? } else { value.as_bytes().to_vec() };
            anyhow::Ok((key.clone(), bytes))
        };
        data.iter().map(file).collect::<anyhow::Result<Files>>().map(Some)
    }
}

/// Of a value that is one.
pub fn text(value: &Value) -> anyhow::Result<&str> {
    value.as_str().with_context(|| format!("{value} is no text"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn manifests(container: Value) -> Manifests {
        let pod = json!({"containers": [container], "volumes": [
            {"name": "keys", "secret": {"secretName": "keys"}}, {"name": "work", "emptyDir": {}}]});
        let set = json!({"kind": "StatefulSet", "metadata": {"name": "a", "namespace": "n"},
            "spec": {"template": {"spec": pod}}});
        let map = json!({"kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"STORE": "s"}});
        let keys = json!({"kind": "Secret", "metadata": {"name": "keys"}, "data": {"key": "c2Vj\ncmV0\n"}});
        Manifests(vec![set, map, keys])
    }

    #[test]
    fn the_environment_is_what_kubernetes_makes_of_it() {
        let name = json!({"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
        let told = json!({"name": "TOLD", "value": "$(NAME).peers:1"});
        let manifests = manifests(json!({"envFrom": [{"configMapRef": {"name": "m"}}], "env": [name, told]}));
        let environment = manifests.set("a").unwrap().environment("a-0").unwrap();
        let expected = [("NAME", "a-0"), ("STORE", "s"), ("TOLD", "a-0.peers:1")];
        assert_eq!(environment, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    }

    #[test]
    fn what_refers_to_nothing_is_refused() {
        let early = json!({"env": [{"name": "TOLD", "value": "$(NAME).peers:1"}]});
        assert!(manifests(early).set("a").unwrap().environment("a-0").is_err());
    }

    #[test]
    fn secrets_are_files_and_an_empty_folder_is_none() {
        let mounts =
            json!([{"name": "keys", "mountPath": "/keys", "readOnly": true}, {"name": "work", "mountPath": "/w"}]);
        let manifests = manifests(json!({"volumeMounts": mounts}));
        let mounted = manifests.set("a").unwrap().mounted().unwrap();
        assert_eq!(mounted[0].files.as_ref().unwrap()["key"], b"secret");
        assert_eq!(manifests.set("a").unwrap().file("/keys/key").unwrap(), "secret");
        assert!(mounted[0].read_only && !mounted[1].read_only && mounted[1].files.is_none());
    }
}

//! A container without a container runtime: a process in a network namespace of the test, with a host name, a root and
//! mounts of its own, as a user without any right, so that what a manifest forgets is missed.
//!
//! The test's own program is started again as [`Container::command`] says and becomes the container's program
//! ([`Container::become_it`]), so the child of the test is that process, and takes its signals.

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};

use crate::manifests::{Set, text};
use crate::names::DOMAIN;
use crate::namespaces::HUB;
use crate::process::binary;

/// The argument that makes the test's program a container.
pub const BECOME: &str = "--become-container";

#[derive(Serialize, Deserialize)]
pub struct Container {
    /// An empty folder.
    root: PathBuf,
    host_name: String,
    user: u64,
    group: u64,
    read_only_root: bool,
    working_dir: String,
    program: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    mounts: Vec<Mount>,
}

#[derive(Serialize, Deserialize)]
struct Mount {
    from: PathBuf,
    /// In the container.
    to: String,
    read_only: bool,
}

impl Container {
    /// Of this pod, with its volumes written into the folder. `change` may change a file.
    pub fn new(
        set: &Set,
        name: &str,
        folder: &Path,
        change: impl Fn(&str, Vec<u8>) -> Vec<u8>,
    ) -> anyhow::Result<Self> {
        let security = &set.pod["securityContext"];
        let number = |key: &str| security[key].as_u64().with_context(|| format!("the pod has no {key}"));
        let (user, group, of_files) = (number("runAsUser")?, number("runAsGroup")?, number("fsGroup")?);
        ensure!(security["runAsNonRoot"] == true && user > 0 && group == of_files, "the pod is not what is known here");
        ensure!(set.container["securityContext"]["capabilities"]["drop"][0] == "ALL", "it keeps capabilities");
        let mut mounts = vec![etc(set, name, &folder.join("etc"))?];
        // The image has the distribution's certificates too.
        mounts.push(Mount { from: "/etc/ssl".into(), to: "/etc/ssl".to_owned(), read_only: true });
        for (n, mounted) in set.mounted()?.into_iter().enumerate() {
            let from = folder.join(format!("volume-{n}"));
            std::fs::create_dir(&from)?;
            let owner = u32::try_from(of_files)?;
            chown(&from, Some(0), Some(owner))?;
            std::fs::set_permissions(&from, PermissionsExt::from_mode(0o2775))?;
            for (file, bytes) in mounted.files.into_iter().flatten() {
                let path = from.join(&file);
                std::fs::write(&path, change(&file, bytes))?;
                chown(&path, Some(0), Some(owner))?;
                std::fs::set_permissions(&path, PermissionsExt::from_mode(0o440))?;
            }
            mounts.push(Mount { from, to: mounted.path, read_only: mounted.read_only });
        }
        let root = folder.join("root");
        std::fs::create_dir(&root)?;
        Ok(Self {
            root,
            host_name: name.to_owned(),
            user,
            group,
            read_only_root: set.container["securityContext"]["readOnlyRootFilesystem"] == true,
            working_dir: text(&set.container["workingDir"])?.to_owned(),
            program: binary()?,
            arguments: set.arguments()?,
            environment: set.environment(name)?.into_iter().collect(),
            mounts,
        })
    }

    /// Starts it in this network namespace.
    pub fn command(&self, namespace: &str) -> anyhow::Result<Command> {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace, "unshare", "--mount", "--uts", "--propagation", "private", "--"]);
        command.arg(std::env::current_exe()?).arg(BECOME).arg(serde_json::to_string(self)?);
        Ok(command)
    }

    /// Returns only what went wrong.
    pub fn become_it(&self) -> anyhow::Result<()> {
        let at = |path: &str| self.root.join(path.trim_start_matches('/'));
        run("mount", &["-t", "tmpfs", "none", &shown(&self.root)])?;
        for (from, to) in [("/usr", "usr"), ("/dev", "dev"), ("/proc", "proc")] {
            std::fs::create_dir_all(at(to))?;
            run("mount", &["--rbind", from, &shown(&at(to))])?;
        }
        for folder in ["bin", "sbin", "lib", "lib64"] {
            // Where the machine's is a link too, as nearly everywhere by now.
            if let Ok(target) = std::fs::read_link(Path::new("/").join(folder)) {
                symlink(target, at(folder))?;
            }
        }
        std::fs::write(at("klatch"), "")?;
        run("mount", &["--bind", "-o", "ro", &shown(&self.program), &shown(&at("klatch"))])?;
        for mount in &self.mounts {
            std::fs::create_dir_all(at(&mount.to))?;
            let mode = if mount.read_only { "ro" } else { "rw" };
            run("mount", &["--bind", "-o", mode, &shown(&mount.from), &shown(&at(&mount.to))])?;
        }
        if self.read_only_root {
            run("mount", &["-o", "remount,ro", &shown(&self.root)])?;
        }
        std::fs::write("/proc/sys/kernel/hostname", &self.host_name)?;
        let mut command = Command::new("chroot");
        command.arg(&self.root).args(["/usr/bin/env", "-C", &self.working_dir]);
        command.args(["/usr/bin/setpriv", "--reuid", &self.user.to_string(), "--regid", &self.group.to_string()]);
        command.args(["--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--", "/klatch"]);
        command.args(&self.arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        bail!("{}", command.envs(self.environment.iter().cloned()).exec())
    }
}

/// What the kubelet writes: how names are looked up.
fn etc(set: &Set, name: &str, folder: &Path) -> anyhow::Result<Mount> {
    std::fs::create_dir(folder)?;
    std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755))?;
    let namespace = set.namespace()?;
    let search = format!("{namespace}.svc.{DOMAIN} svc.{DOMAIN} {DOMAIN}");
    std::fs::write(folder.join("resolv.conf"), format!("nameserver {HUB}\nsearch {search}\noptions ndots:5\n"))?;
    std::fs::write(folder.join("nsswitch.conf"), "hosts: files dns\n")?;
    std::fs::write(folder.join("hosts"), format!("127.0.0.1 localhost\n127.0.0.1 {name}\n"))?;
    std::fs::create_dir(folder.join("ssl"))?;
    // It is read-only by the time that these are mounted.
    for volume in set.container["volumeMounts"].as_array().into_iter().flatten() {
        if let Some(inner) = text(&volume["mountPath"])?.strip_prefix("/etc/") {
            std::fs::create_dir_all(folder.join(inner))?;
        }
    }
    Ok(Mount { from: folder.to_owned(), to: "/etc".to_owned(), read_only: true })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output().with_context(|| format!("{program} cannot be run"))?;
    ensure!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

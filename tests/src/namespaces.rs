//! A network of the test's own: a bridge, and on it a namespace for each node, with an address of its own. What is cut is
//! cut in the node's namespace by dropping packets, so nobody is told; what vanishes takes its address with it.
//!
//! The program enters a namespace itself first ([`enter`]), so nothing of the machine's network is touched, and nothing
//! is left behind. Needs root, `unshare`, `ip` and `iptables`; [`missing`] says what is not there.

use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Set once the program runs in its own namespace.
const ENTERED: &str = "KLATCH_TESTS_IN_NAMESPACE";
const BRIDGE: &str = "klatch0";
/// Where the nodes' clients and the model server are.
pub const HUB: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Redis has an address of its own, so that it can be cut off alone.
pub const REDIS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
const NODES_MAX: usize = 100;

/// Namespaces of this many nodes.
pub struct Namespaces {
    nodes: usize,
}

/// Why this machine cannot have namespaces, if it cannot.
pub fn missing() -> Option<String> {
    if !run("unshare", &["--net", "--mount", "true"]).is_ok_and(|said| said.is_empty()) {
        return Some("network namespaces need root, and `unshare` of util-linux".into());
    }
    let lacks = |program: &str, argument: &str| {
        let ran = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status();
        !ran.is_ok_and(|status| status.success())
    };
    if lacks("ip", "-V") || lacks("iptables", "-V") {
        return Some("there is no `ip` or no `iptables`: `apt-get install iproute2 iptables` on Debian".into());
    }
    None
}

/// Begins the program again in a network of its own, with the same arguments; returns where it is in one.
pub fn enter() -> anyhow::Result<()> {
    if std::env::var_os(ENTERED).is_none() {
        let program = std::env::current_exe()?;
        let mut command = Command::new("unshare");
        command.args(["--net", "--mount", "--"]).arg(program).args(std::env::args_os().skip(1));
        let error = command.env(ENTERED, "yes").exec();
        bail!("cannot enter a network namespace: {error}");
    }
    // Names of namespaces are files: with a folder of their own they are gone with the program.
    std::fs::create_dir_all("/run/netns")?;
    run("mount", &["-t", "tmpfs", "none", "/run/netns"])?;
    ip("link set lo up")?;
    ip(&format!("link add {BRIDGE} type bridge"))?;
    ip(&format!("addr add {HUB}/24 dev {BRIDGE}"))?;
    ip(&format!("addr add {REDIS}/24 dev {BRIDGE}"))?;
    ip(&format!("link set {BRIDGE} up"))?;
    Ok(())
}

impl Namespaces {
    /// Within a network of the program's own.
    pub fn new(nodes: usize) -> anyhow::Result<Self> {
        anyhow::ensure!(nodes <= NODES_MAX, "there are addresses for {NODES_MAX} nodes");
        for node in 0..nodes {
            let (name, link) = (name(node), link(node));
            ip(&format!("netns add {name}"))?;
            ip(&format!("link add {link} type veth peer name eth0 netns {name}"))?;
            ip(&format!("link set {link} master {BRIDGE} up"))?;
            ip(&format!("-n {name} link set lo up"))?;
            connect(node)?;
        }
        Ok(Self { nodes })
    }

    pub fn name(&self, node: usize) -> String {
        name(node)
    }

    pub fn address(&self, node: usize) -> IpAddr {
        address(node).into()
    }

    /// Nothing passes between the node and this address; nobody is told.
    pub fn cut(&self, node: usize, other: Ipv4Addr) -> anyhow::Result<()> {
        for (chain, side) in [("INPUT", "-s"), ("OUTPUT", "-d")] {
            iptables(node, &["-A", chain, side, &other.to_string(), "-j", "DROP"])?;
        }
        Ok(())
    }

    /// Nothing that this address says reaches the node.
    pub fn deafen(&self, node: usize, other: Ipv4Addr) -> anyhow::Result<()> {
        iptables(node, &["-A", "INPUT", "-s", &other.to_string(), "-j", "DROP"])
    }

    pub fn cut_from_node(&self, node: usize, other: usize) -> anyhow::Result<()> {
        self.cut(node, address(other))
    }

    /// Nothing passes between the node and anybody.
    pub fn cut_off(&self, node: usize) -> anyhow::Result<()> {
        for chain in ["INPUT", "OUTPUT"] {
            iptables(node, &["-A", chain, "!", if chain == "INPUT" { "-i" } else { "-o" }, "lo", "-j", "DROP"])?;
        }
        Ok(())
    }

    /// The node's address is gone, and its cable with it.
    pub fn vanish(&self, node: usize) -> anyhow::Result<()> {
        ip(&format!("link set {} down", link(node)))?;
        ip(&format!("-n {} addr flush dev eth0", name(node)))
    }

    /// Everything passes again, and what vanished is back.
    pub fn heal(&self) -> anyhow::Result<()> {
        for node in 0..self.nodes {
            iptables(node, &["-F"])?;
            ip(&format!("link set {} up", link(node)))?;
            connect(node)?;
        }
        Ok(())
    }
}

/// Gives the node its address, if it has none.
fn connect(node: usize) -> anyhow::Result<()> {
    let (name, address) = (name(node), address(node));
    ip(&format!("-n {name} addr replace {address}/24 dev eth0"))?;
    ip(&format!("-n {name} link set eth0 up"))
}

fn name(node: usize) -> String {
    format!("klatch-{node}")
}

fn link(node: usize) -> String {
    format!("veth{node}")
}

fn address(node: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 0, 100 + u8::try_from(node).unwrap_or(u8::MAX - 100))
}

fn iptables(node: usize, arguments: &[&str]) -> anyhow::Result<()> {
    let name = name(node);
    run("ip", &[&["netns", "exec", &name, "iptables", "-w"], arguments].concat()).map(drop)
}

fn ip(arguments: &str) -> anyhow::Result<()> {
    run("ip", &arguments.split(' ').collect::<Vec<_>>()).map(drop)
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{program} cannot be run"))?;
    if !output.status.success() {
        bail!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

//! What `klatch serve` says to the person who started it: where to go, and how to get in. Nothing of it is needed by
//! machines, so it stays away where they read the logs.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::{Config, without_password};
use crate::telemetry::LogFormat;

/// How this program was called, so that the commands shown can be copied as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    pub program: String,
    /// Options that other commands need to find the same node: `--config`, `--store`.
    pub options: String,
}

impl Invocation {
    pub fn greet(&self, config: &Config, http: SocketAddr, ops: SocketAddr, without_accounts: bool) {
        if config.log.format == LogFormat::Human {
            println!("{}", self.greeting(config, http, ops, without_accounts));
        }
    }

    fn greeting(&self, config: &Config, http: SocketAddr, ops: SocketAddr, without_accounts: bool) -> String {
        let (http, ops) = (reachable(http), reachable(ops));
        let mut text = format!(
            "\nklatch {version}, node {node}, store {store}\n\n  \
               API         http://{http}/v1\n  \
               operators   http://{ops}/metrics, /cluster\n",
            version = env!("CARGO_PKG_VERSION"),
            node = config.node_name,
            store = without_password(&config.store),
        );
        if without_accounts {
            self.first_steps(&mut text, http);
        }
        text.push_str("\nCtrl-C stops it.\n");
        text
    }

    fn first_steps(&self, text: &mut String, http: SocketAddr) {
        let Self { program, options } = self;
        let _ = write!(
            text,
            "\nThere are no accounts yet. In another terminal, to log in with a password:\n\n  \
               {program} user add{options} YOUR_NAME\n\n\
             and for scripts, a token is enough:\n\n  \
               export KLATCH_TOKEN=$({program} token{options} --sub YOUR_NAME)\n  \
               curl http://{http}/v1/responses -H \"Authorization: Bearer $KLATCH_TOKEN\" \\\n    \
                 -H 'Content-Type: application/json' -d '{{\"model\": \"eliza\", \"input\": \"Hello. I am a little tired.\"}}'\n"
        );
    }
}

/// An address to be typed on this host: a listener on all addresses is reached by loopback.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(without_accounts: bool) -> String {
        let invocation = Invocation { program: "./klatch".into(), options: " --store file:here".into() };
        let any: SocketAddr = "0.0.0.0:8080".parse().unwrap();
        invocation.greeting(&Config::default(), any, any, without_accounts)
    }

    #[test]
    fn the_password_of_a_store_is_not_shown() {
        let config = Config { store: "redis://ann:secret@host/1".into(), ..Config::default() };
        let invocation = Invocation { program: "./klatch".into(), options: String::new() };
        let any: SocketAddr = "0.0.0.0:8080".parse().unwrap();
        let said = invocation.greeting(&config, any, any, false);
        assert!(said.contains("@host/1") && !said.contains("secret"), "{said}");
    }

    #[test]
    fn a_newcomer_is_told_commands_that_can_be_copied() {
        let said = greeting(true);
        assert!(said.contains("./klatch user add --store file:here YOUR_NAME"), "{said}");
        assert!(said.contains("./klatch token --store file:here --sub YOUR_NAME"), "{said}");
        assert!(said.contains("curl http://127.0.0.1:8080/v1/responses"), "{said}");
    }

    #[test]
    fn who_has_accounts_is_told_only_where_to_go() {
        let said = greeting(false);
        assert!(said.contains("http://127.0.0.1:8080/v1\n") && !said.contains("user add"), "{said}");
    }
}

//! What `klatch serve` says to the person who started it: where to go, and how to get in; and what it waits for when it
//! stops. Nothing of it is needed by machines, so it stays away where they read the logs.

use std::fmt::Write;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use super::drain::Wait;
use crate::config::{Config, Role, without_password};
use crate::durations;
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
            say(&self.greeting(config, http, ops, without_accounts, address_for_others));
        }
    }

    fn greeting(
        &self,
        config: &Config,
        http: SocketAddr,
        ops: SocketAddr,
        without_accounts: bool,
        others: impl Fn(IpAddr) -> Option<IpAddr>,
    ) -> String {
        let mut text = format!(
            "\nklatch {version}, node {node}, store {store}\n\n",
            version = env!("CARGO_PKG_VERSION"),
            node = config.node_name,
            store = without_password(&config.store),
        );
        let (shown_http, shown_ops) = (Shown::of(http, &others), Shown::of(ops, &others));
        let lines = match config.role {
            Role::All => {
                vec![("chat page", &shown_http, "/"), ("API", &shown_http, "/v1"), ("operators", &shown_ops, "/")]
            }
            Role::Auth => vec![("sign-in", &shown_http, "/auth"), ("metrics", &shown_ops, "/metrics")],
        };
        for (what, shown, path) in lines {
            let _ = writeln!(text, "  {what:<11} {}", shown.with(path));
        }
        let Self { program, options } = self;
        let http = shown_http.here;
        if without_accounts {
            let _ = write!(
                text,
                "\nThere are no accounts yet. In another terminal, to log in with a name and a password:\n\n  \
                   {program} user add{options} YOUR_NAME\n"
            );
        }
        if config.role == Role::All {
            self.tokens(&mut text, http, without_accounts);
        }
        text.push_str("\nCtrl-C stops it.\n");
        text
    }

    fn tokens(&self, text: &mut String, http: SocketAddr, without_accounts: bool) {
        let Self { program, options } = self;
        let token = format!("{program} token{options} --sub YOUR_NAME");
        if !without_accounts {
            let _ = write!(
                text,
                "\nLog in with an account (`{program} user list{options}` names them), or paste what `{token}` prints.\n"
            );
            return;
        }
        let _ = write!(
            text,
            "\nA token is enough too: the page takes one, and so do scripts:\n\n  \
               export KLATCH_TOKEN=$({token})\n  \
               curl http://{http}/v1/responses -H \"Authorization: Bearer $KLATCH_TOKEN\" \\\n    \
                 -H 'Content-Type: application/json' -d '{{\"model\": \"eliza\", \"input\": \"Hello. I am a little tired.\"}}'\n"
        );
    }
}

/// Nobody may be there to read it any more, which is no reason to stop.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// What a node that was told to stop waits for, if a person would notice.
pub(super) fn waiting_for(wait: Wait, time: Duration, connections: usize) -> Option<String> {
    let up_to = durations::format(Duration::from_secs(time.as_secs()));
    let ends = "Ctrl-C again ends it at once.";
    match (wait, connections) {
        _ if time < Duration::from_secs(1) => None,
        (Wait::Lag, _) => Some(format!("Stopping. Requests are still taken for {up_to}, until balancers know. {ends}")),
        (Wait::Linger, _) | (Wait::Finish, 0) => None,
        (Wait::Finish, 1) => Some(format!("Waiting up to {up_to} for 1 connection to end what is in flight. {ends}")),
        (Wait::Finish, _) => {
            Some(format!("Waiting up to {up_to} for {connections} connections to end what is in flight. {ends}"))
        }
    }
}

/// An address that can be typed into a browser.
struct Shown {
    here: SocketAddr,
    /// For other hosts, where it listens on all addresses.
    elsewhere: Option<SocketAddr>,
}

impl Shown {
    /// A listener on all addresses is reached by loopback on this host, and by an address of it from others.
    fn of(address: SocketAddr, others: impl Fn(IpAddr) -> Option<IpAddr>) -> Self {
        let loopback = match address.ip() {
            ip if !ip.is_unspecified() => return Self { here: address, elsewhere: None },
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        };
        let with_port = |ip| SocketAddr::new(ip, address.port());
        Self { here: with_port(loopback), elsewhere: others(address.ip()).map(with_port) }
    }

    fn with(&self, path: &str) -> String {
        let here = format!("http://{}{path}", self.here);
        match self.elsewhere {
            Some(elsewhere) => format!("{here} (from other hosts http://{elsewhere}{path})"),
            None => here,
        }
    }
}

/// That by which this host would reach the rest of the world. Nothing is sent: only the route is looked up.
fn address_for_others(unspecified: IpAddr) -> Option<IpAddr> {
    // Addresses for documentation, which nobody has.
    let far: SocketAddr = match unspecified {
        IpAddr::V4(_) => (Ipv4Addr::new(192, 0, 2, 1), 9).into(),
        IpAddr::V6(_) => (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into(),
    };
    let socket = UdpSocket::bind((unspecified, 0)).ok()?;
    socket.connect(far).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn greeting(config: &Config, http: &str, without_accounts: bool) -> String {
        let invocation = Invocation { program: "./klatch".into(), options: " --store file:here".into() };
        let others = |_| Some(IpAddr::from([10, 1, 2, 3]));
        invocation.greeting(config, http.parse().unwrap(), "127.0.0.1:9090".parse().unwrap(), without_accounts, others)
    }

    #[test]
    fn the_password_of_a_store_is_not_shown() {
        let config = Config { store: "redis://ann:secret@host/1".into(), ..Config::default() };
        let said = greeting(&config, "127.0.0.1:8080", false);
        assert!(said.contains("@host/1") && !said.contains("secret"), "{said}");
    }

    #[test]
    fn a_newcomer_is_told_commands_that_can_be_copied() {
        let said = greeting(&Config::default(), "0.0.0.0:8080", true);
        assert!(said.contains("./klatch user add --store file:here YOUR_NAME"), "{said}");
        assert!(said.contains("./klatch token --store file:here --sub YOUR_NAME"), "{said}");
        assert!(said.contains("curl http://127.0.0.1:8080/v1/responses"), "{said}");
    }

    #[test]
    fn everybody_is_told_where_the_pages_are_and_how_to_log_in() {
        let said = greeting(&Config::default(), "127.0.0.1:8080", false);
        assert!(said.contains("chat page   http://127.0.0.1:8080/\n"), "{said}");
        assert!(said.contains("operators   http://127.0.0.1:9090/\n"), "{said}");
        assert!(
            said.contains("./klatch token --store file:here --sub YOUR_NAME") && !said.contains("user add"),
            "{said}"
        );
    }

    #[test]
    fn addresses_can_be_opened_where_it_listens_on_all_of_them() {
        let said = greeting(&Config::default(), "0.0.0.0:8080", false);
        assert!(said.contains("http://127.0.0.1:8080/ (from other hosts http://10.1.2.3:8080/)"), "{said}");
        let said = greeting(&Config::default(), "[::]:8080", false);
        assert!(said.contains("http://[::1]:8080/ ") && !said.contains("[::]"), "{said}");
        let said = greeting(&Config::default(), "10.9.8.7:8080", false);
        assert!(said.contains("http://10.9.8.7:8080/\n") && !said.contains("other hosts"), "{said}");
    }

    #[test]
    fn a_process_that_only_signs_in_has_no_chat_page() {
        let config = Config { role: Role::Auth, ..Config::default() };
        let said = greeting(&config, "127.0.0.1:8080", true);
        assert!(said.contains("http://127.0.0.1:8080/auth") && !said.contains("chat page"), "{said}");
        assert!(said.contains("user add") && !said.contains("token"), "{said}");
    }

    #[test]
    fn whoever_stops_it_is_told_what_it_waits_for() {
        let said = |wait, secs, connections| waiting_for(wait, Duration::from_secs(secs), connections);
        assert_eq!(said(Wait::Lag, 0, 3), None, "on loopback nobody balances");
        assert!(said(Wait::Lag, 25, 3).unwrap().contains("still taken for 25s"));
        assert_eq!(said(Wait::Finish, 60, 0), None);
        assert!(said(Wait::Finish, 60, 1).unwrap().contains("up to 1m for 1 connection to"));
        assert!(said(Wait::Finish, 59, 2).unwrap().contains("up to 59s for 2 connections to"));
    }

    #[test]
    fn a_host_with_a_route_has_an_address_that_is_not_loopback() {
        // Where there is no route at all, nothing is told.
        for any in [IpAddr::from([0, 0, 0, 0]), IpAddr::from([0; 16])] {
            assert!(address_for_others(any).is_none_or(|ip| !ip.is_loopback() && !ip.is_unspecified()));
        }
    }
}

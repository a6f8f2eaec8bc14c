//! What is refused of a configuration, and what is sent.

use klatch_protocol::{ConversationId, Ended};

use super::*;

fn options(toml: &str) -> WebhookOptions {
    toml::from_str(toml).unwrap()
}

fn refused(toml: &str) -> String {
    check(&[options(toml)]).unwrap_err().to_string()
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

#[test]
fn what_is_wrong_is_named_with_what_would_be_right_and_without_the_whole_url() {
    for (toml, said) in [
        ("url = 'app.example'", "`url` must be a URL"),
        ("url = 'ftp://app.example/secret-path'", "`url` must be a URL"),
        ("url = 'http://app.example/secret-path'", "`url` must begin with https://"),
        ("url = 'https://a:secret-path@app.example'", "`url` must have no user"),
        ("url = 'https://169.254.169.254/secret-path'", "allow_private"),
        ("url = 'https://[::1]/secret-path'", "allow_private"),
        ("url = 'https://app.example/secret-path'\nevents = []", "`events` must name one"),
        ("url = 'https://app.example/secret-path'\nattempts = 0", "`attempts` must be 1 to"),
        ("url = 'https://app.example/secret-path'\nconcurrency = 0", "`concurrency` must be 1 to"),
        ("url = 'https://app.example/secret-path'\ntimeout = '0s'", "`timeout` must be longer"),
        ("url = 'https://app.example/secret-path'\nretry_after = '2h'", "`retry_after_max` must not be shorter"),
    ] {
        let told = refused(&format!("secret_env = 'S'\n{toml}"));
        assert!(told.contains(said) && !told.contains("secret-path"), "{toml}: {told}");
    }
    let one = options("url = 'https://app.example/a'\nsecret_env = 'S'");
    assert!(check(&[one.clone(), one.clone()]).unwrap_err().to_string().contains("twice"));
    let other = WebhookOptions { tenant: Some("acme".into()), ..one.clone() };
    assert!(check(&[one.clone(), other]).is_ok());
    let many: Vec<_> =
        (0..17).map(|n| WebhookOptions { url: format!("https://app.example/{n}"), ..one.clone() }).collect();
    assert!(check(&many[..16]).is_ok() && check(&many).is_err());
}

#[test]
fn a_secret_comes_from_the_environment_and_is_never_said() {
    let webhook = options("url = 'https://app.example/a'\nsecret_env = 'HOOK'");
    let line = |value: Option<&str>| Line::new(&webhook, |name| value.filter(|_| name == "HOOK").map(Into::into));
    assert!(line(Some(SECRET)).is_ok());
    let missing = line(None).err().unwrap().to_string();
    assert!(missing.contains("`HOOK` (its `secret_env`) is not set"), "{missing}");
    let unfit = line(Some("hunter2")).err().unwrap().to_string();
    assert!(unfit.contains("whsec_") && !unfit.contains("hunter2"), "{unfit}");
}

#[test]
fn the_body_is_openais_and_the_same_each_time() {
    let untold = Untold { turn: 2, ended: Ended::Incomplete, at_ms: 1_700_000_000_999, to: vec![] };
    let end = End { conversation: ConversationId([0xab; 16]), untold };
    let text = serde_json::to_string(&Body::of(&end)).unwrap();
    let tail = format!("{}0000000000000002", "ab".repeat(16));
    let expected = format!(
        r#"{{"object":"event","id":"evt_{tail}","type":"response.incomplete","created_at":1700000000,"data":{{"id":"resp_{tail}"}}}}"#
    );
    assert_eq!(text, expected);
}

#[test]
fn the_default_attempts_are_about_a_day() {
    let patience = options("url = 'https://app.example/a'\nsecret_env = 'S'").patience();
    let all: Duration = (1..patience.attempts).map(|failures| patience.wait(failures)).sum();
    assert!(all > Duration::from_secs(23 * 3_600) && all < Duration::from_secs(25 * 3_600), "{all:?}");
}

#[tokio::test]
async fn an_address_inside_is_not_connected_to_by_its_name() {
    let inside = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    inside.set_nonblocking(true).unwrap();
    let port = inside.local_addr().unwrap().port();
    let webhook = options(&format!("url = 'http://localhost:{port}/'\nsecret_env = 'S'\nallow_http = true"));
    let line = Line::new(&webhook, |_| Some(SECRET.into())).unwrap();
    let untold = Untold { turn: 0, ended: Ended::Completed, at_ms: 0, to: vec![] };
    let (outcome, told) = line.post(&End { conversation: ConversationId([1; 16]), untold }).await;
    assert_eq!((outcome, told), (Outcome::Forbidden, Err(NotTold(Forbidden.to_string()))));
    assert_eq!(inside.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "it was connected to");
}

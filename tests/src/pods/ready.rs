//! Which pods a Service would lead to: what their readiness probes find, as the kubelet asks them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::random::below;

/// Between two looks for a pod that is ready.
const PAUSE: Duration = Duration::from_millis(50);

/// By the readiness probe, as the kubelet asks it.
#[derive(Default)]
pub struct Ready {
    pub urls: Mutex<BTreeSet<String>>,
    /// Of pods that were told to stop, or lost.
    pub leaving: Mutex<BTreeSet<String>>,
    /// Streams through each pod that have begun and go on.
    pub streams: Mutex<BTreeMap<String, usize>>,
}

impl Ready {
    pub fn set(&self, url: &str, ready: bool) {
        let mut urls = lock(&self.urls);
        if ready {
            urls.insert(url.to_owned())
        } else {
            urls.remove(url)
        };
    }

    /// Whichever; waits for one.
    pub async fn pick(&self) -> String {
        loop {
            {
                let urls = lock(&self.urls);
                if !urls.is_empty() {
                    return urls.iter().nth(below(urls.len())).expect("it is below their number").clone();
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    pub fn leaves(&self, url: &str) {
        lock(&self.leaving).insert(url.to_owned());
    }

    pub fn stays(&self, url: &str) -> bool {
        !lock(&self.leaving).contains(url)
    }
}

/// Until it is aborted: what it finds is what a Service leads to.
pub async fn probe(http: reqwest::Client, probe: Value, ops_url: String, url: String, ready: Arc<Ready>) {
    let number = |key: &str| probe[key].as_u64().unwrap_or(1);
    let path = probe["httpGet"]["path"].as_str().unwrap_or_default();
    let (ask, limit) = (format!("{ops_url}{path}"), Duration::from_secs(number("timeoutSeconds")));
    let mut failed = 0;
    loop {
        failed = if is_content(&http, &ask, limit).await { 0 } else { failed + 1 };
        if failed == 0 || failed >= number("failureThreshold") {
            ready.set(&url, failed == 0);
        }
        tokio::time::sleep(Duration::from_secs(number("periodSeconds"))).await;
    }
}

pub async fn is_content(http: &reqwest::Client, url: &str, limit: Duration) -> bool {
    http.get(url).timeout(limit).send().await.is_ok_and(|answer| answer.status().is_success())
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! The machine that the load comes from: numbers without it cannot be compared. Best effort; empty where unknown.

use serde::Serialize;

#[derive(Debug, Default, Serialize)]
pub struct Host {
    pub cores: usize,
    pub kernel: String,
    pub cpu: String,
}

pub fn this() -> Host {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    Host {
        cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        cpu: cpu_of(&read("/proc/cpuinfo")),
    }
}

fn cpu_of(cpuinfo: &str) -> String {
    let model = |line: &str| {
        line.split_once(':').filter(|(key, _)| key.trim() == "model name").map(|(_, name)| name.trim().to_owned())
    };
    cpuinfo.lines().find_map(model).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_model_of_the_first_core_is_the_machines() {
        assert_eq!(
            super::cpu_of("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n\nmodel name: x"),
            "Some CPU @ 2 GHz"
        );
        assert_eq!(super::cpu_of(""), "");
    }
}

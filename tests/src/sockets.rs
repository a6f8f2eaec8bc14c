//! Which process holds the other end of a loopback connection, read from /proc.

use std::net::SocketAddr;
use std::path::Path;

/// The process that connected from here to there. None where it cannot be told: it is another user's, or gone.
pub fn process_of(from: SocketAddr, to: SocketAddr) -> Option<u32> {
    let table = std::fs::read_to_string("/proc/net/tcp").ok()?;
    let inode = table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let same = address(fields.get(1)?)? == from && address(fields.get(2)?)? == to;
        same.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
    })?;
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.into_iter().find(|process| holds(*process, &inode))
}

fn holds(process: u32, inode: &str) -> bool {
    let Ok(open) = std::fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    open.flatten().any(|entry| std::fs::read_link(entry.path()).is_ok_and(|file| file == Path::new(inode)))
}

/// As the kernel writes it: `0100007F:1F90`, the address in the order of this machine's bytes.
fn address(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let address = u32::from_str_radix(address, 16).ok()?.to_ne_bytes();
    Some(SocketAddr::from((address, u16::from_str_radix(port, 16).ok()?)))
}

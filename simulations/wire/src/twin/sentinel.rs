//! A sentinel: names the master, as whoever steers the world has decided. It watches nobody and decides nothing.

use std::io;
use std::rc::Rc;

use klatch::net::{Listener, Net};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use super::commands;
use super::data::Reply;
use super::resp::{self, Commands};
use super::server;
use crate::net::Wire;

pub const PORT: u16 = 26_379;

pub async fn serve(master: Rc<watch::Sender<String>>, net: Wire) -> turmoil::Result {
    let listener = net.listen(([0, 0, 0, 0], PORT).into()).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let master = master.clone();
        tokio::task::spawn_local(async move {
            let (read, write) = tokio::io::split(stream);
            // A connection that breaks off costs itself.
            let _ = connection(&master, read, write).await;
        });
    }
}

async fn connection(
    master: &watch::Sender<String>,
    read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    let mut commands = Commands::new(read);
    while let Some(command) = commands.next().await? {
        let reply = match commands::name_of(&command).as_str() {
            "SENTINEL" => {
                let port = server::PORT.to_string();
                let words = [master.borrow().clone(), port];
                Reply::Array(words.into_iter().map(|word| Reply::Bulk(word.into_bytes())).collect())
            }
            "CLIENT" => Reply::ok(),
            name => Reply::Error(format!("ERR unknown command '{name}'")),
        };
        let mut out = Vec::new();
        resp::write(&mut out, &reply);
        write.write_all(&out).await?;
    }
    Ok(())
}

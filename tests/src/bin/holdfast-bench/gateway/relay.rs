//! What a gateway cannot do without: a relay that looks at nothing, and before it hands the first bytes of
//! an answer on has a line of what it sent on the disk, with one sync for all who wait.
//!
//! **Invariant:** it does nothing that could be left out, so what it adds is the machine's.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// As long as a line of the agent's record.
const LINE: [u8; 420] = [b'x'; 420];

/// Told when the disk has its line.
type Line = oneshot::Sender<()>;

/// Is the relay in front of `upstream`, its record in `record`.
pub(crate) fn serve(
    address: SocketAddr,
    upstream: SocketAddr,
    record: &Path,
) -> anyhow::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(record)?;
    let (lines, waiting) = mpsc::channel();
    std::thread::Builder::new().name("record".to_owned()).spawn(move || write(file, &waiting))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (caller, _) = listener.accept().await?;
            let lines = lines.clone();
            tokio::spawn(async move {
                // A caller that goes away ends its own connection only.
                relay(caller, upstream, &lines).await.ok();
            });
        }
    })
}

/// Writes the lines of all who wait, and syncs once.
fn write(mut file: File, waiting: &mpsc::Receiver<Line>) -> anyhow::Result<()> {
    let mut lines: Vec<Line> = Vec::new();
    while let Ok(first) = waiting.recv() {
        lines.push(first);
        lines.extend(waiting.try_iter());
        for _ in &lines {
            file.write_all(&LINE)?;
        }
        file.sync_data()?;
        // Who waited may be gone.
        lines.drain(..).for_each(|line| _ = line.send(()));
    }
    Ok(())
}

async fn relay(
    mut caller: TcpStream,
    upstream: SocketAddr,
    lines: &mpsc::Sender<Line>,
) -> anyhow::Result<()> {
    let mut provider = TcpStream::connect(upstream).await?;
    caller.set_nodelay(true)?;
    provider.set_nodelay(true)?;
    let (mut asked, mut answered) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let mut on_disk = None;
    loop {
        tokio::select! {
            bytes = caller.read(&mut asked) => {
                let bytes = asked.get(..bytes?).filter(|bytes| !bytes.is_empty());
                let Some(bytes) = bytes else { return Ok(()) };
                let (done, written) = oneshot::channel();
                lines.send(done).ok().context("the record is gone")?;
                on_disk = Some(written);
                provider.write_all(bytes).await?;
            }
            bytes = provider.read(&mut answered) => {
                let bytes = answered.get(..bytes?).filter(|bytes| !bytes.is_empty());
                let Some(bytes) = bytes else { return Ok(()) };
                if let Some(written) = on_disk.take() {
                    written.await?;
                }
                caller.write_all(bytes).await?;
            }
        }
    }
}

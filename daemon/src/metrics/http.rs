//! As much of HTTP/1.1 as it takes to hand out one page: `GET /v1/metrics`, one request per
//! connection. What a client may send is bounded in size and time, and so are the clients.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Metrics;

/// How many clients are answered at a time; others wait to be accepted.
const CLIENTS: usize = 16;
/// The most that a request may have, with its headers, in bytes.
const REQUEST_LIMIT: usize = 8 << 10;
/// How long a client may take to send its request.
const READ_LIMIT: Duration = Duration::from_secs(5);
/// How long a client may take to read the answer.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How long to wait when no connection can be accepted, as when descriptors are short.
const RETRY: Duration = Duration::from_millis(200);

/// Serves the metrics for as long as it is polled.
pub async fn serve(listener: TcpListener, metrics: Metrics) {
    let clients = Arc::new(Semaphore::new(CLIENTS));
    loop {
        // The semaphore is never closed.
        let Ok(permit) = clients.clone().acquire_owned().await else {
            return;
        };
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                log::warn!("metrics: accept: {error}");
                tokio::time::sleep(RETRY).await;
                continue;
            }
        };
        let metrics = metrics.clone();
        tokio::spawn(async move {
            if let Err(error) = answer(client, &metrics).await {
                log::debug!("metrics: {error}");
            }
            drop(permit);
        });
    }
}

async fn answer(mut client: TcpStream, metrics: &Metrics) -> io::Result<()> {
    let head = match timeout(READ_LIMIT, head(&mut client)).await {
        Ok(head) => head?,
        Err(_) => return refuse(client, "408 Request Timeout").await,
    };
    let Some(head) = head else {
        return refuse(client, "431 Request Header Fields Too Large").await;
    };
    let line = head.lines().next().unwrap_or_default();
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = words.as_slice() else {
        return refuse(client, "400 Bad Request").await;
    };
    if !version.starts_with("HTTP/1.") {
        return refuse(client, "400 Bad Request").await;
    }
    let path = target.split('?').next().unwrap_or_default();
    match (*method, path) {
        ("GET", "/v1/metrics") => page(client, &metrics.text().await).await,
        ("HEAD", "/v1/metrics") => page(client, "").await,
        (_, "/v1/metrics") => refuse(client, "405 Method Not Allowed").await,
        _ => refuse(client, "404 Not Found").await,
    }
}

/// The request up to the empty line; `None` when it is too long.
async fn head(client: &mut TcpStream) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let mut part = [0; 1024];
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        if bytes.len() > REQUEST_LIMIT {
            return Ok(None);
        }
        match client.read(&mut part).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&part[..read]),
        }
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

async fn page(client: TcpStream, body: &str) -> io::Result<()> {
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    send(client, "200 OK", kind, body).await
}

async fn refuse(client: TcpStream, status: &str) -> io::Result<()> {
    send(client, status, "text/plain; charset=utf-8", status).await
}

async fn send(mut client: TcpStream, status: &str, kind: &str, body: &str) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let write = async {
        client.write_all(head.as_bytes()).await?;
        client.write_all(body.as_bytes()).await?;
        client.shutdown().await
    };
    timeout(WRITE_LIMIT, write).await?
}

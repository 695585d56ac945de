//! Connections and requests. Everything about them is bounded: how many there are, how long each may
//! take, how large a request is, how much is done at once. Paths are looked up among what is known; no
//! path is ever one of a file.

use super::sampler::Sampler;
use super::{metrics, page, profile};
use crate::live::{ProcessSample, Sample};
use crate::model::State;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fs::File;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Connections at once; further ones are closed.
const MOST_CONNECTIONS: usize = 64;
/// How long a request may take to come.
const HEAD: Duration = Duration::from_secs(10);
/// How long a connection lasts, from its first to its last byte.
const WHOLE: Duration = Duration::from_secs(60);
/// How long a sample is waited for.
const SAMPLE: Duration = Duration::from_secs(20);
/// Bytes of a request's head.
const LONGEST_HEAD: usize = 16 << 10;
/// Threads that read files.
const READERS: usize = 8;

type Answer = Response<Full<Bytes>>;

/// What requests need.
struct Service {
    sampler: Arc<Sampler>,
    /// Only one profile is made at a time.
    profiles: Semaphore,
}

/// Serves until a signal (SIGTERM, SIGINT) comes. Calls `ready` with the address when connections are
/// taken. Fails if the address cannot be had.
pub fn serve(
    address: SocketAddr,
    sampler: Arc<Sampler>,
    ready: impl FnOnce(SocketAddr),
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(READERS)
        .build()?;
    let served = runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        let ended = ended()?;
        ready(listener.local_addr()?);
        tokio::select! {
            () = accept(listener, sampler) => {}
            () = ended => {}
        }
        Ok(())
    });
    // A reader that hangs in a file system is not waited for.
    runtime.shutdown_background();
    served
}

/// Comes true when the process is asked to end.
pub fn ended() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

async fn accept(listener: TcpListener, sampler: Arc<Sampler>) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let service = Arc::new(Service {
        sampler,
        profiles: Semaphore::new(1),
    });
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: not at once again.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
            continue;
        };
        let service = Arc::clone(&service);
        tokio::spawn(async move {
            let _place = place;
            // What comes late is dropped with its connection.
            let _ = tokio::time::timeout(WHOLE, connection(stream, service)).await;
        });
    }
}

async fn connection(stream: TcpStream, service: Arc<Service>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let service = Arc::clone(&service);
        async move { Ok::<Answer, Infallible>(service.answer(&request).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LONGEST_HEAD)
        // Slow or silent clients keep no place.
        .keep_alive(false);
    let _ = builder.serve_connection(TokioIo::new(stream), answer).await;
}

impl Service {
    async fn answer(self: Arc<Service>, request: &Request<Incoming>) -> Answer {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = said(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
            let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(ALLOW, allowed);
            return answer;
        }
        let path = request.uri().path();
        match path {
            "/metrics" => self.metrics(request.headers()).await,
            "/healthz" => self.health().await,
            "/" => {
                let Some(sample) = self.sample().await else {
                    return late();
                };
                let page = page::page(&sample, self.sampler.directory());
                typed("text/html; charset=utf-8", page)
            }
            "/debug/pprof/heap" | "/debug/pprof/allocs" => self.profile(None).await,
            _ => match process_of(path) {
                Some(id) => self.profile(Some(id)).await,
                None => said(StatusCode::NOT_FOUND, "nothing here; / says what there is"),
            },
        }
    }

    async fn sample(&self) -> Option<Arc<Sample>> {
        let sampler = Arc::clone(&self.sampler);
        let sample = tokio::task::spawn_blocking(move || sampler.sample());
        tokio::time::timeout(SAMPLE, sample).await.ok()?.ok()
    }

    async fn metrics(&self, headers: &HeaderMap) -> Answer {
        let Some(sample) = self.sample().await else {
            return late();
        };
        let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
        // Who asks for nothing in particular is a person, who may as well get the newer one.
        let newer = accept.is_none_or(|accept| {
            accept.contains("application/openmetrics-text") || !accept.contains("text/plain")
        });
        let Ok(text) = metrics::openmetrics(&sample) else {
            return said(
                StatusCode::INTERNAL_SERVER_ERROR,
                "the metrics could not be written; please report this",
            );
        };
        if newer {
            typed(metrics::OPENMETRICS, text)
        } else {
            typed(metrics::TEXT, metrics::text_format(&text))
        }
    }

    async fn health(&self) -> Answer {
        match self.sample().await {
            None => late(),
            Some(sample) => match &sample.directory_error {
                None => said(StatusCode::OK, "ok"),
                Some(why) => said(
                    StatusCode::SERVICE_UNAVAILABLE,
                    &format!("the directory of traces cannot be read: {why}"),
                ),
            },
        }
    }

    async fn profile(self: Arc<Service>, id: Option<&str>) -> Answer {
        let Some(sample) = self.sample().await else {
            return late();
        };
        let wanted = |process: &&ProcessSample| match id {
            Some(id) => process.id == id,
            None => process.state != State::Exited && process.state != State::Killed,
        };
        let traces: Vec<_> = sample
            .processes
            .iter()
            .filter(wanted)
            .map(|one| one.trace.clone())
            .collect();
        if traces.is_empty() {
            let what = match id {
                Some(_) => "no traced program that runs has this id",
                None => "no traced program runs",
            };
            return said(StatusCode::NOT_FOUND, what);
        }
        let Ok(_one) = self.profiles.try_acquire() else {
            return retry("another profile is being made");
        };
        let sampler = Arc::clone(&self.sampler);
        let made = tokio::task::spawn_blocking(move || {
            let files: Vec<File> = traces
                .iter()
                .take(profile::MOST_PROCESSES)
                .filter_map(|trace| sampler.open(trace)?.ok())
                .collect();
            if files.is_empty() {
                return Err("its trace cannot be opened any more".to_owned());
            }
            profile::pprof(&files)
        });
        match made.await {
            Ok(Ok(profile)) => typed("application/octet-stream", profile),
            Ok(Err(why)) => said(
                StatusCode::INTERNAL_SERVER_ERROR,
                &format!("no profile: {why}"),
            ),
            Err(_) => said(StatusCode::INTERNAL_SERVER_ERROR, "no profile"),
        }
    }
}

/// The process that a path is about.
fn process_of(path: &str) -> Option<&str> {
    let (id, rest) = path.strip_prefix("/process/")?.split_once('/')?;
    matches!(rest, "debug/pprof/heap" | "debug/pprof/allocs").then_some(id)
}

fn typed(content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    let value = hyper::header::HeaderValue::from_static(content_type);
    answer.headers_mut().insert(CONTENT_TYPE, value);
    // Whatever a name in it looks like, it is not to be taken for something else.
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        (
            "content-security-policy",
            "default-src 'none'; style-src 'unsafe-inline'",
        ),
        ("cache-control", "no-store"),
    ] {
        let value = hyper::header::HeaderValue::from_static(value);
        answer.headers_mut().insert(name, value);
    }
    answer
}

fn said(status: StatusCode, what: &str) -> Answer {
    let mut answer = typed("text/plain; charset=utf-8", format!("{what}\n"));
    *answer.status_mut() = status;
    answer
}

fn retry(what: &str) -> Answer {
    let mut answer = said(StatusCode::SERVICE_UNAVAILABLE, what);
    let seconds = hyper::header::HeaderValue::from_static("5");
    answer.headers_mut().insert(RETRY_AFTER, seconds);
    answer
}

fn late() -> Answer {
    retry("the traces could not be read in time")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_paths_name_a_process() {
        assert_eq!(process_of("/process/7-8/debug/pprof/heap"), Some("7-8"));
        for path in [
            "/process/7-8",
            "/process/../../etc/passwd",
            "/process//x",
            "/process/7/debug/pprof/../../x",
        ] {
            assert_eq!(process_of(path), None, "{path}");
        }
    }
}

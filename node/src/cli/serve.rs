//! `serve`, `share` and `mirror --watch`: a node in the foreground.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::args::Serve;
use super::run::{attended, rates};
use super::screen::Screen;
use crate::config::{Config, addresses, words};
use crate::control::{self, Handler, Reply};
use crate::error::{Exit, Failure};
use crate::gateway::rsyncd::Rsyncd;
use crate::service::{Service, watched};
use crate::ui::Ui;
use crate::verbs::publish::Publish;
use crate::verbs::{Output, Verb, perform};

/// Life of a Fresh record, seconds.
const FRESH_FOR: u64 = 14 * 24 * 3600;

/// Serves what is registered until a signal comes.
///
/// # Errors
/// The node does not start.
pub async fn serve(config: &Config, ui: &Ui, wish: &Serve) -> Result<(), Failure> {
    let mut settings = config.settings(true);
    if !wish.external.is_empty() {
        settings.external = addresses("--external", &wish.external)?;
    }
    if let Some(region) = &wish.region {
        settings.profile.region = words("--region", region)?;
    }
    if let Some(contact) = &wish.contact {
        settings.profile.contact = words("--contact", contact)?;
    }
    settings.rates = wish.bwlimit.unwrap_or_default();
    let up = settings.rates.up;
    let mut node = Running::start(settings, config).await?;
    let stock = match wish.rsyncd {
        Some(address) => Some(Rsyncd::listen(address, up).await?),
        None => None,
    };
    for address in node.service.addresses().await {
        ui.answer(&json!({ "event": "listening", "address": address }), &format!("listening {address}"))?;
    }
    if let Some(gateway) = stock {
        if let Some(address) = gateway.address() {
            let url = format!("rsync://{address}/");
            ui.answer(&json!({ "event": "listening", "address": url }), &format!("listening {url}"))?;
        }
        let service = Arc::clone(&node.service);
        let gateway = Arc::new(gateway);
        node.tasks.spawn(watched("serving stock clients", move || {
            let (gateway, service) = (Arc::clone(&gateway), Arc::clone(&service));
            async move { gateway.serve(service).await }
        }));
    }
    ready();
    node.until_signal().await
}

/// Publishes, serves, and says what to type elsewhere.
///
/// # Errors
/// The node does not start, or the directory cannot be published.
pub async fn share(config: &Config, ui: &Ui, dir: &Path) -> Result<(), Failure> {
    let mut settings = config.settings(true);
    settings.mdns = true;
    let mut node = Running::start(settings, config).await?;
    let service = Arc::clone(&node.service);
    let request = Publish { dir: dir.to_owned(), key: "default".to_owned(), fresh: FRESH_FOR, ..Publish::default() };
    let (out, mut events) = Output::new();
    let drain = async { while events.recv().await.is_some() {} };
    let publish = async {
        let value = perform(&service, Verb::Publish(request), &out).await;
        drop(out);
        value
    };
    let both = async { tokio::join!(publish, drain).0 };
    let value = node.unless_ended(both).await?;
    let link = value["link"].as_str().unwrap_or_default();
    ui.answer(&json!({ "event": "listening", "link": link }), &format!("murmir fetch '{link}' DEST"))?;
    ready();
    node.until_signal().await
}

/// A replica with a node of its own.
///
/// # Errors
/// The node does not start, or the first pass fails.
pub async fn watch(config: &Config, screen: &Screen, verb: Verb) -> Result<(), Failure> {
    let mut settings = config.settings(true);
    settings.rates = rates(&verb);
    let mut node = Running::start(settings, config).await?;
    let service = Arc::clone(&node.service);
    let value = node.unless_ended(attended(&service, verb, screen)).await?;
    screen.finish(&value)?;
    ready();
    node.until_signal().await
}

/// A serving node with its control socket and its watching mirrors.
struct Running {
    service: Arc<Service>,
    tasks: tokio::task::JoinSet<()>,
    signals: Signals,
}

/// SIGTERM and SIGINT, from the moment this is made.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let on = |kind| signal(kind).map_err(|error| Failure::new(Exit::Signal, error));
        Ok(Self { terminate: on(SignalKind::terminate())?, interrupt: on(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

impl Running {
    async fn start(settings: crate::service::Settings, config: &Config) -> Result<Self, Failure> {
        let service = Arc::new(Service::start(settings).await?);
        // Before anybody is told that the node is there.
        let signals = Signals::new()?;
        let listener = Arc::new(control::listen(&config.state_dir)?);
        let mut tasks = tokio::task::JoinSet::new();
        let handler = Arc::clone(&service);
        tasks.spawn(watched("the control socket", move || {
            let (listener, handler) = (Arc::clone(&listener), Arc::clone(&handler));
            async move { control::serve(&listener, handler).await }
        }));
        let follower = Arc::clone(&service);
        tasks.spawn(watched("following heads", move || follow(Arc::clone(&follower))));
        Ok(Self { service, tasks, signals })
    }

    /// What `work` gives, if no signal comes before it ends.
    async fn unless_ended<T>(&mut self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::select! {
            result = work => result,
            () = self.signals.next() => Err(Failure::new(Exit::Signal, "interrupted; what was fetched is kept")),
        }
    }

    /// Works until SIGTERM or SIGINT, then takes back what was announced.
    async fn until_signal(mut self) -> Result<(), Failure> {
        self.signals.next().await;
        self.tasks.shutdown().await;
        self.service.stop().await;
        Ok(())
    }
}

/// Passes of the mirrors that watch.
async fn follow(service: Arc<Service>) {
    let (out, mut events) = Output::new();
    // Nobody reads what a pass in the background says; the log has what matters.
    let drain = async { while events.recv().await.is_some() {} };
    tokio::join!(crate::verbs::watch::watch(&service, &out), drain);
}

impl Handler for Service {
    async fn handle(&self, verb: Verb, replies: mpsc::Sender<Reply>) {
        let (out, mut events) = Output::new();
        let work = async {
            let result = perform(self, verb, &out).await;
            drop(out);
            result
        };
        let pass_on = async {
            while let Some(event) = events.recv().await {
                // An asker that went away ends this future as a whole.
                let _ = replies.send(Reply::Event(event)).await;
            }
        };
        let (result, ()) = tokio::join!(work, pass_on);
        let last = match result {
            Ok(value) => Reply::Done(value),
            Err(failure) => Reply::Failed(failure),
        };
        let _ = replies.send(last).await;
    }
}

/// Tells systemd that the node is ready (sd_notify(3)); without systemd nobody is told.
fn ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let sent = UnixDatagram::unbound().and_then(|socket| socket.send_to(b"READY=1", path));
    if let Err(error) = sent {
        tracing::warn!(%error, "sd_notify");
    }
}

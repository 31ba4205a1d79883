//! `nominate`: a mirror's own word, by way of a stock rsync daemon to the node of its origin.

use std::path::Path;
use std::time::Duration;

use cid::multibase;
use tokio::io::AsyncReadExt;

use super::attach;
use super::screen::Screen;
use crate::attach::daemon::hand_in;
use crate::attach::origin::{Daemon, Origin};
use crate::config::Config;
use crate::control::{self, Client};
use crate::error::{Exit, Failure};
use crate::ui::Ui;
use crate::verbs::Verb;
use crate::verbs::inspect::Target;
use crate::verbs::nominate::HandedIn;

/// What a daemon hands to `early exec` at most (rsync(1), `--early-input`).
const MAX_INPUT: u64 = 5 << 10;
/// A transfer waits for `early exec`: no longer than this.
const PATIENCE: Duration = Duration::from_secs(3);

/// The origin's end: reads a nomination from stdin and hands it to the running node. Without one, or without a nomination, there
/// is nothing to do.
///
/// # Errors
/// Why the node does not take it; no stranger's transfer must suffer for it.
pub async fn receive(config: &Config) -> Result<(), Failure> {
    let handed = async {
        let mut record = Vec::new();
        let read = tokio::io::stdin().take(MAX_INPUT).read_to_end(&mut record).await;
        read.map_err(|error| Failure::new(Exit::Files, format!("stdin: {error}")))?;
        if record.is_empty() {
            return Ok(());
        }
        let Some(node) = control::connect(&config.state_dir).await? else { return Ok(()) };
        let variable = |name| std::env::var(name).ok().filter(|text: &String| !text.is_empty());
        let client = variable("RSYNC_HOST_ADDR").and_then(|text| text.parse().ok());
        let handed = HandedIn { record, client, module: variable("RSYNC_MODULE_NAME") };
        node.ask(&Verb::TakeNomination(handed), |_| Ok(())).await.map(drop)
    };
    tokio::time::timeout(PATIENCE, handed)
        .await
        .unwrap_or_else(|_| Err(Failure::new(Exit::Timeout, "no answer in time")))
}

/// Of a reference: the running node's word on stdout, for `rsync --early-input`. Of a daemon's module: handed in there.
///
/// # Errors
/// No running node holds it (10), the origin does not ask for nominations or refuses (5).
pub async fn tell(config: &Config, ui: &Ui, what: &str) -> Result<(), Failure> {
    match Origin::parse(what, None) {
        None => {
            let verb = Verb::OwnNomination(Target { reference: what.to_owned() });
            let screen = Screen::new(*ui, false, None)?;
            let value = node(&config.state_dir)
                .await?
                .ask(&verb, |event| if ui.is_json() { Ok(()) } else { screen.show(event) });
            let value = value.await?;
            if ui.is_json() { screen.finish(&value) } else { Ok(()) }
        }
        Some(Ok(Origin::Daemon(daemon))) => {
            let led = attach::lead(config, ui, &Origin::Daemon(daemon.clone()), false).await?;
            let refuse = |text: &str| Failure::new(Exit::Start, format!("{what}: {text}"));
            if !led.nominates {
                return Err(refuse("no nominations are taken there"));
            }
            let module = led.reference.map(|found| found.module.to_string()).unwrap_or_default();
            introduce(config, &daemon, &module).await
        }
        Some(Ok(Origin::Web(_))) => Err(Failure::usage(format!("{what}: nominations go to rsync daemons"))),
        Some(Err(why)) => Err(Failure::usage(why)),
    }
}

/// Hands the running node's word on `module` in at its origin.
///
/// # Errors
/// No running node holds it (10), the daemon refuses (5).
pub async fn introduce(config: &Config, daemon: &Daemon, module: &str) -> Result<(), Failure> {
    let verb = Verb::OwnNomination(Target { reference: module.to_owned() });
    let value = node(&config.state_dir).await?.ask(&verb, |_| Ok(())).await?;
    let text = value["nomination"].as_str().unwrap_or_default();
    let (_, record) = multibase::decode(text).map_err(|error| Failure::new(Exit::Stream, error.to_string()))?;
    let proxy = std::env::var("RSYNC_PROXY").ok();
    hand_in(daemon, proxy.as_deref(), &record).await.map_err(|why| Failure::new(Exit::Start, why))
}

async fn node(state: &Path) -> Result<Client, Failure> {
    control::connect(state).await?.ok_or_else(|| {
        Failure::new(Exit::Nobody, "no node runs on this state")
            .hint("murmir serve starts one: a mirror is what it serves")
    })
}

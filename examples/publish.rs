//! Publishes a directory with the library, and serves it: `cargo run --example publish -- STATE DIR`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example is a program")]

use std::path::PathBuf;

use murmir::manifest::selection::Selection;
use murmir::manifest::text::ByteText;
use murmir::service::{Service, Settings};
use murmir::verbs::publish::Publish;
use murmir::verbs::{Output, Verb, perform};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(state), Some(dir)) = (words.next(), words.next()) else {
        return Err("usage: publish STATE DIR".into());
    };
    let settings = Settings {
        state: PathBuf::from(state),
        listen: vec!["/ip4/127.0.0.1/tcp/0".parse()?],
        dht: true,
        serve: true,
        ..Settings::default()
    };
    let service = Service::start(settings).await?;
    let request = Publish {
        dir: std::path::absolute(dir)?,
        module: Some("example".to_owned()),
        key: "default".to_owned(),
        selection: Selection { rules: vec![ByteText::from(&b"- *.tmp"[..])], ..Selection::default() },
        fresh: 14 * 24 * 3600,
        offline: true,
        ..Publish::default()
    };
    let (out, mut events) = Output::new();
    // What it says on the way is for people; here only the result counts.
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    let published = perform(&service, Verb::Publish(request), &out).await?;
    println!("{}", published["link"].as_str().unwrap_or_default());
    tokio::signal::ctrl_c().await?;
    service.stop().await;
    Ok(())
}

//! Fetches a module with the library: `cargo run --example fetch -- STATE REFERENCE DEST`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example is a program")]

use std::path::PathBuf;

use murmir::service::{Service, Settings};
use murmir::sync::plan::Rules;
use murmir::verbs::pass::Pass;
use murmir::verbs::show::Show;
use murmir::verbs::{Event, Output, Verb, perform};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(state), Some(reference), Some(dest)) = (words.next(), words.next(), words.next()) else {
        return Err("usage: fetch STATE REFERENCE DEST".into());
    };
    let settings = Settings {
        state: PathBuf::from(state),
        listen: vec!["/ip4/0.0.0.0/tcp/0".parse()?],
        dht: true,
        ..Settings::default()
    };
    let service = Service::start(settings).await?;
    let request = Pass {
        reference,
        dest: std::path::absolute(dest)?,
        rules: Rules::archive(),
        show: Show { format: Some("%i %n%L".to_owned()), ..Show::default() },
        ..Pass::default()
    };
    let (out, mut events) = Output::new();
    let printer = tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            match event {
                Event::Line(line) => println!("{line}"),
                Event::Note(note) => eprintln!("{note}"),
                Event::Row(_) | Event::Log(_) | Event::Raw(_) | Event::Progress { .. } => {}
            }
        }
    });
    let done = perform(&service, Verb::Pass(Box::new(request)), &out).await;
    drop(out);
    printer.await?;
    service.stop().await;
    let done = done?;
    println!("generation {}, {} bytes received", done["seq"], done["received"]);
    Ok(())
}

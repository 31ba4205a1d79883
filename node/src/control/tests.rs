use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use tokio::sync::mpsc;

use super::*;
use crate::verbs::inspect::Target;
use crate::verbs::upkeep::Forget;

/// Answers with an event and the request; waits for ever on `Peers`.
struct Echo {
    dropped: mpsc::Sender<()>,
}

struct OnDrop(mpsc::Sender<()>);

impl Drop for OnDrop {
    fn drop(&mut self) {
        let _ = self.0.try_send(());
    }
}

impl Handler for Echo {
    async fn handle(&self, request: Verb, out: mpsc::Sender<Reply>) {
        let _guard = OnDrop(self.dropped.clone());
        let _ = out.send(Reply::Event(Event::Line("working".into()))).await;
        match &request {
            Verb::Peers => std::future::pending().await,
            Verb::Withdraw(_) => {
                let _ = out.send(Reply::Failed(Failure::new(Exit::NoHead, "no").hint("ask"))).await;
            }
            _ => {
                let _ = out.send(Reply::Done(json!({"heard": request}))).await;
            }
        }
    }
}

fn start(state: &Path) -> (tokio::task::JoinHandle<()>, mpsc::Receiver<()>) {
    let (dropped, drops) = mpsc::channel(1);
    let listener = listen(state).unwrap();
    (tokio::spawn(async move { serve(&listener, Arc::new(Echo { dropped })).await }), drops)
}

#[tokio::test]
async fn asks_hears_events_and_the_last_word() {
    let state = tempfile::tempdir().unwrap();
    assert!(connect(state.path()).await.unwrap().is_none(), "no node");
    let (_node, _drops) = start(state.path());
    let mut events = Vec::new();
    let client = connect(state.path()).await.unwrap().unwrap();
    let request = Verb::Mirrors(Target { reference: "murmir://x/y".into() });
    let answer = client
        .ask(&request, |event| {
            events.push(event);
            Ok(())
        })
        .await
        .unwrap();
    assert_eq!(answer, json!({"heard": {"Mirrors": {"reference": "murmir://x/y"}}}));
    assert_eq!(events, [Event::Line("working".into())]);

    let client = connect(state.path()).await.unwrap().unwrap();
    let failure =
        client.ask(&Verb::Withdraw(Forget { what: String::new(), path: "/".into() }), |_| Ok(())).await.unwrap_err();
    assert_eq!(failure, Failure::new(Exit::NoHead, "no").hint("ask"));
}

#[tokio::test]
async fn an_asker_that_leaves_ends_the_work() {
    let state = tempfile::tempdir().unwrap();
    let (_node, mut drops) = start(state.path());
    let client = connect(state.path()).await.unwrap().unwrap();
    let stop = Failure::new(Exit::Ok, "enough");
    let ended = client.ask(&Verb::Peers, |_| Err(stop.clone())).await.unwrap_err();
    assert_eq!(ended, stop);
    drops.recv().await.unwrap();
}

#[tokio::test]
async fn a_long_path_and_private_modes() {
    let top = tempfile::tempdir().unwrap();
    let state = top.path().join("x".repeat(120)).join("y".repeat(120));
    std::fs::create_dir_all(&state).unwrap();
    let (_node, _drops) = start(&state);
    let client = connect(&state).await.unwrap().unwrap();
    client.ask(&Verb::Id, |_| Ok(())).await.unwrap();
    let mode = |path: std::path::PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(state.join("run")), mode(state.join("run/control.sock"))), (0o700, 0o600));
}

#[tokio::test]
async fn a_dead_nodes_socket_is_no_node_and_is_replaced() {
    let state = tempfile::tempdir().unwrap();
    let socket = state.path().join("run/control.sock");
    std::fs::create_dir(state.path().join("run")).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    assert!(connect(state.path()).await.unwrap().is_none());
    let (_node, _drops) = start(state.path());
    assert!(connect(state.path()).await.unwrap().is_some());
    assert_eq!(listen(state.path()).unwrap_err().code, Exit::Locked, "a living one is not replaced");
}

#[tokio::test]
async fn another_version_is_told() {
    let state = tempfile::tempdir().unwrap();
    std::fs::create_dir(state.path().join("run")).unwrap();
    let listener = tokio::net::UnixListener::bind(state.path().join("run/control.sock")).unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        send(&mut stream, &Greeting { murmir_control: VERSION + 1 }).await.unwrap();
    });
    let failure = connect(state.path()).await.unwrap_err();
    assert_eq!((failure.code, failure.hint.as_deref()), (Exit::Protocol, Some("restart the node")));
}

#[tokio::test]
async fn paths_that_are_not_utf_8_cross_the_socket() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use crate::manifest::text::ByteText;
    use crate::sync::plan::BasisKind;
    use crate::verbs::pass::Pass;

    let odd = Path::new(OsStr::from_bytes(b"/srv/\xff\xfe"));
    let pass = Pass { dest: odd.into(), bases: vec![(BasisKind::Link, ByteText::from(odd))], ..Pass::default() };
    let verbs = [Verb::Pass(Box::new(pass)), Verb::Forget(Forget { what: String::new(), path: odd.into() })];
    let (near, far) = tokio::io::duplex(1 << 16);
    let (mut near, mut far) = (near, BufReader::new(far));
    for verb in verbs {
        send(&mut near, &verb).await.unwrap();
        assert_eq!(receive::<Verb>(&mut far).await.unwrap(), Some(verb));
    }
}

#[tokio::test]
async fn lines_are_bounded() {
    let endless = tokio::io::repeat(b'x');
    assert!(receive::<Greeting>(&mut BufReader::new(endless)).await.is_err());
}

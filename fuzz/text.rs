//! What people, other people's servers and our own files say as text: references, filter rules, regular expressions, rsync
//! greetings, MOTD lines, web servers' heads, control messages, settings and registrations.

use murmir::attach::greeting::Greeting;
use murmir::attach::offer::{Offer, well_known};
use murmir::config;
use murmir::control::{Reply, Verb};
use murmir::manifest::filter::{Filter, FilterError, Manner, Wild};
use murmir::manifest::path::{Name, TreePath, escape};
use murmir::manifest::regex::PathRegex;
use murmir::reference::Reference;
use murmir::store::state::{Placed, Registration, Role};
use murmir::verbs::inspect::Target as About;
use murmir::verbs::pass::Pass;
use murmir::web::status::judge;
use tracker_less::record::SecretKey;

use super::runner::Target;

/// Memory of an automaton, and of what builds it.
const AUTOMATON: usize = 40 << 20;

fn id() -> String {
    SecretKey::from_seed([7; 32]).public().publisher().to_string()
}

fn reference() -> String {
    format!("murmir://{}/tree@7/a%20dir/file?peer=/ip4/192.0.2.1/tcp/4741&peer=/dns4/example.org/tcp/443", id())
}

fn corpus(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

fn is_clean(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

#[test]
fn references() {
    let short = format!("murmir://{}/tree", id());
    let words: [&[u8]; 9] = [b"murmir://", b"@", b"%2F", b"%00", b"?peer=", b"/../", b"//", b"/ip6/", b"&"];
    let corpus = corpus(&[&reference(), &short]);
    Target { name: "references", corpus, words: &words, spare: 0, slow: 1 }.run(|input| {
        let Ok(text) = str::from_utf8(input) else { return false };
        match Reference::parse(text) {
            Ok(found) => {
                assert_eq!(Reference::parse(&found.to_string()).as_ref(), Ok(&found), "what is written reads back");
                true
            }
            Err(error) => {
                assert!(is_clean(&error.to_string()), "{error:?}");
                false
            }
        }
    });
}

#[test]
fn paths() {
    Target { name: "paths", corpus: corpus(&["a/b c/d", "x"]), words: &[b"/", b"..", b"\0", b"./"], spare: 0, slow: 1 }
        .run(|input| {
            assert!(is_clean(&escape(input)));
            let found = [TreePath::new(input), TreePath::plain(input)];
            for path in found.iter().flatten() {
                let is_name = |name: Name| !matches!(name.as_bytes(), b"." | b"..") && !name.as_bytes().contains(&0);
                assert!(path.components().all(is_name));
                assert_eq!(TreePath::new(path.as_bytes()).as_ref(), Ok(path), "what is written reads back");
            }
            found[0].is_ok()
        });
}

#[test]
fn filter_rules() {
    let texts = ["- *.o", "+ /a/**/b[!c-e]?", "P keep/", "H,! x", "-s *~", ":n- .rules", "dir-merge,e .f", "!", "-C"];
    let words: [&[u8]; 9] = [b"*", b"**", b"[", b"[[:alpha:]]", b"\\", b"/", b"- ", b"***", b"?"];
    let subject = b"some/where/deep/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab.o";
    Target { name: "filter rules", corpus: corpus(&texts), words: &words, spare: 0, slow: 1 }.run(|input| {
        let mut none = |name: &[u8]| Err(FilterError::Unsupported { rule: escape(name) });
        let mut filter = Filter::default();
        // A pattern of many stars must not take for ever.
        let _ = Wild::new(&input[..input.len().min(4096)]).matches(subject);
        if let Err(error) = filter.add(input, Manner::default(), &mut none) {
            assert!(is_clean(&error.to_string()), "{error:?}");
            return false;
        }
        assert_eq!(Filter::from_texts(&filter.to_texts()).as_ref(), Ok(&filter), "what is written reads back");
        true
    });
}

#[test]
fn regular_expressions() {
    let words: [&[u8]; 7] = [b"(a*)*", b"{1000}", b"\\p{L}", b"(?i)", b"[^\\x00]", b"|", b"(?-u)"];
    let corpus = corpus(&["\\.deb$", "^pool/[a-f]+/(x|y)*", "(?i)readme"]);
    Target { name: "regular expressions", corpus, words: &words, spare: AUTOMATON, slow: 20 }
        .run(|input| str::from_utf8(input).is_ok_and(|text| PathRegex::new(text).is_ok()));
}

#[test]
fn rsync_greetings_and_lines() {
    let line = format!("murmir: {}&nominate=early-input", reference());
    let greeting = format!("@RSYNCD: 31.0 sha512 md5\nwelcome\r\n{line}\n@RSYNCD: OK\n");
    let refusal = "@RSYNCD: 30.0\n@ERROR: Unknown module 'x'\n".to_owned();
    let words: [&[u8]; 6] = [b"\n", b"@RSYNCD: ", b"@ERROR", b"murmir: ", b"\x1b[31m", b"\r\n"];
    Target { name: "greetings", corpus: corpus(&[&greeting, &refusal]), words: &words, spare: 0, slow: 1 }.run(
        |input| {
            let mut greeting = Greeting::default();
            let read = input.chunks(7).try_for_each(|part| greeting.read(part));
            assert!(greeting.refusal.iter().chain(read.as_ref().err()).all(|text| is_clean(text) && text.len() < 1000));
            assert!(greeting.offers.len() <= 64);
            read.is_ok() && greeting.greeted()
        },
    );
    let json = format!(r#"{{"modules":[{{"reference":"murmir://{}/tree","path":"/pub"}}]}}"#, id());
    let link = format!("<https://x/>; rel=x, <murmir://{}/tree>; rel=alternate", id());
    let txt = format!("murmir=murmir://{}/tree", id());
    Target { name: "lines", corpus: corpus(&[&line, &json, &link, &txt]), words: &words, spare: 0, slow: 1 }.run(
        |input| {
            let text = str::from_utf8(input).unwrap_or_default();
            let found = [Offer::of_line(input), Offer::of_txt(input), Offer::of_link(text)];
            found.iter().any(Option::is_some) || well_known(input).is_ok()
        },
    );
}

#[test]
fn heads_of_web_servers() {
    let words: [&[u8]; 5] = [b"bytes ", b"-", b"/", b"*", b"18446744073709551615"];
    let corpus = corpus(&["bytes 10-19/100", "bytes 10-19/*", "bytes */100"]);
    Target { name: "web heads", corpus, words: &words, spare: 0, slow: 1 }.run(|input| {
        let text = str::from_utf8(input).ok();
        for status in [200, 206, 416, 429, 503, 999] {
            let _ = judge(status, text, text, &(10..20), 100);
        }
        text.is_some()
    });
}

#[test]
fn control_messages() {
    let pass = Verb::Pass(Box::new(Pass { reference: reference(), dest: "/srv/x".into(), ..Pass::default() }));
    let verbs =
        [pass, Verb::Status(murmir::verbs::upkeep::Status::default()), Verb::Mirrors(About { reference: reference() })];
    let mut corpus: Vec<Vec<u8>> = verbs.iter().map(|verb| serde_json::to_vec(verb).unwrap()).collect();
    corpus.push(serde_json::to_vec(&Reply::Done(serde_json::json!({"a": [1, {"b": null}]}))).unwrap());
    let words: [&[u8]; 6] = [b"[", b"{\"a\":", b"\"", b"\\ud800", b"1e999", b"-0"];
    // A list of a million empty lists is what it is: JSON's values take up to 72 bytes for two.
    Target { name: "control messages", corpus, words: &words, spare: 16 << 20, slow: 1 }.run(|input| {
        let verb = serde_json::from_slice::<Verb>(input);
        verb.is_ok() | serde_json::from_slice::<Reply>(input).is_ok()
    });
}

#[test]
fn settings_and_registrations() {
    let settings = "state-dir = \"/var/lib/murmir\"\nlisten = [\"/ip4/0.0.0.0/tcp/4741\"]\nmdns = true\n";
    let words: [&[u8]; 8] = [b"[", b"[[a.b]]\n", b"=", b"{", b"\"\"\"", b"\n", b"a.", b"1979-05-27T07:32:00Z"];
    Target { name: "settings", corpus: corpus(&[settings]), words: &words, spare: 16 << 20, slow: 1 }.run(|input| {
        let Ok(text) = str::from_utf8(input) else { return false };
        config::parse(text).is_ok()
    });
    let registration = Registration {
        reference: reference(),
        directory: "/srv/mirror".into(),
        role: Role::Mirror,
        selection: murmir::manifest::selection::Selection::default(),
        late: vec!["*.html".to_owned()],
        watch: true,
        withdrawn: false,
        http: vec!["https://example.org/pub".to_owned()],
        export: None,
        from: None,
        key: None,
        fresh: Some(100),
    };
    let placed = Placed { epoch: u64::MAX, seq: 3, root: "bafy".to_owned(), head: "00".to_owned() };
    let corpus =
        vec![toml::to_string(&registration).unwrap().into_bytes(), toml::to_string(&placed).unwrap().into_bytes()];
    Target { name: "registrations", corpus, words: &words, spare: 16 << 20, slow: 1 }.run(|input| {
        let Ok(text) = str::from_utf8(input) else { return false };
        toml::from_str::<Registration>(text).is_ok() | toml::from_str::<Placed>(text).is_ok()
    });
}

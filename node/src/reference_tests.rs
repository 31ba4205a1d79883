use tracker_less::record::SecretKey;

use super::*;

fn id() -> String {
    SecretKey::from_seed([1; 32]).public().publisher().to_string()
}

#[test]
fn every_part_is_read_and_written_again() {
    let texts = [
        format!("murmir://{}/pub", id()),
        format!("murmir://{}/pub@7", id()),
        format!("murmir://{}/pub/a%20b/%FF@x", id()),
        format!("murmir://{}/pub@3/dir/?peer=/ip4/127.0.0.1/tcp/4741&peer=/dns4/example.org/tcp/1", id()),
    ];
    for text in texts {
        let reference = Reference::parse(&text).unwrap();
        assert_eq!(reference.to_string(), text);
        assert_eq!(Reference::parse(&reference.to_string()).unwrap(), reference);
    }
}

#[test]
fn the_trailing_slash_chooses_between_a_directory_and_its_content() {
    let at = |tail: &str| Reference::parse(&format!("murmir://{}/pub{tail}", id())).unwrap().transfer_root();
    assert_eq!(at(""), (TreePath::root(), None));
    assert_eq!(at("/"), (TreePath::root(), None));
    assert_eq!(at("/a/b"), (TreePath::new(b"a").unwrap(), Some(Name::new("b").unwrap())));
    assert_eq!(at("/a/b/"), (TreePath::new(b"a/b").unwrap(), None));
}

#[test]
fn what_does_not_fit_is_refused() {
    let id = id();
    let bad = [
        "http://x/y".to_owned(),
        "murmir://k51nonsense/pub".to_owned(),
        format!("murmir://{}/pub", id.to_uppercase()),
        format!("murmir://{id}/"),
        format!("murmir://{id}/a b"),
        format!("murmir://{id}/pub@0"),
        format!("murmir://{id}/pub@x"),
        format!("murmir://{id}/pub/../x"),
        format!("murmir://{id}/pub/a//b"),
        format!("murmir://{id}/pub/%2"),
        format!("murmir://{id}/pub/%zz"),
        format!("murmir://{id}/pub/%00"),
        format!("murmir://{id}/pub/a%2Fb%2F..%2Fc"),
        format!("murmir://{id}/pub?peer=nonsense"),
        format!("murmir://{id}/pub?other=1"),
    ];
    for text in bad {
        assert!(Reference::parse(&text).is_err(), "{text}");
    }
}

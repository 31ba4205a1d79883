//! Directory listings of plain web servers (nginx, Apache, lighttpd, python's http.server), read as far as names go: pure.

use reqwest::Url;

use crate::manifest::path::Name;
use crate::reference::unquote;

/// Where a listing's title is looked for, bytes.
const HEAD: usize = 4 << 10;
/// How the titles of listings begin.
const TITLES: [&str; 2] = ["<title>index of", "<title>directory listing"];
/// What stands for a character in an attribute.
const ENTITIES: [(&str, &str); 6] =
    [("&quot;", "\""), ("&#34;", "\""), ("&#39;", "'"), ("&lt;", "<"), ("&gt;", ">"), ("&amp;", "&")];

/// A name in a listing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listed {
    /// In the directory.
    pub name: Name,
    /// A slash follows it.
    pub is_dir: bool,
}

/// The names in the listing `body` of the directory at `url`, sorted, each once; none where it is no listing. Links that lead
/// elsewhere, or that only sort, are no names.
pub fn read(body: &str, url: &Url) -> Option<Vec<Listed>> {
    let head: String = body.chars().take(HEAD).collect::<String>().to_ascii_lowercase();
    if !TITLES.iter().any(|title| head.contains(title)) {
        return None;
    }
    let mut listed: Vec<Listed> = links(body).filter_map(|link| name(&link, url)).collect();
    listed.sort();
    listed.dedup();
    Some(listed)
}

/// The values of `href` attributes.
fn links(body: &str) -> impl Iterator<Item = String> + '_ {
    let lower = body.to_ascii_lowercase();
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            at += lower.get(at..)?.find("href=")? + "href=".len();
            let rest = body.get(at..)?;
            let quote = rest.chars().next()?;
            if !matches!(quote, '"' | '\'') {
                continue;
            }
            let value = rest.get(1..)?.split(quote).next()?;
            at += value.len() + 1;
            return Some(ENTITIES.iter().fold(value.to_owned(), |text, (entity, plain)| text.replace(entity, plain)));
        }
    })
}

fn name(link: &str, url: &Url) -> Option<Listed> {
    let to = url.join(link).ok()?;
    if to.origin() != url.origin() || to.query().is_some() || to.fragment().is_some() {
        return None;
    }
    let rest = to.path().strip_prefix(url.path())?;
    let (name, is_dir) = rest.strip_suffix('/').map_or((rest, false), |name| (name, true));
    Some(Listed { name: Name::new(&unquote(name)?).ok()?, is_dir })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(body: &str) -> Option<Vec<(String, bool)>> {
        let listed = read(body, &Url::parse("http://host/pub/").unwrap())?;
        Some(listed.into_iter().map(|one| (one.name.to_string(), one.is_dir)).collect())
    }

    #[test]
    fn what_servers_write_is_read() {
        let nginx = "<html>\r\n<head><title>Index of /pub/</title></head>\r\n<body><h1>Index of /pub/</h1><hr><pre>\
            <a href=\"../\">../</a>\n<a href=\"dir/\">dir/</a> 26-Nov-2026 10:00 -\n\
            <a href=\"a%20b%26c.txt\">a b&amp;c.txt</a> 26-Nov-2026 10:00 5\n</pre></body></html>";
        assert_eq!(names(nginx).unwrap(), [("a b&c.txt".to_owned(), false), ("dir".to_owned(), true)]);
        let apache = "<!DOCTYPE html><html><head><TITLE>Index of /pub</TITLE></head><body><table><tr>\
            <th><a href=\"?C=N;O=D\">Name</a></th></tr><tr><td><a href=\"/\">Parent Directory</a></td></tr>\
            <tr><td><a href='x.iso'>x.iso</a></td></tr><tr><td><a href=\"x.iso\">again</a></td></tr></table>";
        assert_eq!(names(apache).unwrap(), [("x.iso".to_owned(), false)]);
        let python = "<!DOCTYPE HTML>\n<html><head><title>Directory listing for /pub/</title></head><body><ul>\
            <li><a href=\"%C3%A9%22.txt\">é\".txt</a></li><li><a href=\"link\">link@</a></li></ul>";
        assert_eq!(names(python).unwrap(), [("link".to_owned(), false), ("é\".txt".to_owned(), false)]);
    }

    #[test]
    fn nothing_leads_out_of_the_directory() {
        let body = "<title>Index of /</title>
            <a href=\"http://other/pub/x\"> <a href=\"https://host/pub/x\"> <a href=\"/pub/../etc/passwd\"> <a href=\"..%2fx\">
            <a href=\"a%2fb\"> <a href=\"deep/er\"> <a href=\"%2e%2e/\"> <a href=\"x%00y\"> <a href=\"x?y\"> <a href=\"#top\">
            <a href=\"%\"> <a href=\"\"> <a href=bare> <a href=\"javascript:alert(1)\"> <a href=\"good\"";
        assert_eq!(names(body).unwrap(), [("good".to_owned(), false)]);
        assert_eq!(names("<title>Welcome</title><a href=\"x\">"), None, "no listing");
    }
}

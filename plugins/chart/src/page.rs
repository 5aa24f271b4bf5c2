//! The document: one file that loads nothing.

use serde::Serialize;

const STYLE: &str = include_str!("page.css");
const HEADER: &str = include_str!("header.html");
const BODY: &str = include_str!("body.html");
const CHART: &str = include_str!("chart.js");
const PAGE: &str = include_str!("page.js");

/// A page about a run: the common parts, and the additions of one page.
#[derive(Clone, Copy, Debug, Default)]
pub struct Page<'p> {
    /// Shown until the script has the run's name.
    pub title: &'p str,
    /// The `Content-Security-Policy` of the page; empty for none.
    pub policy: &'p str,
    /// The nonce of its scripts and styles, if its policy needs one.
    pub nonce: &'p str,
    /// Additional styles.
    pub style: &'p str,
    /// HTML at the end of the header.
    pub header: &'p str,
    /// HTML after the other sections.
    pub sections: &'p str,
    /// The content of the script `data`, as [`json_for_script`] wrote it; empty for none.
    pub data: &'p str,
    /// The script that fills the parts.
    pub script: &'p str,
    /// The last line, HTML.
    pub footer: &'p str,
}

impl Page<'_> {
    /// The document.
    pub fn html(&self) -> String {
        let Self { title, policy, nonce, style, header, sections, data, script, footer } = self;
        let title = escaped(title);
        let nonce = if nonce.is_empty() { String::new() } else { format!(" nonce=\"{nonce}\"") };
        let policy = if policy.is_empty() {
            String::new()
        } else {
            format!("<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">\n")
        };
        let data = if data.is_empty() {
            String::new()
        } else {
            format!("<script type=\"application/json\" id=\"data\">{data}</script>\n")
        };
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n{policy}\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
             <link rel=\"icon\" href=\"data:,\">\n<style{nonce}>\n{STYLE}{style}</style>\n</head>\n<body>\n\
             <header>\n{HEADER}{header}</header>\n<main>\n\
             <noscript><p>The curves are drawn by a script, which this browser does not run.</p></noscript>\n\
             {BODY}{sections}</main>\n<footer>{footer}</footer>\n{data}\
             <script{nonce}>\n{CHART}</script>\n<script{nonce}>\n{PAGE}</script>\n<script{nonce}>\n{script}</script>\n\
             </body>\n</html>\n"
        )
    }
}

/// A value as JSON inside a script: no `<` can end the script or start a comment.
///
/// # Errors
///
/// When the value cannot be written as JSON.
pub fn json_for_script<T: Serialize>(value: &T) -> serde_json::Result<String> {
    Ok(serde_json::to_string(value)?.replace('<', "\\u003c"))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place() {
        let name = "</script><script>alert(1)</script>";
        let data = json_for_script(&name).unwrap();
        let html = Page { title: name, data: &data, ..Page::default() }.html();
        assert!(!html.contains(name), "{html}");
        assert_eq!(serde_json::from_str::<String>(&data).unwrap(), name);
    }

    #[test]
    fn a_page_loads_nothing() {
        let html = Page::default().html();
        let namespace = "http://www.w3.org/2000/svg";
        let html = html.replace(namespace, "");
        for foreign in ["http:", "https:", "src=", "@import", "url(", "//cdn"] {
            assert!(!html.contains(foreign), "{foreign}");
        }
    }
}

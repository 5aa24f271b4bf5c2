//! Where notices are sent.

use std::net::IpAddr;

use plugin_api::{Error, Result};
use ureq::http::Uri;

use crate::secret::Secret;

/// An address, and where it was found: messages name that place, never the address.
pub(crate) struct Endpoint {
    pub uri: Uri,
    pub place: String,
}

impl Endpoint {
    /// Reads the URL.
    ///
    /// # Errors
    ///
    /// When it is not a URL of `https` or `http`.
    pub fn new(secret: Secret) -> Result<Self> {
        // The parser's error says no more than this one.
        let uri = secret.value.parse::<Uri>().ok().filter(|uri| origin(uri).is_some());
        let place = secret.place;
        let uri = uri.ok_or_else(|| Error::new(format!("{place} must contain a URL that starts with `https://`")))?;
        Ok(Self { uri, place })
    }

    /// Whether the address is on this machine: then no proxy is used.
    pub fn is_loopback(&self) -> bool {
        let host = self.uri.host().unwrap_or_default().trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Whether others on the network can read what is sent.
    pub fn is_exposed(&self) -> bool {
        self.uri.scheme_str() == Some("http") && !self.is_loopback()
    }

    /// The target of a redirect from `uri`; `None` if it leaves the server, since only that server may get the
    /// notice.
    pub fn redirected(&self, location: &str) -> Option<Uri> {
        let uri: Uri = match location.strip_prefix('/') {
            Some(path) if !path.starts_with(['/', '\\']) => {
                let authority = self.uri.authority()?.as_str();
                format!("{}://{authority}{location}", self.uri.scheme_str()?).parse().ok()?
            }
            _ => location.parse().ok()?,
        };
        (origin(&uri)? == origin(&self.uri)?).then_some(uri)
    }
}

/// Scheme, host and port of a URL that can be posted to.
fn origin(uri: &Uri) -> Option<(&str, String, u16)> {
    let scheme = uri.scheme_str()?;
    let usual_port = match scheme {
        "https" => 443,
        "http" => 80,
        _ => return None,
    };
    let host = uri.host().filter(|host| !host.is_empty())?;
    Some((scheme, host.to_ascii_lowercase(), uri.port_u16().unwrap_or(usual_port)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint(url: &str) -> Result<Endpoint> {
        Endpoint::new(Secret { value: url.to_owned(), place: "the file `url`".to_owned() })
    }

    #[test]
    fn addresses_are_of_the_web() {
        for url in ["https://example.org/a?b=c", "http://127.0.0.1:80/", "HTTPS://example.org", "http://[::1]/"] {
            assert!(endpoint(url).is_ok(), "{url}");
        }
        for url in ["ftp://example.org/secret", "file:///secret", "/secret", "example.org/secret", "https://", "https:"]
        {
            let message = endpoint(url).err().unwrap().message().to_owned();
            assert_eq!(message, "the file `url` must contain a URL that starts with `https://`");
        }
    }

    #[test]
    fn only_what_leaves_the_machine_unencrypted_is_exposed() {
        for (url, exposed) in [
            ("http://example.org/", true),
            ("https://example.org/", false),
            ("http://localhost:8080/", false),
            ("http://127.1.2.3/", false),
            ("http://[::1]/", false),
            ("http://10.0.0.1/", true),
        ] {
            assert_eq!(endpoint(url).unwrap().is_exposed(), exposed, "{url}");
        }
    }

    #[test]
    fn redirects_stay_with_the_server() {
        let endpoint = endpoint("https://example.org/a").unwrap();
        for (location, expected) in [
            ("/b?c", Some("https://example.org/b?c")),
            ("https://EXAMPLE.org:443/b", Some("https://EXAMPLE.org:443/b")),
            ("http://example.org/b", None),
            ("https://example.org:8443/b", None),
            ("https://example.org.evil/b", None),
            ("https://example.org@evil/b", None),
            ("//evil/b", None),
            ("/\\evil/b", None),
            ("b", None),
            ("", None),
        ] {
            let found = endpoint.redirected(location).map(|uri| uri.to_string());
            assert_eq!(found.as_deref(), expected, "{location}");
        }
    }

    proptest! {
        #[test]
        fn any_location_is_of_the_server_or_refused(location: String) {
            let endpoint = endpoint("https://example.org/a").unwrap();
            if let Some(uri) = endpoint.redirected(&location) {
                prop_assert_eq!(origin(&uri), origin(&endpoint.uri));
            }
        }
    }
}

//! The names under which the page may be asked for.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What `Host` may say, so that no other site reaches the page through a name of its own (DNS rebinding).
///
/// For a browser, a site is a name, and the site's owner says which address the name leads to. If that is this machine,
/// the owner's scripts count as the page's own; only `Host` tells that the name is not ours. An IP address in `Host` is
/// safe: nobody can make it lead elsewhere. So these are accepted:
///
/// * the loopback names, always: they are what a tunnel and a reverse proxy on this machine ask for;
/// * the address that the page is bound to;
/// * if it is bound to all, each IP address, since whoever forwards a port to this machine (a container, NAT) asks for an
///   address that this machine does not know, and the machine's own name, exactly: of `NAME.example`, others may be the
///   owners.
pub(crate) struct Names {
    bound: IpAddr,
    /// The machine's own name, if the page is bound to all addresses and the system tells the name.
    own: Option<String>,
}

impl Names {
    pub(crate) fn new(bound: IpAddr) -> Self {
        Self { bound, own: if bound.is_unspecified() { machine() } else { None } }
    }

    /// Whether nobody but this machine can open the page.
    pub(crate) fn is_local(&self) -> bool {
        self.bound.is_loopback()
    }

    /// Whether a `Host` is one of them. The port may differ: that of a tunnel.
    pub(crate) fn contain(&self, host: &str) -> bool {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        if let Some(address) = address(name) {
            return address.is_loopback() || self.bound.is_unspecified() || address == self.bound;
        }
        name.eq_ignore_ascii_case("localhost") || self.own.as_ref().is_some_and(|own| name.eq_ignore_ascii_case(own))
    }

    /// Why another `Host` is refused.
    pub(crate) fn refusal(&self) -> &'static str {
        if self.is_local() {
            "this page is only available at `localhost`"
        } else if self.bound.is_unspecified() {
            "this page is only available at the machine's IP addresses, its own name, and `localhost`"
        } else {
            "this page is only available at the IP address of the option `bind`, and through a tunnel at `localhost`"
        }
    }

    /// The page's place for a browser on this machine, without the port.
    pub(crate) fn here(&self) -> IpAddr {
        // Not every system leads to itself from the address that stands for all.
        match self.bound {
            IpAddr::V4(bound) if bound.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(bound) if bound.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            bound => bound,
        }
    }

    /// The machine's own name, if the page may be asked for by it.
    pub(crate) fn own(&self) -> Option<&str> {
        self.own.as_deref()
    }
}

/// The IP address that a name in `Host` is.
fn address(name: &str) -> Option<IpAddr> {
    match name.strip_prefix('[') {
        Some(rest) => Some(IpAddr::V6(rest.strip_suffix(']')?.parse().ok()?).to_canonical()),
        None => Some(IpAddr::V4(name.parse().ok()?)),
    }
}

/// The machine's own name, if it can stand in an address and is not the loopback's.
fn machine() -> Option<String> {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = |name: &String| !name.is_empty() && name.bytes().all(is_part) && name != "localhost";
    system_name().filter(is_name)
}

#[cfg(unix)]
fn system_name() -> Option<String> {
    rustix::system::uname().nodename().to_str().ok().map(str::to_owned)
}

#[cfg(not(unix))]
fn system_name() -> Option<String> {
    std::env::var("COMPUTERNAME").ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(bound: &str) -> Names {
        Names { bound: bound.parse().unwrap(), own: (bound == "0.0.0.0").then(|| "gpu-box".to_owned()) }
    }

    #[test]
    fn loopback_names_are_accepted_wherever_the_page_is_bound() {
        for names in [names("127.0.0.1"), names("::1"), names("192.0.2.7"), names("0.0.0.0")] {
            for host in ["localhost", "localhost:80", "LOCALHOST:1", "127.0.0.1:6006", "[::1]:6006", "[::1]"] {
                assert!(names.contain(host), "{host} at {}", names.bound);
            }
            for host in [
                "",
                ":80",
                "localhost.example",
                "evil.example:80",
                "127.0.0.1.nip.io",
                "localhost:",
                "localhost:8a",
                "::1",
                "[::1",
                "[127.0.0.1]",
                "gpu-box.evil.example",
            ] {
                assert!(!names.contain(host), "{host} at {}", names.bound);
            }
        }
    }

    #[test]
    fn addresses_and_the_own_name_are_accepted_where_the_page_is_bound_to_them() {
        let hosts = ["192.0.2.7:6116", "[::ffff:192.0.2.7]", "192.0.2.8", "[2001:db8::7]:1", "gpu-box:6116", "GPU-BOX"];
        for (bound, expected) in [
            ("127.0.0.1", [false; 6]),
            ("192.0.2.7", [true, true, false, false, false, false]),
            ("2001:db8::7", [false, false, false, true, false, false]),
            ("0.0.0.0", [true; 6]),
        ] {
            assert_eq!(hosts.map(|host| names(bound).contain(host)), expected, "{bound}");
        }
    }

    #[test]
    fn only_a_page_at_all_addresses_has_a_name_of_its_own() {
        assert_eq!(Names::new(Ipv4Addr::LOCALHOST.into()).own(), None);
        assert_eq!(Names::new([192, 0, 2, 7].into()).own(), None);
        assert_eq!(Names::new(Ipv6Addr::UNSPECIFIED.into()).own, machine());
    }
}

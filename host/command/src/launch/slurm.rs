//! The compact lists of SLURM's environment.

/// The first host of a list of nodes, `node[01-03,07],x1` (`hostlist(5)` of `scontrol show hostnames`): `node01`. A name may
/// have several brackets. `None` for what is no such list.
pub(super) fn first_host(list: &str) -> Option<String> {
    let mut host = String::new();
    let mut rest = list.trim();
    while let Some(at) = rest.find(['[', ',']) {
        let (before, from) = rest.split_at(at);
        host.push_str(before);
        rest = "";
        if let Some(bracket) = from.strip_prefix('[') {
            let (numbers, after) = bracket.split_once(']')?;
            host.push_str(first_number(numbers)?);
            rest = after;
        }
    }
    host.push_str(rest);
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    (!host.is_empty() && host.bytes().all(is_part)).then_some(host)
}

/// The first number of `01-03,07`, with its zeros.
fn first_number(numbers: &str) -> Option<&str> {
    let first = numbers.split(',').next()?;
    let (from, to) = first.split_once('-').unwrap_or((first, first));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(from) && is_number(to)).then_some(from)
}

/// How many tasks a node has, counted from 0, in a list such as `2(x3),1`: three nodes with two each and one with one. `None`
/// for what is no such list, and for a node that is not in it.
pub(super) fn tasks_of_node(list: &str, node: u32) -> Option<u32> {
    let mut before = 0u32;
    for part in list.trim().split(',') {
        let (tasks, nodes) = match part.split_once("(x") {
            Some((tasks, nodes)) => (tasks, nodes.strip_suffix(')')?.parse::<u32>().ok()?),
            None => (part, 1),
        };
        let tasks: u32 = tasks.parse().ok()?;
        before = before.checked_add(nodes)?;
        if node < before {
            return Some(tasks);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_host_of_a_list() {
        for (list, first) in [
            ("node7", "node7"),
            ("node01.cluster.example", "node01.cluster.example"),
            ("node[01-03,07],x1", "node01"),
            ("x1,node[01-03,07]", "x1"),
            ("rack[2-3]-node[004,9]", "rack2-node004"),
            ("gpu[3]", "gpu3"),
            ("a[1-2]b", "a1b"),
            (" node[1-2]\n", "node1"),
        ] {
            assert_eq!(first_host(list).as_deref(), Some(first), "{list}");
        }
        for wrong in
            ["", ",", ",a", "node[", "node]", "node[]", "node[a-b]", "node[1-]", "node[-1]", "no de", "node[[1]]"]
        {
            assert_eq!(first_host(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_tasks_of_a_node() {
        let of = |list| (0..5).map(|node| tasks_of_node(list, node)).collect::<Vec<_>>();
        assert_eq!(of("2(x3),1"), [Some(2), Some(2), Some(2), Some(1), None]);
        assert_eq!(of("4"), [Some(4), None, None, None, None]);
        for wrong in ["", "a", "2(x", "2(x3", "2(xa)", "-1", "4294967296"] {
            assert_eq!(tasks_of_node(wrong, 0), None, "{wrong}");
        }
        assert_eq!(tasks_of_node("1(x4294967295),1(x4294967295)", u32::MAX), None, "no number grows over its type");
    }

    /// A list as SLURM writes one, and the host that comes first.
    fn any_list() -> impl Strategy<Value = (String, String)> {
        let range = (0..2000u32, 0..50u32, 1..5usize).prop_map(|(from, more, width)| {
            let first = format!("{from:0width$}");
            let text = if more == 0 { first.clone() } else { format!("{first}-{:0width$}", from + more) };
            (text, first)
        });
        let numbers = proptest::collection::vec(range, 1..4).prop_map(|ranges| {
            let text: Vec<&str> = ranges.iter().map(|(text, _)| text.as_str()).collect();
            (format!("[{}]", text.join(",")), ranges[0].1.clone())
        });
        let literal = "[a-z][a-z0-9.-]{0,5}".prop_map(|text| (text.clone(), text));
        let host = (literal, proptest::collection::vec(numbers, 0..3)).prop_map(|(name, brackets)| {
            brackets.into_iter().fold(name, |(list, first), (text, number)| (list + &text, first + &number))
        });
        proptest::collection::vec(host, 1..4).prop_map(|hosts| {
            let texts: Vec<&str> = hosts.iter().map(|(text, _)| text.as_str()).collect();
            (texts.join(","), hosts[0].1.clone())
        })
    }

    proptest! {
        #[test]
        fn the_first_host_is_that_of_the_expanded_list((list, first) in any_list()) {
            prop_assert_eq!(first_host(&list), Some(first));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[a0\\[\\],(x)-]{0,24}|\\PC{0,24}") {
            if let Some(host) = first_host(&text) {
                prop_assert!(!host.is_empty() && !host.contains(['[', ']', ',', ' ']), "{host}");
            }
            let _ = tasks_of_node(&text, 3);
        }
    }
}

//! Operators by the time that they take themselves.

use std::collections::BTreeMap;

use plugin_api::protocol::Span;

/// Each operator with its calls and the nanoseconds that it took without the operators that it ran, the most first.
pub(super) fn by_self_time(operators: &[Span]) -> Vec<(&str, u64, u64)> {
    let mut ordered: Vec<&Span> = operators.iter().collect();
    // One that contains another begins before it, or ends after it.
    ordered.sort_by_key(|span| (span.began, std::cmp::Reverse(span.nanoseconds)));
    let mut own: Vec<u64> = ordered.iter().map(|span| span.nanoseconds).collect();
    let mut running: Vec<usize> = Vec::new();
    for (index, span) in ordered.iter().enumerate() {
        let is_over = |outer: &Span| outer.began.saturating_add(outer.nanoseconds) <= span.began;
        while running.last().is_some_and(|&outer| is_over(ordered[outer])) {
            running.pop();
        }
        if let Some(&outer) = running.last() {
            own[outer] = own[outer].saturating_sub(span.nanoseconds);
        }
        running.push(index);
    }
    let mut times: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (span, own) in ordered.iter().zip(own) {
        let (calls, time) = times.entry(&span.name).or_default();
        (*calls, *time) = (*calls + 1, *time + own);
    }
    let mut times: Vec<_> = times.into_iter().map(|(name, (calls, time))| (name, calls, time)).collect();
    times.sort_by_key(|&(_, _, time)| std::cmp::Reverse(time));
    times
}

#[cfg(test)]
mod tests {
    use plugin_api::protocol::SpanKind;

    use super::*;

    #[test]
    fn what_an_operator_runs_is_not_its_own_time() {
        let span = |name: &str, began: u64, nanoseconds: u64| Span {
            name: name.to_owned(),
            kind: SpanKind::Operator,
            step: 1,
            began,
            nanoseconds,
        };
        // In the order in which they end.
        let spans = [span("t", 12, 3), span("mm", 20, 50), span("linear", 10, 70), span("mm", 100, 5)];
        assert_eq!(by_self_time(&spans), [("mm", 2, 55), ("linear", 1, 17), ("t", 1, 3)]);
    }
}

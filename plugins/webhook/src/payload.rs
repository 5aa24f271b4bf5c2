//! The payloads, in the formats that servers expect.

use std::fmt::Write;

use notice::{Event, Notice};
use plugin_api::schemars;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The format that a server expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[schemars(crate = "plugin_api::schemars")]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON object with everything that is known about the event.
    Generic,
    /// Slack's incoming webhooks, and servers that accept the same format.
    Slack,
    /// Teams' Workflows: an adaptive card.
    Teams,
    /// Discord's webhooks.
    Discord,
    /// CloudEvents 1.0, structured mode; the data is that of `generic`.
    CloudEvents,
}

impl Format {
    /// The header `content-type`.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::CloudEvents => "application/cloudevents+json; charset=utf-8",
            _ => "application/json; charset=utf-8",
        }
    }

    /// The payload: the text of the notice, or `text` in place of it.
    pub fn payload(self, notice: &Notice, text: Option<String>, id: &str) -> Value {
        let message = Message {
            title: notice.title(),
            // A custom text replaces everything that would be shown.
            results: if text.is_none() { notice.results() } else { Vec::new() },
            text: text.unwrap_or_else(|| notice.summary()),
            mood: Mood::of(notice.event),
        };
        match self {
            Self::Generic => generic(notice, &message),
            Self::Slack => slack(&message),
            Self::Teams => teams(&message),
            Self::Discord => discord(notice, &message),
            Self::CloudEvents => cloud_event(notice, &message, id),
        }
    }
}

struct Message<'a> {
    title: String,
    text: String,
    results: Vec<(&'a str, String)>,
    mood: Mood,
}

#[derive(Clone, Copy)]
enum Mood {
    Neutral,
    Good,
    Warning,
    Bad,
}

impl Mood {
    fn of(event: Event) -> Self {
        match event {
            Event::Start | Event::Trigger | Event::Artifact => Self::Neutral,
            Event::Improved | Event::Finished => Self::Good,
            Event::Stopped | Event::Interrupted => Self::Warning,
            Event::Failed => Self::Bad,
        }
    }
}

fn generic(notice: &Notice, message: &Message<'_>) -> Value {
    let mut payload = json!({
        "event": notice.event.name(),
        "title": message.title,
        "text": message.text,
        "time": notice.timestamp(),
        "run": notice.run,
        "run_folder": notice.run_folder,
        "epoch": notice.epoch,
        "epochs": notice.epochs,
        "step": notice.step,
        "steps": notice.steps,
        "seconds": notice.seconds,
        "metrics": notice.metrics.iter().map(|(name, value)| (name.clone(), number(*value))).collect::<Map<_, _>>(),
        "artifacts": notice.artifacts,
    });
    for (name, detail) in &notice.details {
        payload[*name] = Value::from(detail.as_str());
    }
    payload
}

/// A number; JSON cannot write NaN and the infinities, which are strings as in `metrics.jsonl`.
fn number(value: f64) -> Value {
    match value {
        f64::INFINITY => Value::from("Infinity"),
        f64::NEG_INFINITY => Value::from("-Infinity"),
        value if value.is_nan() => Value::from("NaN"),
        value => Value::from(value),
    }
}

/// <https://docs.slack.dev/reference/block-kit/blocks/section-block>, with its limits. `text` is what notifications
/// show.
fn slack(message: &Message<'_>) -> Value {
    let section = |text: String| json!({ "type": "mrkdwn", "text": text });
    let mut blocks =
        vec![json!({ "type": "header", "text": { "type": "plain_text", "text": clipped(&message.title, 150) } })];
    if !message.text.is_empty() {
        blocks.push(json!({ "type": "section", "text": section(escaped(&message.text, 3000)) }));
    }
    for results in message.results.chunks(10) {
        let fields = results.iter().map(|(name, value)| section(format!("*{}*\n{value}", escaped(name, 1000))));
        blocks.push(json!({ "type": "section", "fields": fields.collect::<Vec<_>>() }));
    }
    json!({ "text": escaped(&format!("{}: {}", message.title, message.text), 3000), "blocks": blocks })
}

/// <https://adaptivecards.io/explorer/> in the envelope of Teams' Workflows.
fn teams(message: &Message<'_>) -> Value {
    let color = match message.mood {
        Mood::Neutral => "Default",
        Mood::Good => "Good",
        Mood::Warning => "Warning",
        Mood::Bad => "Attention",
    };
    let title = clipped(&message.title, 200);
    let mut body = vec![
        json!({ "type": "TextBlock", "text": title, "weight": "Bolder", "size": "Medium", "color": color, "wrap": true }),
        // A card may have 28 KB, and a character up to six bytes.
        json!({ "type": "TextBlock", "text": clipped(&message.text, 3000), "wrap": true }),
    ];
    if !message.results.is_empty() {
        let fact = |(name, value): &(&str, String)| json!({ "title": clipped(name, 50), "value": value });
        body.push(json!({ "type": "FactSet", "facts": message.results.iter().map(fact).collect::<Vec<_>>() }));
    }
    let content = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
    });
    let card =
        json!({ "contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null, "content": content });
    json!({ "type": "message", "attachments": [card] })
}

/// <https://docs.discord.com/developers/resources/webhook#execute-webhook>, with the limits of an embed. It mentions
/// nobody, whatever the text says.
fn discord(notice: &Notice, message: &Message<'_>) -> Value {
    let color = match message.mood {
        Mood::Neutral => 0x34_98_db,
        Mood::Good => 0x2e_cc_71,
        Mood::Warning => 0xe6_7e_22,
        Mood::Bad => 0xe7_4c_3c,
    };
    let field = |(name, value): &(&str, String)| json!({ "name": clipped(name, 100), "value": value, "inline": true });
    json!({
        "embeds": [{
            "title": clipped(&message.title, 256),
             // All texts of an embed may have 6000 together.
            "description": clipped(&message.text, 3000),
            "color": color,
            "fields": message.results.iter().map(field).collect::<Vec<_>>(),
            "timestamp": notice.timestamp(),
        }],
        "allowed_mentions": { "parse": [] },
    })
}

/// <https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md>
fn cloud_event(notice: &Notice, message: &Message<'_>, id: &str) -> Value {
    json!({
        "specversion": "1.0",
        "id": id,
        "source": format!("/runs/{}", encoded(&notice.run)),
        "type": format!("host.run.{}", notice.event.name()),
        "subject": notice.run,
        "time": notice.timestamp(),
        "datacontenttype": "application/json",
        "data": generic(notice, message),
    })
}

/// The first `limit` characters of a text at most.
fn clipped(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some(_) => text.chars().take(limit - 1).chain(['…']).collect(),
    }
}

/// A text escaped for Slack, of at most `limit` characters.
fn escaped(text: &str, limit: usize) -> String {
    let mut escaped = String::new();
    let mut length = 0;
    for character in text.chars() {
        let entity = match character {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            _ => "",
        };
        length += entity.len().max(1);
        if length >= limit {
            escaped.push('…');
            break;
        }
        match entity {
            "" => escaped.push(character),
            entity => escaped.push_str(entity),
        }
    }
    escaped
}

/// A text escaped as a segment of a URI's path (RFC 3986).
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    /// The number of characters in all texts of a payload.
    fn length(payload: &Value, pointer: &str) -> usize {
        payload
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_else(|| panic!("{pointer}: {payload}"))
            .chars()
            .count()
    }

    proptest! {
        #[test]
        fn no_text_is_longer_than_a_chat_takes(text in ".{0,400}|[&<>]{0,8000}", count in 0usize..40, repeats in 1usize..40) {
            let text = text.repeat(repeats);
            let metric = |index: usize| (format!("val_{index}{text}"), f64::MAX);
            let notice = Notice {
                event: Event::Failed,
                time: jiff::Timestamp::UNIX_EPOCH,
                run: text.clone(),
                run_folder: text.clone(),
                epoch: 1,
                epochs: 1,
                step: 1,
                steps: 1,
                seconds: 1.0,
                metrics: (0..count).map(metric).collect(),
                artifacts: BTreeMap::new(),
                details: BTreeMap::from([("error", text.clone())]),
            };
            for given in [None, Some(text)] {
                let slack = Format::Slack.payload(&notice, given.clone(), "id");
                prop_assert!(length(&slack, "/text") <= 3000 && length(&slack, "/blocks/0/text/text") <= 150);
                for block in slack["blocks"].as_array().unwrap() {
                    let fields = block["fields"].as_array().map_or(0, Vec::len);
                    let within = |field| length(block, &format!("/fields/{field}/text")) <= 2000;
                    prop_assert!(fields <= 10 && (0..fields).all(within));
                }
                let discord = Format::Discord.payload(&notice, given.clone(), "id");
                let embed = &discord["embeds"][0];
                prop_assert!(length(embed, "/title") <= 256);
                let fields = embed["fields"].as_array().unwrap();
                let all: usize = fields.iter().map(|field| length(field, "/name") + length(field, "/value")).sum();
                prop_assert!(fields.len() <= 25 && all + length(embed, "/title") + length(embed, "/description") <= 6000);
                let teams = Format::Teams.payload(&notice, given, "id");
                prop_assert!(teams.to_string().len() <= 28_000, "{}", teams.to_string().len());
            }
        }
    }
}

//! Holds `include/host_plugin.h` to the Rust types: every size, offset and number, and what it says of the services.
//!
//! The lists come from the types: an event, a service, a status or a field without its line in the header fails here.

use std::collections::BTreeMap;
use std::io::Write;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use plugin_api::abi::kinds::{EventKind, ServiceKind};
use plugin_api::abi::{
    Bytes, CreateTable, DataType, Device, DlTensor, EvaluationTable, EventTable, HostHandle, HostTable, LibraryTable,
    LogTable, MAGIC, MAJOR, ReplyTable, RequestTable, TensorTable, Text, TextsTable,
};
use plugin_api::protocol::requests::{ControlRequest, Failure, MetricPut, TensorsRequest};
use plugin_api::protocol::{Control, TensorSet};
use plugin_api::services::{Background, Effect, HookSet, Hooks, Ranks, Rule};

const HEADER: &str = include_str!("../include/host_plugin.h");

/// The minor version that the header describes: what a later one brings has no line yet.
const MINOR: u32 = 0;

fn events() -> impl Iterator<Item = EventKind> {
    EventKind::ALL.iter().copied().filter(|event| (0..=MINOR).contains(&event.since()))
}

fn services() -> impl Iterator<Item = ServiceKind> {
    ServiceKind::ALL.iter().copied().filter(|service| (0..=MINOR).contains(&service.since()))
}

/// The names and numbers of the constants with this prefix, as the header defines them, each with the comment above it.
fn defined(prefix: &str) -> BTreeMap<String, (u32, String)> {
    let mut found = BTreeMap::new();
    let mut comment = String::new();
    for line in HEADER.lines() {
        let define = line.strip_prefix("#define ").and_then(|line| line.strip_prefix(prefix));
        if let Some((name, number)) = define.and_then(|define| define.split_once(' '))
            && let Some(Ok(number)) = number.strip_suffix('u').map(str::parse)
        {
            found.insert(name.to_owned(), (number, std::mem::take(&mut comment)));
        } else if line.starts_with("/*") {
            comment = line.to_owned();
        } else {
            comment.push('\n');
            comment.push_str(line);
        }
    }
    found
}

/// Compiles a program that includes the header, as C99 and as C++17, and gives both.
fn compiled(name: &str, body: &str) -> [PathBuf; 2] {
    [("cc", "c", "-std=c99"), ("c++", "cpp", "-std=c++17")].map(|(compiler, extension, standard)| {
        let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{extension}"));
        std::fs::write(&source, format!("#include \"host_plugin.h\"\n{body}")).expect("a file can be written");
        let program = source.with_extension(format!("{extension}.program"));
        compile(compiler, standard, &source, &["-o", &program.display().to_string()]);
        program
    })
}

fn compile(compiler: &str, standard: &str, source: &Path, arguments: &[&str]) {
    let mut command = Command::new(compiler);
    command.args([standard, "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Werror", "-O1", "-I"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include")).args(arguments).arg(source);
    let output = command.output().expect("there is a compiler");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
}

/// What a program writes to stdout when it reads `input`.
fn output_of(program: &Path, input: &[u8]) -> Vec<u8> {
    let mut child =
        Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
    child.stdin.take().expect("stdin is a pipe").write_all(input).expect("the program reads");
    let output = child.wait_with_output().expect("the program ends");
    assert!(output.status.success(), "{program:?}: {:?}", output.status);
    output.stdout
}

/// The C expressions of the layout, each with the value that Rust has for it.
fn layout() -> Vec<(String, u64)> {
    let mut expected = Vec::new();
    fn field_size<T, F>(_: impl Fn(&T) -> &F) -> usize {
        size_of::<F>()
    }
    macro_rules! tables {
        ($($type:ident = $c:literal { $($field:ident),* $(,)? })*) => { $(
            // Names every field: a new one fails to compile here.
            let _ = |table: $type| {
                let $type { $($field: _),* } = table;
            };
            expected.push((concat!("sizeof(", $c, ")").to_owned(), size_of::<$type>() as u64));
            $(
                let (c, field) = ($c, stringify!($field));
                expected.push((format!("offsetof({c}, {field})"), offset_of!($type, $field) as u64));
                let size = field_size(|table: &$type| &table.$field) as u64;
                expected.push((format!("sizeof((({c} *) 0)->{field})"), size));
            )*
        )* };
    }
    tables! {
        Text = "hp_text" { pointer, length }
        Bytes = "hp_bytes" { pointer, length }
        DataType = "hp_data_type" { code, bits, lanes }
        Device = "hp_device" { kind, index }
        DlTensor = "hp_dl_tensor" { data, device, dimensions, dtype, shape, strides, byte_offset }
        TensorTable = "hp_tensor" { size, flags, name, tensor }
        ReplyTable = "hp_reply" { size, reserved, context, bytes, tensor }
        RequestTable = "hp_request" { size, tensor_count, payload, tensors, tensor_size, reserved }
        HostTable = "hp_services" { size, minor, call }
        HostHandle = "hp_host" { table, ticket }
        LogTable = "hp_log_record" { size, level, target, message }
        CreateTable = "hp_create" { size, minor, options, instance, log, host }
        EventTable = "hp_event" { size, kind, epoch, step, global_step, samples, data }
        EvaluationTable = "hp_evaluation" { size, mid_epoch, split, batch, batches }
        TextsTable = "hp_texts" { size, number, first, second, third, bytes, value }
        LibraryTable = "hp_library" {
            size, major, magic, minor, pointer_size, sdk, compiler, target, unwinds, kinds, describe, create, handle,
            destroy,
        }
    }
    expected.extend(events().map(|event| (format!("HP_EVENT_{}", event.name().to_uppercase()), event.0.into())));
    let services =
        services().map(|service| (format!("HP_SERVICE_{}", service.name().to_uppercase()), service.0.into()));
    expected.extend(services);
    expected.extend(statuses().into_iter().map(|(name, number)| (format!("HP_{name}"), number.into())));
    for (name, number) in [("HP_MAGIC", MAGIC), ("HP_MAJOR", MAJOR.into()), ("HP_MINOR", MINOR.into())] {
        expected.push((name.to_owned(), number));
    }
    expected
}

/// The constants of [`plugin_api::abi::kinds::Status`], from its source: the type has no list of them.
fn statuses() -> Vec<(String, u32)> {
    let source = include_str!("../src/abi/kinds.rs");
    let (_, rest) = source.split_once("impl Status {").expect("there is the type");
    let (body, _) = rest.split_once("\n}").expect("it ends");
    let constant = |line: &str| {
        let (name, number) = line.trim().strip_prefix("pub const ")?.split_once(": Self = Self(")?;
        Some((name.to_owned(), number.strip_suffix(");")?.parse().ok()?))
    };
    let found: Vec<_> = body.lines().filter_map(constant).collect();
    assert!(found.len() >= 8, "{found:?}");
    found
}

#[test]
fn sizes_offsets_and_numbers_are_those_of_the_rust_types() {
    let expected = layout();
    let prints: String = expected
        .iter()
        .map(|(expression, _)| format!("    printf(\"%llu\\n\", (unsigned long long) ({expression}));\n"))
        .collect();
    for program in compiled("layout", &format!("int main(void) {{\n{prints}    return 0;\n}}\n")) {
        let printed = String::from_utf8(output_of(&program, &[])).expect("numbers");
        let found: Vec<u64> = printed.lines().map(|line| line.parse().expect("a number")).collect();
        assert_eq!(found.len(), expected.len());
        for ((expression, expected), found) in expected.iter().zip(found) {
            assert_eq!(found, *expected, "{expression} in {program:?}");
        }
    }
}

#[test]
fn the_header_defines_nothing_that_is_not_there() {
    let events: Vec<_> = events().map(|event| event.name().to_uppercase()).collect();
    let services: Vec<_> = services().map(|service| service.name().to_uppercase()).collect();
    for (prefix, known) in [("HP_EVENT_", events), ("HP_SERVICE_", services)] {
        let defined: Vec<_> = defined(prefix).into_keys().collect();
        let unknown: Vec<_> = defined.iter().filter(|name| !known.contains(name)).collect();
        assert!(unknown.is_empty() && defined.len() == known.len(), "{prefix}: {unknown:?}");
    }
}

#[test]
fn drafts_are_marked_as_such() {
    let (events_defined, services_defined) = (defined("HP_EVENT_"), defined("HP_SERVICE_"));
    let events = events().map(|event| (event.name(), event.is_draft(), &events_defined));
    let services = services().map(|service| (service.name(), service.is_draft(), &services_defined));
    for (name, is_draft, defined) in events.chain(services) {
        let (_, comment) = &defined[&name.to_uppercase()];
        assert_eq!(comment.contains(" Draft."), is_draft, "`{name}`: {comment}");
    }
}

/// The sentence with which the comment of a service ends.
fn sentence(rule: &Rule) -> String {
    let effect = match rule.effect {
        Effect::Reads => "Reads",
        Effect::Acts => "Acts",
    };
    let hooks = match rule.hooks {
        Hooks::In(HookSet::ALWAYS) => "any hook and in `create`".to_owned(),
        Hooks::In(HookSet::ANY) => "any hook".to_owned(),
        Hooks::In(HookSet::IDLE) => "idle hooks".to_owned(),
        Hooks::In(set) => {
            let names = EventKind::ALL.iter().filter(|event| set.contains(**event));
            names.map(|event| format!("`{}`", event.name())).collect::<Vec<_>>().join(", ")
        }
        Hooks::ByContent => "hooks by request".to_owned(),
    };
    let background = match rule.background {
        Background::Direct => "direct",
        Background::Snapshot => "snapshot",
        Background::Later => "later",
        Background::Never => "never",
    };
    let remote = if rule.remote { "yes" } else { "no" };
    let ranks = match rule.ranks {
        Ranks::Any => "any",
        Ranks::Every => "every",
        Ranks::ByContent => "by request",
    };
    format!("{effect} in {hooks}; background: {background}; remote: {remote}; ranks: {ranks}. */")
}

#[test]
fn the_header_says_where_each_service_may_be_called() {
    let defined = defined("HP_SERVICE_");
    for service in services() {
        let (_, comment) = &defined[&service.name().to_uppercase()];
        let said = comment.lines().last().map(|line| line.trim_start_matches([' ', '*']));
        assert_eq!(said, Some(sentence(service.rule().expect("a known service")).as_str()), "`{}`", service.name());
        assert!(comment.contains("Request: ") && comment.contains("Reply: "), "`{}`", service.name());
    }
}

#[test]
fn the_plugin_in_the_header_compiles() {
    let (_, rest) = HEADER.split_once("A whole plugin").expect("there is an example");
    let (example, _) = rest.split_once("Read on").expect("it ends");
    let lines = example.lines().skip(1).filter_map(|line| line.strip_prefix(" *")).map(|line| format!("{line}\n"));
    let source = Path::new(env!("CARGO_TARGET_TMPDIR")).join("whole_plugin.c");
    std::fs::write(&source, lines.collect::<String>()).expect("a file can be written");
    let library = source.with_extension("so").display().to_string();
    compile("cc", "-std=c99", &source, &["-shared", "-fPIC", "-o", &library]);
}

/// Prints each value of stdin in a line.
const READER: &str = r#"
static void show(hp_unpacker *unpacker) {
    hp_item item;
    if (!hp_unpack(unpacker, &item)) { printf("?\n"); return; }
    switch (item.type) {
        case HP_ITEM_NIL: printf("nil\n"); break;
        case HP_ITEM_BOOL: printf("bool %d\n", (int) item.integer); break;
        case HP_ITEM_INTEGER: printf("integer %lld %.17g\n", (long long) item.integer, item.number); break;
        case HP_ITEM_FLOAT: printf("float %lld %.17g\n", (long long) item.integer, item.number); break;
        case HP_ITEM_TEXT: printf("text %.*s\n", (int) item.text.length, item.text.pointer); break;
        case HP_ITEM_BYTES: printf("bytes %d\n", (int) item.bytes.length); break;
        case HP_ITEM_ARRAY: printf("array %d\n", (int) item.count); break;
        case HP_ITEM_MAP: printf("map %d\n", (int) item.count); break;
        default: printf("a type that there is not\n");
    }
}

int main(void) {
    static uint8_t memory[1 << 20];
    const size_t length = fread(memory, 1, sizeof memory, stdin);
    hp_unpacker all = hp_unpacker_of(hp_bytes_of(memory, length)), value;
    if (hp_find(all, "inner", &value) && hp_find(value, "second", &value)) {
        show(&value);
        return hp_find(all, "absent", &value);
    }
    while (all.at != all.end) {
        const uint8_t *before = all.at;
        hp_unpacker skipped = all;
        show(&all);
        if (all.at == before) return 0;
        hp_skip(&skipped);
        if (skipped.at < all.at) return 1;
    }
    return 0;
}
"#;

#[test]
fn every_encoding_that_may_come_is_read() {
    let text = |length: usize| format!("text {}", "é".repeat(length));
    let long = "é".repeat(40_000);
    // Each with the bytes of the MessagePack specification, since an encoder has only one form of a value.
    let cases: Vec<(Vec<u8>, String)> = vec![
        (vec![0xc0], "nil".into()),
        (vec![0xc2], "bool 0".into()),
        (vec![0xc3], "bool 1".into()),
        (vec![0x7f], "integer 127 127".into()),
        (vec![0xe0], "integer -32 -32".into()),
        (vec![0xff], "integer -1 -1".into()),
        (vec![0xcc, 0xff], "integer 255 255".into()),
        (vec![0xcd, 0xff, 0xfe], "integer 65534 65534".into()),
        (vec![0xce, 0xff, 0xff, 0xff, 0xff], "integer 4294967295 4294967295".into()),
        (vec![0xcf, 0, 0, 0, 1, 0, 0, 0, 0], "integer 4294967296 4294967296".into()),
        (vec![0xd0, 0x80], "integer -128 -128".into()),
        (vec![0xd0, 0x05], "integer 5 5".into()),
        (vec![0xd1, 0x80, 0x00], "integer -32768 -32768".into()),
        (vec![0xd2, 0xff, 0xff, 0xff, 0xfe], "integer -2 -2".into()),
        (
            [vec![0xd3], i64::MIN.to_be_bytes().to_vec()].concat(),
            format!("integer {0} -9.2233720368547758e+18", i64::MIN),
        ),
        ([vec![0xca], 0.1f32.to_be_bytes().to_vec()].concat(), "float 0 0.10000000149011612".into()),
        ([vec![0xcb], (-7.5f64).to_be_bytes().to_vec()].concat(), "float -7 -7.5".into()),
        ([vec![0xcb], f64::INFINITY.to_be_bytes().to_vec()].concat(), "float 0 inf".into()),
        (rmp_serde::to_vec("é").unwrap(), text(1)),
        (rmp_serde::to_vec(&"é".repeat(20)).unwrap(), text(20)),
        (rmp_serde::to_vec(&"é".repeat(200)).unwrap(), text(200)),
        (rmp_serde::to_vec(&long).unwrap(), text(40_000)),
        ([vec![0xdb, 0, 0, 0, 2], "é".as_bytes().to_vec()].concat(), text(1)),
        (vec![0xc4, 2, 1, 2], "bytes 2".into()),
        (vec![0xc5, 0, 1, 1], "bytes 1".into()),
        (vec![0xc6, 0, 0, 0, 0], "bytes 0".into()),
        (vec![0x92, 0x01, 0x02], "array 2\ninteger 1 1\ninteger 2 2".into()),
        (vec![0xdc, 0, 1, 0xc0], "array 1\nnil".into()),
        (vec![0xdd, 0, 0, 0, 0], "array 0".into()),
        (vec![0x81, 0xa1, b'a', 0xc0], "map 1\ntext a\nnil".into()),
        (vec![0xde, 0, 0], "map 0".into()),
        (vec![0xdf, 0, 0, 0, 0], "map 0".into()),
        // What is cut, and what does not come.
        (vec![0xcd, 0xff], "?".into()),
        (vec![0xa3, b'a'], "?".into()),
        (vec![0xd4, 0, 0], "?".into()),
    ];
    let nested = rmp_serde::to_vec_named(&serde_json::json!({
        "before": [{ "inner": 1 }, [], "text"], "inner": { "first": { "second": 1 }, "second": 2.5 },
    }));
    assert_eq!(rmp_serde::to_vec(&0.5f32).unwrap()[0], 0xca, "what the header says of arrays of 32-bit values");
    for program in compiled("reader", READER) {
        for (bytes, expected) in &cases {
            let shown = String::from_utf8(output_of(&program, bytes)).expect("text");
            assert_eq!(shown.trim_end(), expected, "{:02x?} in {program:?}", &bytes[..bytes.len().min(12)]);
        }
        assert_eq!(output_of(&program, nested.as_ref().unwrap()), b"float 2 2.5\n", "{program:?}");
    }
}

/// A host of one function: writes each request to stdout, its length first.
const WRITER: &str = r#"
static hp_status answer(uint64_t ticket, uint32_t service, const hp_request *request, const hp_reply *reply) {
    const uint32_t head[3] = { service, (uint32_t) request->payload.length, request->tensor_count };
    static const uint8_t words[] = { 0x82, 0xA5, 'p', 'l', 'a', 'c', 'e', 0xA0,
                                     0xA7, 'm', 'e', 's', 's', 'a', 'g', 'e', 0xA4, 'n', 'o', 'n', 'e' };
    fwrite(head, sizeof head, 1, stdout);
    fwrite(request->payload.pointer, request->payload.length, 1, stdout);
    if (ticket == 1) return HP_OK;
    reply->bytes(reply->context, hp_bytes_of(words, sizeof words));
    return HP_NO_SUCH_NAME;
}

int main(void) {
    static char long_text[3 * HP_MESSAGE];
    const hp_services table = { (uint32_t) sizeof(hp_services), 0, answer };
    const hp_host host = { &table, 1 }, refusing = { &table, 2 };
    hp_tensor tensor;
    double value = 7;
    for (size_t index = 0; index + 2 < sizeof long_text; index += 2) memcpy(long_text + index, "\xC3\xA9", 2);
    if (hp_put_metric(host, "my_metric", 0.1) != HP_OK) return 1;
    if (hp_stop(host, "%s is %d", "it", 3) != HP_OK) return 2;
    if (hp_fail(host, "a %s", "reason") != HP_ERROR) return 3;
    if (hp_read_tensor(host, "parameters", "fc.weight", &tensor) != HP_ERROR) return 4;
    if (hp_read_metric(refusing, "los", &value) != HP_NO_SUCH_NAME || value != 7) return 5;
    if (hp_fail(host, "a%s", long_text) != HP_ERROR) return 6;
    if (hp_put_metric(host, long_text, 0.1) != HP_ERROR) return 7;
    return 0;
}
"#;

/// The number and the payload of each request that [`WRITER`] wrote.
fn requests(mut written: &[u8]) -> Vec<(ServiceKind, &[u8])> {
    let mut requests = Vec::new();
    while let Some((head, rest)) = written.split_first_chunk::<12>() {
        let word = |index: usize| u32::from_ne_bytes([0, 1, 2, 3].map(|byte| head[4 * index + byte]));
        let (payload, rest) = rest.split_at(word(1) as usize);
        requests.push((ServiceKind(word(0)), payload));
        written = rest;
    }
    requests
}

#[test]
fn a_message_that_is_not_utf_8_is_not_lost() {
    let failure: Failure = read(b"\x81\xa7message\xa6no\xff\xfeon");
    assert_eq!((failure.message.as_str(), failure.place.as_str()), ("no\u{fffd}\u{fffd}on", ""));
}

fn read<T: serde::de::DeserializeOwned>(payload: &[u8]) -> T {
    rmp_serde::from_slice(payload).expect("the request is understood")
}

#[test]
fn what_the_helpers_write_is_understood() {
    for program in compiled("writer", WRITER) {
        let written = output_of(&program, &[]);
        let requests = requests(&written);
        let kinds: Vec<_> = requests.iter().map(|(kind, _)| kind.name()).collect();
        let expected = ["metric_put", "control", "fault", "tensor_read", "fault", "metric", "fault", "fault", "fault"];
        assert_eq!(kinds, expected);
        let MetricPut { name, value } = read(requests[0].1);
        assert_eq!((name.as_str(), value), ("my_metric", 0.1));
        let stop = ControlRequest { action: Control::Stop, reason: "it is 3".to_owned() };
        assert_eq!(read::<ControlRequest>(requests[1].1), stop);
        let failures: Vec<String> = [2, 4, 6, 8].map(|index| read::<Failure>(requests[index].1).message).into();
        // The host's own words about the metric are what the hook fails with.
        assert_eq!(failures, ["a reason", "there is no tensor in `parameters`", "none", "the request did not fit"]);
        let TensorsRequest { set, names } = read(requests[3].1);
        assert_eq!((set, names), (TensorSet::Parameters, vec!["fc.weight".to_owned()]));
        // A message that is too long is cut, and not within a character.
        let cut = read::<Failure>(requests[7].1).message;
        assert!(cut.len() > 1000 && cut.len() < 1024 && cut.ends_with('é'), "{}", cut.len());
    }
}

use proptest::prelude::*;

use super::machine::{LONGEST_NAME, MOST_MADE, MOST_STACKED, Value, build};
use super::*;

/// A pickle of protocol 2 with these operations.
fn pickle(operations: &[&[u8]]) -> Vec<u8> {
    [&b"\x80\x02"[..]].iter().chain(operations).chain(&[&b"."[..]]).flat_map(|bytes| bytes.iter().copied()).collect()
}

fn error(operations: &[&[u8]]) -> PickleError {
    build(&pickle(operations)).map(|built| built.root).map(|root| panic!("{root:?}")).unwrap_err()
}

/// `BINUNICODE`
fn text(text: &str) -> Vec<u8> {
    [b"X", &(text.len() as u32).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A storage of so many floats.
fn storage(count: i32) -> Vec<u8> {
    let count = [b"J", &count.to_le_bytes()[..]].concat();
    [b"(", &text("storage")[..], b"ctorch\nFloatStorage\n", &text("0"), &text("cpu"), &count, b"tQ"].concat()
}

/// A call of `_rebuild_tensor_v2` for a storage of eight floats, with an offset, a size and a stride of one dimension.
fn tensor(offset: &[u8], size: &[u8], stride: &[u8]) -> Vec<u8> {
    let function = &b"ctorch._utils\n_rebuild_tensor_v2\n("[..];
    [function, &storage(8), offset, size, b"\x85", stride, b"\x85\x89ccollections\nOrderedDict\n)RtR"].concat()
}

/// `LONG1` of eight bytes.
fn long(number: i64) -> Vec<u8> {
    [&b"\x8a\x08"[..], &number.to_le_bytes()].concat()
}

#[test]
fn a_view_must_lie_in_its_storage() {
    let state = |offset: &[u8], size: &[u8], stride: &[u8]| {
        let bytes = pickle(&[b"}", &text("w"), &tensor(offset, size, stride), b"s"]);
        read(&bytes).map(|state| state.tensors.len())
    };
    assert_eq!(state(b"K\x00", b"K\x08", b"K\x01"), Ok(1));
    assert_eq!(state(b"K\x01", b"K\x04", b"K\x02"), Ok(1));
    let outside = |result| assert!(matches!(result, Err(PickleError::View { .. })), "{result:?}");
    outside(state(b"K\x01", b"K\x08", b"K\x01"));
    outside(state(b"K\x00", b"K\x05", b"K\x02"));
    for huge in [i64::MAX, i64::MAX / 4, -1, i64::MIN] {
        let huge = long(huge);
        outside(state(&huge, b"K\x02", b"K\x01"));
        outside(state(b"K\x00", &huge, b"K\x01"));
        outside(state(b"K\x00", b"K\x02", &huge));
    }
    // Elements that are all the same one.
    assert_eq!(state(b"K\x00", &long(1 << 40), b"K\x00"), Ok(1));
    let bytes = pickle(&[b"}", &text("w"), &tensor(b"K\x00", b"K\x02K\x02", b"K\x01"), b"s"]);
    assert!(read(&bytes).is_err());
}

#[test]
fn names_that_would_be_called_are_refused() {
    let global = |name: &str| PickleError::Global { name: name.to_owned() };
    assert_eq!(error(&[b"cos\nsystem\n", &text("true"), b"\x85R"]), global("os.system"));
    assert_eq!(error(&[&text("builtins"), &text("eval"), b"\x93"]), global("builtins.eval"));
    assert_eq!(error(&[b"}", &text("a"), b"c__main__\nNet\n)\x81s"]), global("__main__.Net"));
    assert_eq!(error(&[b"ctorch\nload\n"]), global("torch.load"));
    assert_eq!(error(&[b"ctorch._utils\n_rebuild_qtensor\n"]), global("torch._utils._rebuild_qtensor"));
    assert_eq!(error(&[b"c__main__\nNet\nq\x00)\x81q\x01"]), PickleError::Object { class: "__main__.Net".to_owned() });
    // Operations that would import or make something by other ways.
    for operations in [&b"ios\nsystem\n"[..], b"(os\nsystem\no", b"\x82\x01", b"Pid\n", b"\x97", b"\x92"] {
        assert!(matches!(error(&[operations]), PickleError::Operation { .. }), "{operations:?}");
    }
    // What may be referred to is called only in the way that PyTorch does.
    for operations in [
        &b"ccollections\nOrderedDict\n(]tR"[..],
        b"ctorch\nFloatStorage\n)R",
        b"ctorch._utils\n_rebuild_tensor_v2\n)R",
        b"ctorch._utils\n_rebuild_parameter\nN\x85R",
        b"ctorch\nTensor\n)\x81",
        b"ctorch\nSize\n)R",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._tensor\n_rebuild_from_type_v2\nctorch\nTensor\n)NtR",
        b"]}b",
        b"N)R",
    ] {
        assert!(matches!(error(&[operations]), PickleError::Use { .. }), "{operations:?}");
    }
}

#[test]
fn what_is_damaged_is_told() {
    for operations in [
        &b"0"[..],
        b"2",
        b"t",
        b"1",
        b"u",
        b"s",
        b"(s",
        b"K\x01(K\x01s",
        b"K\x01K\x02\x87",
        b"h\x00",
        b"j\x00\x00\x00\x00",
        b"q\x00",
        b"\x94",
        b"}(K\x01u",
        b"NNa",
        b"N(Ne",
        b"N(N\x90",
        b"NQ",
        b"(tQ",
        b"N\x93",
        b"NN\x93",
        b"X\x01\x00\x00\x00\xff",
        b"",
    ] {
        assert!(matches!(error(&[operations]), PickleError::Malformed { .. }), "{operations:?}");
    }
    for bytes in [
        &b""[..],
        b"\x80",
        b"\x80\x02",
        b"\x80\x02X\xff\xff\xff\xffab",
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\x02cos",
    ] {
        assert_eq!(build(bytes).map(|built| built.root), Err(PickleError::Ends), "{bytes:?}");
    }
    assert_eq!(build(b"\x80\x00.").map(|built| built.root), Err(PickleError::Protocol(0)));
    assert_eq!(build(b"\x80\x06.").map(|built| built.root), Err(PickleError::Protocol(6)));
}

#[test]
fn numbers_are_those_of_python() {
    let root = |operations: &[u8]| build(&pickle(&[operations])).map(|built| format!("{:?}", built.root)).unwrap();
    assert_eq!(root(b"K\xff"), "Integer(255)");
    assert_eq!(root(b"M\xff\xff"), "Integer(65535)");
    assert_eq!(root(b"J\xff\xff\xff\xff"), "Integer(-1)");
    assert_eq!(root(b"\x8a\x00"), "Integer(0)");
    assert_eq!(root(b"\x8a\x01\xff"), "Integer(-1)");
    assert_eq!(root(b"\x8a\x02\xff\x00"), "Integer(255)");
    assert_eq!(root(&long(i64::MIN)), format!("Integer({})", i64::MIN));
    assert_eq!(root(b"\x8b\x09\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01"), "Other(\"a number\")");
}

#[test]
fn bombs_are_bounded() {
    let marks = [&b"\x80\x02"[..], &b"(".repeat(MOST_STACKED + 1)].concat();
    let limit = |bytes: &[u8]| match build(bytes).map(|built| built.root) {
        Err(PickleError::Limit { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit(&marks), "marks");
    let stacked = [&b"\x80\x02"[..], &b"N".repeat(MOST_STACKED + 1)].concat();
    assert_eq!(limit(&stacked), "values on its stack");
    let made = [&b"\x80\x02"[..], &b"}0".repeat(MOST_MADE + 1)].concat();
    assert_eq!(limit(&made), "containers and tensors");
    // Tuples a million levels deep, of which each holds the one below twice.
    let nested = [&b"\x80\x02N"[..], &b"2\x86".repeat(1_000_000), b"."].concat();
    assert!(matches!(build(&nested).map(|built| built.root), Ok(Value::Tuple(_))));
    // A dictionary and a list that hold themselves.
    let own = pickle(&[b"}q\x00", &text("model"), b"h\x00s]q\x01h\x01a0"]);
    assert!(matches!(read(&own), Err(PickleError::NoTensors { .. })), "{:?}", read(&own));
    // A tensor of too many dimensions, and names that are too long.
    let sizes = b"K\x01".repeat(65);
    let wide = [b"(", &sizes[..], b"t"].concat();
    let function = &b"ctorch._utils\n_rebuild_tensor_v2\n("[..];
    let bytes = pickle(&[function, &storage(8), b"K\x00", &wide, &wide, b"\x89NtR"]);
    assert_eq!(limit(&bytes), "dimensions of a tensor");
    let name = "n".repeat(LONGEST_NAME + 1);
    let bytes = pickle(&[b"}", &text(&name), &tensor(b"K\x00", b"K\x01", b"K\x01"), b"s"]);
    assert!(matches!(read(&bytes), Err(PickleError::Limit { what: "bytes in a name", .. })));
}

proptest! {
    #[test]
    fn any_bytes_are_built_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let _ = read(&bytes);
        let _ = read(&pickle(&[&bytes]));
    }

    #[test]
    fn any_operations_are_built_or_refused(
        operations in prop::collection::vec(prop::sample::select(vec![
            &b"("[..], b"0", b"1", b"2", b"N", b"\x88", b"K\x01", b"K\x00", b"]", b"}", b")", b"a", b"e", b"s",
            b"u", b"t",
            b"\x85", b"\x86", b"\x87", b"\x8f", b"\x90", b"\x91", b"q\x00", b"h\x00", b"q\x01", b"h\x01", b"\x94",
            b"Q", b"R", b"b", b"X\x01\x00\x00\x00w", b"X\x07\x00\x00\x00storage",
            b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n",
            b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch._utils\n_rebuild_parameter\n", b"ctorch\nSize\n",
        ]), 0..60)
    ) {
        let _ = read(&pickle(&operations));
    }
}

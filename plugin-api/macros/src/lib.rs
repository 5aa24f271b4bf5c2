//! The attribute `#[plugin]` of plugin-api.
//!
//! It works only on token trees: it needs only the names of an item's methods,
//! and a parser would be the largest dependency of every plugin.

use proc_macro::{Delimiter, Group, TokenStream, TokenTree};

/// The one macro of a plugin. What it does depends on the item:
///
/// * on `impl Callback for Mine { … }`: derives the set of hooks from its methods,
///   and fills in version, license and, if there are none, options;
/// * on a `struct` of options: makes it readable from a run file, with a JSON Schema whose
///   descriptions are the fields' doc comments and whose defaults come from its `Default`;
/// * on an `enum` of options: the same; a variant `LowRank` is written `"low_rank"`;
/// * on `const KINDS: &[Kind] = &[…];`: exports the library, once per crate.
#[proc_macro_attribute]
pub fn plugin(attribute: TokenStream, item: TokenStream) -> TokenStream {
    if let Some(unexpected) = attribute.into_iter().next() {
        return error(&format!("`#[plugin]` takes no arguments, found `{unexpected}`"));
    }
    let tokens: Vec<TokenTree> = item.into_iter().collect();
    match keyword(&tokens) {
        Some("impl") => callback(tokens),
        Some("struct") => options(tokens, "deny_unknown_fields, default"),
        Some("enum") => options(tokens, "rename_all = \"snake_case\""),
        Some("const") => export(tokens),
        _ => {
            error("`#[plugin]` must be on an `impl Callback`, a struct or enum of options, or the const list of kinds")
        }
    }
}

/// The first keyword that identifies the item, at the top level.
fn keyword(tokens: &[TokenTree]) -> Option<&'static str> {
    tokens.iter().find_map(|token| match token {
        TokenTree::Ident(word) => {
            ["impl", "struct", "enum", "const"].into_iter().find(|keyword| word.to_string() == *keyword)
        }
        _ => None,
    })
}

fn callback(mut tokens: Vec<TokenTree>) -> TokenStream {
    let Some(TokenTree::Group(body)) = tokens.pop() else {
        return error("`#[plugin]` must be on an `impl Callback` with a body");
    };
    let inner: Vec<TokenTree> = body.stream().into_iter().collect();
    let methods: Vec<String> =
        inner.windows(2).filter(|pair| is_word(&pair[0], "fn")).map(|pair| pair[1].to_string()).collect();
    let names = |keyword: &str| -> Vec<String> {
        inner.windows(2).filter(|pair| is_word(&pair[0], keyword)).map(|pair| pair[1].to_string()).collect()
    };
    let (constants, types) = (names("const"), names("type"));
    let mut added = format!("const HOOKS: ::plugin_api::HookSet = ::plugin_api::HookSet::of_methods(&{methods:?});\n");
    if !constants.iter().any(|name| name == "VERSION") {
        added.push_str("const VERSION: &'static str = ::core::env!(\"CARGO_PKG_VERSION\");\n");
    }
    if !constants.iter().any(|name| name == "LICENSE") {
        added.push_str("const LICENSE: &'static str = ::core::env!(\"CARGO_PKG_LICENSE\");\n");
    }
    if !types.iter().any(|name| name == "Options") {
        added.push_str("type Options = ::plugin_api::NoOptions;\n");
    }
    let mut stream: TokenStream = match added.parse() {
        Ok(stream) => stream,
        Err(problem) => return error(&problem.to_string()),
    };
    stream.extend(inner);
    let mut group = Group::new(Delimiter::Brace, stream);
    group.set_span(body.span());
    tokens.push(TokenTree::Group(group));
    tokens.into_iter().collect()
}

fn options(tokens: Vec<TokenTree>, serde: &str) -> TokenStream {
    let derive = format!(
        "#[derive(Clone, Debug, ::plugin_api::serde::Deserialize, ::plugin_api::serde::Serialize, \
         ::plugin_api::schemars::JsonSchema)]\n\
         #[serde(crate = \"::plugin_api::serde\", {serde})]\n\
         #[schemars(crate = \"::plugin_api::schemars\")]\n"
    );
    let mut stream: TokenStream = match derive.parse() {
        Ok(stream) => stream,
        Err(problem) => return error(&problem.to_string()),
    };
    stream.extend(tokens);
    stream
}

fn export(tokens: Vec<TokenTree>) -> TokenStream {
    let name = tokens.windows(2).find(|pair| is_word(&pair[0], "const")).map(|pair| pair[1].to_string());
    let Some(name) = name else {
        return error("`#[plugin]` on a const needs its name: `const KINDS: &[Kind] = &[…];`");
    };
    let mut stream: TokenStream = tokens.into_iter().collect();
    match format!("::plugin_api::__export_header!(self::{name});").parse::<TokenStream>() {
        Ok(header) => stream.extend(header),
        Err(problem) => return error(&problem.to_string()),
    }
    stream
}

fn is_word(token: &TokenTree, word: &str) -> bool {
    matches!(token, TokenTree::Ident(ident) if ident.to_string() == word)
}

fn error(message: &str) -> TokenStream {
    format!("::core::compile_error!({message:?});").parse().unwrap_or_default()
}

//! From text to syntax: `rhai`'s grammar, with its limits, and the tokens that an expression writes otherwise.

use rhai::{AST, Engine, LexError, ParseError, ParseErrorType, Token};

use super::{ExpressionError, LONGEST};

/// The deepest nesting, in which each operator of a chain such as `1 + 1 + 1` counts. It also limits the recursion over
/// what was read.
const DEEPEST: usize = 64;

/// Reads one expression.
pub(super) fn expression(text: &str) -> Result<AST, ExpressionError> {
    check_length(text)?;
    engine().compile_expression(in_double_quotes(text)).map_err(refused)
}

/// Reads several expressions, with `;` between them.
pub(super) fn statements(text: &str) -> Result<AST, ExpressionError> {
    check_length(text)?;
    engine().compile(in_double_quotes(text)).map_err(refused)
}

fn check_length(text: &str) -> Result<(), ExpressionError> {
    let whole = |message: String| Err(ExpressionError::new(rhai::Position::NONE, message));
    if text.trim().is_empty() {
        return whole("it is empty".to_owned());
    }
    if text.len() > LONGEST {
        return whole(format!("it has {} bytes, more than {LONGEST}", text.len()));
    }
    Ok(())
}

/// An engine that reads and never runs anything.
fn engine() -> Engine {
    let mut engine = Engine::new_raw();
    engine.set_max_expr_depths(DEEPEST);
    engine.set_max_variables(0);
    engine.set_allow_if_expression(false);
    engine.set_allow_switch_expression(false);
    engine.set_allow_loop_expressions(false);
    engine.set_allow_looping(false);
    engine.set_allow_statement_expression(false);
    #[expect(deprecated, reason = "`rhai` marks what may change in a minor version, and the manifest names one")]
    engine.on_parse_token(|token, _, _| written(token));
    engine
}

/// In place of `"` within text in single quotes: no text has it, since it is no character.
const QUOTE: char = '\u{FDD0}';

/// The text with double quotes for single ones, which mean a character to `rhai`. Nothing moves, so that its columns stay.
fn in_double_quotes(text: &str) -> String {
    let mut within = None;
    let mut is_escaped = false;
    let changed = text.chars().map(|character| {
        let is_literal = std::mem::replace(&mut is_escaped, false);
        match within {
            None if matches!(character, '\'' | '"') => {
                within = Some(character);
                '"'
            }
            None => character,
            Some(quote) if character == quote && !is_literal => {
                within = None;
                '"'
            }
            Some('\'') if character == '"' => QUOTE,
            Some(_) => {
                is_escaped = character == '\\' && !is_literal;
                character
            }
        }
    });
    changed.collect()
}

/// The token that is meant: `and` for `&&`, numbers without a point, which are doubles too.
fn written(token: Token) -> Token {
    match token {
        Token::Identifier(name) if *name == "and" => Token::And,
        Token::Identifier(name) if *name == "or" => Token::Or,
        Token::Identifier(name) if *name == "not" => Token::Bang,
        Token::IntegerConstant(number) => {
            Token::FloatConstant(Box::new(((number as f64).into(), number.to_string().into())))
        }
        Token::StringConstant(text) if text.contains(QUOTE) => {
            Token::StringConstant(Box::new(text.replace(QUOTE, "\"").into()))
        }
        other => other,
    }
}

/// What `rhai` found, in words about an expression: it speaks of scripts.
fn refused(ParseError(kind, position): ParseError) -> ExpressionError {
    let (message, hint) = match *kind {
        ParseErrorType::UnexpectedEOF => ("it ends too early".to_owned(), None),
        ParseErrorType::ExprTooDeep => (format!("it is nested deeper than {DEEPEST}"), None),
        ParseErrorType::MissingToken(token, _) => (format!("`{token}` is missing"), None),
        ParseErrorType::Reserved(word) => {
            let hint = format!("a metric of that name is `metric('{word}')`");
            (format!("`{word}` cannot be used"), Some(hint))
        }
        ParseErrorType::BadInput(LexError::UnterminatedString) => ("a text has no end".to_owned(), None),
        ParseErrorType::BadInput(LexError::UnexpectedInput(text)) => {
            let hint = (text == "=").then(|| "did you mean `==`?".to_owned());
            (format!("`{}` is not expected here", as_written(&text)), hint)
        }
        other => (lower_first(&other.to_string()), None),
    };
    ExpressionError::new(position, message).with_hint(hint)
}

/// A token as `rhai` shows it, as an expression writes it.
fn as_written(token: &str) -> &str {
    match token {
        "&&" => "and",
        "||" => "or",
        "!" => "not",
        other => other.strip_suffix(".0").unwrap_or(other),
    }
}

fn lower_first(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_lowercase().chain(characters).collect())
}

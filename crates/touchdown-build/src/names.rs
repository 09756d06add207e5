//! From names in `.proto` files to names in Rust.
//!
//! Names of messages have to be those that `protobuf-codegen` gives them, for our code refers to them;
//! names of services and methods are our own choice.

/// Words that cannot be an identifier, in some edition up to 2024.
const KEYWORDS: &[&str] = &[
    "Self", "_", "abstract", "as", "async", "await", "become", "box", "break", "const", "continue",
    "crate", "do", "dyn", "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if",
    "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut", "override", "priv", "pub",
    "ref", "return", "self", "static", "struct", "super", "trait", "true", "try", "type", "typeof",
    "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// Words that are no keywords, but that `protobuf-codegen` escapes.
const ESCAPED_BY_PROTOBUF: &[&str] = &["alignof", "offsetof", "proc", "pure", "sizeof"];

/// Keywords that `protobuf-codegen` does not escape; [`crate::messages`] does it in its output.
pub(crate) const MISSED_BY_PROTOBUF: &[&str] = &["gen", "try"];

/// A field that the struct of every message has.
pub(crate) const RESERVED_MEMBER: &str = "special_fields";

/// Functions of every message, beside which there can be no methods of these names, and methods that
/// generated code calls on messages: a field's method would be called in their place.
pub(crate) const RESERVED_METHODS: &[&str] = &[
    "new",
    "generated_message_descriptor_data",
    "compute_size",
    "cached_size",
    "is_initialized",
];

/// Names that every client has anyway.
const CLIENT_METHODS: &[&str] = &["new", "clone"];

fn escape(name: String) -> String {
    if KEYWORDS.contains(&name.as_str()) {
        name + "_"
    } else {
        name
    }
}

fn escape_as_protobuf(name: String) -> String {
    if ESCAPED_BY_PROTOBUF.contains(&name.as_str()) {
        name + "_"
    } else {
        escape(name)
    }
}

/// The type of a message, an enum or a oneof, as `protobuf-codegen` names it.
pub(crate) fn message_type(name: &str) -> String {
    let mut chars = name.chars();
    let capitalized = match chars.next() {
        Some(first) => first.to_uppercase().chain(chars).collect(),
        None => String::new(),
    };
    escape_as_protobuf(capitalized)
}

/// The type of a oneof that cannot have the name that it would have.
pub(crate) fn other_oneof_type(name: &str) -> String {
    message_type(name).trim_end_matches('_').to_owned() + "OneOf"
}

/// The variant of a field in a oneof, as `protobuf-codegen` names it.
pub(crate) fn variant(field: &str) -> String {
    escape_as_protobuf(protobuf_parse::camel_case(field))
}

/// A value of an enum, as `protobuf-codegen` names it.
pub(crate) fn enum_value(name: &str) -> String {
    escape_as_protobuf(name.to_owned())
}

/// The field of a message's struct, and the method that gets it, as `protobuf-codegen` names them.
pub(crate) fn field(name: &str) -> String {
    escape_as_protobuf(name.to_owned())
}

/// The methods that give access to a field which is optional or in a oneof, as `protobuf-codegen` names
/// them.
pub(crate) fn field_methods(name: &str, is_copy: bool) -> Vec<String> {
    let escaped = if MISSED_BY_PROTOBUF.contains(&name) {
        name.to_owned()
    } else {
        field(name)
    };
    let mut methods = vec![
        field(name),
        format!("clear_{escaped}"),
        format!("has_{name}"),
        format!("set_{name}"),
    ];
    if !is_copy {
        methods.push(format!("mut_{name}"));
        methods.push(format!("take_{escaped}"));
    }
    methods
}

/// The module for what is nested in a message, as `protobuf-codegen` names it.
pub(crate) fn nested_module(message: &str) -> String {
    escape_as_protobuf(protobuf_parse::snake_case(message))
}

/// The module for a `.proto` file, of which `folders` of the path take part in the name; `None` if there
/// are not so many.
pub(crate) fn file_module(proto: &str, folders: usize) -> Option<String> {
    let stem = proto.strip_suffix(".proto").unwrap_or(proto);
    let parts: Vec<&str> = stem.split('/').collect();
    let first = parts.len().checked_sub(folders + 1)?;
    let mut name = parts[first..]
        .join("_")
        .replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        name.replace_range(..1, "_");
    }
    Some(escape_as_protobuf(name))
}

/// The module of the `protobuf` crate for `google/protobuf/*.proto`, without the extension.
pub(crate) fn well_known_module(stem: &str) -> String {
    escape_as_protobuf(stem.to_owned())
}

/// The trait of a service.
pub(crate) fn service_trait(service: &str) -> String {
    escape(upper_camel_case(service))
}

/// The client of a service.
pub(crate) fn service_client(service: &str) -> String {
    upper_camel_case(service) + "Client"
}

/// The function that makes a service of an implementation.
pub(crate) fn service_function(service: &str) -> String {
    snake_case(service) + "_service"
}

/// A method, in the trait and in the client.
pub(crate) fn method(name: &str) -> String {
    let name = escape(snake_case(name));
    if CLIENT_METHODS.contains(&name.as_str()) {
        name + "_"
    } else {
        name
    }
}

/// The module with the names of a service and of its methods.
pub(crate) fn service_methods(service: &str) -> String {
    snake_case(service) + "_methods"
}

/// The constant with the name of a method.
pub(crate) fn method_constant(name: &str) -> String {
    match snake_case(name).to_uppercase() {
        // Not a name in Rust, and the name of the service.
        name if name == "_" || name == "SERVICE" => name + "_",
        name => name,
    }
}

fn upper_camel_case(name: &str) -> String {
    let mut camel = String::new();
    let mut capitalize = true;
    for c in name.chars() {
        if c == '_' {
            capitalize = true;
        } else if std::mem::take(&mut capitalize) {
            camel.extend(c.to_uppercase());
        } else {
            camel.push(c);
        }
    }
    if camel.starts_with(|c: char| c.is_ascii_digit()) || camel.is_empty() {
        camel.insert(0, '_');
    }
    camel
}

/// `GetHTTPStatus` is `get_http_status`, `ListV2Items` is `list_v2_items`.
fn snake_case(name: &str) -> String {
    let chars: Vec<char> = name.chars().collect();
    let mut snake = String::new();
    for (i, &c) in chars.iter().enumerate() {
        if c.is_ascii_uppercase() && i > 0 {
            let previous = chars[i - 1];
            let next_is_lower = chars.get(i + 1).is_some_and(char::is_ascii_lowercase);
            if previous.is_ascii_lowercase()
                || previous.is_ascii_digit()
                || (previous.is_ascii_uppercase() && next_is_lower)
            {
                snake.push('_');
            }
        }
        snake.push(c.to_ascii_lowercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_in_snake_case() {
        for (proto, rust) in [
            ("SayHello", "say_hello"),
            ("sayHello", "say_hello"),
            ("say_hello", "say_hello"),
            ("Say_Hello", "say_hello"),
            ("GetHTTPStatus", "get_http_status"),
            ("GetHTTP", "get_http"),
            ("ListV2Items", "list_v2_items"),
            ("X", "x"),
            ("_Hidden", "_hidden"),
        ] {
            assert_eq!(method(proto), rust);
        }
    }

    #[test]
    fn reserved_words_get_an_underscore() {
        for (proto, rust) in [
            ("type", "type_"),
            ("Move", "move_"),
            ("self", "self_"),
            ("Self", "self_"),
            ("Try", "try_"),
            ("Gen", "gen_"),
            ("New", "new_"),
            ("Clone", "clone_"),
            ("_", "__"),
            ("Pure", "pure"),
        ] {
            assert_eq!(method(proto), rust);
        }
        assert_eq!(service_trait("self"), "Self_");
        assert_eq!(service_client("self"), "SelfClient");
        assert_eq!(service_function("Self"), "self_service");
        assert_eq!(nested_module("Type"), "type_");
        assert_eq!(nested_module("Pure"), "pure_");
    }

    #[test]
    fn services_are_in_camel_case() {
        assert_eq!(service_trait("my_greeter"), "MyGreeter");
        assert_eq!(service_trait("HTTPGateway"), "HTTPGateway");
        assert_eq!(service_function("HTTPGateway"), "http_gateway_service");
        assert_eq!(service_methods("HTTPGateway"), "http_gateway_methods");
    }

    #[test]
    fn constants_are_in_upper_case_and_none_is_the_service() {
        for (proto, rust) in [
            ("SayHello", "SAY_HELLO"),
            ("say_hello", "SAY_HELLO"),
            ("GetHTTPStatus", "GET_HTTP_STATUS"),
            ("type", "TYPE"),
            ("Service", "SERVICE_"),
            ("_", "__"),
        ] {
            assert_eq!(method_constant(proto), rust);
        }
    }

    #[test]
    fn files_are_named_by_their_stem_and_then_their_folders() {
        assert_eq!(file_module("a/common.proto", 0).unwrap(), "common");
        assert_eq!(file_module("a/common.proto", 1).unwrap(), "a_common");
        assert_eq!(file_module("a/common.proto", 2), None);
        assert_eq!(file_module("try.proto", 0).unwrap(), "try_");
        assert_eq!(file_module("foo-bar.v1.proto", 0).unwrap(), "foo_bar_v1");
        assert_eq!(file_module("1st.proto", 0).unwrap(), "_st");
    }
}
